/* Very many things, found by a 64-bit hash of theirs. Borrows them.
 *
 * 256 parts, each open addressing with linear probing, between 64 and 80 % full: 8 octets a slot, 10 to 12.5 a thing. Each part
 * grows by itself and by a quarter, so that with ten million things one growth is a matter of a millisecond, where one
 * table would hold up the event loop for a second. A slot is a pointer and, in the upper 16 bits that user space does not use, the
 * part of the hash that says where it wants to lie: neither growth nor removal looks at the things themselves.
 */
#ifndef ANGARIUM_QUEUE_POINTER_SET_H
#define ANGARIUM_QUEUE_POINTER_SET_H

#include <stdbool.h>
#include <stdint.h>

#define POINTER_SET_PARTS 256

typedef struct pointer_part {
    uint64_t *slots;            /* 0: free */
    uint32_t capacity, count;
} pointer_part;

typedef struct pointer_set {    /* all zero: empty */
    pointer_part parts[POINTER_SET_PARTS];
    uint64_t count;
} pointer_set;

/* Not 0 when `item` is what is looked for. Called only for things whose hash is the same in 24 bits. */
typedef int (*pointer_is)(const void *item, const void *wanted);

/* Adds what is not in it. 0, or -1 when memory is out (nothing has changed then). */
int pointer_set_add(pointer_set *self, uint64_t hash, void *item);
void *pointer_set_find(const pointer_set *self, uint64_t hash, pointer_is is, const void *wanted);     /* NULL: none */
bool pointer_set_remove(pointer_set *self, uint64_t hash, const void *item);        /* false: it was not in it */

/* The thing at or behind *cursor, which moves behind it (0: the first); NULL at the end. The cursor's upper 32 bits are the
 * number of the part. Removing what was just given and stepping the cursor back by one misses nothing of the same part. */
void *pointer_set_next(const pointer_set *self, uint64_t *cursor);

/* Frees the slots, not the things. */
void pointer_set_clear(pointer_set *self);

#endif
