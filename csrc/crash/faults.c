#include "crash/faults.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/explore.h"
#include "crash/mistakes.h"

/* --- scripts: each arms the fault where its own part begins --- */

typedef bool script(workload *self, layer_plan plan);       /* false: self->error */

static bool a_transaction(workload *self, layer_plan plan)
{
    layer_arm(plan);
    workload_receive(self, 3000);
    workload_receive(self, 20);
    workload_turn(self, 10);
    if (self->live_count > 0)
        workload_defer(self, 0);
    if (self->live_count > 1)
        workload_free(self, self->live_count - 1);
    workload_turn(self, 10);
    workload_turn(self, 100);
    return true;
}

static bool a_roll_over(workload *self, layer_plan plan)
{
    for (int i = 0; i < 8; i++) {
        workload_receive(self, 50000);
        workload_turn(self, 10);
    }
    layer_arm(plan);
    for (int i = 0; i < 18; i++) {
        workload_receive(self, 50000);
        workload_turn(self, 10);
    }
    return true;
}

/* Two segments are settled and given back, one of them is used again. What settles them lies in the third. */
static bool a_recycling(workload *self, layer_plan plan)
{
    for (int i = 0; i < 44; i++) {
        workload_receive(self, 50000);
        workload_turn(self, 10);
    }
    layer_arm(plan);
    workload_free(self, 0);                 /* so that the oldest segment goes first; the two newest messages stay */
    for (unsigned i = self->live_count - 1; i-- > 1;)
        workload_free(self, i);
    workload_turn(self, 1);
    workload_turn(self, 100);
    for (int i = 0; i < 18; i++) {
        workload_receive(self, 50000);
        workload_turn(self, 10);
    }
    return true;
}

/* A start that fails is told, and the operator starts again. */
static bool start_in_the_end(workload *self)
{
    for (int i = 0; i < 3; i++) {
        if (workload_start(self))
            return true;
        if (self->on.shard != NULL)         /* it started, and what it found is wrong */
            return false;
        layer_disarm();
    }
    return false;
}

static bool a_stop_and_a_start(workload *self, layer_plan plan)
{
    layer_arm(plan);
    rig_close(&self->on);
    if (!start_in_the_end(self))
        return false;
    workload_receive(self, 3000);
    workload_turn(self, 10);
    return true;
}

static bool a_start_after_a_kill(workload *self, layer_plan plan)
{
    layer_arm((layer_plan){.fault = LAYER_KILL, .is_lasting = true, .arrives = 2});
    workload_receive(self, 9000);
    workload_turn(self, 10);
    workload_die(self);
    layer_arm(plan);
    if (!start_in_the_end(self))
        return false;
    workload_receive(self, 3000);
    workload_turn(self, 10);
    return true;
}

/* Segments in which little stays: small messages, one that was streamed, newest outcomes of messages whose home is elsewhere, and freed
 * records about homes that are still there. */
enum { LITTLE_SEGMENTS = 7, PASSING_OCTETS = 450000 };

static bool has_streamed(const workload *self)
{
    for (unsigned i = 0; i < self->live_count; i++)
        if (self->live[i].chunk_count != 0)
            return true;
    return false;
}

/* All large messages end, but for the newest. */
static void pass_on(workload *self, uint32_t but)
{
    for (unsigned i = self->live_count; i-- > 0;)
        if (self->live[i].octets_count > PASSING_OCTETS && self->live[i].message + but < self->said.count)
            workload_free(self, i);
}

