/* Recovery: what the segments found at start still hold. Reader thread, in the background of a shard that already serves.
 *
 * Newest segment first: whatever was said about a message (outcome, freed) lies in its home segment or a newer one, so when an
 * envelope is met everything about it is known and it can be handed out at once. Nothing is written but files under damaged/
 * and, where the page cache may be all that has them, octets as they are; a crash during recovery changes nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "spool/bytes.h"
#include "spool/scan.h"
#include "spool/shard.h"

enum {
    FOUND_LIMIT = 8192,             /* messages waiting to be taken by the loop: bounds memory */
    SERVE_EVERY = 64,               /* envelopes between looks at waiting reads */
};

typedef struct context {
    spool_shard *shard;
    spool_segment *segment;
    uint32_t at;                    /* its index in reader.old */
    spool_ids ids;
    spool_found *doubtful;
    spool_found *found, **found_last;
    uint32_t found_count;
    uint32_t torn_messages;         /* in this segment: their envelope got there, their body did not */
    bool is_stopping;
} context;

/* "Could not be read" is not "is not there": descriptors or memory may be out for a moment. The segment is kept, and so is every
 * other old one, since what could not be read may name chunks in them; a later start finds what this one could not. */
static void not_read(context *self)
{
    self->segment->is_unread = true;
    self->shard->reader.is_uncertain = true;
}

static int source_read(void *opaque, uint64_t offset, void *out, size_t length)
{
    context *self = opaque;
    int error = spool_segment_pread(self->shard, self->segment, out, length, offset);
    if (error != 0)
        not_read(self);                 /* the scan goes on as over damage */
    return error;
}

/* Also where the scan lets waiting reads through. */
static bool source_is_stopping(void *opaque)
{
    context *self = opaque;
    pthread_mutex_lock(&self->shard->mutex);
    self->is_stopping = self->shard->shared.is_stopping;
    bool has_reads = self->shard->shared.reads != NULL;
    pthread_mutex_unlock(&self->shard->mutex);
    if (has_reads)
        spool_reader_serve(self->shard);
    return self->is_stopping;
}

static octets *read_entry(context *self, const spool_index_entry *entry, const char *what)
{
    octets *payload = NULL;
    spool_identity wanted = {(uint8_t)entry->kind, entry->id, 0};
    int error = spool_segment_read_record(self->shard, self->segment, entry->offset, entry->length, &wanted, &payload);
    if (error == EBADMSG) {
        self->segment->is_unread = true;
        spool_damage_found(self->shard, self->segment, entry->offset, entry->offset + spool_record_size(entry->length), what);
    } else if (error != 0)
        not_read(self);
    return payload;
}

/* --- what was said about messages --- */

static int note(context *self, uint64_t id, uint32_t home, const spool_index_entry *entry)
{
    if (id == 0)
        return 0;
    spool_newest *newest = spool_ids_put(&self->ids, id, home);
    if (newest == NULL)
        return ENOMEM;
    /* Within a segment the later record wins, between segments the newer one, met first. */
    if (newest->segment != UINT32_MAX && newest->segment != self->at)
        return 0;
    newest->segment = self->at;
    newest->offset = entry->offset;
    newest->length = entry->length;
    return 0;
}

static bool is_old_serial(const context *self, uint32_t serial)
{
    uint32_t low = 0, high = self->shard->reader.old_count;         /* newest first */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (self->shard->reader.old[middle]->serial > serial)
            low = middle + 1;
        else
            high = middle;
    }
    return low < self->shard->reader.old_count && self->shard->reader.old[low]->serial == serial;
}

