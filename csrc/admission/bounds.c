#include "admission/bounds.h"

#include <stdatomic.h>

typedef struct listener_bounds {
    _Atomic uint64_t key;                           /* 0: nobody's yet */
    uint64_t reserved_octets[7];                    /* readers of the key are not disturbed by who counts */
    _Atomic uint32_t reserved[BOUNDS_WORKERS_MAX];
    _Atomic uint32_t used[BOUNDS_WORKERS_MAX];
} listener_bounds;

struct bounds_table {
    _Atomic uint64_t memory[BOUNDS_WORKERS_MAX];
    listener_bounds listeners[BOUNDS_LISTENERS_MAX];
};

size_t bounds_table_octets(void)
{
    return sizeof(bounds_table);
}

uint32_t bounds_listener(bounds_table *self, uint64_t key)
{
    for (uint32_t i = 0; i < BOUNDS_LISTENERS_MAX; i++) {
        uint32_t slot = (uint32_t)(key + i) % BOUNDS_LISTENERS_MAX;
        uint64_t seen = atomic_load(&self->listeners[slot].key);
        if (seen == 0 && atomic_compare_exchange_strong(&self->listeners[slot].key, &seen, key))
            return slot;
        if (seen == key)
            return slot;
    }
    return BOUNDS_NOWHERE;
}

static uint32_t sum_of(const _Atomic uint32_t *column)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < BOUNDS_WORKERS_MAX; i++)
        sum += atomic_load(&column[i]);
    return sum;
}

bool bounds_reserve(bounds_table *self, uint32_t listener, unsigned worker, uint32_t count, uint32_t limit)
{
    listener_bounds *bounds = &self->listeners[listener];
    atomic_fetch_add(&bounds->reserved[worker], count);
    if (sum_of(bounds->reserved) <= limit)
        return true;
    atomic_fetch_sub(&bounds->reserved[worker], count);
    return false;
}

void bounds_release(bounds_table *self, uint32_t listener, unsigned worker, uint32_t count)
{
    atomic_fetch_sub(&self->listeners[listener].reserved[worker], count);
}

uint32_t bounds_reserved(const bounds_table *self, uint32_t listener)
{
    return sum_of(self->listeners[listener].reserved);
}

void bounds_set_used(bounds_table *self, uint32_t listener, unsigned worker, uint32_t used)
{
    atomic_store(&self->listeners[listener].used[worker], used);
}

uint32_t bounds_used(const bounds_table *self, uint32_t listener)
{
    return sum_of(self->listeners[listener].used);
}

void bounds_set_memory(bounds_table *self, unsigned worker, uint64_t octets)
{
    atomic_store(&self->memory[worker], octets);
}

uint64_t bounds_memory(const bounds_table *self)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < BOUNDS_WORKERS_MAX; i++)
        sum += atomic_load(&self->memory[i]);
    return sum;
}

void bounds_forget_worker(bounds_table *self, unsigned worker)
{
    atomic_store(&self->memory[worker], 0);
    for (uint32_t i = 0; i < BOUNDS_LISTENERS_MAX; i++) {
        if (atomic_load(&self->listeners[i].key) == 0)
            continue;
        atomic_store(&self->listeners[i].reserved[worker], 0);
        atomic_store(&self->listeners[i].used[worker], 0);
    }
}