static void leave_little(workload *self)
{
    spool_recovered nothing;
    spool_shard_recover_next(self->on.shard, &nothing);         /* the first start found nothing; compaction waits to be told so */
    uint32_t early = self->said.count;          /* of the first segment, which is never worth emptying */
    for (unsigned i = 0; i < 2 * LITTLE_SEGMENTS; i++)
        workload_receive(self, 6000);
    workload_turn(self, 10);
    while (!has_streamed(self)) {
        workload_step_stream(self, 0);
        workload_turn(self, 10);
    }
    for (unsigned round = 0; round < LITTLE_SEGMENTS; round++) {
        if (round % 2 == 0)                     /* of the others nothing is left but what they say of messages elsewhere */
            workload_receive(self, 2000 + 700 * round);
        workload_receive(self, PASSING_OCTETS);
        workload_receive(self, PASSING_OCTETS);
        workload_turn(self, 10);
        pass_on(self, 2);                       /* in the segment behind their own */
        workload_defer(self, (unsigned)(workload_find_live(self, early + round) - self->live));
        workload_free(self, (unsigned)(workload_find_live(self, early + LITTLE_SEGMENTS + round) - self->live));
        workload_turn(self, 1);
        workload_turn(self, 100);
    }
    pass_on(self, 0);
    workload_turn(self, 1);
    workload_turn(self, 100);
}

/* While mail comes, is put off and goes. */
static void compact(workload *self)
{
    self->mover.is_on = true;
    for (unsigned i = 0; i < 24; i++) {
        if (i % 8 == 2)
            workload_receive(self, 3000);
        if (i % 8 == 4 && self->live_count > 2)
            workload_defer(self, i % self->live_count);
        if (i == 12 && self->live_count > 4)
            workload_free(self, self->live_count - 1);
        workload_turn(self, 10);
    }
}

static bool a_compaction(workload *self, layer_plan plan)
{
    leave_little(self);
    layer_arm(plan);
    compact(self);
    return true;
}

/* Many segments, the last one unfinished; what a start cannot read now is there later, whatever compaction does to the rest. */
static bool a_start_and_a_compaction(workload *self, layer_plan plan)
{
    leave_little(self);
    layer_arm((layer_plan){.fault = LAYER_KILL, .is_lasting = true});
    workload_die(self);
    mover_forget(self);
    layer_arm(plan);
    if (!start_in_the_end(self))
        return false;
    compact(self);
    return true;
}

/* Each message is read back from the disk. What cannot be read now is put off, and has not become another's octets, or damage. */
static bool a_delivery(workload *self, layer_plan plan)
{
    leave_little(self);
    layer_arm(plan);
    for (unsigned i = self->live_count; i-- > 0 && !layer_is_dead();) {
        const workload_live *live = &self->live[i];
        int error;
        const char *wrong = rig_read_message(&self->on, &self->said, live->message, live->home, &error);
        if (layer_is_dead())
            break;
        if (wrong == NULL && error != 0 && !layer_has_struck())
            wrong = "a message cannot be read, and no call has failed";
        if (wrong != NULL) {
            snprintf(self->error, sizeof self->error, "%s", wrong);
            return false;
        }
        (error != 0 ? workload_defer : workload_free)(self, i);
        workload_turn(self, 10);
    }
    workload_turn(self, 100);
    return true;
}

/* An octet of a record has changed, and the last write was cut short: what of it is kept is told, and kept. */
static bool a_start_over_damage(workload *self, layer_plan plan)
{
    static const uint8_t other[] = "these are other octets";
    workload_receive(self, 9000);           /* the last one: what stands in it is torn */
    workload_turn(self, 10);
    unsigned hit = self->live_count - 2;
    spool_segment_face face;
    char path[DISK_PATH_OCTETS];
    spool_place envelope = self->live[hit].home, last = self->live[self->live_count - 1].home;
    spool_segment_describe(envelope.segment, &face);
    snprintf(path, sizeof path, "00/seg-%04u.ang", face.slot);
    workload_say(self, self->live[hit].message, PROMISE_LEAVING, 0);        /* they are lost, and nobody promised what a disk does */
    workload_say(self, self->live[hit + 1].message, PROMISE_LEAVING, 0);
    workload_die(self);
    int file = disk_find(layer_disk(), path);
    disk_write(layer_disk(), file, envelope.offset + 40, other, sizeof other);
    disk_write(layer_disk(), file, last.offset + 40, other, sizeof other);
    disk_sync(layer_disk(), file);
    self->has_damage = true;
    layer_arm(plan);
    return start_in_the_end(self);
}

