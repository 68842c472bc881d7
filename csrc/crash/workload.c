#include "crash/workload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STREAM_CHUNK_OCTETS = 40000,
    SETTLE_TURNS = 60,
    USUAL_TURN_MS = 10,
    LONG_TURN_MS = 100,
    QUIET_TURNS = 40,
    PASSING_OCTETS = 100000,            /* about what fills segments and is over soon, when there is compaction */
};

typedef struct item {
    spool_op op;
    workload *of;
    uint32_t message, version, stream;
    uint64_t known_ms;                  /* of an outcome */
    octets *payload;
    spool_segment *chunks[WORKLOAD_CHUNK_LIMIT];
    uint32_t chunk_octets[WORKLOAD_CHUNK_LIMIT];
    uint32_t chunk_count;
} item;

static uint32_t below(workload *self, uint32_t limit)
{
    return cut_random_below(&self->random, limit);
}

void workload_say(workload *self, uint32_t message, promise_what what, uint32_t version)
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

static void release_chunks(workload *self, spool_segment **chunks, const uint32_t *octets_counts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        spool_segment_release(self->on.shard, chunks[i], octets_counts[i]);
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
        workload_say(self, one->message, PROMISE_LEAVING, 0);
        release_chunks(self, one->chunks, one->chunk_octets, one->chunk_count);
    } else {
        workload_say(self, one->message, PROMISE_ACKNOWLEDGED, 0);
        if (self->live_count == WORKLOAD_LIVE_ROOM)
            abort();
        workload_live *made = &self->live[self->live_count++];
        *made = (workload_live){.message = one->message, .home = op->place, .chunk_count = one->chunk_count,
                                .octets_count = (uint64_t)op->place.length + op->body_place.length};
        memcpy(made->chunks, one->chunks, sizeof made->chunks);
        memcpy(made->chunk_octets, one->chunk_octets, sizeof made->chunk_octets);
        made->stays = self->mover.is_on && made->octets_count < PASSING_OCTETS && below(self, 2) == 0;
    }
    free_item(one);
}

static item *submit_envelope(workload *self, uint32_t message)
{
    book_message *of = &self->said.messages[message];
    item *one = new_item(self, SPOOL_ENVELOPE, message, octets_copy(of->envelope->data, of->envelope->length), envelope_done);
    one->op.body = of->is_inline ? of->body : NULL;
    workload_say(self, message, PROMISE_SUBMITTED, 0);
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
            stream->chunk_octets[stream->chunk_count] = op->place.length;
            stream->chunks[stream->chunk_count++] = op->place.segment;
        }
    }
    free_item(one);
}

/* One step of a streamed message: its next chunk, its envelope, or its being given up. */
void workload_step_stream(workload *self, unsigned at)
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
        release_chunks(self, stream->chunks, stream->chunk_octets, stream->chunk_count);
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
        memcpy(one->chunk_octets, stream->chunk_octets, sizeof one->chunk_octets);
        stream->is_used = false;
        spool_shard_submit(self->on.shard, &one->op);
    }
}

/* --- mail out --- */

workload_live *workload_find_live(workload *self, uint32_t message)
{
    for (unsigned i = 0; i < self->live_count; i++)
        if (self->live[i].message == message)
            return &self->live[i];
    return NULL;
}

workload_live *workload_find_live_id(workload *self, uint64_t id)
{
    uint32_t message = book_find(&self->said, id);
    return message == UINT32_MAX ? NULL : workload_find_live(self, message);
}

static uint64_t now_ms(void)
{
    return layer_now_ns() / 1000000;
}

/* How long an outcome may be known and not durable: the shard's own wait, counted from the first turn that sees it and ended by
 * the first one after it. What moves a message holds its outcomes back, and must not do so for longer. */
static void check_window(workload *self, const item *one)
{
    uint64_t waited_ms = now_ms() - one->known_ms;
    uint64_t turn_ms = self->long_turn_ms >= one->known_ms ? LONG_TURN_MS : USUAL_TURN_MS;
    if (self->mover.is_on && waited_ms > SPOOL_LAZY_MS + 2 * turn_ms && self->error[0] == 0)
        snprintf(self->error, sizeof self->error, "message %llx: outcome %u was known for %llu ms before it was durable",
                 (unsigned long long)one->op.id, one->version, (unsigned long long)waited_ms);
}

static void outcome_done(spool_op *op, void *context)
{
    item *one = context;
    workload *self = one->of;
    if (!layer_is_dead()) {
        workload_live *live = workload_find_live(self, one->message);
        live->has_outcome_under_way = false;
        if (op->error != 0) {               /* the next one writes all of it again: workload_write_again() */
            self->refused++;
            live->is_unwritten = true;
        } else {
            workload_say(self, one->message, PROMISE_OUTCOME_DURABLE, one->version);
            live->is_unwritten = false;
            live->state = op->place.segment;
            if (one->known_ms != 0)
                check_window(self, one);
        }
        workload_settle_live(self, live);
    }
    free_item(one);
}

