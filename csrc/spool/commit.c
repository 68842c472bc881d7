/* The commit thread: takes what the loop handed over, lays it out in batches, writes each batch with one synced write, and
 * says so. It is the only writer of records. What it is not: it decides nothing about pins; see pins.c.
 *
 * One batch = one run of whole sectors, written once. A later batch starts in a new sector, so that a sector that holds
 * acknowledged octets is never written again and a torn write cannot harm them.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "spool/bytes.h"
#include "spool/shard.h"

enum {
    STAGING_OCTETS = 1 << 20,
    RESERVE_LIMIT_OCTETS = 4 << 20,     /* of a segment kept for outcomes and freed ids when no other can be had */
    COMPANY_TRANSACTIONS = 8,           /* fewer than this and nobody waits */
    RETRY_MS = 1000,                    /* after a failed allocation */
    NEAR_NS = 40000,                    /* ops that come so soon are looked out for, not slept for */
    GAP_LIMIT_NS = 1000000,             /* of one gap that counts for the next */
};

typedef struct work {
    spool_op_list ops;
    spool_freed *freed;
    spool_segment *retire;
    bool is_stopping;
} work;

uint64_t spool_mono_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- when to sync --- */

/* How many ops to wait for before the deadline `*until_ns`; 0: sync at once.
 *
 * A sync costs about 41 us of CPU and 100 us of disk whatever it covers, a message that waits costs latency. With few
 * transactions active nobody else can be about to finish, and a lone session must not wait for company that never comes. With
 * many, the next ops are microseconds away: the batch goes when a quarter of the active have submitted (they arrive in waves,
 * released by the previous sync; waiting for all would wait for the slowest) or window_us after the last sync's end. Both
 * numbers were chosen by trying; messages/s against CPU at 20 and 100 sessions is what would change them. */
static uint32_t company_wanted(spool_shard *self, uint32_t op_count, uint64_t *until_ns)
{
    uint32_t active = __atomic_load_n(&self->expected, __ATOMIC_RELAXED);
    if (active < COMPANY_TRANSACTIONS || op_count >= active / 4)
        return 0;
    *until_ns = self->commit.last_sync_ns + (uint64_t)self->options.window_us * 1000;
    return spool_mono_ns() < *until_ns ? active / 4 : 0;
}

/* Until when new mail waits, so that compaction keeps up: as long after the sync of the last one as its octets take at the pace
 * of spool_shard_hold_ns(). One session's messages come no faster than that; a flood's do. */
static uint64_t held_until_ns(const spool_shard *self)
{
    return self->commit.mail_sync_ns + self->commit.mail_octets * spool_shard_hold_ns(self);
}

static bool is_new_mail(const spool_op *op)
{
    return op->kind != SPOOL_OUTCOME && !op->is_copy;
}

/* Mutex held. What compaction moves, and outcomes, wait for nobody: they are what makes room. */
static void take_others(spool_shard *self, spool_op_list *others)
{
    spool_op_list mail;
    spool_ops_clear(&mail);
    self->shared.op_count = 0;
    for (spool_op *op = self->shared.ops.first, *next; op != NULL; op = next) {
        next = op->next;
        spool_ops_append(is_new_mail(op) ? &mail : others, op);
        self->shared.op_count += is_new_mail(op);
    }
    spool_ops_clear(&self->shared.ops);
    spool_ops_join(&self->shared.ops, &mail);
}

static void take_all(spool_shard *self, spool_op_list *all)
{
    spool_ops_join(all, &self->shared.ops);
    self->shared.op_count = 0;
    self->commit.mail_octets = 0;
    if (self->commit.held_since_ns != 0) {
        SPOOL_COUNT(self, held_us, (spool_mono_ns() - self->commit.held_since_ns) / 1000);
        self->commit.held_since_ns = 0;
    }
}

static bool wants_next(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    if (commit->next_state == SPOOL_NEXT_READY)
        return false;
    if (commit->next_state == SPOOL_NEXT_FILLING)
        return true;
    bool is_out_of_space = commit->next_error != EMFILE && commit->next_error != ENFILE && commit->next_error != ENOMEM;
    if (commit->next_retry_ms != 0 && spool_mono_ns() / 1000000 < commit->next_retry_ms
        && (commit->free_slots.count == 0 || !is_out_of_space))
        return false;
    return commit->current == NULL || commit->current->end * 2 > commit->current->octets;
}

