/* What the fuzz targets share: an assertion that is never compiled out, and cuts derived from the input.
 *
 * A target is fuzz_NAME.c with LLVMFuzzerTestOneInput, its first comment states the invariant. It builds with
 * libFuzzer, or with standalone.c where clang is missing.
 */
#ifndef ANGARIUM_FUZZ_H
#define ANGARIUM_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INVARIANT(condition)                                                            \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);     \
            abort();                                                                    \
        }                                                                               \
    } while (0)

/* A heap copy of the exact size: the sanitizer sees one octet read past it. Free it. */
static inline uint8_t *exact_copy(const uint8_t *in, size_t size)
{
    uint8_t *copy = malloc(size + (size == 0));
    INVARIANT(copy != NULL);
    if (size > 0)
        memcpy(copy, in, size);
    return copy;
}

/* The length of the next piece, 0 to 40 and never more than `left`; mostly short, sometimes nothing. */
static inline size_t next_cut(uint32_t *seed, size_t left)
{
    *seed = *seed * 1664525u + 1013904223u;
    size_t cut = (*seed >> 24) % 8 == 0 ? (*seed >> 16) % 41 : (*seed >> 16) % 4;
    return cut < left ? cut : left;
}

#endif
