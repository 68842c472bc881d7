/* crash: the proof of the spool's promise, from the command line. docs/durability.md tells what it proves.
 *
 *     crash [--short] [--seed N] [--seeds N] [--turns N] [--samples N] [--processes N] [--buffered]
 *           [--at-least DISTINCT] [--within SECONDS]    everything, or as much as is said; no seed is begun later than that
 *                                                       but for the distinct states that are still missing
 *     crash [--short] --states [--compaction|--no-compaction]       only the states; of one of the two kinds of run
 *     crash [--short] --faults [--direct|--buffered]      only the failing calls and the small disk; of one of the two modes
 *     crash [--short] --script NAME                       only those of one script, as "a compaction"
 *     crash --small-disk MIB                              only a disk of that size, filled and emptied
 *     crash --state POSITION.INDEX --seed N ... [--trace]           one of them again, with the log that led to it
 *     crash --mutate no-data-sync|no-directory-sync|early-return        must fail: the layer lies
 *     crash --mutate free-before-copy|no-outcome-behind-copy|no-freed-again|freed-any-home|lazy-copies|
 *                    copy-into-home|copy-again-too-soon
 *                                                         must fail: compaction, or recovery's reading of it, is wrong
 *     crash --mutate unread-index-is-empty|kept-not-synced|kept-not-rewritten|torn-not-kept
 *                                                         must fail: so is the spool, in what a failing call or a kill shows
 *
 * Ends with 0 when all was as promised, 1 when not, 2 for a wrong command line, 3 for a hang.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash/explore.h"
#include "crash/faults.h"
#include "crash/mistakes.h"

typedef struct command {
    explore_options one;
    unsigned seeds, every, disk_mib;    /* disk_mib: 0, unless that alone is wanted */
    uint64_t distinct_wanted;
    unsigned within_s;                  /* 0: without an end */
    time_t started_utc_s;
    bool has_states, has_faults;
    bool is_buffered_only, is_direct_only;      /* the latter for the failing calls */
    bool has_plain, has_compaction;
    const char *script;                 /* NULL: all */
} command;

static void usage(const char *what)
{
    fprintf(stderr, "crash: %s; see the head of csrc/crash/main.c\n", what);
    exit(2);
}

/* Only where it shows: the script, each of its calls, until the first that shows it. */
static bool set_mistake(command *self, const char *name)
{
    for (int i = 1; i < MISTAKE_COUNT; i++)
        if (strcmp(mistake_names[i], name) == 0) {
            mistake_make((mistake)i);
            if (i == MISTAKE_TORN_NOT_KEPT)         /* any cut shows it */
                self->has_faults = self->has_compaction = false;
            else {
                self->every = 1;
                self->script = i == MISTAKE_UNREAD_INDEX_IS_EMPTY ? "a compaction" : "a start over damage";
            }
            return true;
        }
    return false;
}

static void set_mutation(explore_options *one, const char *name)
{
    static const char *const layer[] = {"", "no-data-sync", "no-directory-sync", "early-return"};
    static const char *const mover[MOVER_MUTATION_COUNT] = {"", "free-before-copy", "no-outcome-behind-copy", "no-freed-again",
                                                            "freed-any-home", "lazy-copies", "copy-into-home",
                                                            "copy-again-too-soon"};
    for (int i = 1; i < 4; i++)
        if (strcmp(layer[i], name) == 0)
            one->mutation = (layer_mutation)i;
    for (int i = 1; i < MOVER_MUTATION_COUNT; i++)
        if (strcmp(mover[i], name) == 0)
            one->mover_mutation = (mover_mutation)i;
    if (one->mutation == LAYER_HONEST && one->mover_mutation == MOVER_HONEST)
        usage("no such mutation");
}