static void wait_until(spool_shard *self, uint64_t until_ns)
{
    struct timespec until = {(time_t)(until_ns / 1000000000u), (long)(until_ns % 1000000000u)};
    pthread_cond_timedwait(&self->commit_wake, &self->mutex, &until);
}

/* Idle, mutex held: until something is handed over, or it has taken twice as long as lately.
 *
 * To sleep and to be woken costs some 10 us on each side, about as much as writers need that submit anew as soon as they are
 * told. Only such a gap is waited for awake, and whoever else wants this core has it (sched_yield). Where messages come from
 * a network the gap is longer, or there is none. */
static void look_out(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    if (commit->usual_gap_ns > NEAR_NS)
        return;
    uint64_t until_ns = commit->idle_since_ns + 2 * commit->usual_gap_ns;
    uint32_t seen = __atomic_load_n(&self->handed_over, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&self->mutex);
    while (__atomic_load_n(&self->handed_over, __ATOMIC_RELAXED) == seen && spool_mono_ns() < until_ns)
        sched_yield();
    pthread_mutex_lock(&self->mutex);
}

/* An eighth of what is new: one long gap ends the looking out, some twenty short ones begin it again. */
static void learn_gap(spool_committer *commit)
{
    uint64_t gap_ns = spool_mono_ns() - commit->idle_since_ns;
    if (gap_ns > GAP_LIMIT_NS)
        gap_ns = GAP_LIMIT_NS;
    commit->usual_gap_ns = commit->usual_gap_ns - commit->usual_gap_ns / 8 + gap_ns / 8;
    commit->idle_since_ns = 0;
}

static work take_work(spool_shard *self)
{
    work taken = {0};
    spool_ops_clear(&taken.ops);
    bool wants = wants_next(self);
    pthread_mutex_lock(&self->mutex);
    while (!self->shared.is_stopping) {
        uint64_t until_ns = 0;
        uint32_t wanted = 0;
        if (self->shared.ops.first != NULL) {
            wanted = company_wanted(self, self->shared.op_count, &until_ns);
            uint64_t held_ns = held_until_ns(self), now_ns = spool_mono_ns();
            if (held_ns > now_ns) {
                take_others(self, &taken.ops);
                if (self->commit.held_since_ns == 0 && self->shared.ops.first != NULL)
                    self->commit.held_since_ns = now_ns;
                if (taken.ops.first != NULL)
                    break;
                until_ns = held_ns;
                wanted = 1;                     /* one of the others may come */
            } else if (wanted == 0) {
                take_all(self, &taken.ops);
                break;
            }
        } else if (self->shared.freed != NULL || self->shared.retire != NULL || wants)
            break;
        if (wanted == 0 && self->commit.next_retry_ms == 0 && self->commit.idle_since_ns == 0) {
            self->commit.idle_since_ns = spool_mono_ns();
            look_out(self);
            continue;
        }
        self->shared.wake_at = wanted != 0 ? wanted : 1;
        if (wanted != 0)
            wait_until(self, until_ns);
        else if (self->commit.next_retry_ms != 0) {
            wait_until(self, self->commit.next_retry_ms * 1000000);
            wants = wants_next(self);
        } else
            pthread_cond_wait(&self->commit_wake, &self->mutex);
    }
    self->shared.wake_at = 0;
    if (self->shared.is_stopping)
        take_all(self, &taken.ops);
    taken.freed = self->shared.freed;
    self->shared.freed = NULL;
    self->shared.freed_last = &self->shared.freed;
    taken.retire = self->shared.retire;
    self->shared.retire = NULL;
    self->shared.retire_last = &self->shared.retire;
    taken.is_stopping = self->shared.is_stopping;
    pthread_mutex_unlock(&self->mutex);
    if (self->commit.idle_since_ns != 0)
        learn_gap(&self->commit);
    return taken;
}

static void post_finished(spool_shard *self)
{
    if (self->commit.finished.first == NULL)
        return;
    pthread_mutex_lock(&self->mutex);
    spool_ops_join(&self->shared.done, &self->commit.finished);
    spool_unlock_and_signal(self);
}

