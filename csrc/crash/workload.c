#include "crash/workload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_CHUNK_OCTETS = 40000, SETTLE_TURNS = 60 };

typedef struct item {
    spool_op op;
    workload *of;
    uint32_t message, version, stream;
    octets *payload;
    spool_segment *chunks[WORKLOAD_CHUNK_LIMIT];
    uint32_t chunk_count;
} item;

static uint32_t below(workload *self, uint32_t limit)
{
    return cut_random_below(&self->random, limit);
}

static void say(workload *self, uint32_t message, promise_what what, uint32_t version)
{
    log_event event = {.kind = LOG_PROMISE, .message = message, .what = what, .version = version};
    layer_note(event);
    book_apply(&self->said, &event);
}

static void free_item(item *one)
{
    octets_unref(one->payload);
    free(one);
}

static item *new_item(workload *self, uint8_t kind, uint32_t message, octets *payload, spool_done done)
{
    item *made = calloc(1, sizeof *made);
    made->of = self;
    made->message = message;
    made->payload = payload;
    made->op = (spool_op){.kind = kind, .id = self->said.messages[message].id, .payload = payload, .done = done, .context = made};
    return made;
}

static uint64_t next_id(workload *self)
{
    uint64_t id = spool_shard_next_id(self->on.shard);
    uint32_t same = book_find(&self->said, id);
    if (same != UINT32_MAX && self->said.promises[same].is_acknowledged)
        snprintf(self->error, sizeof self->error, "id %llx is given a second time", (unsigned long long)id);
    return id;
}

/* --- mail in --- */

static void release_chunks(workload *self, spool_segment **chunks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        spool_segment_release(self->on.shard, chunks[i], 0);
}

static void envelope_done(spool_op *op, void *context)
{
    item *one = context;
    workload *self = one->of;
    if (layer_is_dead()) {
        free_item(one);
        return;
    }
    if (op->error != 0) {
        self->refused++;
        say(self, one->message, PROMISE_LEAVING, 0);
        release_chunks(self, one->chunks, one->chunk_count);
    } else {
        say(self, one->message, PROMISE_ACKNOWLEDGED, 0);
        if (self->live_count == WORKLOAD_LIVE_LIMIT)
            abort();
        workload_live *made = &self->live[self->live_count++];
        *made = (workload_live){.message = one->message, .home = op->place.segment, .chunk_count = one->chunk_count};
        memcpy(made->chunks, one->chunks, sizeof made->chunks);
    }
    free_item(one);
}

static item *submit_envelope(workload *self, uint32_t message)
{
    book_message *of = &self->said.messages[message];
    item *one = new_item(self, SPOOL_ENVELOPE, message, octets_copy(of->envelope->data, of->envelope->length), envelope_done);
    one->op.body = of->is_inline ? of->body : NULL;
    say(self, message, PROMISE_SUBMITTED, 0);
    return one;
}

void workload_receive(workload *self, size_t octets)
{
    uint32_t message = book_add(&self->said, next_id(self), octets);
    spool_shard_submit(self->on.shard, &submit_envelope(self, message)->op);
}

static void chunk_done(spool_op *op, void *context)
{
    item *one = context;
    workload *self = one->of;
    workload_stream *stream = &self->streams[one->stream];
    stream->is_waiting = false;
    if (!layer_is_dead()) {
        if (op->error != 0) {
            self->refused++;
            stream->is_failed = true;
        } else {
            stream->places[stream->chunk_count] = (spool_chunk){spool_segment_serial(op->place.segment), op->place.offset, op->place.length};
            stream->chunks[stream->chunk_count++] = op->place.segment;
        }
    }
    free_item(one);
}

/* One step of a streamed message: its next chunk, its envelope, or its being given up. */
static void step_stream(workload *self, unsigned at)
{
    workload_stream *stream = &self->streams[at];
    if (!stream->is_used) {
        size_t octets = STREAM_CHUNK_OCTETS * (1 + below(self, 4)) + below(self, STREAM_CHUNK_OCTETS);
        *stream = (workload_stream){.is_used = true, .message = book_add(&self->said, next_id(self), octets)};
    }
    if (stream->is_waiting)
        return;
    book_message *of = &self->said.messages[stream->message];
    if (stream->is_failed || below(self, 12) == 0) {
        release_chunks(self, stream->chunks, stream->chunk_count);
        stream->is_used = false;
    } else if (stream->sent < of->body->length) {
        size_t part = of->body->length - stream->sent;
        part = part < STREAM_CHUNK_OCTETS ? part : STREAM_CHUNK_OCTETS;
        item *one = new_item(self, SPOOL_BODY, stream->message, octets_copy(of->body->data + stream->sent, part), chunk_done);
        one->op.aux = stream->sent;
        one->stream = at;
        stream->sent += part;
        stream->is_waiting = true;
        spool_shard_submit(self->on.shard, &one->op);
    } else {
        book_set_chunks(&self->said, stream->message, stream->places, stream->chunk_count);
        item *one = submit_envelope(self, stream->message);
        one->chunk_count = stream->chunk_count;
        memcpy(one->chunks, stream->chunks, sizeof one->chunks);
        stream->is_used = false;
        spool_shard_submit(self->on.shard, &one->op);
    }
}

