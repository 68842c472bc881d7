#include "crash/explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash/trace.h"

/* --- one state --- */

enum { AFTER_CLEAN_STOP, AFTER_LOSING_ALL, AFTER_KEEPING_ALL, AFTER_COUNT };

static char judgement[500];

static const char *words(const char *when, const char *error)
{
    snprintf(judgement, sizeof judgement, "%s: %s", when, error);
    return judgement;
}

static const char *start_and_judge(rig *on, const book *promised, const char *when)
{
    rig_findings found = {0};
    unsigned reports = 0;
    if (rig_open(on) != 0)
        return words(when, on->error);
    const char *error = rig_judge(on, promised, false, &reports, &found);
    if (error != NULL)
        error = words(when, error);
    rig_findings_clear(&found);
    return error;
}

const char *explore_judge(disk *after, bool is_buffered, const book *promised, uint64_t wall_s, unsigned variant)
{
    unsigned left = 0;
    book own = book_copy_without_promises(promised);
    memcpy(own.promises, promised->promises, promised->count * sizeof *own.promises);
    layer_begin(after, NULL, is_buffered, LAYER_HONEST);
    layer_stamp(wall_s);
    rig on = {.root = layer_open_root()};

    const char *error = start_and_judge(&on, &own, "after the cut");
    if (error == NULL && rig_take_message(&on, &own, 300 + variant % 1000) == UINT32_MAX)
        error = words("after the cut", on.error);
    if (on.shard != NULL) {
        if (variant % AFTER_COUNT != AFTER_CLEAN_STOP)
            layer_arm((layer_plan){.fault = LAYER_KILL, .is_lasting = true});
        rig_close(&on);
    }
    disk *then = layer_end(&left);
    if (error == NULL && left != 0)
        error = words("after the cut", "a descriptor is left open");
    if (error == NULL) {
        disk *later = disk_after_cut(then, variant % AFTER_COUNT == AFTER_KEEPING_ALL ? disk_choose_written : disk_choose_durable, NULL);
        const char *lost = rig_judge_kept(&on, later);
        if (lost != NULL)
            lost = words("after the cut", lost);
        layer_begin(later, NULL, is_buffered, LAYER_HONEST);
        layer_stamp(wall_s + 1);
        on.root = layer_open_root();
        error = start_and_judge(&on, &own, "one start later");
        error = lost != NULL ? lost : error;
        if (on.shard != NULL)
            rig_close(&on);
        disk_free(layer_end(&left));
    }
    disk_free(then);
    rig_forget_kept(&on);
    book_clear(&own);
    return error;
}

/* --- what has been seen --- */

enum { SEEN_SLOTS = 1 << 21 };

struct explore_seen { uint64_t disks[SEEN_SLOTS], judged[SEEN_SLOTS]; };     /* shared between processes */

