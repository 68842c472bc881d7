/* Pins: what in a segment is still needed, and when it is over. Loop thread only.
 *
 * Segment B may be recycled when it is sealed, no live envelope or chunk lies in it, and it holds no outcome or freed record
 * that still matters. Such a record in B, about a message whose home is A, matters as long as A's octets could be read by a
 * recovery: until A's header is durably FREE. An outcome also stops mattering when a newer one, or a freed record, about the
 * same message is durable. So B counts, per home A != B, its records about A; A's retirement wipes the count. A home is always
 * older than the records about it, so the oldest segment never waits for another and there is no deadlock.
 */
#include <errno.h>
#include <stdlib.h>

#include "spool/shard.h"

static spool_segment **bucket_of(spool_shard *self, uint32_t serial)
{
    return &self->buckets[serial % (sizeof self->buckets / sizeof self->buckets[0])];
}

spool_segment *spool_shard_segment(spool_shard *self, uint32_t serial)
{
    spool_segment *segment = *bucket_of(self, serial);
    while (segment != NULL && segment->serial != serial)
        segment = segment->next_in_bucket;
    return segment;
}

bool spool_segment_is_sealed(const spool_segment *segment)
{
    return segment->is_sealed;
}

void spool_pins_learn(spool_shard *self, spool_segment *segment)
{
    spool_segment **bucket = bucket_of(self, segment->serial);
    segment->next_in_bucket = *bucket;
    *bucket = segment;
    segment->next_known = self->known;
    self->known = segment;
    SPOOL_COUNT(self, segments, 1);
}

static void forget(spool_shard *self, spool_segment *segment)
{
    spool_segment **at = bucket_of(self, segment->serial);
    while (*at != segment)
        at = &(*at)->next_in_bucket;
    *at = segment->next_in_bucket;
    for (at = &self->known; *at != segment;)
        at = &(*at)->next_known;
    *at = segment->next_known;
    SPOOL_COUNT(self, segments, -1);
    SPOOL_COUNT(self, sealed_segments, -1);
}

void spool_pins_consider(spool_shard *self, spool_segment *segment)
{
    if (!segment->is_sealed || segment->is_retiring || segment->is_broken || self->is_stopped
        || (segment->is_old && !self->is_scan_merged))
        return;
    /* Settled messages whose freed record found no room on a full disk need none when their home goes: without this a full
     * disk could never be emptied. */
    if (segment->live + segment->busy - segment->unwritten != 0 || segment->about.total != 0)
        return;
    segment->is_retiring = true;
    segment->next_retire = NULL;
    pthread_mutex_lock(&self->mutex);
    *self->shared.retire_last = segment;
    self->shared.retire_last = &segment->next_retire;
    if (self->shared.wake_at != 0)
        pthread_cond_signal(&self->commit_wake);
    pthread_mutex_unlock(&self->mutex);
    spool_show(self);
}

void spool_freed_destroy(spool_freed *freed)
{
    free(freed->entries);
    free(freed);
}

/* --- freed records --- */

bool spool_pins_free_entry(spool_shard *self, uint64_t id, spool_segment *home, spool_segment *state, uint32_t kind)
{
    spool_freed *freed = self->freed_pending;
    if (freed == NULL || freed->count == SPOOL_FREED_LIMIT) {
        freed = calloc(1, sizeof *freed);
        if (freed == NULL)
            return false;               /* the pin stays: the message may come back after a restart, it is never lost */
        freed->event.kind = SPOOL_EVENT_FREED;
        freed->next = self->freed_pending;
        self->freed_pending = freed;
    }
    if (freed->count == freed->capacity) {
        uint32_t capacity = freed->capacity == 0 ? 32 : freed->capacity * 2;
        spool_freed_entry *entries = realloc(freed->entries, capacity * sizeof *entries);
        if (entries == NULL)
            return false;
        freed->entries = entries;
        freed->capacity = capacity;
    }
    freed->entries[freed->count++] = (spool_freed_entry){id, home, state, kind};
    if (state != NULL && state != home)
        state->busy++;
    return true;
}

/* What was said of the message is needed until its end is durable, though a compaction has found nothing in there that matters. */
static void let_go_of_state(spool_freed_entry *entry)
{
    if (entry->state != NULL && entry->state != entry->home)
        entry->state->busy--;
}

static void add_about(spool_segment *segment, const spool_segment *home, int32_t n)
{
    /* Memory out while counting up: one is added that nobody takes away, the segment stays until a restart. */
    if (segment != home && spool_counts_add(&segment->about, home->serial, n) != 0 && n > 0)
        segment->is_broken = true;
}

static void add_outcome(spool_segment *segment, const spool_segment *home, int32_t n)
{
    add_about(segment, home, n);
    if (segment != home)
        segment->outcomes += n;
}

/* The compaction that wanted them begins again later. */
static void drop_repeats(spool_shard *self, spool_freed *freed)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < freed->count; i++) {
        spool_freed_entry *entry = &freed->entries[i];
        if (entry->kind == SPOOL_FREE_AGAIN) {
            entry->home->busy--;
            entry->state->repeats--;
            entry->state->has_lost_repeat = true;
            let_go_of_state(entry);
            spool_pins_consider(self, entry->state);
            spool_pins_consider(self, entry->home);
        } else
            freed->entries[kept++] = *entry;
    }
    freed->count = kept;
}

