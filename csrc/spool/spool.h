/* The spool shard: append-only segments, group commit, recovery. See docs/spool-format.md for the octets.
 *
 * Threads. One loop thread calls everything here. One commit thread per shard writes and syncs; one reader
 * thread per shard reads bodies and scans old segments at start. They meet in two queues under one mutex and
 * tell the loop through one eventfd. Callbacks (`done`) always run on the loop thread, inside
 * spool_shard_reap().
 *
 * Durability. An op's `done` is called with error 0 only after the sync that covers its last octet, its segment's
 * header, name and directory has returned 0. An op whose write or sync failed is reported with the errno and its segment is
 * sealed for ever.
 */
#ifndef ANGARIUM_SPOOL_H
#define ANGARIUM_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "octets/octets.h"
#include "spool/envelope.h"

#define SPOOL_FORMAT_VERSION 1

typedef struct spool_shard spool_shard;
typedef struct spool_segment spool_segment;

typedef enum spool_kind {
    SPOOL_BODY = 1,             /* a run of message octets; aux: its offset in the message */
    SPOOL_ENVELOPE = 2,         /* commits the message: without it body records mean nothing */
    SPOOL_OUTCOME = 3,          /* the whole current state of one message's recipients; replaces earlier ones */
    SPOOL_FREED = 4,            /* ids of messages that are over */
    SPOOL_FOOTER = 5,           /* index of a sealed segment */
} spool_kind;

typedef struct spool_place {
    spool_segment *segment;
    uint32_t offset;            /* of the record header in the segment */
    uint32_t length;            /* of the payload */
} spool_place;

typedef struct spool_op spool_op;
/* Runs on the loop thread. May submit, free, read, release; may free the op itself; must not close the shard. */
typedef void (*spool_done)(spool_op *op, void *context);

struct spool_op {               /* owned by the submitter, who keeps it in place until done */
    spool_op *next;             /* private */
    uint8_t kind;               /* SPOOL_BODY, SPOOL_ENVELOPE or SPOOL_OUTCOME */
    uint64_t id;
    uint64_t aux;               /* BODY: offset of the run in the message */
    bool is_copy;               /* of a message that is in the spool already (compaction): may use the room kept for outcomes,
                                 * and does not wait for a commit to ride on, since the message's own outcomes wait for it */
    octets *payload;            /* a reference held by the submitter until done */
    octets *body;               /* ENVELOPE: the whole message when it was not streamed, else NULL */
    spool_segment *about;       /* OUTCOME: home segment of the message (where its envelope lies) */
    spool_segment *previous_state;  /* OUTCOME: segment of the record this one replaces, or NULL */
    spool_place place;          /* result */
    spool_place body_place;     /* result, when body was given */
    int error;                  /* result: 0 or an errno (ENOSPC, EIO ...) */
    spool_done done;
    void *context;
};

/* Which record must lie at a place. Octets that moved on the disk (a block written to the wrong place) carry a right checksum:
 * kind, id and the offset in the message say that they are another's. */
typedef struct spool_identity {
    uint8_t kind;               /* 0: any record will do */
    uint64_t id;
    uint32_t run_offset;        /* BODY: offset of the run in the message */
} spool_identity;

typedef struct spool_read_op spool_read_op;
struct spool_read_op {
    spool_read_op *next;        /* private */
    spool_place place;          /* of a record (length of payload known) */
    bool wants_index;           /* instead: all records of place.segment, as in a footer's payload (spool_index_check) */
    spool_identity wanted;
    octets *out;                /* result: payload, one reference for the submitter; NULL on error */
    int error;                  /* 0, EIO, EBADMSG (CRC or header wrong, another record: the message is damaged) */
    void (*done)(spool_read_op *op, void *context);
    void *context;
};

typedef struct spool_options {
    uint64_t segment_octets;    /* 1 MiB .. 1 GiB, default 64 MiB */
    uint32_t spare_segments;    /* kept for reuse when free, default 4; more are unlinked */
    uint32_t window_us;         /* longest wait for company before a sync when many transactions run, default 1000 */
    uint32_t last_incarnation;  /* of ids that are put into a new shard: its own begin behind them; else 0 */
    uint32_t lazy_ms;           /* longest wait of outcomes and freed ids for a commit to ride on; 0: none */
} spool_options;

/* The default of lazy_ms: with the loop's lateness and the sync itself they are durable within 100 ms. */
#define SPOOL_LAZY_MS 85

typedef struct spool_error {    /* for the operator: what, where, what to do */
    int code;                   /* errno, or EPROTO for a spool of another version, EBUSY when owned */
    char text[256];
} spool_error;

