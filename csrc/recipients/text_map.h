/* A map in a text file, kept as the file's own octets and a table of where its keys are: about 8 to 16 octets an entry besides.
 *
 *     # a comment
 *     key                          a key without a value
 *     key value and more           the value is the rest of the line, without white space around it
 *         goes on                  a line that begins with white space goes on with the value before it
 *     key: value                   a colon behind the key is not part of it
 *     "quoted key"@x.example v     white space inside quotes is
 *
 * Of a key given twice the first counts. Lower case is made of the part behind the last "@", and of all of the key where case
 * does not count. Building takes no lock and may run on any thread; after that the map only ever is read.
 */
#ifndef ANGARIUM_RECIPIENTS_TEXT_MAP_H
#define ANGARIUM_RECIPIENTS_TEXT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct text_map {       /* all zero: empty */
    uint8_t *data;              /* owned, from malloc(); `length` octets */
    size_t length;
    uint64_t *slots;            /* 0: free; else 24 bits of the hash and 40 of the key's offset + 1 */
    uint64_t capacity, count;
    uint64_t key[2];            /* of the hash */
} text_map;

/* Takes over `data` (malloc'ed, `length` octets of file and room for one more), also when it fails: 0, -ENOMEM, -EFBIG (2^40
 * octets or more), or -EINVAL with the number of the line that has a NUL in *line. */
int text_map_build(text_map *self, uint8_t *data, size_t length, bool folds_case, const uint64_t key[2], uint64_t *line);

/* The value (perhaps empty), which lives as long as the map; false: no such key. */
bool text_map_find(const text_map *self, const uint8_t *key, size_t length, const uint8_t **value, size_t *value_length);

void text_map_clear(text_map *self);

#endif
