#include "crash/faults.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/explore.h"

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

static bool the_first_start(workload *self, layer_plan plan)
{
    (void)plan;                             /* armed before there was a shard */
    workload_receive(self, 3000);
    workload_turn(self, 10);
    return true;
}

static const struct { const char *name; script *run; } scripts[] = {
    {"a transaction", a_transaction},           {"a roll-over", a_roll_over},
    {"a recycling", a_recycling},               {"a stop and a start", a_stop_and_a_start},
    {"a start after a kill", a_start_after_a_kill}, {"the first start", the_first_start},
};
enum { SCRIPTS = sizeof scripts / sizeof scripts[0] };

/* --- one case --- */

typedef struct fault_case {
    unsigned script;
    layer_plan plan;
    bool is_buffered;
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

static const char *judge_service(workload *run)
{
    spool_statistics figures;
    if (run->error[0] == 0 && !serves_again(run) && run->error[0] == 0)
        return "no service after the fault";
    workload_settle(run);
    if (run->error[0] != 0)
        return run->error;
    if (spool_shard_is_lazy_waiting(run->on.shard))
        return "something is never written";
    if (run->refused == 0)
        return NULL;
    spool_shard_statistics(run->on.shard, &figures);
    if (run->reports == 0)
        return "mail was refused and the operator was not told";
    return figures.write_errors + figures.sync_errors == 0 && !run->was_full ? "mail was refused and nothing counts it" : NULL;
}

/* What is left if the power goes now: nothing but the durable, everything, and some between. */
static const char *judge_cuts(const workload *run, bool is_buffered, disk *at)
{
    static const unsigned styles[] = {0, 1, 2, 5};
    const char *error = NULL;
    for (unsigned i = 0; i < sizeof styles / sizeof styles[0] && error == NULL; i++)
        error = explore_judge(cut_sampled(at, 77 + i, styles[i]), is_buffered, &run->said, 1700001000 + i, i);
    return error;
}

/* False: *result tells. *calls: how many there were to fail. */
static bool run_case(const fault_case *what, unsigned *calls, faults_result *result)
{
    static workload run;
    unsigned left = 0;
    char words[100], call[128];
    const layer_plan plan = what->plan;
    snprintf(words, sizeof words, "%s%s, call %u %s%s, %u/4 arrive", scripts[what->script].name, what->is_buffered ? " (buffered)" : "",
             plan.at, plan.is_lasting ? "and all after it " : "", layer_fault_names[plan.fault], plan.arrives);
    rig_set_place("%s", words);
    layer_begin(disk_new(0), NULL, what->is_buffered, LAYER_HONEST);
    const char *error = begin(what, &run) && scripts[what->script].run(&run, plan) ? NULL : run.error;
    *calls = layer_calls();
    result->cases++;
    result->struck += layer_has_struck();
    result->refused += run.refused;
    snprintf(call, sizeof call, "%s", layer_struck_call());
    layer_disarm();
    if (error == NULL)
        error = judge_service(&run);
    if (run.on.shard != NULL)
        workload_die(&run);
    disk *at = layer_end(&left);
    if (error == NULL && left != 0)
        error = "a descriptor is left open";
    if (error == NULL)
        error = judge_cuts(&run, what->is_buffered, at);
    if (error != NULL && result->failures++ == 0)
        snprintf(result->first, sizeof result->first, "%s, %s: %.300s", words, call, error);
    disk_free(at);
    book_clear(&run.said);
    return error == NULL;
}

faults_result faults_explore(bool is_buffered, unsigned every)
{
    faults_result result = {0};
    for (unsigned number = 0; number < SCRIPTS; number++)
        for (int fault = LAYER_EIO; fault < LAYER_KILL; fault++)
            for (unsigned variant = 0; variant < 4; variant++) {
                bool is_lasting = variant == 3;
                /* What arrives of a failed write matters for the errors that come late. */
                if ((variant == 1 || variant == 2) && fault != LAYER_EIO && fault != LAYER_ENOSPC)
                    continue;
                if (is_lasting && (fault == LAYER_EINTR || fault == LAYER_SHORT))
                    continue;           /* for ever interrupted is not a fault that ends */
                unsigned calls = 1;
                for (unsigned at = 0; at < calls; at += every) {
                    fault_case what = {number, {(layer_fault)fault, at, is_lasting, is_lasting ? 0 : 2 * variant}, is_buffered};
                    run_case(&what, &calls, &result);
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
    run.may_report = false;
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
    disk *at = layer_end(&left);
    if (error == NULL)
        error = judge_cuts(&run, what->is_buffered, at);
    if (error != NULL && result->failures++ == 0)
        snprintf(result->first, sizeof result->first, "%s, %s: %.300s", words, call, error);
    disk_free(at);
    book_clear(&run.said);
    return error == NULL;
}

faults_result faults_kill(bool is_buffered, unsigned every)
{
    faults_result result = {0};
    for (unsigned number = 0; number < SCRIPTS; number++)
        for (unsigned arrives = 0; arrives <= 4; arrives += 2) {
            unsigned struck = result.struck;
            for (unsigned at = 0; struck + at / every == result.struck; at += every) {      /* until it ends unkilled */
                fault_case what = {number, {LAYER_KILL, at, true, arrives}, is_buffered};
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
    if (error == NULL && (error = judge_cuts(&run, is_buffered, at)) != NULL)
        snprintf(error_words, sizeof error_words, "%s", error);
    disk_free(at);
    book_clear(&run.said);
    return error != NULL ? error_words : NULL;
}
