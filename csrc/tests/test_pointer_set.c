/* The set of pointers against a plain array: random additions and removals with hashes good and bad, over several growths. */
#include "check.h"

#include "octets/siphash.h"
#include "queue/pointer_set.h"

#include <stdlib.h>
#include <string.h>

enum { THINGS = 60000 };

typedef struct thing { uint64_t hash; uint32_t number; bool is_in; } thing;

static thing *things;

static int is_number(const void *item, const void *wanted)
{
    return ((const thing *)item)->number == *(const uint32_t *)wanted;
}

static uint64_t random_state = 88172645463325252;

static uint64_t random_word(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void compare(const pointer_set *set, uint32_t in, const char *what)
{
    uint64_t cursor = 0;
    uint32_t walked = 0;
    for (const thing *each; (each = pointer_set_next(set, &cursor)) != NULL; walked++)
        CHECK(each->is_in, "%s: %u was removed", what, each->number);
    CHECK(walked == in && set->count == in, "%s: %u walked, %u counted, %u in it", what, walked, (unsigned)set->count, in);
    for (uint32_t i = 0; i < THINGS; i++) {
        const thing *found = pointer_set_find(set, things[i].hash, is_number, &i);
        CHECK(found == (things[i].is_in ? &things[i] : NULL), "%s: %u", what, i);
    }
}

static void holds_what_was_added_and_not_removed(const char *what, uint64_t (*hash)(uint32_t number))
{
    pointer_set set = {0};
    uint32_t in = 0;
    for (uint32_t i = 0; i < THINGS; i++)
        things[i] = (thing){hash(i), i, false};
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < THINGS; i++) {
            thing *one = &things[random_word() % THINGS];
            bool is_to_be_in = random_word() % 6 < (uint64_t)(5 - round);
            if (is_to_be_in && !one->is_in)
                CHECK(pointer_set_add(&set, one->hash, one) == 0, "memory");
            else if (!is_to_be_in)
                CHECK(pointer_set_remove(&set, one->hash, one) == one->is_in, "%s: remove %u", what, one->number);
            in = in + is_to_be_in - one->is_in;
            one->is_in = is_to_be_in;
        }
        compare(&set, in, what);
    }
    pointer_set_clear(&set);
    CHECK(set.count == 0 && pointer_set_find(&set, 0, is_number, &in) == NULL, "empty after clear");
}

static uint64_t spread(uint32_t number)
{
    return number * (uint64_t)11400714819323198485U;
}

static uint64_t at_the_end(uint32_t number)         /* everything wants the last places of its part, and goes round */
{
    return spread(number) | (uint64_t)0xfff0 << 40;
}

static uint64_t in_clumps(uint32_t number)
{
    return spread(number / 20);
}

static void removing_while_walking_misses_nothing(void)
{
    pointer_set set = {0};
    for (uint32_t i = 0; i < THINGS; i++) {
        things[i] = (thing){at_the_end(i), i, true};
        pointer_set_add(&set, things[i].hash, &things[i]);
    }
    uint64_t cursor = 0;
    for (thing *each; (each = pointer_set_next(&set, &cursor)) != NULL;) {
        CHECK(each->is_in, "given once");
        each->is_in = false;
        CHECK(pointer_set_remove(&set, each->hash, each), "it is in it");
        cursor--;
    }
    CHECK(set.count == 0, "%u left", (unsigned)set.count);
    pointer_set_clear(&set);
}

static void what_many_things_cost_is_bounded(void)
{
    pointer_set set = {0};
    for (uint32_t i = 0; i < THINGS; i++) {
        things[i] = (thing){spread(i), i, true};
        pointer_set_add(&set, things[i].hash, &things[i]);
        if (set.count < 10000)
            continue;
        uint64_t capacity = 0;
        if (set.count % 1000 == 0) {
            for (int part = 0; part < POINTER_SET_PARTS; part++)
                capacity += set.parts[part].capacity;
            CHECK(capacity * 8 < set.count * 13, "%u slots for %u", (unsigned)capacity, (unsigned)set.count);
        }
    }
    pointer_set_clear(&set);
}

/* The vectors of the paper's reference implementation: key 00 01 .. 0f, data 00 01 .. */
static void siphash_gives_the_published_values(void)
{
    static const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    static const struct { size_t length; uint64_t hash; } rows[] = {
        {0, 0x726fdb47dd0e0e31}, {1, 0x74f839c593dc67fd}, {2, 0x0d6c8009d9a94f5a}, {3, 0x85676696d7fb7e2d},
        {15, 0xa129ca6149be45e5},
    };
    uint8_t data[16];
    for (uint8_t i = 0; i < sizeof data; i++)
        data[i] = i;
    for (size_t i = 0; i < COUNT(rows); i++)
        CHECK(siphash24(key, data, rows[i].length) == rows[i].hash, "length %zu", rows[i].length);
}

int main(void)
{
    things = calloc(THINGS, sizeof *things);
    holds_what_was_added_and_not_removed("spread", spread);
    holds_what_was_added_and_not_removed("at the end", at_the_end);
    holds_what_was_added_and_not_removed("in clumps", in_clumps);
    removing_while_walking_misses_nothing();
    what_many_things_cost_is_bounded();
    siphash_gives_the_published_values();
    free(things);
    return check_report();
}