/* --- room --- */

static uint64_t reserve_octets(const spool_segment *segment)
{
    uint64_t part = segment->octets / 16;
    return part < RESERVE_LIMIT_OCTETS ? part : RESERVE_LIMIT_OCTETS;
}

/* Where the segment would end if `need` octets in `entries` records were added to the batch and it were sealed then. */
static uint64_t end_with(const spool_shard *self, const spool_segment *segment, uint64_t need, uint32_t entries)
{
    uint32_t alignment = self->commit.alignment;
    return spool_align(segment->end + self->commit.staged + need, alignment)
         + spool_align(spool_record_size(spool_index_octets((uint64_t)segment->index_count + entries)), alignment)
         + SPOOL_HEADER_OCTETS;
}

static void update_room(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    bool is_full = commit->next_state == SPOOL_NEXT_NONE && commit->next_retry_ms != 0
        && (commit->current == NULL
            || end_with(self, commit->current, 2 * reserve_octets(commit->current), 0) > commit->current->octets);
    __atomic_store_n(&self->is_full, is_full, __ATOMIC_RELAXED);
}

static int prepare_result(spool_shard *self, int error)
{
    spool_committer *commit = &self->commit;
    if (error != 0) {
        if (commit->next_retry_ms == 0)
            spool_report(self, "shard %s: no new segment: %s; new mail gets 452 until there is room", self->name,
                         strerror(error));
        commit->next_retry_ms = spool_mono_ns() / 1000000 + RETRY_MS;
        commit->next_error = error;
    } else if (commit->next_state != SPOOL_NEXT_NONE)
        commit->next_retry_ms = 0;
    SPOOL_GAUGE(self, free_segments, commit->free_slots.count);
    update_room(self);
    return error;
}

static void prepare_step(spool_shard *self)
{
    if (!wants_next(self))
        return;
    if (self->commit.next_state == SPOOL_NEXT_NONE)
        prepare_result(self, spool_segment_prepare_begin(self));
    else
        prepare_result(self, spool_segment_prepare_fill(self));
}

/* --- batches --- */

static void segment_over(spool_shard *self)
{
    spool_segment *segment = self->commit.current;
    close(segment->fd);
    segment->fd = -1;
    free(segment->index);
    segment->index = NULL;
    self->commit.current = NULL;
    spool_ops_append(&self->commit.finished, &segment->sealed);
}

static void flush(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    spool_segment *segment = commit->current;
    int error = 0;
    if (commit->staged != 0) {
        size_t padded = spool_align(commit->staged, commit->alignment);
        memset(commit->staging + commit->staged, 0, padded - commit->staged);
        uint64_t before_ns = spool_mono_ns();
        error = spool_write_durable(self, segment->fd, commit->staging, padded, segment->end);
        commit->last_sync_ns = spool_mono_ns();
        uint32_t took_us = (uint32_t)((commit->last_sync_ns - before_ns) / 1000);
        SPOOL_GAUGE(self, commit_us_last, took_us);
        if (took_us > __atomic_load_n(&self->counts.commit_us_max, __ATOMIC_RELAXED))
            SPOOL_GAUGE(self, commit_us_max, took_us);
        if (error == 0) {
            segment->end += padded;
            segment->record_count = segment->index_count;
            SPOOL_COUNT(self, commits, 1);
            SPOOL_COUNT(self, octets_written, padded);
        } else {
            SPOOL_COUNT(self, write_errors, 1);
            spool_report(self, "shard %s segment %u: write at %llu failed: %s; segment sealed, mail of this batch refused",
                         self->name, segment->serial, (unsigned long long)segment->end, strerror(error));
        }
        commit->staged = 0;
    }

    for (spool_op *op = commit->batch.first; op != NULL; op = op->next) {
        op->error = error;
        if (!is_new_mail(op))
            continue;
        commit->mail_octets += op->payload->length + (op->body != NULL ? op->body->length : 0);
        commit->mail_sync_ns = commit->last_sync_ns;
    }
    spool_ops_join(&commit->finished, &commit->batch);
    while (commit->batch_freed != NULL) {
        spool_freed *freed = commit->batch_freed;
        commit->batch_freed = freed->next;
        freed->event.error = error;
        spool_ops_append(&commit->finished, &freed->event);
    }
    if (error != 0)
        segment_over(self);
    post_finished(self);
    update_room(self);

    if (commit->staging_octets > STAGING_OCTETS) {
        uint8_t *usual;
        if (posix_memalign((void **)&usual, 4096, STAGING_OCTETS) == 0) {
            free(commit->staging);
            commit->staging = usual;
            commit->staging_octets = STAGING_OCTETS;
        }
    }
}