static int note_all(context *self, const spool_scan *scan)
{
    for (uint32_t i = 0; i < scan->count; i++) {
        const spool_index_entry *entry = &scan->entries[i];
        int error = 0;
        if (entry->kind == SPOOL_OUTCOME)
            error = note(self, entry->id, SPOOL_ANY_HOME, entry);
        else if (entry->kind == SPOOL_FREED) {
            octets *ids = read_entry(self, entry, "freed record");
            /* Of a home that is gone nothing can come back: no memory for its ids. */
            for (size_t at = 0; ids != NULL && at + SPOOL_FREED_ENTRY_OCTETS <= ids->length && error == 0;
                 at += SPOOL_FREED_ENTRY_OCTETS) {
                uint32_t home = load32(ids->data + at + 8);
                if (is_old_serial(self, home))
                    error = note(self, load64(ids->data + at), home, entry);
            }
            octets_unref(ids);
        }
        if (error != 0)
            return error;
    }
    return 0;
}

/* --- messages --- */

/* A message of an unfinished last batch counts only when its body got there too; else it was never acknowledged. */
static bool is_torn(const context *self, const spool_scan *scan, const spool_index_entry *entry, const octets *payload)
{
    spool_envelope envelope;
    if (scan->has_footer || entry->offset < scan->last_batch
        || spool_envelope_open(payload->data, payload->length, &envelope) != 0)
        return false;
    for (uint32_t i = 0; i < envelope.chunk_count; i++) {
        spool_chunk chunk = spool_envelope_chunk(&envelope, i);
        if (chunk.segment_serial != self->segment->serial || chunk.offset < scan->last_batch)
            continue;
        const spool_index_entry *body = spool_scan_find(scan, chunk.offset);
        if (body == NULL || body->kind != SPOOL_BODY || body->length != chunk.length || body->id != entry->id)
            return true;
    }
    return false;
}

static void hand_out(context *self)
{
    spool_shard *shard = self->shard;
    if (self->found == NULL)
        return;
    pthread_mutex_lock(&shard->mutex);
    *shard->shared.found_last = self->found;
    shard->shared.found_last = self->found_last;
    shard->shared.found_count += self->found_count;
    spool_unlock_and_signal(shard);
    pthread_mutex_lock(&shard->mutex);
    /* The loop takes them in slices; reads go on meanwhile. */
    while (shard->shared.found_count > FOUND_LIMIT && !shard->shared.is_stopping) {
        bool has_work = shard->shared.reads != NULL || shard->shared.closing != NULL;
        if (!has_work)
            pthread_cond_wait(&shard->reader_wake, &shard->mutex);
        else {
            pthread_mutex_unlock(&shard->mutex);
            spool_reader_serve(shard);
            pthread_mutex_lock(&shard->mutex);
        }
    }
    pthread_mutex_unlock(&shard->mutex);
    self->found = NULL;
    self->found_last = &self->found;
    self->found_count = 0;
}

static octets *read_state(context *self, const spool_newest *newest)
{
    context there = *self;          /* for a report that names the right segment */
    there.segment = self->shard->reader.old[newest->segment];
    spool_index_entry entry = {newest->offset, newest->length, newest->id, SPOOL_OUTCOME};
    return read_entry(&there, &entry, "outcome record; its message is tried again for every recipient");
}

static void hand_over(context *self, spool_found *found)
{
    found->next = NULL;
    *self->found_last = found;
    self->found_last = &found->next;
    self->found_count++;
}

static spool_found *new_found(spool_segment *home, const spool_index_entry *entry, octets *envelope)
{
    spool_found *found = calloc(1, sizeof *found);
    if (found == NULL) {
        octets_unref(envelope);
        return NULL;
    }
    *found = (spool_found){.id = entry->id, .envelope = envelope, .home = home, .offset = entry->offset};
    return found;
}

static void hand_over_message(context *self, spool_found *found)
{
    spool_newest *newest = spool_ids_find(&self->ids, found->id, SPOOL_ANY_HOME);
    if (newest != NULL && (found->state = read_state(self, newest)) != NULL)
        found->state_segment = self->shard->reader.old[newest->segment];
    SPOOL_COUNT(self->shard, recovered_messages, 1);
    hand_over(self, found);
}

/* A compaction was cut short between a copy and the outcome that goes with it, when none is found behind the copy. Then the old
 * message is still there, not freed, and counts. The same where a segment may not be on stable storage, or is damaged. Should it
 * not be there after all, the outcome was lost to damage, and the copy is the message: known at the end of the scan. */