static command parse(int count, char **words)
{
    command self = {.one = {.seed = 1, .turns = 160, .samples = 14, .processes = 2, .position = UINT32_MAX, .index = UINT32_MAX},
                    .seeds = 8, .every = 1, .has_states = true, .has_faults = true, .has_plain = true, .has_compaction = true};
    for (int i = 1; i < count; i++) {
        const char *word = words[i], *value = i + 1 < count ? words[i + 1] : "";
        if (strcmp(word, "--short") == 0) {
            self.seeds = 1;
            self.every = 11;
            self.one.turns = 40;
            self.one.samples = 3;
            continue;
        }
        if (strcmp(word, "--trace") == 0) {
            self.one.has_trace = true;
            continue;
        }
        if (strcmp(word, "--buffered") == 0) {
            self.is_buffered_only = true;
            continue;
        }
        if (strcmp(word, "--direct") == 0) {
            self.is_direct_only = true;
            continue;
        }
        if (strcmp(word, "--compaction") == 0 || strcmp(word, "--no-compaction") == 0) {
            self.has_compaction = strcmp(word, "--compaction") == 0;
            self.has_plain = !self.has_compaction;
            continue;
        }
        if (strcmp(word, "--states") == 0 || strcmp(word, "--faults") == 0) {
            self.has_states = strcmp(word, "--states") == 0;
            self.has_faults = !self.has_states;
            continue;
        }
        i++;
        if (strcmp(word, "--seed") == 0)
            self.one.seed = strtoull(value, NULL, 10);
        else if (strcmp(word, "--seeds") == 0)
            self.seeds = (unsigned)atoi(value);
        else if (strcmp(word, "--turns") == 0)
            self.one.turns = (unsigned)atoi(value);
        else if (strcmp(word, "--samples") == 0)
            self.one.samples = (unsigned)atoi(value);
        else if (strcmp(word, "--processes") == 0)
            self.one.processes = (unsigned)atoi(value);
        else if (strcmp(word, "--at-least") == 0)
            self.distinct_wanted = strtoull(value, NULL, 10);
        else if (strcmp(word, "--within") == 0)
            self.within_s = (unsigned)atoi(value);
        else if (strcmp(word, "--small-disk") == 0) {
            self.disk_mib = (unsigned)atoi(value);
            if (self.disk_mib < FAULTS_DISK_MIB || self.disk_mib > FAULTS_DISK_MIB_MOST)
                usage("--small-disk: 5 to 80 MiB");
        } else if (strcmp(word, "--script") == 0) {
            self.script = value;
            if (!faults_has_script(value))
                usage("no such script");
        } else if (strcmp(word, "--mutate") == 0) {
            if (!set_mistake(&self, value))
                set_mutation(&self.one, value);
        } else if (strcmp(word, "--state") != 0 || sscanf(value, "%u.%u", &self.one.position, &self.one.index) != 2)
            usage(word);
    }
    if (self.script != NULL)
        self.has_states = false;
    if (self.one.position != UINT32_MAX)
        self.seeds = self.one.processes = 1;
    if (self.one.mover_mutation != MOVER_HONEST && self.one.position == UINT32_MAX) {
        self.seeds = self.seeds < 6 ? 6 : self.seeds;
        self.one.turns = self.one.turns < 80 ? 80 : self.one.turns;
    }
    if (self.one.mover_mutation != MOVER_HONEST || (self.one.position != UINT32_MAX && !self.has_plain))
        self.has_plain = false;
    else if (self.one.mutation != LAYER_HONEST || self.one.position != UINT32_MAX)
        self.has_compaction = false;
    return self;
}

/* Not time(): that is the simulated clock. */
static time_t real_utc_s(void)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    return now.tv_sec;
}

static void print_result(const explore_options *options, const explore_result *result)
{
    printf("seed %llu %s%s: %llu positions, %llu states, %llu distinct; %llu acknowledged, %llu headers, %llu starts\n",
           (unsigned long long)options->seed, options->is_buffered ? "buffered" : "direct",
           options->has_compaction ? " compaction" : "", (unsigned long long)result->positions,
           (unsigned long long)result->states, (unsigned long long)result->distinct, (unsigned long long)result->acknowledged,
           (unsigned long long)result->headers, (unsigned long long)result->starts);
    const mover_figures *moves = &result->compaction;
    if (options->has_compaction)
        printf("    %u segments emptied, %u postponed; %u messages moved, %u with outcome, %u in chunks, %u given up; "
               "%u outcomes alone, %u freed again\n", moves->emptied, moves->postponed, moves->moved, moves->moved_with_outcome,
               moves->moved_in_chunks, moves->given_up, moves->outcomes, moves->repeats);
    if (result->failures != 0)
        printf("FAILED: %s\n", result->first);
    fflush(stdout);
}