explore_seen *explore_seen_new(void)
{
    explore_seen *made = mmap(NULL, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

static bool is_new(uint64_t *table, uint64_t hash)
{
    hash |= 1;                              /* 0 is an empty slot */
    for (uint64_t at = hash >> 1;; at++) {
        uint64_t there = 0;
        if (__atomic_compare_exchange_n(&table[at % SEEN_SLOTS], &there, hash, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return true;
        if (there == hash)
            return false;
    }
}

/* --- all states of a run --- */

typedef struct tally {                      /* shared between the processes */
    uint64_t positions, states, distinct, failures;
    uint32_t first_position;
    char first[600];
} tally;

static void report_failure(const explore_options *options, tally *sum, unsigned process, uint32_t position, uint32_t index,
                           const char *error)
{
    tally *mine = &sum[process];
    if (mine->failures++ > 0)
        return;
    mine->first_position = position;
    snprintf(mine->first, sizeof mine->first, "%.400s\n    again with: --seed %llu%s%s --turns %u --samples %u --state %u.%u", error,
             (unsigned long long)options->seed, options->is_buffered ? " --buffered" : "",
             options->has_compaction ? " --compaction" : "", options->turns, options->samples, position, index);
}

static void judge_position(const explore_options *options, const disk *at, const book *promised, uint32_t position, uint64_t epoch,
                           explore_seen *seen, tally *sum, unsigned process)
{
    tally *mine = &sum[process];
    cut_walk walk = cut_walk_begin(at, options->samples, options->seed * 1000003 + position * 4099u);
    bool is_single = options->position != UINT32_MAX;
    disk *state;
    mine->positions += process == 0;
    while (walk.index <= options->index && (state = cut_walk_next(&walk)) != NULL) {
        uint32_t index = walk.index - 1;
        uint64_t hash = disk_hash(state);
        if (is_single ? index != options->index
                      : index % options->processes != process || !is_new(seen->judged, hash ^ epoch * 0x9e3779b97f4a7c15u)) {
            disk_free(state);
            continue;
        }
        mine->distinct += is_new(seen->disks, hash);
        mine->states++;
        rig_set_place("seed %llu%s state %u.%u", (unsigned long long)options->seed, options->is_buffered ? " buffered" : "", position, index);
        const char *error = explore_judge(state, options->is_buffered, promised, 1700001000 + position % 40, (unsigned)(hash >> 20));
        if (error != NULL)
            report_failure(options, sum, process, position, index, error);
    }
}

static void judge_all(const explore_options *options, const log *events, const book *said, explore_seen *seen, tally *sum,
                      unsigned process)
{
    disk *at = disk_new(0);
    book promised = book_copy_without_promises(said);
    uint64_t epoch = options->seed * 7919 + options->is_buffered + 2 * options->has_compaction;
    for (uint32_t position = 0; position < events->count; position++) {
        const log_event *event = &events->events[position];
        log_apply(event, &at);
        book_apply(&promised, event);
        if (event->kind == LOG_PROMISE)
            epoch = epoch * 31 + position;
        /* Promises come in runs: the last of a run holds them all, and the disk is the same. */
        if (event->kind == LOG_PROMISE && position + 1 < events->count && events->events[position + 1].kind == LOG_PROMISE)
            continue;
        if (options->position != UINT32_MAX && position != options->position)
            continue;
        judge_position(options, at, &promised, position, epoch, seen, sum, process);
        if (sum[process].failures > 0)
            break;
    }
    book_clear(&promised);
    disk_free(at);
}

static void run_workload(const explore_options *options, log *events, workload *run)
{
    unsigned left = 0;
    layer_begin(disk_new(0), events, options->is_buffered, options->mutation);
    rig_set_place("seed %llu%s, the run", (unsigned long long)options->seed, options->is_buffered ? " buffered" : "");
    if (options->has_compaction ? workload_begin_with_compaction(run, options->seed, options->mover_mutation)
                                : workload_begin(run, options->seed))
        workload_run(run, options->turns);
    workload_end(run);
    disk_free(layer_end(&left));
    if (left != 0 && run->error[0] == 0)
        snprintf(run->error, sizeof run->error, "%u descriptors left open", left);
}

static void share_work(const explore_options *options, const log *events, const book *said, explore_seen *seen, tally *sum)
{
    for (unsigned i = 1; i < options->processes; i++) {
        fflush(stdout);
        if (fork() == 0) {
            judge_all(options, events, said, seen, sum, i);
            _exit(0);
        }
    }
    judge_all(options, events, said, seen, sum, 0);
    int status;
    while (wait(&status) > 0)
        if (status != 0) {
            sum[0].failures++;
            if (sum[0].first[0] == 0)
                snprintf(sum[0].first, sizeof sum[0].first, "a judging process ended with status %d", status);
        }
}

explore_result explore(const explore_options *options, explore_seen *seen)
{
    log events = {0};
    workload run;
    explore_result result = {0};
    mover_confuse_homes(options->mover_mutation == MOVER_FREED_ANY_HOME);
    run_workload(options, &events, &run);
    if (run.error[0] != 0) {
        result.failures = 1;
        snprintf(result.first, sizeof result.first, "%s\n    again with: --seed %llu%s%s --turns %u", run.error,
                 (unsigned long long)options->seed, options->is_buffered ? " --buffered" : "",
                 options->has_compaction ? " --compaction" : "", options->turns);
    }
    if (options->has_trace)
        trace_print(&events, &run.said, options->position);
    tally *sum = mmap(NULL, options->processes * sizeof *sum, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sum == MAP_FAILED)
        abort();
    if (result.failures == 0)
        share_work(options, &events, &run.said, seen, sum);
    uint32_t first_position = UINT32_MAX;
    for (unsigned i = 0; i < options->processes; i++) {
        result.positions += sum[i].positions;
        result.states += sum[i].states;
        result.distinct += sum[i].distinct;
        result.failures += sum[i].failures;
        if (sum[i].failures > 0 && sum[i].first_position < first_position) {
            first_position = sum[i].first_position;
            memcpy(result.first, sum[i].first, sizeof result.first);
        }
    }
    for (uint32_t i = 0; i < run.said.count; i++)
        result.acknowledged += run.said.promises[i].is_acknowledged;
    result.starts = run.starts;
    result.compaction = run.mover.figures;
    for (uint32_t i = 0; i < events.count; i++)         /* a header block: a segment begun or freed */
        result.headers += events.events[i].kind == LOG_WRITE && events.events[i].offset == 0 && events.events[i].length == 4096;
    munmap(sum, options->processes * sizeof *sum);
    book_clear(&run.said);
    log_clear(&events);
    return result;
}