/* --- mail out --- */

static workload_live *find_live(workload *self, uint32_t message)
{
    for (unsigned i = 0; i < self->live_count; i++)
        if (self->live[i].message == message)
            return &self->live[i];
    return NULL;
}

static void outcome_done(spool_op *op, void *context)
{
    item *one = context;
    workload *self = one->of;
    if (!layer_is_dead()) {
        workload_live *live = find_live(self, one->message);
        live->has_outcome_under_way = false;
        if (op->error != 0)
            self->refused++;
        else {
            say(self, one->message, PROMISE_OUTCOME_DURABLE, one->version);
            live->state = op->place.segment;
        }
    }
    free_item(one);
}

void workload_defer(workload *self, unsigned at)
{
    workload_live *live = &self->live[at];
    if (live->has_outcome_under_way)
        return;
    live->has_outcome_under_way = true;
    uint32_t version = ++live->outcome_version;
    uint64_t id = self->said.messages[live->message].id;
    item *one = new_item(self, SPOOL_OUTCOME, live->message, book_outcome(id, version), outcome_done);
    one->version = version;
    one->op.about = live->home;
    one->op.previous_state = live->state;
    say(self, live->message, PROMISE_OUTCOME_SUBMITTED, version);
    spool_shard_submit(self->on.shard, &one->op);
}

void workload_free(workload *self, unsigned at)
{
    workload_live gone = self->live[at];
    if (gone.has_outcome_under_way)
        return;
    self->live[at] = self->live[--self->live_count];
    say(self, gone.message, PROMISE_LEAVING, 0);
    spool_shard_free(self->on.shard, self->said.messages[gone.message].id, gone.home, gone.state, 0);
    release_chunks(self, gone.chunks, gone.chunk_count);
}

/* --- time --- */

static void note_gone(workload *self)
{
    for (uint32_t i = 0; i < self->said.count; i++)
        if (self->said.promises[i].is_leaving && !self->said.promises[i].is_gone)
            say(self, i, PROMISE_GONE, 0);
}

void workload_turn(workload *self, uint64_t advance_ms)
{
    rig_turn(&self->on, advance_ms);
    /* All is handed over and all threads sleep: what was to be freed is durably free. */
    if (!layer_is_dead() && !spool_shard_is_lazy_waiting(self->on.shard))
        note_gone(self);
    char report[SPOOL_REPORT_OCTETS];
    self->was_full |= !spool_shard_has_room(self->on.shard);
    for (; spool_shard_next_report(self->on.shard, report); self->reports++)
        if (!self->may_report && !layer_is_dead() && self->error[0] == 0)
            snprintf(self->error, sizeof self->error, "the operator is told: %s", report);
}

void workload_settle(workload *self)
{
    for (int i = 0; i < SETTLE_TURNS && (i == 0 || spool_shard_is_lazy_waiting(self->on.shard)); i++)
        workload_turn(self, 100);
}

/* --- starts --- */

typedef enum end_kind { END_STOPPED, END_KILLED, END_CUT } end_kind;

static void adopt(workload *self, const rig_findings *found, end_kind how)
{
    bool *is_found = calloc(self->said.count + 1, sizeof *is_found);
    self->live_count = 0;
    for (uint32_t i = 0; i < found->count; i++) {
        const rig_found *from = &found->items[i];
        const promise *about = &self->said.promises[from->message];
        is_found[from->message] = true;
        uint32_t durable = about->outcome_durable;      /* more than was found when its record could not be read just now */
        say(self, from->message, PROMISE_KEPT, from->outcome_version > durable ? from->outcome_version : durable);
        workload_live *made = &self->live[self->live_count++];
        *made = (workload_live){.message = from->message, .outcome_version = about->outcome_submitted, .home = from->place.segment,
                                .state = from->state_segment};
        spool_envelope view;
        spool_envelope_open(from->envelope->data, from->envelope->length, &view);
        for (uint32_t j = 0; j < view.chunk_count && !(view.flags & SPOOL_ENVELOPE_INLINE); j++)
            made->chunks[made->chunk_count++] = spool_shard_segment(self->on.shard, spool_envelope_chunk(&view, j).segment_serial);
    }
    for (uint32_t i = 0; i < self->said.count && how != END_STOPPED; i++)
        if (!is_found[i] && !self->said.promises[i].is_gone)
            say(self, i, PROMISE_GONE, 0);
    free(is_found);
}