static bool the_first_start(workload *self, layer_plan plan)
{
    (void)plan;                             /* armed before there was a shard */
    workload_receive(self, 3000);
    workload_turn(self, 10);
    return true;
}

/* Long ones work on many segments: each case takes a tenth of a second. */
static const struct { const char *name; script *run; bool is_long; } scripts[] = {
    {"a transaction", a_transaction, false},
    {"a roll-over", a_roll_over, false},
    {"a recycling", a_recycling, false},
    {"a stop and a start", a_stop_and_a_start, false},
    {"a start after a kill", a_start_after_a_kill, false},
    {"the first start", the_first_start, false},
    {"a start over damage", a_start_over_damage, false},
    {"a compaction", a_compaction, true},
    {"a start and a compaction", a_start_and_a_compaction, true},
    {"a delivery", a_delivery, true},
};
enum { SCRIPTS = sizeof scripts / sizeof scripts[0] };

/* --- one case --- */

/* Before the power goes: the fault ends and all heals; nothing; the process is killed and started again, and much becomes of what it
 * finds. What a start believes must not hang on pages whose sync has failed. */
typedef enum fault_end { ENDS_HEALED, ENDS_AT_ONCE, ENDS_KILLED, ENDS_COUNT } fault_end;

typedef struct fault_case {
    unsigned script;
    layer_plan plan;
    bool is_buffered;
    fault_end end;
} fault_case;

static bool begin(const fault_case *what, workload *run)
{
    bool is_first_start = scripts[what->script].run == the_first_start;
    if (is_first_start)
        layer_arm(what->plan);
    bool has_begun = workload_begin(run, 4);
    if (!has_begun && is_first_start)
        has_begun = start_in_the_end(run);
    if (has_begun && !is_first_start) {
        for (int i = 0; i < 3; i++)
            workload_receive(run, 2000);
        workload_turn(run, 10);
        workload_defer(run, 1);
        workload_turn(run, 1);
        workload_turn(run, 100);
    }
    run->may_report = true;
    return has_begun;
}

/* An allocation that failed is tried again once a second. */
static bool serves_again(workload *self)
{
    for (int i = 0; i < 40 && self->error[0] == 0; i++) {
        unsigned refused = self->refused;
        workload_receive(self, 1000);
        workload_turn(self, 100);
        if (self->refused == refused)
            return true;
    }
    return false;
}

/* Nobody is harmed by what has failed: what is worth emptying is emptied. */
static bool compacts_again(workload *run)
{
    spool_statistics figures;
    for (unsigned i = 0; i < 200 && run->error[0] == 0; i++) {
        workload_turn(run, 20);
        spool_shard_statistics(run->on.shard, &figures);
        if (i > 10 && run->mover.victim == NULL && figures.excess_segments == 0)
            return true;
    }
    return false;
}

/* What outcomes failed to be written are written with the next ones. */
static const char *judge_outcomes(workload *run)
{
    workload_write_again(run);
    workload_settle(run);
    for (unsigned i = 0; i < run->live_count && run->error[0] == 0; i++)
        if (run->said.promises[run->live[i].message].outcome_durable < run->live[i].outcome_known)
            return "an outcome is never written";
    return NULL;
}

static const char *judge_service(workload *run)
{
    spool_statistics figures;
    if (run->error[0] == 0 && !serves_again(run) && run->error[0] == 0)
        return "no service after the fault";
    spool_shard_statistics(run->on.shard, &figures);
    /* Where a start could not see all, nothing old is touched until the next. */
    if (run->error[0] == 0 && run->mover.is_on && !figures.is_scan_broken && !compacts_again(run) && run->error[0] == 0)
        return "no compaction after the fault";
    mover_stop(run);
    workload_settle(run);
    const char *error = run->error[0] == 0 ? judge_outcomes(run) : NULL;
    if (error != NULL)
        return error;
    if (run->error[0] != 0)
        return run->error;
    if (spool_shard_is_lazy_waiting(run->on.shard))
        return "something is never written";
    spool_shard_statistics(run->on.shard, &figures);
    if (!run->has_damage && figures.damaged_records != 0)
        return "a call that failed is taken for damage";
    if (run->refused == 0)
        return NULL;
    if (run->reports == 0)
        return "mail was refused and the operator was not told";
    return figures.write_errors + figures.sync_errors == 0 && !run->was_full ? "mail was refused and nothing counts it" : NULL;
}

