/* Bounds that hold for all workers together whoever the clients are: sessions of each listener, and the memory of all sessions.
 *
 * One table in memory that the daemon maps before it forks, with a column for each worker: a worker that dies takes nothing
 * with it, for the supervisor clears its column. Sessions are taken in blocks (src/angarium/admission/bounds.pyx): a worker reserves
 * places by counting up its column first and summing all columns then, so that two workers racing for the last places may
 * both step back, but never both take them; within what it has reserved a session costs no look at this memory at all. Memory
 * is what each worker found when it looked last, a few times a second.
 *
 * A listener is found by a key made of its address. Its place is never given to another: there are many more than listeners,
 * and who finds none is told so.
 */
#ifndef ANGARIUM_ADMISSION_BOUNDS_H
#define ANGARIUM_ADMISSION_BOUNDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOUNDS_WORKERS_MAX 64
#define BOUNDS_LISTENERS_MAX 1024
#define BOUNDS_NOWHERE UINT32_MAX

/* Of zeroed memory; pages are touched only when used. */
typedef struct bounds_table bounds_table;

size_t bounds_table_octets(void);

/* The listener of a key (not 0), found or made; BOUNDS_NOWHERE: there have been too many. */
uint32_t bounds_listener(bounds_table *self, uint64_t key);

/* Reserves `count` places more for `worker`, unless all workers together would have over `limit`: then nothing was taken. */
bool bounds_reserve(bounds_table *self, uint32_t listener, unsigned worker, uint32_t count, uint32_t limit);
void bounds_release(bounds_table *self, uint32_t listener, unsigned worker, uint32_t count);
uint32_t bounds_reserved(const bounds_table *self, uint32_t listener);

/* How many of its places a worker uses, as it says now and then; and all of them. */
void bounds_set_used(bounds_table *self, uint32_t listener, unsigned worker, uint32_t used);
uint32_t bounds_used(const bounds_table *self, uint32_t listener);

/* Octets that the sessions of a worker hold, as it says now and then; and those of all. */
void bounds_set_memory(bounds_table *self, unsigned worker, uint64_t octets);
uint64_t bounds_memory(const bounds_table *self);

/* A worker is gone: nothing is counted for it any more. Supervisor only, before its successor starts. */
void bounds_forget_worker(bounds_table *self, unsigned worker);

#endif
