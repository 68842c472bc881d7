/* Text maps: what each spelling of an entry means, and files that are none. */
#include "check.h"

#include "recipients/text_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t hash_key[2] = {1, 2};

static int build(text_map *map, const char *text, size_t length, bool folds_case, uint64_t *line)
{
    uint8_t *data = malloc(length + 1);
    memcpy(data, text, length);
    return text_map_build(map, data, length, folds_case, hash_key, line);
}

typedef struct row {
    const char *text, *key, *value;         /* NULL: not there */
    bool folds_case;
} row;

static const row rows[] = {
    {"a b\n", "a", "b", true},
    {"a b", "a", "b", true},                                /* no line end at the end */
    {"a\n", "a", "", true},
    {"a", "a", "", true},
    {"a \t\r\n", "a", "", true},
    {"a: b, c\r\n", "a", "b, c", true},
    {"a:\n", "a", "", true},
    {":\n", ":", "", true},
    {"a:b c\n", "a:b", "c", true},
    {"a  b c  \n", "a", "b c", true},
    {"# a b\n", "#", NULL, true},
    {"  # a\na b\n", "a", "b", true},
    {"\n\na b\n", "a", "b", true},
    {"a b\n c\n\td\n", "a", "b  c  d", true},
    {"a\n b\n", "a", "b", true},
    {"a:\n b\n", "a", "b", true},
    {"a b\n# comment\n\n c\n", "a", "b             c", true},
    {" a b\n", "a", "b", true},                             /* nothing to go on with */
    {"a b\na c\n d\n", "a", "b", true},                     /* the first counts */
    {"a b\na c\n d\ne f\n", "e", "f", true},
    {"A@X b\n", "a@x", "b", true},
    {"A@X b\n", "a@x", NULL, false},
    {"A@X b\n", "A@x", "b", false},
    {"A b\n", "A", "b", false},
    {"\"a b\"@x c\n", "\"a b\"@x", "c", true},
    {"\"a\\\" b\"@x c\n", "\"a\\\" b\"@x", "c", true},
    {"\"a b\n", "\"a", "b", true},                          /* never closed */
    {"ab c\n", "a", NULL, true},
    {"a c\n", "ab", NULL, true},
    {"a c\n", "a c", NULL, true},
    {"a c\n", "", NULL, true},
    {"", "a", NULL, true},
};

static void each_row_is_found(void)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        text_map map;
        uint64_t line;
        const uint8_t *value = NULL;
        size_t length = 0;
        CHECK(build(&map, rows[i].text, strlen(rows[i].text), rows[i].folds_case, &line) == 0, "row %zu", i);
        bool found = text_map_find(&map, (const uint8_t *)rows[i].key, strlen(rows[i].key), &value, &length);
        CHECK(found == (rows[i].value != NULL), "row %zu", i);
        if (found && rows[i].value != NULL)
            CHECK(length == strlen(rows[i].value) && memcmp(value, rows[i].value, length) == 0, "row %zu: \"%.*s\"", i, (int)length, value);
        text_map_clear(&map);
    }
}

static void a_key_cannot_reach_into_a_value(void)
{
    text_map map;
    uint64_t line;
    const uint8_t *value;
    size_t length;
    CHECK(build(&map, "a b\nc\n", 6, true, &line) == 0, "build");
    CHECK(!text_map_find(&map, (const uint8_t *)"a\0b", 3, &value, &length), "NUL");
    CHECK(!text_map_find(&map, (const uint8_t *)"a\0", 2, &value, &length), "NUL at the end");
    CHECK(!text_map_find(&map, (const uint8_t *)"c\n", 2, &value, &length), "LF");
    text_map_clear(&map);
}

static void a_nul_is_refused_with_its_line(void)
{
    text_map map;
    uint64_t line;
    CHECK(build(&map, "a b\n\nc\0d\n", 9, true, &line) == -EINVAL && line == 3, "line %llu", (unsigned long long)line);
    text_map_clear(&map);
}

static void many_entries_are_all_found(void)
{
    enum { MANY = 20000 };
    char *text = malloc(MANY * 32);
    size_t at = 0;
    for (int i = 0; i < MANY; i++)
        at += (size_t)sprintf(text + at, "user%d@x.example v%d\n", i, i);
    text_map map;
    uint64_t line;
    CHECK(build(&map, text, at, true, &line) == 0 && map.count == MANY, "build");
    for (int i = 0; i < MANY; i++) {
        char key[32], wanted[16];
        const uint8_t *value;
        size_t length;
        sprintf(key, "user%d@x.example", i);
        sprintf(wanted, "v%d", i);
        if (!text_map_find(&map, (const uint8_t *)key, strlen(key), &value, &length) || length != strlen(wanted)
            || memcmp(value, wanted, length) != 0)
            CHECK(false, "%s", key);
    }
    const uint8_t *value;
    size_t length;
    CHECK(!text_map_find(&map, (const uint8_t *)"user20000@x.example", 19, &value, &length), "one too many");
    text_map_clear(&map);
    free(text);
}

int main(void)
{
    each_row_is_found();
    a_key_cannot_reach_into_a_value();
    a_nul_is_refused_with_its_line();
    many_entries_are_all_found();
    return check_report();
}