/* After a clean stop all that is not over is there, and nothing else. */
static const char *judge_stop(workload *run)
{
    run->may_report = run->has_damage;      /* which is told at every start */
    if (!workload_restart(run))
        return run->error;
    if (run->mover.is_on && !compacts_again(run))
        return run->error[0] != 0 ? run->error : "no compaction after a clean stop";
    if (run->mover.is_on && run->mover.figures.emptied == 0)
        return "there was nothing to compact";
    mover_stop(run);
    workload_settle(run);
    return run->error[0] != 0 ? run->error : NULL;
}

/* Every second message ends, and segments are given back, whatever a compaction left in them. */
static const char *judge_start_after_kill(workload *run)
{
    workload_die(run);
    run->may_report = run->has_damage;
    run->error[0] = 0;
    if (!workload_start_after_kill(run))
        return run->error;
    for (unsigned i = run->live_count; i-- > 0;)
        if (i % 2 == 0)
            workload_free(run, i);
    workload_receive(run, 4000);
    workload_turn(run, 1);
    workload_settle(run);
    if (run->mover.is_on && run->error[0] == 0 && !compacts_again(run) && run->error[0] == 0)
        return "no compaction after a kill";
    mover_stop(run);
    workload_settle(run);
    return run->error[0] != 0 ? run->error : NULL;
}

/* What is left if the power goes now: nothing but the durable, everything, and some between. */
static const char *judge_cuts(workload *run, const fault_case *what, disk *at)
{
    static const unsigned styles[] = {0, 1, 2, 5};
    bool is_buffered = what->is_buffered;
    const char *error = NULL;
    for (unsigned i = 0; i < sizeof styles / sizeof styles[0] && error == NULL; i += scripts[what->script].is_long ? 3 : 1) {
        disk *after = cut_sampled(at, 77 + i, styles[i]);
        error = rig_judge_kept(&run->on, after);
        if (error == NULL && !run->has_damage)
            error = explore_judge(after, is_buffered, &run->said, 1700001000 + i, i);
        else
            disk_free(after);
    }
    return error;
}

static const char *const end_words[ENDS_COUNT] = {"", ", the end", ", a kill"};

/* False: *result tells. *calls: how many there were to fail. */
static bool run_case(const fault_case *what, unsigned *calls, faults_result *result)
{
    static workload run;
    unsigned left = 0;
    char words[100], call[128];
    const layer_plan plan = what->plan;
    snprintf(words, sizeof words, "%s%s, call %u %s%s, %u/4 arrive%s", scripts[what->script].name, what->is_buffered ? " (buffered)" : "",
             plan.at, plan.is_lasting ? "and all after it " : "", layer_fault_names[plan.fault], plan.arrives, end_words[what->end]);
    rig_set_place("%s", words);
    layer_begin(disk_new(0), NULL, what->is_buffered, LAYER_HONEST);
    const char *error = begin(what, &run) && scripts[what->script].run(&run, plan) ? NULL : run.error;
    *calls = layer_calls();
    result->cases++;
    result->struck += layer_has_struck();
    result->refused += run.refused;
    snprintf(call, sizeof call, "%s", layer_struck_call());
    layer_disarm();
    if (error == NULL && run.error[0] != 0)
        error = run.error;
    if (error == NULL && what->end == ENDS_HEALED && (error = judge_service(&run)) == NULL)
        error = judge_stop(&run);
    if (error == NULL && what->end == ENDS_KILLED)
        error = judge_start_after_kill(&run);
    if (run.on.shard != NULL)
        workload_die(&run);
    mover_forget(&run);
    disk *at = layer_end(&left);
    if (error == NULL && left != 0)
        error = "a descriptor is left open";
    if (error == NULL)
        error = judge_cuts(&run, what, at);
    if (error != NULL && result->failures++ == 0)
        snprintf(result->first, sizeof result->first, "%s, %s: %.300s", words, call, error);
    disk_free(at);
    rig_forget_kept(&run.on);
    book_clear(&run.said);
    return error == NULL;
}