static void write_outcome(workload *self, workload_live *live)
{
    uint64_t id = self->said.messages[live->message].id;
    uint32_t version = live->outcome_known;
    item *one = new_item(self, SPOOL_OUTCOME, live->message, book_outcome(id, version), outcome_done);
    one->version = version;
    one->known_ms = live->known_ms;
    one->op.about = live->home.segment;
    one->op.previous_state = live->state;
    live->has_outcome_under_way = true;
    live->is_dirty = false;
    live->known_ms = 0;
    if (version > self->said.promises[live->message].outcome_submitted)
        workload_say(self, live->message, PROMISE_OUTCOME_SUBMITTED, version);
    spool_shard_submit(self->on.shard, &one->op);
}

static void finish(workload *self, workload_live *live)
{
    workload_live gone = *live;
    *live = self->live[--self->live_count];
    workload_say(self, gone.message, PROMISE_LEAVING, 0);
    spool_shard_free(self->on.shard, self->said.messages[gone.message].id, gone.home.segment, gone.state, gone.octets_count);
    release_chunks(self, gone.chunks, gone.chunk_octets, gone.chunk_count);
}

void workload_settle_live(workload *self, workload_live *live)
{
    if (live->hand_count != 0 || live->has_outcome_under_way)
        return;
    if (live->is_over)
        finish(self, live);
    else if (live->is_dirty)
        write_outcome(self, live);
}

void workload_release(workload *self, uint32_t message)
{
    workload_live *live = workload_find_live(self, message);
    live->hand_count--;
    workload_settle_live(self, live);
}

static void learn_outcome(workload_live *live)
{
    live->outcome_known = ++live->outcome_last;
    live->is_dirty = true;
    if (live->known_ms == 0)
        live->known_ms = now_ms();
}

void workload_defer(workload *self, unsigned at)
{
    workload_live *live = &self->live[at];
    if (live->has_outcome_under_way || live->is_taken || live->is_over)
        return;                         /* what a delivery learns is known when it gives the message back */
    learn_outcome(live);
    workload_settle_live(self, live);
}

void workload_write_again(workload *self)
{
    for (unsigned i = self->live_count; i-- > 0;) {
        self->live[i].is_dirty |= self->live[i].is_unwritten;
        workload_settle_live(self, &self->live[i]);
    }
}

void workload_free(workload *self, unsigned at)
{
    workload_live *live = &self->live[at];
    if (live->has_outcome_under_way)
        return;
    live->is_over = true;
    workload_settle_live(self, live);
}

/* --- deliveries --- */

static void take(workload_live *live)
{
    if (live->is_taken || live->is_over || live->is_dirty)
        return;
    live->is_taken = true;
    live->hand_count++;
}

static void give_back(workload *self, workload_live *live)
{
    if (!live->is_taken)
        return;
    live->is_taken = false;
    switch (below(self, 4)) {
    case 0:
        live->is_over = true;
        break;
    case 1:
    case 2:
        learn_outcome(live);
    }
    workload_release(self, live->message);
}

void workload_meddle(workload *self, uint32_t message)
{
    workload_live *live = workload_find_live(self, message);
    uint32_t what = below(self, 12);
    if (what < 3)
        take(live);
    if (what < 2)
        give_back(self, live);
}

/* --- time --- */

static void note_gone(workload *self)
{
    for (uint32_t i = 0; i < self->said.count; i++)
        if (self->said.promises[i].is_leaving && !self->said.promises[i].is_gone)
            workload_say(self, i, PROMISE_GONE, 0);
}

