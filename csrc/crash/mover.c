#include "crash/mover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crash/workload.h"
#include "spool/bytes.h"
#include "spool/format.h"
#include "spool/table.h"

enum {
    MOVES = 8,                      /* messages on their way at once */
    SLICE = 40,                     /* records of the index looked at in one turn */
    OLD_ENOUGH_MS = 3600000,        /* a segment sealed just now is not too young */
    LOOK_MS = 30,
    SETTLE_MS = 20,
    BUSY_AGAIN_MS = 200,
};

typedef struct move {               /* one message on its way; the message is held */
    spool_op op;
    spool_read_op read;
    workload *of;
    uint32_t message, version;      /* version: of the outcome written behind the copy */
    octets *envelope, *piece, *outcome;
    spool_place home, body;         /* of the copy, once it is durable */
    spool_segment *state;
    bool has_outcome, is_old_freed;
    spool_place chunks[WORKLOAD_CHUNK_LIMIT];
    uint32_t chunk_count, chunk;
} move;

typedef struct segment_read {       /* the index, or a freed record, of the victim */
    spool_read_op op;
    workload *of;
} segment_read;

static uint64_t now_ms(void)
{
    return layer_now_ns() / 1000000;
}

static workload_live *live_of(const move *one)
{
    return workload_find_live(one->of, one->message);
}

static void next_chunk(move *one);
static void write_envelope(move *one, octets *body);
static void write_outcome(move *one);
static void conclude(move *one);
static void discard(move *one);

/* --- the end of a move --- */

static void drop(move *one)
{
    octets_unref(one->envelope);
    octets_unref(one->piece);
    octets_unref(one->outcome);
    free(one);
}

static void over(move *one)
{
    workload *self = one->of;
    uint32_t message = one->message;
    drop(one);
    workload_release(self, message);
    self->mover.under_way--;
}

static void give_up(move *one, int error)
{
    if (error == EBADMSG || error == EIO)
        one->of->mover.is_damaged = true;
    discard(one);
}

static void note_given_up(mover *at, uint64_t id, uint32_t home)
{
    mover_given_up *more = realloc(at->given_up, (at->given_up_count + 1) * sizeof *more);
    if (more == NULL)
        abort();
    at->given_up = more;
    more[at->given_up_count++] = (mover_given_up){id, home};
}

/* The old copy stays the message: the new one is over. */
static void discard(move *one)
{
    workload *self = one->of;
    workload_live *live = live_of(one);
    self->mover.figures.given_up++;
    if (one->home.segment != NULL) {
        note_given_up(&self->mover, self->said.messages[one->message].id, spool_segment_serial(one->home.segment));
        spool_shard_free(self->on.shard, self->said.messages[one->message].id, one->home.segment, one->state,
                         (uint64_t)one->home.length + one->body.length);
        if (one->state != NULL)
            live->is_dirty = true;
    }
    for (uint32_t i = 0; i < one->chunk; i++)
        spool_segment_release(self->on.shard, one->chunks[i].segment, one->chunks[i].length);
    over(one);
}

static void free_old(move *one)
{
    workload *self = one->of;
    workload_live *live = live_of(one);
    spool_shard_free(self->on.shard, self->said.messages[one->message].id, live->home.segment, live->state, live->octets_count);
    for (uint32_t i = 0; i < live->chunk_count; i++)
        spool_segment_release(self->on.shard, live->chunks[i], live->chunk_octets[i]);
    one->is_old_freed = true;
}

/* The copy is durable, with its outcome. It becomes the message, if nobody has begun anything with the old one. */
static void conclude(move *one)
{
    workload *self = one->of;
    workload_live *live = live_of(one);
    if (live->hand_count != 1 || live->has_outcome_under_way || live->is_over) {
        discard(one);
        return;
    }
    if (!one->is_old_freed)
        free_old(one);
    for (uint32_t i = 0; i < one->chunk_count; i++)
        live->chunks[i] = one->chunks[i].segment;
    live->home = one->home;
    live->state = one->state;
    if (one->version > self->said.promises[one->message].outcome_durable)
        workload_say(self, one->message, PROMISE_OUTCOME_DURABLE, one->version);
    self->mover.figures.moved++;
    self->mover.figures.moved_with_outcome += one->state != NULL;
    self->mover.figures.moved_in_chunks += one->chunk_count != 0;
    over(one);
}

/* --- its steps, each when the one before is durable --- */

static void submit(move *one, uint8_t kind, octets *payload, octets *body, spool_done done)
{
    one->op = (spool_op){.kind = kind, .id = one->of->said.messages[one->message].id, .payload = payload, .body = body,
                         .is_copy = one->of->mover.mutation != MOVER_LAZY_COPIES || kind != SPOOL_OUTCOME, .done = done,
                         .context = one};
    if (kind == SPOOL_OUTCOME)
        one->op.about = one->home.segment;
    spool_shard_submit(one->of->on.shard, &one->op);
}