static void freed_failed(spool_shard *self, spool_freed *freed)
{
    drop_repeats(self, freed);
    freed->next = self->unwritten;
    self->unwritten = freed;
    for (uint32_t i = 0; i < freed->count; i++)
        if (freed->entries[i].kind != SPOOL_FREE_CHUNK)
            freed->entries[i].home->unwritten++;
    for (uint32_t i = 0; i < freed->count; i++)
        if (freed->entries[i].kind != SPOOL_FREE_CHUNK)
            spool_pins_consider(self, freed->entries[i].home);
}

static void freed_durable(spool_shard *self, spool_freed *freed)
{
    spool_segment *written = freed->event.place.segment;
    for (uint32_t i = 0; i < freed->count; i++) {
        spool_freed_entry *entry = &freed->entries[i];
        if (entry->kind == SPOOL_FREE_RESCIND || entry->kind == SPOOL_FREE_AGAIN)
            entry->home->busy--;
        else
            entry->home->live--;
        if (entry->kind != SPOOL_FREE_CHUNK)
            add_about(written, entry->home, 1);
        if (entry->kind == SPOOL_FREE_AGAIN)
            entry->state->repeats--;    /* what was repeated stops counting all at once, at the end of the compaction */
        else if (entry->state != NULL)
            add_outcome(entry->state, entry->home, -1);
        let_go_of_state(entry);
    }
    for (uint32_t i = 0; i < freed->count; i++) {
        spool_pins_consider(self, freed->entries[i].home);
        if (freed->entries[i].state != NULL)
            spool_pins_consider(self, freed->entries[i].state);
    }
    spool_freed_destroy(freed);
}

/* The home went without them. Chunks of such messages stay in the list and are given back with it. */
static void drop_unwritten(spool_shard *self, const spool_segment *home)
{
    for (spool_freed *freed = self->unwritten; freed != NULL; freed = freed->next) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < freed->count; i++) {
            spool_freed_entry *entry = &freed->entries[i];
            if (entry->kind == SPOOL_FREE_CHUNK || entry->home != home)
                freed->entries[kept++] = *entry;
            else {
                let_go_of_state(entry);
                if (entry->state != NULL && entry->state != home)
                    spool_pins_consider(self, entry->state);
            }
        }
        freed->count = kept;
    }
}

/* --- what the commit thread tells --- */

static void retired(spool_shard *self, spool_segment *segment, int error)
{
    segment->is_retiring = false;
    spool_segment *victim = segment->awaited_by;
    if (victim != NULL) {
        segment->awaited_by = NULL;
        victim->repeats--;
        victim->has_lost_repeat |= error != 0;
        victim->busy--;
        spool_pins_consider(self, victim);
    }
    if (error != 0) {
        /* Out of descriptors or memory for a moment: considered again with whatever is settled next. */
        segment->is_broken = error != EMFILE && error != ENFILE && error != ENOMEM;
        return;
    }
    forget(self, segment);
    drop_unwritten(self, segment);
    for (spool_segment *other = self->known; other != NULL; other = other->next_known) {
        int64_t before = other->about.total;
        spool_counts_drop(&other->about, segment->serial);
        if (other->about.total != before)
            spool_pins_consider(self, other);
    }
    pthread_mutex_lock(&self->mutex);
    segment->next_closing = self->shared.closing;
    self->shared.closing = segment;
    pthread_cond_signal(&self->reader_wake);
    pthread_mutex_unlock(&self->mutex);
}

static void outcome_done(spool_shard *self, spool_op *op)
{
    op->about->busy--;
    if (op->previous_state != NULL)
        op->previous_state->busy--;
    if (op->error == 0) {
        add_outcome(op->place.segment, op->about, 1);
        if (op->previous_state != NULL)
            add_outcome(op->previous_state, op->about, -1);
    }
    if (op->previous_state != NULL)
        spool_pins_consider(self, op->previous_state);
    spool_pins_consider(self, op->about);
}

void spool_pins_forget_foreign(spool_shard *self, spool_segment *segment)
{
    forget(self, segment);
    SPOOL_COUNT(self, sealed_segments, 1);      /* it never counted as one */
    pthread_mutex_lock(&self->mutex);
    segment->next_closing = self->shared.closing;
    self->shared.closing = segment;
    pthread_cond_signal(&self->reader_wake);
    pthread_mutex_unlock(&self->mutex);
}

static void add_live(spool_segment *segment, int64_t count, uint64_t octets)
{
    segment->live += count;
    segment->live_octets += (int64_t)octets;
}

/* Told when it is known, not when it is durable: it is a measure for compaction, not a pin. */
static void subtract_octets(spool_segment *segment, uint64_t octets)
{
    segment->live_octets -= (int64_t)octets;
    if (segment->live_octets < 0)
        segment->live_octets = 0;
}