/* Opens (creates) the shard directory `name` below dirfd, locks it (flock on its file "lock", pid inside), reads segment
 * headers only, writes those of free ones anew, starts the threads. New mail may be submitted at once; the old segments are
 * scanned in the background. */
int spool_shard_open(int dirfd, const char *name, uint8_t number, const spool_options *options,
                     spool_shard **out, spool_error *error);

/* Writes everything submitted, seals the current segment, stops the threads. Blocks; call it without the GIL. Then call
 * spool_shard_reap() until it returns false: every op still out has its `done` called (ops submitted after the stop get
 * ESHUTDOWN), then close. */
void spool_shard_stop(spool_shard *self);
/* Frees; stops first when that was not done. Callbacks not yet reaped are not called. */
void spool_shard_close(spool_shard *self);

uint64_t spool_shard_next_id(spool_shard *self);        /* unique for the life of the spool */
int spool_shard_event_fd(const spool_shard *self);      /* readable when spool_shard_reap has work */

void spool_shard_submit(spool_shard *self, spool_op *op);
/* Appends `id` to the next FREED record; the home and state segments' pins are given back when it is durable. `state`:
 * segment of the message's newest OUTCOME record, or NULL. It is over for the copy of the message whose home that is, not for
 * another. `octets`: payloads of the envelope and of a body beside it, for the measure of what lives in the segment. */
void spool_shard_free(spool_shard *self, uint64_t id, spool_segment *home, spool_segment *state, uint64_t octets);
/* Hands the turn's ops to the commit thread (end of a loop turn). When only outcomes and freed ids wait, it does so once
 * the oldest has waited lazy_ms, counted from the first kick that saw it: they ride on the next commit before. */
void spool_shard_kick(spool_shard *self, uint64_t now_mono_ms);
/* True while outcomes or freed ids wait for a commit to ride on. */
bool spool_shard_is_lazy_waiting(const spool_shard *self);
/* After a kick: in how many milliseconds the next one must come when no other is due before; 0: nothing waits. */
uint64_t spool_shard_kick_due_ms(const spool_shard *self, uint64_t now_mono_ms);
/* From now on outcomes and freed ids wait for nothing (a shutdown). What waits already goes with the next kick. */
void spool_shard_hurry(spool_shard *self);
/* How many inbound transactions are between MAIL and end of data: more company, longer wait (<= window_us). */
void spool_shard_expect(spool_shard *self, uint32_t active_transactions);
/* Runs done callbacks of finished ops and reads, at most `limit`; true when more wait (call again next turn). */
bool spool_shard_reap(spool_shard *self, unsigned limit);

void spool_shard_read(spool_shard *self, spool_read_op *op);

/* Pins: a segment is recycled when nothing in it is needed. A committed ENVELOPE op gives one pin on place.segment (the
 * message's home; given back through spool_shard_free); each BODY record one on its segment, given back by
 * spool_segment_release (the inline body of an ENVELOPE op counts with its envelope: same segment always). A release takes
 * effect with the next durable FREED record handed over with it: release a message's chunks in the same turn as, or after,
 * its spool_shard_free, so that no chunk is recycled while its envelope could come back. */
void spool_segment_release(spool_shard *self, spool_segment *segment, uint64_t octets);
/* Inline (its serial is the first thing in a segment), so that modules that do not link the shard can ask. */
static inline uint32_t spool_segment_serial(const spool_segment *segment)
{
    return *(const uint32_t *)(const void *)segment;
}
spool_segment *spool_shard_segment(spool_shard *self, uint32_t serial);     /* NULL when unknown */
/* Nothing more is written into it: what is submitted from now on lies elsewhere. */
bool spool_segment_is_sealed(const spool_segment *segment);

/* What another process needs to read from a segment. */
typedef struct spool_segment_face {
    uint32_t serial, slot, salt;
    uint64_t octets;            /* of the file */
} spool_segment_face;
void spool_segment_describe(const spool_segment *segment, spool_segment_face *out);

/* A shard that another process has: spool_shard_read, reap, stop and close are all that may be called. The owner must keep the
 * segments; one that it has recycled gives EBADMSG. Locks nothing, and writes nothing but what it sets aside of damage. 0 or an errno. */
int spool_shard_open_foreign(int dirfd, const char *name, uint8_t number, spool_shard **out, spool_error *error);
/* One of its segments, held until spool_shard_drop_foreign, which must come behind its last read. NULL: no memory. */
spool_segment *spool_shard_hold_foreign(spool_shard *self, const spool_segment_face *face);
void spool_shard_drop_foreign(spool_shard *self, spool_segment *segment);