void workload_turn(workload *self, uint64_t advance_ms)
{
    mover_turn(self);
    if (advance_ms > USUAL_TURN_MS)
        self->long_turn_ms = now_ms() + advance_ms;
    rig_turn(&self->on, advance_ms);
    /* All is handed over and all threads sleep: what was to be freed is durably free. */
    if (!layer_is_dead() && !spool_shard_is_lazy_waiting(self->on.shard))
        note_gone(self);
    spool_notice notice;
    self->was_full |= !spool_shard_has_room(self->on.shard);
    for (; rig_next_trouble(&self->on, &notice); self->reports++)
        if (!self->may_report && !layer_is_dead() && self->error[0] == 0)
            snprintf(self->error, sizeof self->error, "the operator is told: %s", notice.text);
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
        if (about->is_gone)
            continue;                       /* what says so could not be read just now; it will be, and keeps its segment until then */
        uint32_t durable = about->outcome_durable;      /* more than was found when its record could not be read just now */
        workload_say(self, from->message, PROMISE_KEPT, from->outcome_version > durable ? from->outcome_version : durable);
        workload_live *made = &self->live[self->live_count++];
        *made = (workload_live){.message = from->message, .outcome_known = from->outcome_version, .home = from->place,
                                .outcome_last = about->outcome_submitted, .state = from->state_segment,
                                .octets_count = from->place.length, .stays = self->mover.is_on && below(self, 2) == 0};
        spool_envelope view;
        spool_envelope_open(from->envelope->data, from->envelope->length, &view);
        if (view.flags & SPOOL_ENVELOPE_INLINE) {
            made->octets_count += view.message_octets;
            continue;
        }
        for (uint32_t j = 0; j < view.chunk_count; j++) {
            spool_chunk chunk = spool_envelope_chunk(&view, j);
            made->chunk_octets[j] = chunk.length;
            made->chunks[made->chunk_count++] = spool_shard_segment(self->on.shard, chunk.segment_serial);
        }
    }
    for (uint32_t i = 0; i < self->said.count && how != END_STOPPED; i++)
        if (!is_found[i] && !self->said.promises[i].is_gone)
            workload_say(self, i, PROMISE_GONE, 0);
    free(is_found);
}

static bool start_again(workload *self, end_kind how)
{
    rig_findings found = {0};
    self->starts++;
    memset(self->streams, 0, sizeof self->streams);
    mover_forget(self);
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
    mover_stop(self);
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
        workload_step_stream(self, below(self, 3));
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

/* Most of what comes is over soon, and fills segments; some stays, and is freed when there is much of it. */
static void free_some(workload *self)
{
    unsigned staying = 0;
    for (unsigned i = self->live_count; i-- > 0;) {
        workload_live *live = &self->live[i];
        if (live->stays ? ++staying > self->live_wanted || below(self, 60) == 0 : below(self, 2) == 0)
            workload_free(self, i);
    }
}

/* No mail comes, so that nothing but what is moved gives outcomes a commit to ride on, and the same segment stays in use. */
static void compact_quietly(workload *self)
{
    for (int i = 0; i < QUIET_TURNS && !layer_is_dead(); i++) {
        if (self->live_count > 0) {
            workload_live *live = &self->live[below(self, self->live_count)];
            if (live->hand_count > 0)
                workload_meddle(self, live->message);
            else if (below(self, 8) == 0)
                workload_defer(self, (unsigned)(live - self->live));
        }
        for (unsigned at = self->live_count; at-- > 0;)
            if (self->live[at].is_taken && below(self, 4) == 0)
                give_back(self, &self->live[at]);
        workload_turn(self, USUAL_TURN_MS);
    }
}

static bool one_turn_with_compaction(workload *self)
{
    if (self->live_count < WORKLOAD_LIVE_LIMIT - 16) {
        workload_receive(self, PASSING_OCTETS + below(self, 2 * PASSING_OCTETS));
        for (unsigned n = below(self, 3); n > 0; n--)
            workload_receive(self, some_octets(self));
        for (unsigned i = 0; i < 2; i++)
            workload_step_stream(self, i);
    }
    for (unsigned n = below(self, 3); n > 0 && self->live_count > 0; n--)
        workload_defer(self, below(self, self->live_count));
    for (unsigned n = below(self, 3); n > 0 && self->live_count > 0; n--) {
        workload_live *live = &self->live[below(self, self->live_count)];
        if (live->is_taken)
            give_back(self, live);
        else
            take(live);
    }
    workload_turn(self, below(self, 10) == 0 ? LONG_TURN_MS : USUAL_TURN_MS);
    free_some(self);
    workload_turn(self, below(self, 10) == 0 ? LONG_TURN_MS : USUAL_TURN_MS);
    switch (below(self, 30)) {
    case 0:
        return workload_restart(self);
    case 1:
    case 2:
        return end_in_the_middle(self);
    case 3:
    case 4:
        compact_quietly(self);
        return self->error[0] == 0;
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

bool workload_begin_with_compaction(workload *self, uint64_t seed, mover_mutation mutation)
{
    if (!workload_begin(self, seed))
        return false;
    self->mover = (mover){.is_on = true, .mutation = mutation};
    self->usual_octets = 4000;
    self->live_wanted = 24;
    return true;
}

bool workload_run(workload *self, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++)
        if (!(self->mover.is_on ? one_turn_with_compaction : one_turn)(self))
            return false;
    return true;
}

void workload_end(workload *self)
{
    if (self->on.shard != NULL)
        rig_close(&self->on);
    rig_forget_kept(&self->on);
    mover_forget(self);
}