static void read_record(move *one, uint8_t kind, uint32_t run_offset, spool_place place,
                        void (*done)(spool_read_op *, void *))
{
    one->read = (spool_read_op){.place = place, .wanted = {kind, one->of->said.messages[one->message].id, run_offset}, .done = done,
                                .context = one};
    spool_shard_read(one->of->on.shard, &one->read);
}

static void outcome_written(spool_op *op, void *context)
{
    move *one = context;
    if (layer_is_dead()) {
        drop(one);
        return;
    }
    live_of(one)->has_outcome_under_way = false;
    if (op->error != 0) {
        give_up(one, op->error);
        return;
    }
    one->state = op->place.segment;
    workload_meddle(one->of, one->message);
    conclude(one);
}

static void write_outcome(move *one)
{
    workload *self = one->of;
    workload_live *live = live_of(one);
    if (live->state == NULL || (self->mover.mutation == MOVER_WITHOUT_OUTCOME && live->hand_count == 1)) {
        conclude(one);
        return;
    }
    if (live->hand_count != 1 || live->has_outcome_under_way || !one->has_outcome) {
        discard(one);
        return;
    }
    one->version = live->outcome_known;
    one->outcome = book_outcome(self->said.messages[one->message].id, one->version);
    live->has_outcome_under_way = true;
    if (one->version > self->said.promises[one->message].outcome_submitted)
        workload_say(self, one->message, PROMISE_OUTCOME_SUBMITTED, one->version);
    submit(one, SPOOL_OUTCOME, one->outcome, NULL, outcome_written);
}

static void envelope_written(spool_op *op, void *context)
{
    move *one = context;
    if (layer_is_dead()) {
        drop(one);
        return;
    }
    if (op->error != 0) {
        give_up(one, op->error);
        return;
    }
    one->home = op->place;
    one->body = op->body_place;
    workload_meddle(one->of, one->message);
    write_outcome(one);
}

static void write_envelope(move *one, octets *body)
{
    workload_say(one->of, one->message, PROMISE_COPY_SUBMITTED, 0);
    if (one->of->mover.mutation == MOVER_FREES_EARLY)
        free_old(one);
    submit(one, SPOOL_ENVELOPE, one->envelope, body, envelope_written);
}

static void chunk_written(spool_op *op, void *context)
{
    move *one = context;
    if (layer_is_dead()) {
        drop(one);
        return;
    }
    octets_unref(one->piece);
    one->piece = NULL;
    if (op->error != 0) {
        give_up(one, op->error);
        return;
    }
    one->chunks[one->chunk] = op->place;
    spool_envelope_set_chunk(one->envelope->data, one->chunk++,
                             (spool_chunk){spool_segment_serial(op->place.segment), op->place.offset, op->place.length});
    workload_meddle(one->of, one->message);
    next_chunk(one);
}

static void chunk_read(spool_read_op *op, void *context)
{
    move *one = context;
    uint64_t before = 0;
    one->piece = op->out;
    if (layer_is_dead()) {
        drop(one);
        return;
    }
    if (op->error != 0) {
        give_up(one, op->error);
        return;
    }
    for (uint32_t i = 0; i < one->chunk; i++)
        before += one->chunks[i].length;
    submit(one, SPOOL_BODY, one->piece, NULL, chunk_written);
    one->op.aux = before;
}

static void next_chunk(move *one)
{
    spool_envelope view;
    if (one->of->mover.is_stopping) {
        discard(one);
        return;
    }
    if (one->chunk == one->chunk_count) {
        write_envelope(one, NULL);
        return;
    }
    spool_envelope_open(one->envelope->data, one->envelope->length, &view);
    spool_chunk chunk = spool_envelope_chunk(&view, one->chunk);
    read_record(one, SPOOL_BODY, spool_envelope_chunk_position(&view, one->chunk),
                (spool_place){live_of(one)->chunks[one->chunk], chunk.offset, chunk.length}, chunk_read);
}

static void body_read(spool_read_op *op, void *context)
{
    move *one = context;
    one->piece = op->out;
    if (layer_is_dead())
        drop(one);
    else if (op->error != 0)
        give_up(one, op->error);
    else
        write_envelope(one, op->out);
}