/* Compaction: who runs it asks for a victim, moves what still matters in it (docs/spool-format.md) and says so. Loop thread.
 *
 * A copy must not lie in a segment in which the message had a home before: freed records name the message and its home, and would mean
 * both. So a message is moved only when its home is sealed and, after a copy of it was given up, when that copy's home is too.
 *
 * A victim is the sealed segment with the least in it, when the segments take more than twice what lives in them and a few
 * besides. It is pinned until spool_shard_victim_done, and not given again before. NULL: nothing is worth it now. `is_resting`: only
 * one in which there is nothing to move, just freed entries to repeat. */
spool_segment *spool_shard_victim(spool_shard *self, uint64_t now_mono_ms, bool is_resting);
/* How many times as fast as usual they should be emptied: 1 as long as there were few segments beyond those at the last call of
 * spool_shard_victim, and the more the more there were. */
uint32_t spool_shard_haste(const spool_shard *self);
/* Whether an envelope or a chunk in it is of a live message, or the end of one is on its way. */
bool spool_segment_has_live(const spool_segment *segment);
/* Whether entries of the FREED record there may be about messages of others: such need to be repeated, those about its own go with it. */
bool spool_segment_frees_others(const spool_segment *segment, uint32_t offset);
/* Repeats an entry of a FREED record of `victim` in a new one; nothing when the home is gone or is the victim. */
void spool_shard_free_again(spool_shard *self, uint64_t id, uint32_t home_serial, spool_segment *victim);
/* Repeated entries that are not durable yet; -1 when one could not be written. */
int64_t spool_shard_repeats_under_way(const spool_segment *victim);
/* `is_moved`: all repeats are durable, and no message's newest outcome lies in it any more. Otherwise it is not given again
 * before `again_mono_ms`. What envelopes and chunks it still holds keep it in any case. */
void spool_shard_victim_done(spool_shard *self, spool_segment *victim, bool is_moved, uint64_t again_mono_ms);

/* A message found at start, in no order (in fact newest segments first). `state` is the payload of its newest OUTCOME record
 * or NULL. References pass to the caller; pins (home, chunks, state) are already taken as if it had been committed now. */
typedef struct spool_recovered {
    uint64_t id;
    octets *envelope;
    octets *state;
    spool_place place;
    spool_segment *state_segment;   /* NULL without state */
} spool_recovered;
/* 1: *out filled; 0: nothing at the moment; -1: scan over and all handed out; statistics say whether
 * it came to its end. */
int spool_shard_recover_next(spool_shard *self, spool_recovered *out);

typedef struct spool_statistics {
    uint64_t commits, records, octets_written, sync_errors, write_errors, recovered_messages;
    uint64_t torn_records, damaged_records, damaged_octets;
    uint32_t unread_segments;   /* not all of them could be read at start, or nothing: kept until a start can, or for ever */
    uint64_t live_octets, segment_octets;   /* of messages not yet over; of all segments in use */
    uint64_t compactions;       /* segments that were emptied by moving what mattered in them */
    uint32_t segments, free_segments, sealed_segments;
    uint32_t excess_segments;   /* beyond what compaction strives for, when it last looked */
    uint64_t held_us;           /* commits of new mail waited so long in all, for compaction to keep up */
    uint32_t commit_us_last, commit_us_max;
    bool is_full;               /* no room for new mail: 452 4.3.1 at MAIL */
    bool is_scan_broken;        /* recovery ended before it had seen all: some of the backlog is not known in this run */
} spool_statistics;
void spool_shard_statistics(spool_shard *self, spool_statistics *out);
bool spool_shard_has_room(const spool_shard *self);     /* cheap; may be called per MAIL */


/* What the operator is told. */
enum { SPOOL_REPORT_LIMIT = 64, SPOOL_REPORT_OCTETS = 256 };

typedef enum spool_notice_kind {
    SPOOL_NOTICE_TROUBLE,       /* a write that failed, no room ...: the text says it */
    SPOOL_NOTICE_TORN,          /* the unfinished end of a segment, dropped: nobody was told 250 for it, if no disk has lost it */
    SPOOL_NOTICE_DAMAGED,       /* octets that had been durable and are not what was written */
    SPOOL_NOTICE_UNREAD,        /* a segment, or a file, that is kept since not all of it could be read at start */
} spool_notice_kind;

typedef struct spool_notice_place {
    spool_notice_kind kind;
    uint32_t serial;            /* of the segment; 0: not known, or none */
    uint64_t offset, octets;    /* TORN and DAMAGED: where in it; TORN without octets: nothing of it is there */
} spool_notice_place;

typedef struct spool_notice {
    spool_notice_place at;
    char text[SPOOL_REPORT_OCTETS];     /* one line without its end */
} spool_notice;

/* Takes the oldest; false when there is none. At most SPOOL_REPORT_LIMIT are kept: the oldest give way, and the next one taken says
 * how many did. */
bool spool_shard_next_notice(spool_shard *self, spool_notice *out);

#endif
