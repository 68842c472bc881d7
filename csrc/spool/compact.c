/* Compaction, the spool's half: which segment is worth emptying, what is in it, and when nothing in it matters any more. What
 * is moved, and how, is decided by who knows the messages. Loop thread, but for the index, which the reader thread makes.
 *
 * Three things in a sealed segment can matter: envelopes and chunks of live messages (`live`), newest outcomes of messages whose
 * home is elsewhere, and freed records about homes that still exist (`about` counts both). Live messages are copied into the
 * current segment, as new records with a home of their own, and then the old copy is freed like any message that is over;
 * outcomes are written again; freed entries are repeated. Nothing depends on an order between segments: a segment of old mail
 * that is worth keeping does not hold those behind it.
 *
 * One live message keeps its segment; the freed records about its neighbours keep the next one, those about that one's mail the one
 * behind it, and so on: under full traffic a new file every tenth of a second, each written twice as it must be filled first. Such
 * a segment has nothing to move, and repeating its entries lets go of the whole chain behind it. So it need not age as others do,
 * and it is emptied while the compaction rests from moving.
 */
#include <errno.h>
#include <stdlib.h>

#include "spool/scan.h"
#include "spool/shard.h"

enum {
    SLACK_SEGMENTS = 4,             /* beyond twice what lives: the current one, the next, and some being drained */
    YOUNG_MS = 2000,                /* sealed since: what is in it is most likely just being delivered; less the more there is beyond */
    CHAIN_MS = 100,                 /* likewise, of a segment with freed entries only: a few more let go of the chain by one */
    EXCESS_LIMIT = 64,              /* counted; beyond, the disk or the moves themselves are what is slow */
    CALM_SEGMENTS = 12,             /* so many beyond are no reason to take the disk from commits */
    HASTE_PER_SEGMENT = 8,          /* with each segment more */
    HOLD_SEGMENTS = 14,             /* and from here on haste alone does not do: mail must not come faster than segments are emptied */
    HOLD_NS = 4,                    /* an octet, with each segment more: 256 MB/s, 128, 85 ... */
    HOLD_LIMIT_NS = 64,             /* 16 MB/s: what many segments are beyond the bound for is then not new mail */
    FULL_LIMIT_OCTETS = 256 << 10,  /* on a full disk only what surely fits into the reserve is moved */
};

/* What was found at start counts its outcomes with its freed entries: not known. */
static bool has_only_freed(const spool_segment *segment)
{
    return !segment->is_old && segment->live == 0 && segment->live_octets == 0 && segment->outcomes == 0;
}

/* For so long what was just sealed is left alone. */
static uint64_t young_ms(const spool_shard *self, bool is_quick)
{
    uint64_t young = YOUNG_MS / spool_shard_haste(self);
    return is_quick && young > CHAIN_MS ? CHAIN_MS : young;
}

static bool may_be_victim(const spool_shard *self, const spool_segment *segment, uint64_t now_ms, bool is_resting)
{
    bool is_quick = has_only_freed(segment);
    return segment->is_sealed && !segment->is_retiring && !segment->is_broken && !segment->is_unread && !segment->is_victim
        && (is_quick || !is_resting)
        && now_ms >= segment->sealed_ms + young_ms(self, is_quick)
        && now_ms >= segment->compact_after_ms
        && (!spool_shard_has_room(self) ? segment->live_octets <= FULL_LIMIT_OCTETS
                                        : segment->live_octets * 2 < (int64_t)segment->octets);
}

/* Of two with equally little the older one: what follows from it goes with it. */
static bool goes_before(const spool_segment *one, const spool_segment *other)
{
    return one->live_octets != other->live_octets ? one->live_octets < other->live_octets : one->serial < other->serial;
}

spool_segment *spool_shard_victim(spool_shard *self, uint64_t now_mono_ms, bool is_resting)
{
    int64_t used = 0, live = 0, kept = 0;       /* kept: by those that compaction may not touch, whatever it does */
    spool_segment *least = NULL;
    if (self->is_stopped || !self->is_scan_merged)
        return NULL;
    for (spool_segment *segment = self->known; segment != NULL; segment = segment->next_known) {
        used += (int64_t)segment->octets;
        live += segment->live_octets;
        if (segment->is_unread || segment->is_broken)
            kept += (int64_t)segment->octets - 2 * segment->live_octets;
        if (may_be_victim(self, segment, now_mono_ms, is_resting) && (least == NULL || goes_before(segment, least)))
            least = segment;
    }
    SPOOL_GAUGE(self, live_octets, (uint64_t)live);
    SPOOL_GAUGE(self, segment_octets, (uint64_t)used);
    used -= 2 * live + kept + SLACK_SEGMENTS * (int64_t)self->options.segment_octets;
    int64_t excess = used > 0 ? used / (int64_t)self->options.segment_octets : 0;
    SPOOL_GAUGE(self, excess_segments, excess < EXCESS_LIMIT ? (uint32_t)excess : EXCESS_LIMIT);
    if (least == NULL || used <= 0)
        return NULL;
    least->is_victim = true;
    least->has_lost_repeat = false;
    least->busy++;
    return least;
}

