/* What strangers use of the machine, counted over all workers: sessions in all, and by network the connections open now
 * and six things that come at a rate.
 *
 * One table in memory that the daemon maps before it forks. Each worker counts its open connections in its own column, so
 * a worker that dies takes nothing with it: the supervisor clears the column. A place is taken by counting up the own
 * column first and summing all columns then: two workers racing for the last place may both step back, but never both
 * take it. What comes at a rate is GCRA: one theoretical arrival time each, moved by compare-and-swap.
 *
 * Strangers choose the keys, so the table must not be theirs to fill. Keys are hashed with a secret, so nobody chooses
 * who shares a neighbourhood. An entry without an open connection is free once everything has been given back, and when a
 * whole neighbourhood has something left to give back, the entry that has the least loses it. An entry with an open
 * connection stays, so that what holds one needs no second look-up; how many there are is bounded by the limit of
 * sessions. Who finds no entry at all is let in and counted only among the sessions.
 */
#ifndef ANGARIUM_ADMISSION_TALLIES_H
#define ANGARIUM_ADMISSION_TALLIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TALLY_WORKERS_MAX 64
#define TALLY_NOWHERE UINT32_MAX

typedef struct tally_table tally_table;

typedef enum tally_kind {
    TALLY_CONNECTIONS = 0, TALLY_MESSAGES, TALLY_RECIPIENTS, TALLY_HANDSHAKES, TALLY_ERRORS,
    TALLY_AUTH_ATTEMPTS, TALLY_KINDS
} tally_kind;

typedef struct tally_rate {
    uint64_t interval_ns;           /* 0: no limit */
    uint32_t burst;                 /* 1 or more */
} tally_rate;

/* Octets a table of `slots` (a power of two, 16 at least) entries needs; pages are touched only when used. */
size_t tally_table_octets(uint32_t slots);

/* Makes a table of zeroed memory. `secret`: random. */
void tally_table_init(tally_table *self, uint32_t slots, const uint64_t secret[2]);

/* Sessions of the machine. False: `limit` (not 0) are there already, and nothing was taken. */
bool tally_session_take(tally_table *self, unsigned worker, uint32_t limit);
void tally_session_give(tally_table *self, unsigned worker);
uint32_t tally_sessions(const tally_table *self);

/* The key of a network: never 0. address: 16 octets, IPv4 mapped (RFC 4291 §2.5.5.2); bits: 0..128; the rest of the
 * address is left out. rule: keeps the same network of different rules apart. */
uint64_t tally_key(const tally_table *self, const uint8_t address[16], unsigned bits, unsigned rule);

typedef enum tally_result { TALLY_TAKEN = 0, TALLY_FULL, TALLY_CROWDED } tally_result;

/* Counts a connection of `key` for `worker`, and has *slot say where; it stays that key's until tally_leave(). limit 0:
 * none. TALLY_FULL: nothing was taken. TALLY_CROWDED: no entry is free, *slot is TALLY_NOWHERE. */
tally_result tally_enter(tally_table *self, uint64_t key, unsigned worker, uint32_t limit, uint64_t now_ns, uint32_t *slot);
void tally_leave(tally_table *self, uint32_t slot, unsigned worker);

/* Takes one of what comes at a rate. False: it must wait, and nothing was taken. The caller has entered. */
bool tally_take(tally_table *self, uint32_t slot, tally_kind kind, tally_rate rate, uint64_t now_ns);

/* The same question without taking. */
bool tally_may_take(const tally_table *self, uint32_t slot, tally_kind kind, tally_rate rate, uint64_t now_ns);

/* Connections open of the slot's network. */
uint32_t tally_connections(const tally_table *self, uint32_t slot);

/* A worker is gone: nothing is counted for it any more. Supervisor only, before its successor starts. */
void tally_forget_worker(tally_table *self, unsigned worker);

#endif
