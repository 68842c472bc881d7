/* Bounds over all workers: places of a listener that are taken in blocks, memory, and what a dead worker leaves. */
#include "check.h"

#include "admission/bounds.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { RACERS = 4, ROUNDS = 20000, RACE_LIMIT = 100 };

static bounds_table *table_new(void)
{
    size_t octets = (bounds_table_octets() + 63) / 64 * 64;
    bounds_table *table = aligned_alloc(64, octets);
    memset(table, 0, octets);
    return table;
}

static void test_listeners(void)
{
    bounds_table *table = table_new();
    uint32_t one = bounds_listener(table, 5), other = bounds_listener(table, 5 + BOUNDS_LISTENERS_MAX);
    CHECK(one != other, "two keys of one place");
    CHECK(bounds_listener(table, 5) == one && bounds_listener(table, 5 + BOUNDS_LISTENERS_MAX) == other, "found again");
    for (uint64_t key = 1; key <= BOUNDS_LISTENERS_MAX; key++)
        bounds_listener(table, key * 3 + 100000);
    CHECK(bounds_listener(table, 99) == BOUNDS_NOWHERE, "one too many");
    CHECK(bounds_listener(table, 5) == one, "and the first is still there");
    free(table);
}

static void test_places_over_workers(void)
{
    bounds_table *table = table_new();
    uint32_t one = bounds_listener(table, 7), other = bounds_listener(table, 8);
    CHECK(bounds_reserve(table, one, 0, 60, 100), "a block");
    CHECK(!bounds_reserve(table, one, 1, 41, 100), "more than is left, for another worker");
    CHECK(bounds_reserved(table, one) == 60, "nothing was taken in vain");
    CHECK(bounds_reserve(table, one, 1, 40, 100), "what is left");
    CHECK(bounds_reserve(table, other, 1, 100, 100), "another listener has its own");
    bounds_set_used(table, one, 0, 50);
    bounds_set_used(table, one, 1, 3);
    CHECK(bounds_used(table, one) == 53, "of both");
    bounds_release(table, one, 0, 10);
    CHECK(bounds_reserved(table, one) == 90, "given back");
    bounds_forget_worker(table, 1);
    CHECK(bounds_reserved(table, one) == 50 && bounds_reserved(table, other) == 0, "the dead worker's are counted no more");
    CHECK(bounds_used(table, one) == 50, "nor what it used");
    free(table);
}

static void test_memory(void)
{
    bounds_table *table = table_new();
    bounds_set_memory(table, 0, 3000000000ull);
    bounds_set_memory(table, 63, 2000000000ull);
    CHECK(bounds_memory(table) == 5000000000ull, "of both");
    bounds_set_memory(table, 0, 1);
    CHECK(bounds_memory(table) == 2000000001ull, "as said last");
    bounds_forget_worker(table, 63);
    CHECK(bounds_memory(table) == 1, "not of the dead");
    free(table);
}

static _Atomic uint32_t in_use;

typedef struct racer {
    bounds_table *table;
    unsigned worker;
    unsigned too_many;
} racer;

static void *race(void *argument)
{
    racer *self = argument;
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t count = 1 + (uint32_t)(i % 40);
        if (!bounds_reserve(self->table, 0, self->worker, count, RACE_LIMIT))
            continue;
        if (atomic_fetch_add(&in_use, count) + count > RACE_LIMIT)
            self->too_many++;
        atomic_fetch_sub(&in_use, count);
        bounds_release(self->table, 0, self->worker, count);
    }
    return NULL;
}

static void test_workers_that_race_never_have_more_than_the_limit(void)
{
    bounds_table *table = table_new();
    pthread_t threads[RACERS];
    racer racers[RACERS];
    for (unsigned i = 0; i < RACERS; i++) {
        racers[i] = (racer){table, i * 20, 0};
        pthread_create(&threads[i], NULL, race, &racers[i]);
    }
    for (unsigned i = 0; i < RACERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(racers[i].too_many == 0, "over the limit");
    }
    CHECK(bounds_reserved(table, 0) == 0, "all is given back");
    free(table);
}

int main(void)
{
    test_listeners();
    test_places_over_workers();
    test_memory();
    test_workers_that_race_never_have_more_than_the_limit();
    return check_report();
}
