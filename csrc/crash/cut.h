/* Which of the disks that a power cut may leave: all of them when they are few, else a sample in several styles. */
#ifndef ANGARIUM_CRASH_CUT_H
#define ANGARIUM_CRASH_CUT_H

#include "crash/disk.h"

enum { CUT_QUESTION_LIMIT = 16, CUT_STYLE_COUNT = 9 };

/* A small generator, so that a seed means the same everywhere. */
typedef struct cut_random { uint64_t state; } cut_random;
uint32_t cut_random_below(cut_random *self, uint32_t limit);

/* One state by seed and style (style % CUT_STYLE_COUNT): everything lost, everything kept, halves, few, many, a first part, a
 * last part, one missing, one alone. */
disk *cut_sampled(const disk *from, uint64_t seed, unsigned style);

/* A walk over states of one disk: every combination when at most six things are open, else `samples` of them.
 * The same arguments give the same disks in the same order. */
typedef struct cut_walk {
    const disk *from;
    uint64_t seed;
    unsigned samples, index;                /* index: of the next one */
    bool is_exhaustive, is_over;
    unsigned digits[CUT_QUESTION_LIMIT], bases[CUT_QUESTION_LIMIT], digit_count, at;
} cut_walk;

cut_walk cut_walk_begin(const disk *from, unsigned samples, uint64_t seed);
disk *cut_walk_next(cut_walk *self);        /* NULL at the end */

#endif
