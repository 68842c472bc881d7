/* See pointer_set.h. Of a hash, the upper 8 bits choose the part and the next 16, the tag, the place in it: home = tag * capacity /
 * 2^16, so the things of a part lie in the order of their tags. */
#include "queue/pointer_set.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 16, TAG_BITS = 16, POINTER_BITS = 64 - TAG_BITS };

#define POINTER_MASK (((uint64_t)1 << POINTER_BITS) - 1)

static uint64_t tag_of_hash(uint64_t hash)
{
    return hash >> 40 & ((1 << TAG_BITS) - 1);
}

static void *pointer_of(uint64_t slot)
{
    return (void *)(uintptr_t)(slot & POINTER_MASK);
}

static uint32_t home_of(uint64_t tag, uint32_t capacity)
{
    return (uint32_t)(tag * capacity >> TAG_BITS);
}

static uint32_t next_slot(const pointer_part *part, uint32_t at)
{
    return at + 1 == part->capacity ? 0 : at + 1;
}

/* How far `at` lies behind `home`, going round. */
static uint32_t distance(const pointer_part *part, uint32_t home, uint32_t at)
{
    return at >= home ? at - home : at + part->capacity - home;
}

static void put(pointer_part *part, uint64_t slot)
{
    uint32_t at = home_of(slot >> POINTER_BITS, part->capacity);
    while (part->slots[at] != 0)
        at = next_slot(part, at);
    part->slots[at] = slot;
}

static int grow(pointer_part *part)
{
    uint64_t capacity = part->capacity == 0 ? FIRST_CAPACITY : (uint64_t)part->capacity + part->capacity / 4;
    if (capacity > UINT32_MAX)
        return -1;
    pointer_part grown = {calloc(capacity, sizeof *grown.slots), (uint32_t)capacity, part->count};
    if (grown.slots == NULL)
        return -1;
    for (uint32_t i = 0; i < part->capacity; i++)
        if (part->slots[i] != 0)
            put(&grown, part->slots[i]);
    free(part->slots);
    *part = grown;
    return 0;
}

int pointer_set_add(pointer_set *self, uint64_t hash, void *item)
{
    pointer_part *part = &self->parts[hash >> 56];
    if ((uint64_t)(uintptr_t)item > POINTER_MASK)
        return -1;
    if (((uint64_t)part->count + 1) * 5 > (uint64_t)part->capacity * 4 && grow(part) != 0)
        return -1;
    put(part, tag_of_hash(hash) << POINTER_BITS | (uint64_t)(uintptr_t)item);
    part->count++;
    self->count++;
    return 0;
}

void *pointer_set_find(const pointer_set *self, uint64_t hash, pointer_is is, const void *wanted)
{
    const pointer_part *part = &self->parts[hash >> 56];
    uint64_t tag = tag_of_hash(hash);
    if (part->capacity == 0)
        return NULL;
    for (uint32_t at = home_of(tag, part->capacity); part->slots[at] != 0; at = next_slot(part, at))
        if (part->slots[at] >> POINTER_BITS == tag && is(pointer_of(part->slots[at]), wanted))
            return pointer_of(part->slots[at]);
    return NULL;
}

bool pointer_set_remove(pointer_set *self, uint64_t hash, const void *item)
{
    pointer_part *part = &self->parts[hash >> 56];
    if (part->capacity == 0)
        return false;
    uint32_t hole = home_of(tag_of_hash(hash), part->capacity);
    while (pointer_of(part->slots[hole]) != item) {
        if (part->slots[hole] == 0)
            return false;
        hole = next_slot(part, hole);
    }
    part->count--;
    self->count--;
    /* Close the gap (Knuth 6.4, algorithm R): whatever was pushed past the hole by a collision moves back. */
    for (uint32_t at = next_slot(part, hole); part->slots[at] != 0; at = next_slot(part, at)) {
        uint32_t home = home_of(part->slots[at] >> POINTER_BITS, part->capacity);
        if (distance(part, home, at) >= distance(part, hole, at)) {
            part->slots[hole] = part->slots[at];
            hole = at;
        }
    }
    part->slots[hole] = 0;
    return true;
}

void *pointer_set_next(const pointer_set *self, uint64_t *cursor)
{
    uint64_t number = *cursor >> 32, at = *cursor & UINT32_MAX;
    for (; number < POINTER_SET_PARTS; number++, at = 0) {
        const pointer_part *part = &self->parts[number];
        for (; at < part->capacity; at++)
            if (part->slots[at] != 0) {
                *cursor = number << 32 | (at + 1);
                return pointer_of(part->slots[at]);
            }
    }
    *cursor = (uint64_t)POINTER_SET_PARTS << 32;
    return NULL;
}

void pointer_set_clear(pointer_set *self)
{
    for (int i = 0; i < POINTER_SET_PARTS; i++)
        free(self->parts[i].slots);
    *self = (pointer_set){0};
}
