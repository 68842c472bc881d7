#include "admission/tallies.h"

#include "octets/siphash.h"

#include <stdatomic.h>
#include <string.h>

enum {
    NEIGHBOURS = 16,                /* slots looked at for a key; judged enough at half load */
    COLUMN_MAX = 65000              /* of one network in one worker: the column is 16 bits wide */
};

typedef struct tally_entry {
    _Atomic uint64_t key;                           /* 0: never used */
    _Atomic uint64_t arrivals_ns[TALLY_KINDS];      /* GCRA's theoretical arrival times */
    uint64_t reserved[1];                           /* an entry is three cache lines */
    _Atomic uint16_t connections[TALLY_WORKERS_MAX];
} tally_entry;

struct tally_table {
    uint32_t slots;
    uint32_t reserved;
    uint64_t secret[2];
    uint64_t reserved_too[5];
    _Atomic uint32_t sessions[TALLY_WORKERS_MAX];
    tally_entry entries[];
};

size_t tally_table_octets(uint32_t slots)
{
    return sizeof(tally_table) + (size_t)slots * sizeof(tally_entry);
}

void tally_table_init(tally_table *self, uint32_t slots, const uint64_t secret[2])
{
    self->slots = slots;
    memcpy(self->secret, secret, sizeof self->secret);
}

uint32_t tally_sessions(const tally_table *self)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < TALLY_WORKERS_MAX; i++)
        sum += atomic_load(&self->sessions[i]);
    return sum;
}

bool tally_session_take(tally_table *self, unsigned worker, uint32_t limit)
{
    atomic_fetch_add(&self->sessions[worker], 1);
    if (limit == 0 || tally_sessions(self) <= limit)
        return true;
    atomic_fetch_sub(&self->sessions[worker], 1);
    return false;
}

void tally_session_give(tally_table *self, unsigned worker)
{
    atomic_fetch_sub(&self->sessions[worker], 1);
}

uint64_t tally_key(const tally_table *self, const uint8_t address[16], unsigned bits, unsigned rule)
{
    uint8_t network[18] = {0};
    unsigned whole = bits >> 3, rest = bits & 7;
    memcpy(network, address, whole);
    if (rest)
        network[whole] = address[whole] & (uint8_t)(0xff << (8 - rest));
    network[16] = (uint8_t)bits;
    network[17] = (uint8_t)rule;
    return siphash24(self->secret, network, sizeof network) | 1;
}

static uint32_t connections_of(const tally_entry *entry)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < TALLY_WORKERS_MAX; i++)
        sum += atomic_load(&entry->connections[i]);
    return sum;
}

/* When the last of what was taken will have been given back. */
static uint64_t last_arrival(const tally_entry *entry)
{
    uint64_t last = 0;
    for (unsigned i = 0; i < TALLY_KINDS; i++) {
        uint64_t arrival = atomic_load(&entry->arrivals_ns[i]);
        if (arrival > last)
            last = arrival;
    }
    return last;
}

static bool take_over(tally_entry *entry, uint64_t seen, uint64_t key)
{
    if (!atomic_compare_exchange_strong(&entry->key, &seen, key))
        return seen == key;
    /* Another worker may already count for the new key: what it took is forgotten, one event at the most. */
    for (unsigned i = 0; i < TALLY_KINDS; i++)
        atomic_store(&entry->arrivals_ns[i], 0);
    return true;
}

/* The slot of `key`, found or made. */
static uint32_t find(tally_table *self, uint64_t key, uint64_t now_ns)
{
    uint32_t mask = self->slots - 1, first = (uint32_t)(key >> 8) & mask;
    for (uint32_t i = 0; i < NEIGHBOURS; i++) {
        uint32_t slot = (first + i) & mask;
        uint64_t seen = atomic_load(&self->entries[slot].key);
        if (seen == key)
            return slot;
        if (seen == 0 && (atomic_compare_exchange_strong(&self->entries[slot].key, &seen, key) || seen == key))
            return slot;
    }
    uint32_t least = TALLY_NOWHERE;
    uint64_t least_arrival = UINT64_MAX;
    for (uint32_t i = 0; i < NEIGHBOURS; i++) {
        uint32_t slot = (first + i) & mask;
        tally_entry *entry = &self->entries[slot];
        if (connections_of(entry) != 0)
            continue;
        uint64_t arrival = last_arrival(entry);
        if (arrival < least_arrival) {
            least = slot;
            least_arrival = arrival;
            if (arrival <= now_ns)
                break;
        }
    }
    if (least == TALLY_NOWHERE)
        return TALLY_NOWHERE;
    tally_entry *entry = &self->entries[least];
    /* A worker may count itself in between the look and the swap: it then sees another key behind its own count and steps
     * back (tally_enter). If it looked at the key just before, its connection counts for the new network until it ends. */
    return take_over(entry, atomic_load(&entry->key), key) ? least : TALLY_NOWHERE;
}

tally_result tally_enter(tally_table *self, uint64_t key, unsigned worker, uint32_t limit, uint64_t now_ns, uint32_t *slot)
{
    for (int tries = 0; tries < 3; tries++) {
        uint32_t found = find(self, key, now_ns);
        if (found == TALLY_NOWHERE)
            break;
        tally_entry *entry = &self->entries[found];
        if (atomic_fetch_add(&entry->connections[worker], 1) >= COLUMN_MAX) {
            atomic_fetch_sub(&entry->connections[worker], 1);
            break;
        }
        if (atomic_load(&entry->key) == key) {
            if (limit == 0 || connections_of(entry) <= limit) {
                *slot = found;
                return TALLY_TAKEN;
            }
            atomic_fetch_sub(&entry->connections[worker], 1);
            *slot = TALLY_NOWHERE;
            return TALLY_FULL;
        }
        atomic_fetch_sub(&entry->connections[worker], 1);
    }
    *slot = TALLY_NOWHERE;
    return TALLY_CROWDED;
}

void tally_leave(tally_table *self, uint32_t slot, unsigned worker)
{
    atomic_fetch_sub(&self->entries[slot].connections[worker], 1);
}

bool tally_take(tally_table *self, uint32_t slot, tally_kind kind, tally_rate rate, uint64_t now_ns)
{
    _Atomic uint64_t *cell = &self->entries[slot].arrivals_ns[kind];
    uint64_t tolerance = rate.interval_ns * (rate.burst - 1);
    uint64_t arrival = atomic_load(cell);
    for (;;) {
        uint64_t base = arrival > now_ns ? arrival : now_ns;
        if (base - now_ns > tolerance)
            return false;
        if (atomic_compare_exchange_weak(cell, &arrival, base + rate.interval_ns))
            return true;
    }
}

bool tally_may_take(const tally_table *self, uint32_t slot, tally_kind kind, tally_rate rate, uint64_t now_ns)
{
    uint64_t arrival = atomic_load(&self->entries[slot].arrivals_ns[kind]);
    return arrival <= now_ns || arrival - now_ns <= rate.interval_ns * (rate.burst - 1);
}

uint32_t tally_connections(const tally_table *self, uint32_t slot)
{
    return connections_of(&self->entries[slot]);
}

void tally_forget_worker(tally_table *self, unsigned worker)
{
    atomic_store(&self->sessions[worker], 0);
    for (uint32_t slot = 0; slot < self->slots; slot++)
        if (atomic_load(&self->entries[slot].key) != 0)
            atomic_store(&self->entries[slot].connections[worker], 0);
}
