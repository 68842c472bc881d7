#include "crash/cut.h"

#include <string.h>

uint32_t cut_random_below(cut_random *self, uint32_t limit)
{
    self->state += 0x9e3779b97f4a7c15u;             /* splitmix64 */
    uint64_t z = self->state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32) % limit;
}

/* --- a sample --- */

enum { STYLE_LOSE_ALL, STYLE_KEEP_ALL, STYLE_HALF, STYLE_FEW, STYLE_MANY, STYLE_FIRST_PART, STYLE_LAST_PART, STYLE_BUT_ONE, STYLE_ONE };

typedef struct sampler {
    cut_random random;
    unsigned style, at, chosen;         /* the at-th question; the one that is special */
} sampler;

static unsigned count_question(void *context, unsigned alternatives)
{
    ++*(unsigned *)context;
    return alternatives - 1;
}

static unsigned sample(void *context, unsigned alternatives)
{
    sampler *self = context;
    unsigned at = self->at++, newest = alternatives - 1;
    switch (self->style) {
    case STYLE_LOSE_ALL:
        return 0;
    case STYLE_KEEP_ALL:
        return newest;
    case STYLE_HALF:
        return cut_random_below(&self->random, alternatives);
    case STYLE_FEW:
        return cut_random_below(&self->random, 8) == 0 ? newest : 0;
    case STYLE_MANY:
        return cut_random_below(&self->random, 8) != 0 ? newest : 0;
    case STYLE_FIRST_PART:
        return at < self->chosen ? newest : 0;
    case STYLE_LAST_PART:
        return at >= self->chosen ? newest : 0;
    case STYLE_BUT_ONE:
        return at != self->chosen ? newest : cut_random_below(&self->random, newest);
    default:
        return at == self->chosen ? 1 + cut_random_below(&self->random, newest) : 0;
    }
}

disk *cut_sampled(const disk *from, uint64_t seed, unsigned style)
{
    unsigned questions = 0;
    disk_free(disk_after_cut(from, count_question, &questions));
    sampler self = {.random = {seed}, .style = style % CUT_STYLE_COUNT};
    self.chosen = questions == 0 ? 0 : cut_random_below(&self.random, questions);
    return disk_after_cut(from, sample, &self);
}

/* --- a walk --- */

enum { EXHAUSTIVE_QUESTIONS = 6, EXHAUSTIVE_STATES = 128 };

cut_walk cut_walk_begin(const disk *from, unsigned samples, uint64_t seed)
{
    cut_walk self = {.from = from, .samples = samples, .seed = seed};
    unsigned questions = 0;
    disk_free(disk_after_cut(from, count_question, &questions));
    self.is_exhaustive = questions <= EXHAUSTIVE_QUESTIONS;
    return self;
}

/* An odometer with a digit per question. What is asked may hang on earlier answers: a name that is not there has no sectors. */
static unsigned answer(void *context, unsigned alternatives)
{
    cut_walk *self = context;
    if (self->at == CUT_QUESTION_LIMIT)
        return alternatives - 1;
    if (self->at == self->digit_count)
        self->digits[self->digit_count++] = 0;
    self->bases[self->at] = alternatives;
    return self->digits[self->at++];
}

static void advance(cut_walk *self)
{
    while (self->digit_count > 0 && ++self->digits[self->digit_count - 1] >= self->bases[self->digit_count - 1])
        self->digit_count--;
    self->is_over = self->digit_count == 0 || self->index >= EXHAUSTIVE_STATES;
}

disk *cut_walk_next(cut_walk *self)
{
    if (self->is_over)
        return NULL;
    unsigned index = self->index++;
    if (!self->is_exhaustive) {
        self->is_over = self->index >= self->samples;
        return cut_sampled(self->from, self->seed + index, index);
    }
    self->at = 0;
    disk *made = disk_after_cut(self->from, answer, self);
    advance(self);
    return made;
}