static uint32_t add_record(spool_shard *self, uint8_t kind, uint64_t id, uint64_t aux, const uint8_t *payload, uint32_t length)
{
    spool_committer *commit = &self->commit;
    spool_segment *segment = commit->current;
    spool_record record = {.salt = segment->salt, .length = length, .kind = kind, .id = id, .aux = (uint32_t)aux,
                           .batch_offset = (uint32_t)segment->end};
    spool_record_encode(commit->staging + commit->staged, &record, payload);
    uint32_t offset = (uint32_t)(segment->end + commit->staged);
    commit->staged += spool_record_size(length);
    SPOOL_COUNT(self, records, 1);
    return offset;
}

static void index_record(spool_segment *segment, uint8_t kind, uint64_t id, uint32_t offset, uint32_t length)
{
    segment->index[segment->index_count++] = (spool_index_entry){offset, length, id, kind};
}

/* The index of a segment and, at its end, where to find it. Only recovery's speed hangs on it: an error is counted, the
 * segment is scanned record by record then. */
static void seal(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    spool_segment *segment = commit->current;
    uint32_t length = (uint32_t)spool_index_octets(segment->index_count);
    size_t size = spool_align(spool_record_size(length), commit->alignment);
    uint8_t *payload = malloc(length), *block = NULL, *locator_block = NULL;
    int error = payload == NULL || posix_memalign((void **)&block, 4096, size) != 0
             || posix_memalign((void **)&locator_block, 4096, SPOOL_HEADER_OCTETS) != 0 ? ENOMEM : 0;
    if (error == 0) {
        spool_record record = {.salt = segment->salt, .length = length, .kind = SPOOL_FOOTER,
                               .batch_offset = (uint32_t)segment->end};
        spool_locator locator = {segment->salt, (uint32_t)segment->end, length};
        spool_index_encode(payload, segment->index, segment->index_count);
        memset(block, 0, size);
        spool_record_encode(block, &record, payload);
        memset(locator_block, 0, SPOOL_HEADER_OCTETS);
        spool_locator_encode(locator_block, &locator);
        error = spool_write_durable(self, segment->fd, block, size, segment->end);
    }
    if (error == 0)
        error = spool_write_durable(self, segment->fd, locator_block, SPOOL_HEADER_OCTETS,
                                    segment->octets - SPOOL_HEADER_OCTETS);
    if (error != 0) {
        SPOOL_COUNT(self, sync_errors, 1);
        spool_report(self, "shard %s segment %u: footer not written: %s; the next start scans the segment instead",
                     self->name, segment->serial, strerror(error));
    }
    free(payload);
    free(block);
    free(locator_block);
    segment_over(self);
}

static int next_become_ready(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    if (commit->next_state == SPOOL_NEXT_NONE) {
        if (commit->next_retry_ms != 0 && commit->free_slots.count == 0
            && spool_mono_ns() / 1000000 < commit->next_retry_ms)
            return commit->next_error;
        int error = prepare_result(self, spool_segment_prepare_begin(self));
        if (error != 0)
            return error;
    }
    if (commit->next_state == SPOOL_NEXT_FILLING)
        return prepare_result(self, spool_segment_prepare_finish(self));
    return 0;
}

