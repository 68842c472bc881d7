/* Assertions that count: CHECK goes on after a failure, so that one run shows every bad row of a table.
 *
 *     int main(void) { CHECK(1 + 1 == 2, "row %s", name); return check_report(); }
 *
 * check_report prints "N passed, N failed", which the Makefile adds up over all tests.
 */
#ifndef ANGARIUM_TESTS_CHECK_H
#define ANGARIUM_TESTS_CHECK_H

#include <stdio.h>

static unsigned long check_passed, check_failed;

#define CHECK(condition, ...)                                                       \
    do {                                                                            \
        if (condition) {                                                            \
            check_passed++;                                                         \
        } else {                                                                    \
            check_failed++;                                                         \
            printf("%s:%d: not true: %s: ", __FILE__, __LINE__, #condition);        \
            printf(__VA_ARGS__);                                                    \
            printf("\n");                                                           \
        }                                                                           \
    } while (0)

static inline int check_report(void)
{
    printf("%lu passed, %lu failed\n", check_passed, check_failed);
    return check_failed != 0;
}

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#endif