static int doubt(context *self, spool_found *found)
{
    if (spool_ids_put(&self->ids, found->id, SPOOL_COPY_DOUBTFUL) == NULL) {
        octets_unref(found->envelope);
        free(found);
        return ENOMEM;
    }
    found->next = self->doubtful;
    self->doubtful = found;
    return 0;
}

static int end_of_doubt(context *self)
{
    int error = 0;
    while (self->doubtful != NULL && error == 0) {
        spool_found *found = self->doubtful;
        found->is_stale = spool_ids_find(&self->ids, found->id, SPOOL_COPY_FOUND) != NULL;
        if (!found->is_stale && spool_ids_put(&self->ids, found->id, SPOOL_COPY_FOUND) == NULL) {
            error = ENOMEM;             /* handed out all the same, an older copy of it would be the message too */
            break;
        }
        self->doubtful = found->next;
        if (found->is_stale)
            hand_over(self, found);
        else
            hand_over_message(self, found);
    }
    hand_out(self);
    return error;
}

static int find_message(context *self, const spool_scan *scan, const spool_index_entry *entry)
{
    spool_segment *home = self->segment;
    spool_newest *freed = spool_ids_find(&self->ids, entry->id, home->serial);
    if (freed != NULL) {
        spool_segment *told = self->shard->reader.old[freed->segment];
        return told != home && spool_counts_add(&told->scan_about, home->serial, 1) != 0 ? ENOMEM : 0;
    }
    if (spool_ids_find(&self->ids, entry->id, SPOOL_COPY_FOUND) != NULL) {
        spool_found *stale = new_found(home, entry, NULL);
        if (stale == NULL)
            return ENOMEM;
        stale->is_stale = true;
        hand_over(self, stale);
        return 0;
    }
    octets *envelope = read_entry(self, entry, "envelope");
    if (envelope == NULL)
        return 0;
    if (is_torn(self, scan, entry, envelope)) {
        octets_unref(envelope);
        self->torn_messages++;
        return 0;
    }
    spool_envelope view;
    if (spool_envelope_open(envelope->data, envelope->length, &view) != 0 || view.id != entry->id) {
        octets_unref(envelope);
        self->segment->is_unread = true;
        spool_damage_found(self->shard, home, entry->offset, entry->offset + spool_record_size(entry->length), "envelope without sense");
        return 0;
    }
    bool is_copy = view.flags & SPOOL_ENVELOPE_COPY, is_doubted = spool_ids_find(&self->ids, entry->id, SPOOL_COPY_DOUBTFUL) != NULL;
    spool_found *found = new_found(home, entry, envelope);
    if (found == NULL)
        return ENOMEM;
    bool lacks_outcome = view.flags & SPOOL_ENVELOPE_COPY_FIRST && spool_ids_find(&self->ids, entry->id, SPOOL_ANY_HOME) == NULL;
    if (lacks_outcome || (is_copy && home->is_unread))
        return doubt(self, found);
    if ((is_copy || is_doubted) && spool_ids_put(&self->ids, entry->id, SPOOL_COPY_FOUND) == NULL) {
        octets_unref(envelope);
        free(found);
        return ENOMEM;
    }
    hand_over_message(self, found);
    return 0;
}

/* A process that was killed may have left a batch written and not synced. What is read of it decides what is recycled, so it
 * must not be lost to a power cut afterwards. Nor a batch whose sync has failed, the last one of its segment: the page cache keeps it
 * and takes it for clean, so it is written again. A footer is written only when all before it is durable. */
static void make_durable(context *self, const spool_scan *scan)
{
    int error = 0;
    if (scan->last_batch != 0)
        error = spool_segment_write_again(self->shard, self->segment, scan->last_batch, scan->end);
    if (error == 0)
        error = spool_segment_sync(self->shard, self->segment);
    if (error == 0)
        return;
    self->segment->is_unread = true;
    SPOOL_COUNT(self->shard, sync_errors, 1);
    spool_report(self->shard, "shard %s segment %u: cannot be synced: %s", self->shard->name, self->segment->serial,
                 strerror(error));
}

