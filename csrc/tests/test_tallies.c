/* Counts of strangers: limits of connections and rates, networks by prefix, and a table that strangers cannot fill for good. */
#include "check.h"

#include "admission/tallies.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 64 };

static const uint64_t secret[2] = {0x0123456789abcdef, 0xfedcba9876543210};
static const tally_rate three_a_second = {1000000000ull / 3, 3};
static const uint64_t SECOND = 1000000000ull, NOW = 5000 * 1000000000ull;

static tally_table *table_new(uint32_t slots)
{
    tally_table *table = aligned_alloc(64, (tally_table_octets(slots) + 63) / 64 * 64);
    memset(table, 0, tally_table_octets(slots));
    tally_table_init(table, slots, secret);
    return table;
}

static void address_of(uint8_t address[16], uint32_t number)
{
    memset(address, 0, 16);
    address[0] = 0x20;
    address[1] = 0x01;
    memcpy(address + 2, &number, 4);
}

static void test_keys(void)
{
    tally_table *table = table_new(SLOTS);
    uint8_t a[16] = {0}, b[16];
    a[10] = a[11] = 255, a[12] = 192, a[14] = 2, a[15] = 1;
    memcpy(b, a, 16);
    b[15] = 2;
    CHECK(tally_key(table, a, 128, 0) != tally_key(table, b, 128, 0), "two addresses");
    CHECK(tally_key(table, a, 120, 0) == tally_key(table, b, 120, 0), "one /24");
    CHECK(tally_key(table, a, 127, 0) != tally_key(table, b, 127, 0), "192.0.2.0/31 and 192.0.2.2/31");
    CHECK(tally_key(table, a, 126, 0) == tally_key(table, b, 126, 0), "192.0.2.0/30");
    CHECK(tally_key(table, a, 120, 0) != tally_key(table, a, 120, 1), "two rules");
    CHECK(tally_key(table, a, 0, 0) == tally_key(table, b, 0, 0), "everybody");
    free(table);
}

static void test_connections_over_workers(void)
{
    tally_table *table = table_new(SLOTS);
    uint32_t slot, other;
    CHECK(tally_enter(table, 77, 0, 2, NOW, &slot) == TALLY_TAKEN, "first");
    CHECK(tally_enter(table, 77, 5, 2, NOW, &other) == TALLY_TAKEN && other == slot, "second, of another worker");
    CHECK(tally_enter(table, 77, 1, 2, NOW, &other) == TALLY_FULL && other == TALLY_NOWHERE, "third");
    CHECK(tally_connections(table, slot) == 2, "nothing was taken in vain");
    tally_forget_worker(table, 5);
    CHECK(tally_enter(table, 77, 1, 2, NOW, &other) == TALLY_TAKEN, "the dead worker's is counted no more");
    tally_leave(table, slot, 0);
    tally_leave(table, slot, 1);
    CHECK(tally_connections(table, slot) == 0, "all gone");

    CHECK(tally_session_take(table, 0, 2) && tally_session_take(table, 63, 2), "two sessions");
    CHECK(!tally_session_take(table, 1, 2), "no third");
    tally_session_give(table, 63);
    CHECK(tally_session_take(table, 1, 2) && tally_sessions(table) == 2, "one was given back");
    tally_forget_worker(table, 0);
    CHECK(tally_sessions(table) == 1, "%u sessions", tally_sessions(table));
    free(table);
}

static void test_rates(void)
{
    tally_table *table = table_new(SLOTS);
    uint32_t slot;
    tally_enter(table, 77, 0, 0, NOW, &slot);
    for (int i = 0; i < 3; i++)
        CHECK(tally_take(table, slot, TALLY_MESSAGES, three_a_second, NOW), "%d of the burst", i);
    CHECK(!tally_may_take(table, slot, TALLY_MESSAGES, three_a_second, NOW), "the fourth");
    CHECK(!tally_take(table, slot, TALLY_MESSAGES, three_a_second, NOW), "the fourth");
    CHECK(tally_take(table, slot, TALLY_ERRORS, three_a_second, NOW), "kinds are apart");
    CHECK(tally_take(table, slot, TALLY_MESSAGES, three_a_second, NOW + SECOND / 3), "one comes back every third of a second");
    CHECK(!tally_take(table, slot, TALLY_MESSAGES, three_a_second, NOW + SECOND / 3), "and only one");
    /* Who leaves and comes back finds what was taken. */
    tally_leave(table, slot, 0);
    tally_enter(table, 77, 0, 0, NOW, &slot);
    CHECK(!tally_may_take(table, slot, TALLY_MESSAGES, three_a_second, NOW), "still taken");
    free(table);
}

/* 100,000 networks that connect once each and go: nobody with an open connection is disturbed, everybody finds an entry, and
 * who has taken most is forgotten last. */
static void test_strangers_cannot_fill_it(void)
{
    tally_table *table = table_new(SLOTS);
    uint8_t address[16];
    uint32_t slot, held, heavy;
    tally_enter(table, 77, 3, 0, NOW, &held);
    tally_enter(table, 1001, 0, 0, NOW, &heavy);
    for (int i = 0; i < 3; i++)
        tally_take(table, heavy, TALLY_ERRORS, three_a_second, NOW);
    tally_leave(table, heavy, 0);
    for (uint32_t i = 0; i < 100000; i++) {
        address_of(address, i);
        tally_result result = tally_enter(table, tally_key(table, address, 64, 0), 0, 10, NOW, &slot);
        CHECK(result == TALLY_TAKEN, "stranger %u", i);
        if (result != TALLY_TAKEN)
            break;
        CHECK(tally_take(table, slot, TALLY_CONNECTIONS, three_a_second, NOW), "stranger %u has a rate of its own", i);
        tally_leave(table, slot, 0);
    }
    CHECK(tally_connections(table, held) == 1, "the open connection");
    CHECK(tally_enter(table, 1001, 0, 0, NOW, &slot) == TALLY_TAKEN && slot == heavy, "who has most to give back stays");
    CHECK(!tally_may_take(table, slot, TALLY_ERRORS, three_a_second, NOW), "with what it took");
    free(table);
}

/* All of them stay: who finds no entry is told so, and room comes back when they leave. */
static void test_a_table_full_of_open_connections(void)
{
    tally_table *table = table_new(16);
    uint32_t slots[16], slot;
    for (uint32_t i = 0; i < 16; i++)
        CHECK(tally_enter(table, 2 * i + 1, 0, 1, NOW, &slots[i]) == TALLY_TAKEN, "%u", i);
    CHECK(tally_enter(table, 1001, 0, 1, NOW, &slot) == TALLY_CROWDED && slot == TALLY_NOWHERE, "no room");
    tally_leave(table, slots[4], 0);
    CHECK(tally_enter(table, 1001, 0, 1, NOW, &slot) == TALLY_TAKEN && slot == slots[4], "room");
    free(table);
}

int main(void)
{
    test_keys();
    test_connections_over_workers();
    test_rates();
    test_strangers_cannot_fill_it();
    test_a_table_full_of_open_connections();
    return check_report();
}