static bool is_wanted(const char *only, unsigned number)
{
    return only == NULL || strcmp(only, scripts[number].name) == 0;
}

bool faults_has_script(const char *name)
{
    for (unsigned number = 0; number < SCRIPTS; number++)
        if (is_wanted(name, number))
            return true;
    return false;
}

faults_result faults_explore(bool is_buffered, unsigned every, const char *only)
{
    faults_result result = {0};
    for (unsigned number = 0; number < SCRIPTS; number++)
        for (int fault = LAYER_EIO; fault < LAYER_KILL; fault++)
            for (unsigned variant = 0; variant < 4 && is_wanted(only, number); variant++) {
                bool is_lasting = variant == 3;
                /* What arrives of a failed write matters for the errors that come late. */
                if ((variant == 1 || variant == 2) && fault != LAYER_EIO && fault != LAYER_ENOSPC)
                    continue;
                if (is_lasting && (fault == LAYER_EINTR || fault == LAYER_SHORT))
                    continue;           /* for ever interrupted is not a fault that ends */
                /* Not the same calls for every error, where not all are struck. */
                unsigned stride = !scripts[number].is_long ? every : every == 1 ? 2 : 3 * every, calls = stride;
                for (unsigned at = (unsigned)(fault + (int)variant) % stride; at < calls; at += stride) {
                    fault_case what = {number, {(layer_fault)fault, at, is_lasting, is_lasting ? 0 : 2 * variant}, is_buffered,
                                       (fault_end)(at / stride % ENDS_COUNT)};
                    if (!run_case(&what, &calls, &result) && !mistake_is_made(MISTAKE_NONE))
                        return result;      /* it is noticed */
                }
            }
    return result;
}

/* --- kill -9 between any two calls, and in the middle of any write; a start; more work; then the power goes --- */

static bool run_kill_case(const fault_case *what, faults_result *result)
{
    static workload run;
    unsigned left = 0;
    char words[100], call[128];
    snprintf(words, sizeof words, "kill in %s%s, call %u, %u/4 arrive", scripts[what->script].name,
             what->is_buffered ? " (buffered)" : "", what->plan.at, what->plan.arrives);
    rig_set_place("%s", words);
    layer_begin(disk_new(0), NULL, what->is_buffered, LAYER_HONEST);
    bool is_right = begin(what, &run) && scripts[what->script].run(&run, what->plan);
    result->cases++;
    result->struck += layer_has_struck();
    snprintf(call, sizeof call, "%s", layer_struck_call());
    const char *error = is_right || layer_has_struck() ? NULL : run.error;
    run.may_report = run.has_damage;
    run.error[0] = 0;
    if (error == NULL) {
        if (run.on.shard != NULL)
            workload_die(&run);
        layer_disarm();
        if (!workload_start_after_kill(&run))
            error = run.error;
    }
    if (error == NULL) {                    /* all is settled and recycled: nothing of it may come again */
        while (run.live_count > 0)
            workload_free(&run, 0);
        workload_receive(&run, 4000);
        workload_turn(&run, 1);
        workload_settle(&run);
        error = run.error[0] != 0 ? run.error : NULL;
    }
    if (run.on.shard != NULL)
        workload_die(&run);
    mover_forget(&run);
    disk *at = layer_end(&left);
    if (error == NULL)
        error = judge_cuts(&run, what, at);
    if (error != NULL && result->failures++ == 0)
        snprintf(result->first, sizeof result->first, "%s, %s: %.300s", words, call, error);
    disk_free(at);
    rig_forget_kept(&run.on);
    book_clear(&run.said);
    return error == NULL;
}