static bool start_again(workload *self, end_kind how)
{
    rig_findings found = {0};
    self->starts++;
    memset(self->streams, 0, sizeof self->streams);
    layer_stamp(self->wall_s += below(self, 3));
    if (rig_open(&self->on) != 0) {
        snprintf(self->error, sizeof self->error, "%s", self->on.error);
        self->reports++;
        return false;
    }
    self->error[0] = 0;
    const char *error = rig_judge(&self->on, &self->said, self->may_report, &self->reports, &found);
    if (error != NULL)
        snprintf(self->error, sizeof self->error, "a start in the run: %.300s", error);
    else
        adopt(self, &found, how);
    rig_findings_clear(&found);
    return error == NULL;
}

bool workload_restart(workload *self)
{
    workload_settle(self);
    rig_close(&self->on);
    return start_again(self, END_STOPPED);
}

bool workload_start(workload *self)
{
    return start_again(self, END_STOPPED);
}

void workload_die(workload *self)
{
    if (!layer_is_dead())
        layer_arm((layer_plan){.fault = LAYER_KILL, .is_lasting = true});
    rig_close(&self->on);
    layer_disarm();
}

bool workload_start_after_kill(workload *self)
{
    return start_again(self, END_KILLED);
}

bool workload_kill(workload *self)
{
    workload_die(self);
    return start_again(self, END_KILLED);
}

bool workload_cut_power(workload *self)
{
    workload_die(self);
    layer_note((log_event){.kind = LOG_CUT, .offset = self->random.state, .length = below(self, CUT_STYLE_COUNT)});
    return start_again(self, END_CUT);
}

/* --- the run --- */

static size_t some_octets(workload *self)
{
    switch (below(self, 8)) {
    case 0:
        return below(self, 20);
    case 1:
        return self->usual_octets * 8;
    default:
        return self->usual_octets / 4 + below(self, (uint32_t)self->usual_octets);
    }
}

/* A death while something is under way: the layer counts calls down while turns go on. */
static bool end_in_the_middle(workload *self)
{
    layer_arm((layer_plan){.fault = LAYER_KILL, .at = below(self, 12), .is_lasting = true, .arrives = below(self, 5)});
    for (int i = 0; i < 6 && !layer_is_dead(); i++) {
        for (unsigned n = below(self, 4); n > 0 && self->live_count < WORKLOAD_LIVE_LIMIT - 8; n--)
            workload_receive(self, some_octets(self));
        if (self->live_count > 0)
            workload_defer(self, below(self, self->live_count));
        workload_turn(self, 100);
    }
    return below(self, 2) == 0 ? workload_kill(self) : workload_cut_power(self);
}

static bool one_turn(workload *self)
{
    for (unsigned n = 1 + below(self, 4); n > 0 && self->live_count < WORKLOAD_LIVE_LIMIT - 16; n--)
        workload_receive(self, some_octets(self));
    if (below(self, 3) == 0 && self->live_count < WORKLOAD_LIVE_LIMIT - 16)
        step_stream(self, below(self, 3));
    for (unsigned n = below(self, 3); n > 0 && self->live_count > 4; n--)
        workload_defer(self, below(self, self->live_count));
    workload_turn(self, below(self, 3) == 0 ? 100 : 10);
    if (below(self, 3) == 0)
        for (unsigned n = self->live_count > self->live_wanted ? 8 : below(self, 4); n > 0 && self->live_count > 0; n--)
            workload_free(self, below(self, self->live_count));
    workload_turn(self, below(self, 2) == 0 ? 100 : 1);
    switch (below(self, 40)) {
    case 0:
        return workload_restart(self);
    case 1:
    case 2:
        return end_in_the_middle(self);
    default:
        return self->error[0] == 0;
    }
}

bool workload_begin(workload *self, uint64_t seed)
{
    *self = (workload){.random = {seed}, .live_wanted = 12, .usual_octets = seed % 2 == 0 ? 2000 : 9000, .wall_s = 1700000000};
    layer_stamp(self->wall_s);
    self->on.root = layer_open_root();
    if (rig_open(&self->on) == 0)
        return true;
    snprintf(self->error, sizeof self->error, "%s", self->on.error);
    return false;
}

bool workload_run(workload *self, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++)
        if (!one_turn(self))
            return false;
    return true;
}

void workload_end(workload *self)
{
    if (self->on.shard != NULL)
        rig_close(&self->on);
}