static void envelope_read(spool_read_op *op, void *context)
{
    move *one = context;
    spool_envelope view;
    one->envelope = op->out;
    if (layer_is_dead()) {
        drop(one);
        return;
    }
    if (op->error != 0 || spool_envelope_open(op->out->data, op->out->length, &view) != 0) {
        give_up(one, op->error != 0 ? op->error : EBADMSG);
        return;
    }
    workload_live *live = live_of(one);
    one->has_outcome = live->state != NULL;
    spool_envelope_mark_copy(one->envelope->data, one->has_outcome);
    if (view.flags & SPOOL_ENVELOPE_INLINE) {
        spool_chunk chunk = spool_envelope_chunk(&view, 0);
        read_record(one, SPOOL_BODY, 0, (spool_place){live->home.segment, chunk.offset, chunk.length}, body_read);
    } else if (view.chunk_count != one->chunk_count)
        give_up(one, EBADMSG);
    else
        next_chunk(one);
}

static bool is_sealed(workload *self, uint32_t serial)
{
    const spool_segment *segment = spool_shard_segment(self->on.shard, serial);
    return segment == NULL || spool_segment_is_sealed(segment);
}

/* Freed records name a message and its home: no copy may lie where another has lain. */
static bool may_move(workload *self, const workload_live *live, uint64_t id)
{
    const mover *at = &self->mover;
    if (at->mutation != MOVER_INTO_ITS_HOME && !spool_segment_is_sealed(live->home.segment))
        return false;
    for (unsigned i = 0; i < at->given_up_count; i++)
        if (at->given_up[i].id == id && at->mutation != MOVER_AGAIN_TOO_SOON && !is_sealed(self, at->given_up[i].home))
            return false;
    return true;
}

static void begin_move(workload *self, workload_live *live)
{
    move *one = calloc(1, sizeof *one);
    one->of = self;
    one->message = live->message;
    one->chunk_count = live->chunk_count;
    self->mover.under_way++;
    live->hand_count++;
    read_record(one, SPOOL_ENVELOPE, 0, live->home, envelope_read);
}

/* --- a victim and its records --- */

static void end(workload *self, bool is_moved)
{
    mover *at = &self->mover;
    if (is_moved && !at->is_left_over)
        at->figures.emptied++;
    else
        at->figures.postponed++;
    spool_shard_victim_done(self->on.shard, at->victim, is_moved, now_ms() + OLD_ENOUGH_MS + BUSY_AGAIN_MS);
    at->victim = NULL;
    octets_unref(at->index);
    at->index = NULL;
    at->due_ms = now_ms() + (is_moved ? 1 : LOOK_MS);
}

static void read_of_victim(workload *self, spool_place place, bool wants_index, void (*done)(spool_read_op *, void *))
{
    segment_read *made = calloc(1, sizeof *made);
    *made = (segment_read){{.place = place, .wants_index = wants_index, .done = done, .context = made}, self};
    self->mover.under_way++;
    spool_shard_read(self->on.shard, &made->op);
}

static void index_read(spool_read_op *op, void *context)
{
    segment_read *reading = context;
    workload *self = reading->of;
    mover *at = &self->mover;
    octets *index = op->out;
    int error = op->error;
    free(reading);
    at->under_way--;
    if (layer_is_dead() || error != 0) {
        octets_unref(index);
        at->is_damaged = true;
        if (!layer_is_dead())
            end(self, false);
        return;
    }
    at->index = index;
    at->count = load32(index->data);
    at->cursor = 0;
}

static void look(workload *self)
{
    mover *at = &self->mover;
    unsigned kept = 0;
    for (unsigned i = 0; i < at->given_up_count; i++)
        if (!is_sealed(self, at->given_up[i].home))
            at->given_up[kept++] = at->given_up[i];
    at->given_up_count = kept;
    at->victim = spool_shard_victim(self->on.shard, now_ms() + OLD_ENOUGH_MS, false);
    at->due_ms = now_ms() + LOOK_MS;
    if (at->victim == NULL)
        return;
    at->is_damaged = at->is_left_over = at->is_settling = false;
    read_of_victim(self, (spool_place){at->victim, 0, 0}, true, index_read);
}

static void freed_read(spool_read_op *op, void *context)
{
    segment_read *reading = context;
    workload *self = reading->of;
    if (op->error != 0)
        self->mover.is_damaged = true;
    else if (!layer_is_dead() && self->mover.mutation != MOVER_WITHOUT_REPEATS)
        for (size_t at = 0; at + SPOOL_FREED_ENTRY_OCTETS <= op->out->length; at += SPOOL_FREED_ENTRY_OCTETS) {
            uint32_t home = load32(op->out->data + at + 8);
            self->mover.figures.repeats += home != spool_segment_serial(self->mover.victim)
                                           && spool_shard_segment(self->on.shard, home) != NULL;
            spool_shard_free_again(self->on.shard, load64(op->out->data + at), home, self->mover.victim);
        }
    octets_unref(op->out);
    free(reading);
    self->mover.under_way--;
}