/* Makes `need` octets for `entries` records of one op certain: in the segment, the index and the staging buffer. */
static int make_room(spool_shard *self, uint64_t need, uint32_t entries, bool is_mail)
{
    spool_committer *commit = &self->commit;
    uint64_t alone = SPOOL_HEADER_OCTETS + spool_align(need, commit->alignment) + SPOOL_HEADER_OCTETS
                   + spool_align(spool_record_size(spool_index_octets(entries)), commit->alignment);
    if (alone > self->options.segment_octets)
        return EFBIG;
    if (spool_align(commit->staged + need, 4096) > commit->staging_octets && commit->staged != 0)
        flush(self);

    for (;;) {
        spool_segment *segment = commit->current;
        if (segment != NULL) {
            /* New mail leaves the reserve alone until another segment is certain. */
            uint64_t kept = is_mail && commit->next_state == SPOOL_NEXT_NONE ? reserve_octets(segment) : 0;
            if (end_with(self, segment, need, entries) + kept <= segment->octets)
                break;
        }
        flush(self);                    /* also because preparing uses the staging buffer */
        int error = next_become_ready(self);
        if (error != 0) {
            /* Not even the reserve holds it: sealed, the segment can at least be recycled once its mail is settled. */
            if (!is_mail && commit->current != NULL)
                seal(self);
            return error;
        }
        segment = commit->current;
        if (segment != NULL && end_with(self, segment, need, entries) <= segment->octets)
            break;
        if (segment != NULL)
            seal(self);
        commit->current = commit->next;
        commit->next = NULL;
        commit->next_state = SPOOL_NEXT_NONE;
        spool_ops_append(&commit->finished, &commit->current->opened);
    }

    spool_segment *segment = commit->current;
    if (segment->index_count + entries > segment->index_capacity) {
        uint32_t capacity = segment->index_capacity == 0 ? 1024 : segment->index_capacity * 2;
        spool_index_entry *index = realloc(segment->index, capacity * sizeof *index);
        if (index == NULL)
            return ENOMEM;
        segment->index = index;
        segment->index_capacity = capacity;
    }
    if (spool_align(commit->staged + need, 4096) > commit->staging_octets) {    /* nothing is staged: flushed above */
        uint8_t *large;
        size_t octets_needed = spool_align(need, 4096);
        if (posix_memalign((void **)&large, 4096, octets_needed) != 0)
            return ENOMEM;
        free(commit->staging);
        commit->staging = large;
        commit->staging_octets = octets_needed;
    }
    return 0;
}

static void commit_op(spool_shard *self, spool_op *op)
{
    spool_committer *commit = &self->commit;
    uint64_t payload_length = op->payload->length, body_length = op->body != NULL ? op->body->length : 0;
    uint64_t need = spool_record_size(payload_length) + (op->body != NULL ? spool_record_size(body_length) : 0);
    uint32_t entries = op->body != NULL ? 2 : 1;
    op->place = op->body_place = (spool_place){0};
    int error = payload_length > UINT32_MAX / 2 || body_length > UINT32_MAX / 2 ? EFBIG
              : make_room(self, need, entries, op->kind != SPOOL_OUTCOME && !op->is_copy);
    if (error != 0) {
        op->error = error;
        spool_ops_append(&commit->finished, op);
        return;
    }

    spool_segment *segment = commit->current;
    if (op->body != NULL) {
        uint32_t length = (uint32_t)body_length;
        uint32_t offset = add_record(self, SPOOL_BODY, op->id, 0, op->body->data, length);
        op->body_place = (spool_place){segment, offset, length};
        spool_envelope_set_single_chunk(op->payload->data, (spool_chunk){segment->serial, offset, length});
        index_record(segment, SPOOL_BODY, op->id, offset, length);
    }
    uint64_t aux = op->kind == SPOOL_BODY ? op->aux : op->kind == SPOOL_OUTCOME ? op->about->serial : 0;
    uint32_t offset = add_record(self, op->kind, op->id, aux, op->payload->data, (uint32_t)payload_length);
    index_record(segment, op->kind, op->id, offset, (uint32_t)payload_length);
    op->place = (spool_place){segment, offset, (uint32_t)payload_length};
    spool_ops_append(&commit->batch, op);
}

static void note_foreign(spool_segment *segment, const spool_freed *freed, uint32_t offset)
{
    bool is_foreign = false;
    for (uint32_t i = 0; i < freed->count && !is_foreign; i++)
        is_foreign = freed->entries[i].kind != SPOOL_FREE_CHUNK && freed->entries[i].home != segment;
    if (!is_foreign)
        return;
    if (segment->foreign_freed_count == segment->foreign_freed_capacity) {
        uint32_t capacity = segment->foreign_freed_capacity == 0 ? 8 : segment->foreign_freed_capacity * 2;
        uint32_t *offsets = realloc(segment->foreign_freed, capacity * sizeof *offsets);
        if (offsets == NULL) {
            segment->knows_foreign_freed = false;
            return;
        }
        segment->foreign_freed = offsets;
        segment->foreign_freed_capacity = capacity;
    }
    segment->foreign_freed[segment->foreign_freed_count++] = offset;
}