static void explore_seed(const command *self, uint64_t seed, bool has_compaction, explore_seen *seen, explore_result *sum)
{
    for (int is_buffered = self->is_buffered_only; is_buffered < 2; is_buffered++) {
        explore_options options = self->one;
        options.seed = seed;
        options.is_buffered = is_buffered;
        options.has_compaction = has_compaction;
        if (has_compaction && options.position == UINT32_MAX && options.samples > 7)
            options.samples = 7;            /* its runs are twice as long */
        if (options.position != UINT32_MAX && is_buffered != self->is_buffered_only)
            break;
        explore_result result = explore(&options, seen);
        print_result(&options, &result);
        sum->states += result.states;
        sum->distinct += result.distinct;
        sum->failures += result.failures;
    }
}

static bool explore_seeds(const command *self)
{
    explore_seen *seen = explore_seen_new();
    explore_result sum = {0};
    for (unsigned i = 0; i < self->seeds; i++) {
        if (self->within_s != 0 && real_utc_s() - self->started_utc_s >= (time_t)self->within_s
            && sum.distinct >= self->distinct_wanted) {
            printf("%u s are over: %u of %u seeds\n", self->within_s, i, self->seeds);
            break;
        }
        if (self->has_plain)
            explore_seed(self, self->one.seed + i, false, seen, &sum);
        if (self->has_compaction)
            explore_seed(self, self->one.seed + i, true, seen, &sum);
    }
    printf("%llu states judged, %llu distinct, %llu failed\n", (unsigned long long)sum.states, (unsigned long long)sum.distinct,
           (unsigned long long)sum.failures);
    if (sum.distinct < self->distinct_wanted)
        printf("FAILED: fewer than %llu distinct states\n", (unsigned long long)self->distinct_wanted);
    return sum.failures == 0 && sum.distinct >= self->distinct_wanted;
}

static bool fill_small_disk(bool is_buffered, unsigned mib)
{
    char words[200];
    const char *error = faults_fill_small_disk(is_buffered, mib, words);
    printf("small disk %s: %s%s%s\n", is_buffered ? "buffered" : "direct", words, error != NULL ? "\nFAILED: " : "",
           error != NULL ? error : "");
    fflush(stdout);
    return error == NULL;
}

static bool explore_faults_of(const command *self, bool is_buffered)
{
    const char *mode = is_buffered ? "buffered" : "direct";
    faults_result result = faults_explore(is_buffered, self->every, self->script);
    printf("faults %s: %u cases, %u struck, %u ops refused, %u failed\n", mode, result.cases, result.struck, result.refused,
           result.failures);
    if (result.failures != 0)
        printf("FAILED: %s\n", result.first);
    fflush(stdout);
    faults_result kills = faults_kill(is_buffered, self->every, self->script);
    printf("kills %s: %u cases, %u struck, %u failed\n", mode, kills.cases, kills.struck, kills.failures);
    if (kills.failures != 0)
        printf("FAILED: %s\n", kills.first);
    fflush(stdout);
    bool is_right = result.failures == 0 && kills.failures == 0;
    if (self->script == NULL)
        is_right = fill_small_disk(is_buffered, FAULTS_DISK_MIB) && is_right;
    return is_right;
}

/* Both modes at once, where both are wanted and there may be two processes. */
static bool explore_faults(const command *self)
{
    bool has_direct = !self->is_buffered_only, has_buffered = !self->is_direct_only, is_right = true;
    pid_t child = -1;
    if (has_direct && has_buffered && self->one.processes > 1) {
        fflush(stdout);
        child = fork();
        if (child == 0) {
            is_right = explore_faults_of(self, false);
            fflush(stdout);
            _exit(is_right ? 0 : 1);
        }
    }
    if (has_direct && child < 0)
        is_right = explore_faults_of(self, false);
    if (has_buffered)
        is_right = explore_faults_of(self, true) && is_right;
    int status = 0;
    if (child > 0)
        is_right = waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0 && is_right;
    return is_right;
}

int main(int count, char **words)
{
    command self = parse(count, words);
    self.started_utc_s = real_utc_s();
    if (self.one.mutation != LAYER_HONEST || self.one.mover_mutation != MOVER_HONEST || self.one.position != UINT32_MAX)
        self.has_faults = false;
    bool is_right = true;
    if (self.disk_mib != 0)
        return fill_small_disk(false, self.disk_mib) & fill_small_disk(true, self.disk_mib) ? 0 : 1;
    if (self.has_faults)
        is_right = explore_faults(&self);
    if (self.has_states)
        is_right = explore_seeds(&self) && is_right;
    return is_right ? 0 : 1;
}
