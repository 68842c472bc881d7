#include "octets/octets.h"

#include <stdlib.h>
#include <string.h>

#ifdef ANGARIUM_DEBUG
static long live_count;
#define LIVE_ADD(n) __atomic_add_fetch(&live_count, (n), __ATOMIC_RELAXED)
#else
#define LIVE_ADD(n) ((void)0)
#endif

octets *octets_new(size_t capacity)
{
    if (capacity > SIZE_MAX - sizeof(octets))
        return NULL;
    octets *self = malloc(sizeof(octets) + capacity);
    if (self == NULL)
        return NULL;
    self->references = 1;
    self->reserved = 0;
    self->length = 0;
    self->capacity = capacity;
    LIVE_ADD(1);
    return self;
}

octets *octets_copy(const uint8_t *data, size_t length)
{
    octets *self = octets_new(length);
    if (self == NULL)
        return NULL;
    if (length != 0)
        memcpy(self->data, data, length);
    self->length = length;
    return self;
}

octets *octets_ref(octets *self)
{
    __atomic_add_fetch(&self->references, 1, __ATOMIC_RELAXED);
    return self;
}

void octets_unref(octets *self)
{
    if (self == NULL)
        return;
    if (__atomic_sub_fetch(&self->references, 1, __ATOMIC_ACQ_REL) == 0) {
        LIVE_ADD(-1);
        free(self);
    }
}

int octets_reserve(octets **self, size_t more)
{
    octets *old = *self;
    if (more <= old->capacity - old->length)
        return 0;
    if (more > SIZE_MAX / 2 - sizeof(octets) - old->length)
        return -1;
    size_t wanted = old->length + more;
    size_t capacity = old->capacity * 2;
    if (capacity < wanted)
        capacity = wanted;
    octets *grown = realloc(old, sizeof(octets) + capacity);
    if (grown == NULL)
        return -1;
    grown->capacity = capacity;
    *self = grown;
    return 0;
}

int octets_append(octets **self, const uint8_t *data, size_t length)
{
    if (octets_reserve(self, length) != 0)
        return -1;
    if (length != 0)
        memcpy((*self)->data + (*self)->length, data, length);
    (*self)->length += length;
    return 0;
}

long octets_live_count(void)
{
#ifdef ANGARIUM_DEBUG
    return __atomic_load_n(&live_count, __ATOMIC_RELAXED);
#else
    return 0;
#endif
}