/* A crash cut the last write short, most likely. A disk that has lost its last batch since looks the same, so the octets are kept
 * as those of damage are; and whoever looks for a message that a client says it has sent wants to know. */
static void report_torn(context *self, const spool_scan *scan)
{
    uint32_t pieces = scan->torn_count + self->torn_messages;
    if (pieces == 0)
        return;
    /* A message without its body has lost that body's piece: where the scan says that the first is. */
    uint64_t offset = scan->torn_start != 0 ? scan->torn_start : scan->last_batch;
    uint64_t end = scan->torn_end > scan->end ? scan->torn_end : scan->end;
    SPOOL_COUNT(self->shard, torn_records, pieces);
    spool_torn_found(self->shard, self->segment, offset, end, pieces);
}

static int recover_segment(context *self)
{
    self->torn_messages = 0;
    spool_scan scan;
    spool_source source = {self->segment->octets, self->segment->salt, source_read, self};
    int error = spool_scan_segment(&source, source_is_stopping, &scan);
    self->segment->record_count = scan.count;
    if (!scan.has_footer)
        make_durable(self, &scan);
    for (uint32_t i = 0; i < scan.damaged_count && error == 0; i++)
        spool_damage_found(self->shard, self->segment, scan.damaged[i].start, scan.damaged[i].end, "no valid record");
    if (scan.damaged_count != 0)
        self->segment->is_unread = true;
    if (error == 0)
        error = note_all(self, &scan);
    for (uint32_t i = 0, since = 0; i < scan.count && error == 0; i++) {
        if (scan.entries[i].kind != SPOOL_ENVELOPE)
            continue;
        error = find_message(self, &scan, &scan.entries[i]);
        if (++since % SERVE_EVERY == 0) {
            hand_out(self);
            if (source_is_stopping(self))
                error = ECANCELED;
        }
    }
    hand_out(self);
    if (error == 0)
        report_torn(self, &scan);
    spool_scan_clear(&scan);
    return error;
}

/* At the end: an outcome that is read with the message that it is about may lie in a segment that was scanned long before. */
static void report_unread(spool_shard *shard)
{
    for (uint32_t i = 0; i < shard->reader.old_count; i++) {
        const spool_segment *segment = shard->reader.old[i];
        if (!segment->is_unread)
            continue;
        SPOOL_COUNT(shard, unread_segments, 1);
        spool_report_at(shard, (spool_notice_place){SPOOL_NOTICE_UNREAD, segment->serial, 0, 0},
                        "shard %s segment %u: not all of it could be read; it is kept, a restart tries again", shard->name,
                        segment->serial);
    }
}

void spool_recover(spool_shard *shard)
{
    context self = {.shard = shard};
    self.found_last = &self.found;
    int error = 0;
    for (self.at = 0; self.at < shard->reader.old_count && error == 0; self.at++) {
        self.segment = shard->reader.old[self.at];
        error = recover_segment(&self);
    }
    if (error == 0)
        error = end_of_doubt(&self);
    report_unread(shard);
    while (self.doubtful != NULL) {
        spool_found *found = self.doubtful;
        self.doubtful = found->next;
        octets_unref(found->envelope);
        free(found);
    }
    if (error != 0 && error != ECANCELED) {
        SPOOL_GAUGE(shard, is_scan_broken, true);       /* before -1 can be seen */
        spool_report(shard, "shard %s: recovery stopped: %s; restart to find the rest", shard->name, strerror(error));
    }
    if (shard->reader.is_uncertain)                     /* a file could not be looked at: there may be more in it */
        SPOOL_GAUGE(shard, is_scan_broken, true);
    spool_ids_clear(&self.ids);
    pthread_mutex_lock(&shard->mutex);
    shard->shared.is_scan_over = error == 0 && !shard->reader.is_uncertain;
    shard->shared.is_scan_broken = !shard->shared.is_scan_over;
    spool_unlock_and_signal(shard);
}