uint32_t spool_shard_haste(const spool_shard *self)
{
    uint32_t excess = self->counts.excess_segments;
    return excess <= CALM_SEGMENTS ? 1 : 1 + (excess - CALM_SEGMENTS) * HASTE_PER_SEGMENT;
}

uint64_t spool_shard_hold_ns(const spool_shard *self)
{
    uint32_t excess = __atomic_load_n(&self->counts.excess_segments, __ATOMIC_RELAXED);
    if (excess <= HOLD_SEGMENTS)
        return 0;
    uint64_t hold_ns = (uint64_t)(excess - HOLD_SEGMENTS) * HOLD_NS;
    return hold_ns < HOLD_LIMIT_NS ? hold_ns : HOLD_LIMIT_NS;
}

bool spool_segment_has_live(const spool_segment *segment)
{
    return segment->live != 0;
}

bool spool_segment_frees_others(const spool_segment *segment, uint32_t offset)
{
    if (!segment->knows_foreign_freed)
        return true;
    uint32_t low = 0, high = segment->foreign_freed_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (segment->foreign_freed[middle] < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < segment->foreign_freed_count && segment->foreign_freed[low] == offset;
}

void spool_shard_free_again(spool_shard *self, uint64_t id, uint32_t home_serial, spool_segment *victim)
{
    spool_segment *home = spool_shard_segment(self, home_serial);
    if (home == NULL || home == victim || self->is_stopped)
        return;
    if (home->is_retiring) {
        /* Nothing may point to it any more. When it is gone the entry is over; should it stay, the entry was lost. */
        if (home->awaited_by == NULL) {
            home->awaited_by = victim;
            victim->busy++;
            victim->repeats++;
        } else if (home->awaited_by != victim)
            victim->has_lost_repeat = true;
        return;
    }
    if (!spool_pins_free_entry(self, id, home, victim, SPOOL_FREE_AGAIN)) {
        victim->has_lost_repeat = true;
        return;
    }
    home->busy++;
    victim->repeats++;
}

int64_t spool_shard_repeats_under_way(const spool_segment *victim)
{
    return victim->has_lost_repeat ? -1 : victim->repeats;
}

void spool_shard_victim_done(spool_shard *self, spool_segment *victim, bool is_moved, uint64_t again_mono_ms)
{
    victim->is_victim = false;
    victim->busy--;
    victim->compact_after_ms = again_mono_ms;
    if (is_moved && victim->repeats == 0 && !victim->has_lost_repeat) {
        spool_counts_clear(&victim->about);
        victim->outcomes = 0;
        SPOOL_COUNT(self, compactions, 1);
    }
    spool_pins_consider(self, victim);
}

/* --- the index of a segment, reader thread --- */

typedef struct reading { spool_shard *shard; spool_segment *segment; int error; } reading;

static int reading_read(void *context, uint64_t offset, void *out, size_t length)
{
    reading *self = context;
    int error = spool_segment_pread(self->shard, self->segment, out, length, offset);
    if (error != 0)
        self->error = error;
    return error;
}

static bool reading_is_stopping(void *context)
{
    reading *self = context;
    return spool_reader_is_stopping(self->shard);
}

/* A scan goes on over what cannot be read, and over damage, as over nothing. Here nothing would mean that nothing matters in the
 * segment any more: so an index that lacks a record which was there is none. */
int spool_segment_read_index(spool_shard *self, spool_segment *segment, octets **out)
{
    reading context = {self, segment, 0};
    spool_source source = {segment->octets, segment->salt, reading_read, &context};
    spool_scan scan;
    int error = spool_scan_segment(&source, reading_is_stopping, &scan);
    size_t length = spool_index_octets(scan.count);
    if (error == 0)
        error = context.error;
    if (error == 0 && (scan.damaged_count != 0 || scan.count < segment->record_count))
        error = EBADMSG;
    if (error == 0 && (*out = octets_new(length)) == NULL)
        error = ENOMEM;
    if (error == 0) {
        spool_index_encode((*out)->data, scan.entries, scan.count);
        (*out)->length = length;
    }
    spool_scan_clear(&scan);
    return error;
}
