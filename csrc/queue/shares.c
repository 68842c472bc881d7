#include "queue/shares.h"

#include <stdatomic.h>

enum { NEIGHBOURS = 16 };           /* slots looked at for a key; judged enough at half load */
#define WANTED_NS 500000000ull

typedef struct shares_entry {
    _Atomic uint64_t key;           /* 0: never used */
    _Atomic uint64_t arrival_ns;    /* GCRA's theoretical arrival time */
    _Atomic uint64_t wanted_ns;     /* when somebody last asked in vain */
    _Atomic uint32_t wanted_by;     /* worker + 1 */
    _Atomic uint32_t leaving;       /* of the connections of all workers: they are about to end */
    _Atomic uint16_t connections[SHARES_WORKERS_MAX];
} shares_entry;

struct shares_table {
    uint32_t slots;
    uint32_t reserved;
    _Atomic uint64_t living;        /* workers, bit by number */
    uint64_t reserved_too[6];       /* entries start on a cache line */
    shares_entry entries[];
};

size_t shares_table_octets(uint32_t slots)
{
    return sizeof(shares_table) + (size_t)slots * sizeof(shares_entry);
}

void shares_table_init(shares_table *self, uint32_t slots)
{
    self->slots = slots;
}

static uint32_t connections_of(const shares_entry *entry)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < SHARES_WORKERS_MAX; i++)
        sum += atomic_load(&entry->connections[i]);
    return sum;
}

static uint32_t first_of(const shares_table *self, uint64_t key)
{
    return (uint32_t)(key ^ key >> 32) & (self->slots - 1);
}

uint32_t shares_seek(const shares_table *self, uint64_t key)
{
    uint32_t mask = self->slots - 1, first = first_of(self, key);
    for (uint32_t i = 0; i < NEIGHBOURS; i++) {
        uint64_t seen = atomic_load(&self->entries[(first + i) & mask].key);
        if (seen == key)
            return (first + i) & mask;
        if (seen == 0)                  /* keys are replaced, never taken away: nothing lies behind a gap */
            break;
    }
    return UINT32_MAX;
}

/* The entry that is missed least, given to `key`; UINT32_MAX: none may go, or another worker was faster. */
static uint32_t take_over(shares_table *self, uint32_t first, uint64_t key, uint64_t now_ns)
{
    uint32_t mask = self->slots - 1, least = UINT32_MAX;
    uint64_t least_arrival = UINT64_MAX, least_key = 0;
    for (uint32_t i = 0; i < NEIGHBOURS; i++) {
        uint32_t slot = (first + i) & mask;
        shares_entry *entry = &self->entries[slot];
        uint64_t seen = atomic_load(&entry->key), arrival = atomic_load(&entry->arrival_ns);
        if (connections_of(entry) != 0 || arrival >= least_arrival)
            continue;
        least = slot;
        least_key = seen;
        least_arrival = arrival;
        if (arrival <= now_ns)
            break;
    }
    /* A worker may count itself in between the look and the swap: it then sees another key behind its own
     * count and steps back (SHARES_STALE). */
    if (least == UINT32_MAX || !atomic_compare_exchange_strong(&self->entries[least].key, &least_key, key))
        return UINT32_MAX;
    atomic_store(&self->entries[least].leaving, 0);
    /* Another worker may already count for the new key: what it took is forgotten, one event at the most. */
    if (least_arrival > now_ns)
        atomic_store(&self->entries[least].arrival_ns, 0);
    return least;
}

uint32_t shares_find(shares_table *self, uint64_t key, uint64_t now_ns)
{
    uint32_t mask = self->slots - 1;
    uint32_t first = first_of(self, key);
    for (uint32_t i = 0; i < NEIGHBOURS; i++) {
        uint32_t slot = (first + i) & mask;
        uint64_t seen = atomic_load(&self->entries[slot].key);
        if (seen == key)
            return slot;
        if (seen == 0) {
            if (atomic_compare_exchange_strong(&self->entries[slot].key, &seen, key) || seen == key)
                return slot;
        }
    }
    for (int tries = 0; tries < 3; tries++) {
        uint32_t taken = take_over(self, first, key, now_ns);
        if (taken == UINT32_MAX)
            taken = shares_seek(self, key);         /* the faster one may have done it for the same key */
        if (taken != UINT32_MAX)
            return taken;
    }
    return UINT32_MAX;
}

shares_result shares_connection_take(shares_table *self, uint32_t slot, uint64_t key, unsigned worker,
                                     uint32_t limit, uint64_t now_ns)
{
    shares_entry *entry = &self->entries[slot];
    atomic_fetch_add(&entry->connections[worker], 1);
    if (atomic_load(&entry->key) != key) {
        atomic_fetch_sub(&entry->connections[worker], 1);
        return SHARES_STALE;
    }
    if (connections_of(entry) > limit) {
        atomic_fetch_sub(&entry->connections[worker], 1);
        atomic_store(&entry->wanted_by, worker + 1);
        atomic_store(&entry->wanted_ns, now_ns);
        return SHARES_NONE;
    }
    return SHARES_TAKEN;
}

void shares_connection_give(shares_table *self, uint32_t slot, unsigned worker)
{
    atomic_fetch_sub(&self->entries[slot].connections[worker], 1);
}