static bool has_chunk_in(const workload_live *live, const spool_segment *segment)
{
    for (uint32_t i = 0; i < live->chunk_count; i++)
        if (live->chunks[i] == segment)
            return true;
    return false;
}

static void step(workload *self)
{
    mover *at = &self->mover;
    for (unsigned looked = 0; at->cursor < at->count;) {
        if (at->under_way >= MOVES || ++looked > SLICE)
            return;
        spool_index_entry entry = spool_index_at(at->index->data, at->cursor++);
        if (entry.kind == SPOOL_FREED) {
            if (!spool_segment_frees_others(at->victim, entry.offset))
                continue;
            read_of_victim(self, (spool_place){at->victim, entry.offset, entry.length}, false, freed_read);
            continue;
        }
        workload_live *live = workload_find_live_id(self, entry.id);
        if (live == NULL || live->hand_count != 0 || live->has_outcome_under_way)
            continue;
        if ((entry.kind == SPOOL_ENVELOPE && live->home.segment == at->victim)
            || (entry.kind == SPOOL_BODY && has_chunk_in(live, at->victim))) {
            if (may_move(self, live, entry.id))
                begin_move(self, live);
        } else if (entry.kind == SPOOL_OUTCOME && live->state == at->victim && live->home.segment != at->victim) {
            live->is_dirty = true;
            at->figures.outcomes++;
            workload_settle_live(self, live);
        }
    }
    if (at->under_way == 0) {
        at->is_settling = true;
        at->due_ms = now_ms() + SETTLE_MS;
    }
}

/* What was moved must be durable, and no newest outcome may be left in the victim. */
static void settle(workload *self)
{
    mover *at = &self->mover;
    int64_t repeats = spool_shard_repeats_under_way(at->victim);
    at->due_ms = now_ms() + SETTLE_MS;
    if (at->is_damaged || repeats < 0) {
        end(self, false);
        return;
    }
    if (repeats > 0)
        return;
    for (at->cursor = 0; at->cursor < at->count; at->cursor++) {
        spool_index_entry entry = spool_index_at(at->index->data, at->cursor);
        const workload_live *live = entry.kind == SPOOL_FREED ? NULL : workload_find_live_id(self, entry.id);
        if (live == NULL)
            continue;
        if (live->state == at->victim) {
            if (!live->has_outcome_under_way)
                end(self, false);
            return;                     /* it is being written again: look once more */
        }
        if (live->home.segment == at->victim || (entry.kind == SPOOL_BODY && has_chunk_in(live, at->victim)))
            at->is_left_over = true;
    }
    end(self, true);
}

void mover_turn(workload *self)
{
    mover *at = &self->mover;
    if (!at->is_on || at->is_stopping || layer_is_dead())
        return;
    if (at->victim != NULL && !at->is_settling) {
        if (at->index != NULL)
            step(self);
    } else if (now_ms() >= at->due_ms)
        (at->victim == NULL ? look : settle)(self);
}

void mover_stop(workload *self)
{
    mover *at = &self->mover;
    if (!at->is_on)
        return;
    at->is_stopping = true;
    while (at->under_way > 0)
        workload_turn(self, 10);
    if (at->victim != NULL)
        end(self, false);
}

void mover_forget(workload *self)
{
    mover *at = &self->mover;
    octets_unref(at->index);
    free(at->given_up);
    *at = (mover){.is_on = at->is_on, .mutation = at->mutation, .figures = at->figures};
}

/* --- recovery, confused: the table of what was said about which copy is put under it at link time --- */

enum { SOME_HOME = -3 };

static bool is_confused_now;

void mover_confuse_homes(bool is_confused)
{
    is_confused_now = is_confused;
}

static uint32_t confused(uint32_t home)
{
    bool is_special = home == SPOOL_ANY_HOME || home == (uint32_t)SPOOL_COPY_FOUND || home == (uint32_t)SPOOL_COPY_DOUBTFUL;
    return is_confused_now && !is_special ? (uint32_t)SOME_HOME : home;
}

spool_newest *__real_spool_ids_put(spool_ids *self, uint64_t id, uint32_t home);
spool_newest *__wrap_spool_ids_put(spool_ids *self, uint64_t id, uint32_t home);
spool_newest *__wrap_spool_ids_put(spool_ids *self, uint64_t id, uint32_t home)
{
    return __real_spool_ids_put(self, id, confused(home));
}

spool_newest *__real_spool_ids_find(const spool_ids *self, uint64_t id, uint32_t home);
spool_newest *__wrap_spool_ids_find(const spool_ids *self, uint64_t id, uint32_t home);
spool_newest *__wrap_spool_ids_find(const spool_ids *self, uint64_t id, uint32_t home)
{
    return __real_spool_ids_find(self, id, confused(home));
}