static int commit_freed(spool_shard *self, spool_freed *freed, int earlier_error)
{
    spool_committer *commit = &self->commit;
    uint8_t ids[SPOOL_FREED_LIMIT * SPOOL_FREED_ENTRY_OCTETS];
    uint32_t length = 0;
    for (uint32_t i = 0; i < freed->count; i++)
        if (freed->entries[i].kind != SPOOL_FREE_CHUNK) {
            store64(ids + length, freed->entries[i].id);
            store32(ids + length + 8, freed->entries[i].home->serial);
            length += SPOOL_FREED_ENTRY_OCTETS;
        }

    freed->event.place = (spool_place){0};
    int error = earlier_error;
    if (error == 0 && length != 0) {
        error = make_room(self, spool_record_size(length), 1, false);
        if (error == 0) {
            uint32_t offset = add_record(self, SPOOL_FREED, 0, 0, ids, length);
            index_record(commit->current, SPOOL_FREED, 0, offset, length);
            note_foreign(commit->current, freed, offset);
            freed->event.place = (spool_place){commit->current, offset, length};
        }
    }
    if (error != 0) {
        freed->event.error = error;
        spool_ops_append(&commit->finished, &freed->event);
        return error;
    }
    spool_freed **last = &commit->batch_freed;
    while (*last != NULL)
        last = &(*last)->next;
    freed->next = NULL;
    *last = freed;
    return 0;
}

/* --- the end of a segment's life --- */

static void retire(spool_shard *self, spool_segment *segment)
{
    spool_committer *commit = &self->commit;
    segment->fd = spool_slot_open(self, segment->slot);
    int error = segment->fd < 0 ? errno : spool_segment_write_header(self, segment, SPOOL_SEGMENT_FREE);
    if (segment->fd >= 0)
        close(segment->fd);
    segment->fd = -1;
    if (error == 0)
        spool_segment_let_go(self, segment->slot, segment->octets);
    else {
        SPOOL_COUNT(self, sync_errors, 1);
        spool_report(self, "shard %s segment %u: not recycled: %s", self->name, segment->serial, strerror(error));
    }
    segment->retired.error = error;
    spool_ops_append(&commit->finished, &segment->retired);
    update_room(self);
}

static void finish(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    if (commit->current != NULL && commit->current->index_count > 0)
        seal(self);
    else if (commit->current != NULL) {             /* opened and never written to: no need to look at it again */
        spool_segment_write_header(self, commit->current, SPOOL_SEGMENT_FREE);
        segment_over(self);
    }
    if (commit->next_state == SPOOL_NEXT_READY)
        spool_segment_write_header(self, commit->next, SPOOL_SEGMENT_FREE);
    else if (commit->next_state == SPOOL_NEXT_FILLING) {
        char name[24];
        spool_segment_name(commit->next->slot, name);
        unlinkat(self->dirfd, name, 0);
    }
    spool_segment_destroy(commit->next);
    commit->next = NULL;
    commit->next_state = SPOOL_NEXT_NONE;
    post_finished(self);
}

void *spool_commit_main(void *shard)
{
    spool_shard *self = shard;
    for (;;) {
        work taken = take_work(self);
        while (taken.ops.first != NULL) {
            spool_op *op = taken.ops.first;
            taken.ops.first = op->next;
            commit_op(self, op);
        }
        for (int error = 0; taken.freed != NULL;) {
            spool_freed *freed = taken.freed;
            taken.freed = freed->next;
            error = commit_freed(self, freed, error);
        }
        flush(self);
        while (taken.retire != NULL) {
            spool_segment *segment = taken.retire;
            taken.retire = segment->next_retire;
            retire(self, segment);
        }
        post_finished(self);
        if (taken.is_stopping)
            break;
        prepare_step(self);
    }
    finish(self);
    return NULL;
}
