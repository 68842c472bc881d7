/* Limits that hold for the whole machine: connections and rate per site, over all workers.
 *
 * One table in memory that the daemon maps before it forks. An entry belongs to a site (64-bit key). Each
 * worker counts its own connections in its own column, so a worker that dies takes nothing with it: the
 * supervisor clears the column. A place is taken by counting up the own column first and summing all columns
 * then: two workers racing for the last place may both step back, but never both take it. The rate is GCRA
 * with one theoretical arrival time per site, moved by compare-and-swap.
 *
 * A full neighbourhood makes room: an entry without connections goes when its count has been given back, and if there is none,
 * the one that has least to give back. So whoever makes up keys pushes out what he made up, and who has used up his count
 * keeps it longest. What must not be pushed out by others at all has a table of its own (inbound/quota.py). Callers hash keys
 * with a secret, so that nobody chooses his neighbours.
 *
 * It is not fair by itself: a worker that finds no place leaves a mark (`wanted`), and workers with idle
 * connections to the site give them up when they see it.
 */
#ifndef ANGARIUM_QUEUE_SHARES_H
#define ANGARIUM_QUEUE_SHARES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHARES_WORKERS_MAX 64

typedef struct shares_table shares_table;

/* Octets a table of `slots` (a power of two) entries needs; pages are touched only when used. */
size_t shares_table_octets(uint32_t slots);

/* Makes a table of zeroed memory. */
void shares_table_init(shares_table *self, uint32_t slots);

/* The slot of `key` (not 0), found or made; UINT32_MAX when all of its neighbourhood has connections: the caller then keeps
 * to its own share (limit / workers). A slot without connections may be given to another site at any time, so callers
 * pass the key to every call and look the slot up anew when told SHARES_STALE. */
uint32_t shares_find(shares_table *self, uint64_t key, uint64_t now_ns);

/* The same without making one: UINT32_MAX when nothing is counted for `key`. To look must push nobody out. */
uint32_t shares_seek(const shares_table *self, uint64_t key);

typedef enum shares_result { SHARES_TAKEN = 0, SHARES_NONE, SHARES_STALE } shares_result;

/* Takes one of `limit` connection places for `worker` (0..63). SHARES_NONE also leaves the mark. */
shares_result shares_connection_take(shares_table *self, uint32_t slot, uint64_t key, unsigned worker,
                                     uint32_t limit, uint64_t now_ns);
void shares_connection_give(shares_table *self, uint32_t slot, unsigned worker);

/* Where more than `limit` connections are counted, and do not leave yet: one of the caller's is to end, and leaves from now on.
 * Workers that ask at once make no more leave together than there are too many. False: that many leave already, or there are not too many. */
bool shares_connection_leave(shares_table *self, uint32_t slot, uint32_t limit);

/* It has ended, and was given back. */
void shares_connection_left(shares_table *self, uint32_t slot);

/* Whether another worker has asked in vain within the last 500 ms. */
bool shares_is_wanted(const shares_table *self, uint32_t slot, unsigned worker, uint64_t now_ns);

/* Connections that the worker has which asked in vain within the last 500 ms; UINT32_MAX: no other worker did. */
uint32_t shares_wanted_count(const shares_table *self, uint32_t slot, unsigned worker, uint64_t now_ns);

/* `worker` wants none any more: takes its mark away, if the last one is its. */
void shares_unwant(shares_table *self, uint32_t slot, unsigned worker);

/* GCRA: one message every `interval_ns` with a burst of `burst` (>= 1). Returns 0 when it may go now, else the
 * nanoseconds until it may; SHARES_RATE_STALE when the slot belongs to another site now. */
#define SHARES_RATE_STALE UINT64_MAX
uint64_t shares_rate_take(shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns, uint32_t burst,
                          uint64_t now_ns);

/* Takes the last shares_rate_take() back: what it was taken for did not happen. A slot of another site: nothing. */
void shares_rate_give(shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns);

/* The same question without taking: nanoseconds until one would be given, 0: now; or SHARES_RATE_STALE. */
uint64_t shares_rate_wait(const shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns, uint32_t burst,
                          uint64_t now_ns);

/* Rates over a restart: the first slot from `slot` on whose rate has something to give back, with its key and its theoretical arrival
 * time; UINT32_MAX: no other. Touches every page of the table. */
uint32_t shares_rate_next(const shares_table *self, uint32_t slot, uint64_t now_ns, uint64_t *key, uint64_t *arrival_ns);

/* Sets one of them, before anybody uses the table; false: no room near its place. */
bool shares_rate_restore(shares_table *self, uint64_t key, uint64_t arrival_ns, uint64_t now_ns);

/* Connections counted for the slot over all workers. */
uint32_t shares_connection_count(const shares_table *self, uint32_t slot);

/* A worker is gone: nothing is counted for it any more. Supervisor only, before its successor starts. */
void shares_forget_worker(shares_table *self, unsigned worker);

/* Workers that serve, bit by number: said by each when it begins and when it is about to end, and in
 * shares_forget_worker() of one that is gone. */
uint64_t shares_living(const shares_table *self);
void shares_set_living(shares_table *self, unsigned worker, bool is_living);

#endif