bool shares_connection_leave(shares_table *self, uint32_t slot, uint32_t limit)
{
    shares_entry *entry = &self->entries[slot];
    uint32_t leaving = atomic_load(&entry->leaving);
    for (;;) {
        /* Who leaves is given back first and has left then: in between one too few seems to stay, never one too many. */
        uint32_t count = connections_of(entry);
        if (count <= leaving || count - leaving <= limit)
            return false;
        if (atomic_compare_exchange_weak(&entry->leaving, &leaving, leaving + 1))
            return true;
    }
}

void shares_connection_left(shares_table *self, uint32_t slot)
{
    shares_entry *entry = &self->entries[slot];
    uint32_t leaving = atomic_load(&entry->leaving);
    while (leaving != 0 && !atomic_compare_exchange_weak(&entry->leaving, &leaving, leaving - 1))
        ;
}

bool shares_is_wanted(const shares_table *self, uint32_t slot, unsigned worker, uint64_t now_ns)
{
    const shares_entry *entry = &self->entries[slot];
    uint64_t wanted_ns = atomic_load(&entry->wanted_ns);
    return wanted_ns != 0 && now_ns - wanted_ns < WANTED_NS && atomic_load(&entry->wanted_by) != worker + 1;
}

uint32_t shares_wanted_count(const shares_table *self, uint32_t slot, unsigned worker, uint64_t now_ns)
{
    const shares_entry *entry = &self->entries[slot];
    uint32_t by = atomic_load(&entry->wanted_by);
    if (by == 0 || by > SHARES_WORKERS_MAX || !shares_is_wanted(self, slot, worker, now_ns))
        return UINT32_MAX;
    return atomic_load(&entry->connections[by - 1]);
}

void shares_unwant(shares_table *self, uint32_t slot, unsigned worker)
{
    if (atomic_load(&self->entries[slot].wanted_by) == worker + 1)
        atomic_store(&self->entries[slot].wanted_ns, 0);
}

uint64_t shares_rate_take(shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns, uint32_t burst,
                          uint64_t now_ns)
{
    shares_entry *entry = &self->entries[slot];
    uint64_t tolerance = interval_ns * (burst - 1);
    uint64_t arrival = atomic_load(&entry->arrival_ns);
    for (;;) {
        if (atomic_load(&entry->key) != key)
            return SHARES_RATE_STALE;
        uint64_t base = arrival > now_ns ? arrival : now_ns;
        if (base - now_ns > tolerance)
            return base - now_ns - tolerance;
        if (atomic_compare_exchange_weak(&entry->arrival_ns, &arrival, base + interval_ns))
            return 0;
    }
}

void shares_rate_give(shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns)
{
    shares_entry *entry = &self->entries[slot];
    uint64_t arrival = atomic_load(&entry->arrival_ns);
    while (atomic_load(&entry->key) == key && arrival >= interval_ns)
        if (atomic_compare_exchange_weak(&entry->arrival_ns, &arrival, arrival - interval_ns))
            return;
}

uint64_t shares_rate_wait(const shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns, uint32_t burst,
                          uint64_t now_ns)
{
    const shares_entry *entry = &self->entries[slot];
    uint64_t tolerance = interval_ns * (burst - 1);
    uint64_t arrival = atomic_load(&entry->arrival_ns);
    if (atomic_load(&entry->key) != key)
        return SHARES_RATE_STALE;
    if (arrival <= now_ns || arrival - now_ns <= tolerance)
        return 0;
    return arrival - now_ns - tolerance;
}

uint32_t shares_rate_next(const shares_table *self, uint32_t slot, uint64_t now_ns, uint64_t *key, uint64_t *arrival_ns)
{
    for (; slot < self->slots; slot++) {
        const shares_entry *entry = &self->entries[slot];
        *key = atomic_load(&entry->key);
        *arrival_ns = atomic_load(&entry->arrival_ns);
        if (*key != 0 && *arrival_ns > now_ns && atomic_load(&entry->key) == *key)
            return slot;
    }
    return UINT32_MAX;
}

bool shares_rate_restore(shares_table *self, uint64_t key, uint64_t arrival_ns, uint64_t now_ns)
{
    uint32_t slot = shares_find(self, key, now_ns);
    if (slot == UINT32_MAX)
        return false;
    atomic_store(&self->entries[slot].arrival_ns, arrival_ns);
    return true;
}

uint32_t shares_connection_count(const shares_table *self, uint32_t slot)
{
    return connections_of(&self->entries[slot]);
}

uint64_t shares_living(const shares_table *self)
{
    return atomic_load(&self->living);
}

void shares_set_living(shares_table *self, unsigned worker, bool is_living)
{
    uint64_t bit = (uint64_t)1 << worker;
    if (is_living)
        atomic_fetch_or(&self->living, bit);
    else
        atomic_fetch_and(&self->living, ~bit);
}

void shares_forget_worker(shares_table *self, unsigned worker)
{
    shares_set_living(self, worker, false);
    for (uint32_t slot = 0; slot < self->slots; slot++)
        if (atomic_load(&self->entries[slot].key) != 0
            && atomic_exchange(&self->entries[slot].connections[worker], 0) != 0)
            atomic_store(&self->entries[slot].leaving, 0);      /* its own among them: others then end some that need not, once */
}
