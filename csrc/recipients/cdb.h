/* Looking into a constant database (D. J. Bernstein, cdb.txt): at most 4 GiB, found with two or three reads.
 *
 * By pread(2) and not by mapping: a file that somebody shortens while we look is a failed read, not a signal that ends the worker.
 */
#ifndef ANGARIUM_RECIPIENTS_CDB_H
#define ANGARIUM_RECIPIENTS_CDB_H

#include <stdint.h>

/* Where the first value of the key lies, in *at and *value_length. 1: found, and all of it inside `file_octets`; 0: not there; -EBADMSG:
 * not a sound database, or one so full of keys of one hash that looking would hold up the event loop; -errno of pread. Whatever the file
 * holds, at most 512 KiB of slots and 4,096 records are looked at. */
int cdb_find(int fd, uint64_t file_octets, const uint8_t *key, uint32_t length, uint64_t *at, uint32_t *value_length);

#endif