faults_result faults_kill(bool is_buffered, unsigned every, const char *only)
{
    faults_result result = {0};
    for (unsigned number = 0; number < SCRIPTS; number++)
        for (unsigned arrives = 0; arrives <= 4 && is_wanted(only, number); arrives += 2) {
            unsigned struck = result.struck, stride = scripts[number].is_long ? 2 * every : every == 1 ? 1 : 2;
            /* Until it ends unkilled. */
            for (unsigned at = arrives / 2 % stride, tried = 0; struck + tried == result.struck; at += stride, tried++) {
                fault_case what = {number, {LAYER_KILL, at, true, arrives}, is_buffered, ENDS_KILLED};
                run_kill_case(&what, &result);
            }
        }
    return result;
}

/* --- a small disk --- */

enum { ROUNDS = 3 };

static const char *fill_and_empty(workload *run, unsigned round, uint64_t disk_octets)
{
    size_t octets = 90000;                  /* then smaller ones, until there is no room for any */
    while (octets > 2000 && run->live_count < WORKLOAD_LIVE_ROOM - 4) {
        unsigned refused = run->refused;
        workload_receive(run, octets);
        workload_turn(run, 10);
        octets = run->refused == refused ? octets : octets / 2;
    }
    if (octets > 2000 || spool_shard_has_room(run->on.shard))
        return "the disk does not fill";
    /* Delivery goes on: what is kept in reserve takes its outcomes. */
    unsigned before = run->refused;
    for (unsigned i = 0; i < 8; i++)
        workload_defer(run, i);
    workload_turn(run, 1);
    workload_turn(run, 100);
    if (run->refused != before)
        return "an outcome is refused by a full disk";
    if (round == 1 && !workload_restart(run))
        return run->error;
    if (round == 2 && !workload_kill(run))
        return run->error;
    /* Emptied under load. */
    while (run->live_count > 3 && run->error[0] == 0) {
        workload_free(run, run->live_count - 1);
        workload_receive(run, 2000);
        workload_turn(run, 50);
        if (disk_used_octets(layer_disk()) > disk_octets)
            return "more is used than there is";
        for (unsigned i = 0; i < 2 && run->live_count > 3; i++)
            workload_free(run, 0);
    }
    workload_settle(run);
    if (run->error[0] != 0)
        return run->error;
    return serves_again(run) ? NULL : "no service after the disk was emptied";
}

const char *faults_fill_small_disk(bool is_buffered, unsigned mib, char words[200])
{
    static workload run;
    static char error_words[500];
    unsigned left = 0;
    const char *error = NULL;
    rig_set_place("a small disk%s", is_buffered ? " (buffered)" : "");
    layer_begin(disk_new((uint64_t)mib << 20), NULL, is_buffered, LAYER_HONEST);
    if (!workload_begin(&run, 4))
        error = run.error;
    run.may_report = true;
    for (unsigned round = 0; round < ROUNDS && error == NULL; round++)
        error = fill_and_empty(&run, round, (uint64_t)mib << 20);
    if (error != NULL)
        snprintf(error_words, sizeof error_words, "%s", error);
    snprintf(words, 200, "%u messages, %u refused, %u reports", run.said.count, run.refused, run.reports);
    if (run.on.shard != NULL)
        workload_die(&run);
    disk *at = layer_end(&left);
    if (error == NULL && (error = judge_cuts(&run, &(fault_case){.is_buffered = is_buffered}, at)) != NULL)
        snprintf(error_words, sizeof error_words, "%s", error);
    disk_free(at);
    rig_forget_kept(&run.on);
    book_clear(&run.said);
    return error != NULL ? error_words : NULL;
}