static void envelope_done(spool_shard *self, spool_op *op)
{
    if (op->error == 0)
        add_live(op->place.segment, 1, (uint64_t)op->place.length + op->body_place.length);
    else if (op->place.segment != NULL) {
        /* The write failed, yet its octets may be on the disk, whole. The sender is told to try again: say durably that this
         * copy is void, or a restart would deliver it twice. */
        op->place.segment->busy++;
        spool_pins_free_entry(self, op->id, op->place.segment, NULL, SPOOL_FREE_RESCIND);
    }
}

void spool_pins_take(spool_shard *self, spool_op *op)
{
    spool_segment *segment = op->place.segment;
    switch (op->kind) {
    case SPOOL_EVENT_OPENED:
        spool_pins_learn(self, segment);
        return;
    case SPOOL_EVENT_SEALED:
        segment->is_sealed = true;
        segment->sealed_ms = spool_mono_ns() / 1000000;
        SPOOL_COUNT(self, sealed_segments, 1);
        spool_pins_consider(self, segment);
        return;
    case SPOOL_EVENT_RETIRED:
        retired(self, segment, op->error);
        return;
    case SPOOL_EVENT_FREED:
        if (op->error != 0)
            freed_failed(self, (spool_freed *)op);
        else
            freed_durable(self, (spool_freed *)op);
        return;
    case SPOOL_BODY:
        if (op->error == 0)
            add_live(segment, 1, op->place.length);
        break;
    case SPOOL_ENVELOPE:
        envelope_done(self, op);
        break;
    case SPOOL_OUTCOME:
        outcome_done(self, op);
        break;
    default:
        break;
    }
    if (op->error != 0)
        op->place = op->body_place = (spool_place){0};
}

void spool_pins_scan_over(spool_shard *self)
{
    self->is_scan_merged = true;
    for (spool_segment *segment = self->known; segment != NULL; segment = segment->next_known) {
        segment->is_broken |= segment->is_unread;
        for (uint32_t i = 0; i < segment->scan_about.capacity; i++) {
            spool_count found = segment->scan_about.entries[i];
            if (found.serial != 0 && found.count > 0 && spool_counts_add(&segment->about, found.serial, found.count) != 0)
                segment->is_broken = true;
        }
        spool_counts_clear(&segment->scan_about);
    }
    for (spool_segment *segment = self->known; segment != NULL; segment = segment->next_known)
        spool_pins_consider(self, segment);
}

void spool_segment_release(spool_shard *self, spool_segment *segment, uint64_t octets)
{
    if (self->is_stopped)
        return;
    subtract_octets(segment, octets);
    spool_pins_free_entry(self, 0, segment, NULL, SPOOL_FREE_CHUNK);
}

void spool_shard_free(spool_shard *self, uint64_t id, spool_segment *home, spool_segment *state, uint64_t octets)
{
    if (self->is_stopped)
        return;
    subtract_octets(home, octets);
    spool_pins_free_entry(self, id, home, state, SPOOL_FREE_MESSAGE);
}

/* Another copy is the message. Said durably: else this one came back once the newer were gone. A copy cut short (its envelope has
 * been read) needs its chunks until then: an outcome that is written of the message meanwhile, and reaches the disk without this
 * word, makes it complete for the next start. */
static void take_stale(spool_shard *self, const spool_found *found)
{
    found->home->live++;
    spool_pins_free_entry(self, found->id, found->home, NULL, SPOOL_FREE_MESSAGE);
    spool_envelope envelope;
    if (found->envelope == NULL || spool_envelope_open(found->envelope->data, found->envelope->length, &envelope) != 0
        || envelope.flags & SPOOL_ENVELOPE_INLINE)
        return;
    for (uint32_t i = 0; i < envelope.chunk_count; i++) {
        spool_segment *segment = spool_shard_segment(self, spool_envelope_chunk(&envelope, i).segment_serial);
        if (segment == NULL)
            continue;
        segment->live++;
        spool_pins_free_entry(self, 0, segment, NULL, SPOOL_FREE_CHUNK);
    }
}

/* Of a message found at start, as if it had been committed now. */
void spool_pins_take_found(spool_shard *self, const spool_found *found)
{
    if (found->is_stale) {
        take_stale(self, found);
        return;
    }
    add_live(found->home, 1, found->envelope->length);
    if (found->state_segment != NULL && found->state_segment != found->home
        && spool_counts_add(&found->state_segment->about, found->home->serial, 1) != 0)
        found->state_segment->is_broken = true;
    spool_envelope envelope;
    if (spool_envelope_open(found->envelope->data, found->envelope->length, &envelope) != 0)
        return;
    if (envelope.flags & SPOOL_ENVELOPE_INLINE) {
        add_live(found->home, 0, envelope.message_octets);
        return;
    }
    for (uint32_t i = 0; i < envelope.chunk_count; i++) {
        spool_chunk chunk = spool_envelope_chunk(&envelope, i);
        spool_segment *segment = spool_shard_segment(self, chunk.segment_serial);
        if (segment != NULL)
            add_live(segment, 1, chunk.length);
    }
}
