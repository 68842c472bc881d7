/* Private to csrc/spool: the structures behind spool.h and which thread may touch which field.
 *
 * Loop thread: submits, pins, decides which segments are over. Commit thread: the one writer of files. Reader thread: reads
 * bodies and envelopes, scans old segments. They meet in `shared`, under `mutex`. Everything that changes what is known about
 * a segment (opened, sealed, retired) travels through the same `done` queue as the finished ops, in order, so that the loop
 * thread never knows of a seal before it has counted all that was written before it.
 */
#ifndef ANGARIUM_SPOOL_SHARD_H
#define ANGARIUM_SPOOL_SHARD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "spool/format.h"
#include "spool/spool.h"
#include "spool/table.h"

enum {                                      /* kinds of internal ops, beyond spool_kind */
    SPOOL_EVENT_OPENED = 100,
    SPOOL_EVENT_SEALED,
    SPOOL_EVENT_RETIRED,
    SPOOL_EVENT_FREED,
};

enum { SPOOL_NO_SLOT = UINT32_MAX };

struct spool_segment {
    /* constant once the loop thread knows it */
    uint32_t serial, salt, slot;
    uint64_t octets;
    bool is_old;                            /* found at start */
    spool_segment_header header;

    /* commit thread, until sealed */
    int fd;                                 /* for writing; -1 when closed */
    uint64_t end;                           /* where the next batch starts */
    spool_index_entry *index;
    uint32_t index_count, index_capacity;
    uint32_t record_count;                  /* durable ones, its footer not counted; of an old segment: found at start */

    /* commit thread, the loop's too once it is sealed: its FREED records that are about others' messages too, by their offsets. All of
     * them may be when it was not written by this process, or memory was short. */
    uint32_t *foreign_freed, foreign_freed_count, foreign_freed_capacity;
    bool knows_foreign_freed;

    /* loop thread */
    spool_segment *next_known, *next_in_bucket;
    bool is_sealed, is_retiring, is_broken;
    bool is_unread;                     /* reader thread: something in it could not be read at start; never recycled */
    int64_t live;                           /* envelopes, chunks, freed entries on their way */
    int64_t busy;                           /* reads, ops and freed entries on their way that point here */
    int64_t unwritten;                      /* settled messages whose FREED record found no room */
    int64_t live_octets;                    /* payloads of live envelopes and chunks; a measure, no pin hangs on it */
    int64_t outcomes;                       /* newest outcomes in here since it was opened; a measure likewise */
    int64_t repeats;                        /* of a victim: repeated FREED entries on their way, and homes that are waited for */
    bool is_victim, has_lost_repeat;
    spool_segment *awaited_by;              /* while it is retiring: the victim whose FREED entries about it go with it */
    uint64_t sealed_ms, compact_after_ms;
    spool_counts about;                     /* records in here about messages of other segments, by their serial */

    /* reader thread */
    int read_fd;                            /* -1 when closed */
    spool_segment *newer_read, *older_read; /* list of open read_fd by last use */
    spool_counts scan_about;                /* found by recovery; merged into `about` when the scan is over */

    spool_segment *next_retire, *next_closing;
    spool_op opened, sealed, retired;       /* events, one of each in a life */
};

_Static_assert(offsetof(struct spool_segment, serial) == 0, "spool_segment_serial() in spool.h reads it there");

/* RESCIND: the write of an envelope failed; its octets must not come back. AGAIN: repeated from the segment `state`. */
typedef enum spool_freed_kind { SPOOL_FREE_MESSAGE, SPOOL_FREE_CHUNK, SPOOL_FREE_RESCIND, SPOOL_FREE_AGAIN } spool_freed_kind;

typedef struct spool_freed_entry {
    uint64_t id;
    spool_segment *home, *state;
    uint32_t kind;
} spool_freed_entry;

typedef struct spool_freed spool_freed;
struct spool_freed {                        /* one FREED record in the making */
    spool_op event;
    spool_freed *next;
    uint32_t count, capacity;
    spool_freed_entry *entries;
};
enum { SPOOL_FREED_LIMIT = 8192 };          /* entries in one: 96 KiB */

typedef struct spool_op_list { spool_op *first, **last; } spool_op_list;

static inline void spool_ops_clear(spool_op_list *self) { self->first = NULL; self->last = &self->first; }
static inline void spool_ops_append(spool_op_list *self, spool_op *op)
{
    op->next = NULL;
    *self->last = op;
    self->last = &op->next;
}
static inline void spool_ops_join(spool_op_list *self, spool_op_list *more)
{
    if (more->first == NULL)
        return;
    *self->last = more->first;
    self->last = more->last;
    spool_ops_clear(more);
}

typedef struct spool_found spool_found;     /* a message found by recovery, waiting to be handed out */
struct spool_found {
    spool_found *next;
    uint64_t id;
    octets *envelope, *state;       /* envelope NULL: it was not read, since a newer copy was found before */
    bool is_stale;                  /* another copy is the message: this one is freed */
    spool_segment *home, *state_segment;
    uint32_t offset;
};

typedef struct spool_damage_place { uint32_t serial; bool is_kept; uint64_t start, end; } spool_damage_place;

typedef enum spool_io_mode { SPOOL_IO_DIRECT, SPOOL_IO_BUFFERED } spool_io_mode;
typedef enum spool_next_state { SPOOL_NEXT_NONE, SPOOL_NEXT_FILLING, SPOOL_NEXT_READY } spool_next_state;

typedef struct spool_slots { uint32_t *items; uint32_t count, capacity; } spool_slots;

typedef struct spool_committer {            /* commit thread only */
    spool_io_mode io_mode;
    uint32_t alignment;                     /* of file offsets and lengths: 512 or 4096 */
    uint8_t *staging;
    size_t staging_octets, staged;
    spool_segment *current, *next;
    spool_next_state next_state;
    uint64_t next_filled;                   /* octets of a new file already written with zeros */
    uint64_t next_retry_ms;                 /* after a failed allocation: not before; 0: the last one went well */
    int next_error;                         /* and why it failed */
    uint32_t serial;                        /* last given */
    uint64_t generation;
    spool_slots free_slots;                 /* files with a durable FREE header, first in first out */
    spool_slots unused_slots;               /* numbers without a file */
    uint32_t slot_count;
    spool_op_list batch, finished;
    spool_freed *batch_freed;
    uint64_t last_sync_ns;                  /* when the last one ended */
    uint64_t mail_octets, mail_sync_ns;     /* new mail as last taken, and when it was durable */
    uint64_t held_since_ns;                 /* new mail waits for compaction; 0: none does */
    uint64_t idle_since_ns;                 /* 0: it is not */
    uint64_t usual_gap_ns;                  /* a moving mean of the times it was idle */
} spool_committer;

struct spool_shard {
    int dirfd, lock_fd, event_fd;
    uint8_t number;
    char name[32];
    spool_options options;
    pthread_t commit_thread, reader_thread;

    /* loop thread */
    spool_op_list pending;
    uint32_t pending_count, urgent_count, copy_count;
    spool_freed *freed_pending;             /* list; the first is the one being filled */
    uint64_t lazy_since_ms;
    spool_op_list done_local;
    spool_read_op *reads_local;
    spool_found *found_local;
    spool_segment *known;                   /* all segments in use */
    spool_segment *buckets[1024];           /* by serial */
    spool_freed *unwritten;                 /* FREED records that found no room; tried again about once a second */
    uint64_t unwritten_retry_ms;
    uint32_t incarnation;                   /* written with __atomic for the commit thread's headers */
    uint32_t counter;
    bool is_scan_merged;
    bool is_stopped;
    bool is_foreign;                        /* of another process: read only (foreign.c) */

    /* any thread, __atomic only */
    uint32_t expected;                      /* active transactions */
    uint32_t handed_over;                   /* how often the loop gave the commit thread something; wraps */
    bool is_full;
    spool_statistics counts;

    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t commit_wake, reader_wake;
    struct {
        spool_op_list ops;
        uint32_t op_count;                  /* without copies: a move is not company for a transaction */
        spool_freed *freed, **freed_last;
        spool_segment *retire, **retire_last;
        uint32_t wake_at;                   /* the commit thread sleeps until so many urgent ops wait; 0: it is busy */
        bool is_stopping;
        spool_op_list done;
        bool is_signalled;                  /* event_fd has been written and not yet reaped */
        spool_read_op *reads, **reads_last, *reads_done, **reads_done_last;
        spool_segment *closing;             /* retired: the reader closes its descriptor and frees */
        bool is_reader_asleep;
        spool_found *found, **found_last;
        uint32_t found_count;
        bool is_scan_over, is_scan_broken;      /* broken: nothing of the old segments is ever recycled */
        spool_notice notices[SPOOL_REPORT_LIMIT];
        uint32_t notice_first, notice_count, notices_lost;
    } shared;

    spool_committer commit;

    struct {                                /* reader thread only */
        spool_segment **old;                /* newest first; filled at open */
        uint32_t old_count;
        bool is_uncertain;                  /* a file could not be read or synced at start: no old segment is recycled */
        spool_segment *newest_read, *oldest_read;
        uint32_t open_count;
        spool_damage_place *damage;         /* told in this run */
        uint32_t damage_count, damage_capacity;
    } reader;
};

#define SPOOL_COUNT(shard, field, n) ((void)__atomic_add_fetch(&(shard)->counts.field, (n), __ATOMIC_RELAXED))
#define SPOOL_GAUGE(shard, field, n) __atomic_store_n(&(shard)->counts.field, (n), __ATOMIC_RELAXED)

uint64_t spool_mono_ns(void);

/* shard.c */
void spool_report(spool_shard *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
void spool_report_at(spool_shard *self, spool_notice_place at, const char *format, ...) __attribute__((format(printf, 3, 4)));
void spool_show(spool_shard *self);                 /* unlocked: to a commit thread that looks out for what is handed over */
void spool_unlock_and_signal(spool_shard *self);    /* gives the mutex back and wakes the loop */

/* open.c */
spool_shard *spool_shard_new(const char *name, uint8_t number);     /* without directory or threads; NULL: no memory */
void spool_shard_destroy(spool_shard *self);

/* segment.c: files. Each returns 0 or an errno. */
void spool_segment_name(uint32_t slot, char out[24]);
spool_segment *spool_segment_new(void);
void spool_segment_destroy(spool_segment *segment);
int spool_write_durable(spool_shard *self, int fd, const uint8_t *data, size_t length, uint64_t offset);
int spool_write_at(int fd, const uint8_t *data, size_t length, uint64_t offset);    /* everything or an error; not durable */
int spool_slot_open(const spool_shard *self, uint32_t slot);    /* for writing through the page cache; -1 and errno */
int spool_segment_prepare_begin(spool_shard *self);     /* next_state NONE -> FILLING or READY */
int spool_segment_prepare_fill(spool_shard *self);      /* one slice of zeros; -> READY at the end */
int spool_segment_prepare_finish(spool_shard *self);    /* -> READY at once, without the rest of the zeros */
int spool_segment_write_header(spool_shard *self, spool_segment *segment, spool_segment_use use);
void spool_segment_let_go(spool_shard *self, uint32_t slot, uint64_t octets);   /* durable FREE: keep or unlink */
int spool_slots_push(spool_slots *self, uint32_t slot);

/* commit.c */
void *spool_commit_main(void *shard);

/* read.c */
void *spool_reader_main(void *shard);
void spool_reader_serve(spool_shard *self);     /* reader thread: whatever reads wait now */
bool spool_reader_is_stopping(spool_shard *self);
int spool_segment_pread(spool_shard *self, spool_segment *segment, void *out, size_t length, uint64_t offset);
int spool_segment_sync(spool_shard *self, spool_segment *segment);
/* The octets as they are read: should the page cache alone have them, the next sync has them to write. */
int spool_segment_write_again(spool_shard *self, spool_segment *segment, uint64_t start, uint64_t end);
/* One checked record; 0, EBADMSG or an errno. */
int spool_segment_read_record(spool_shard *self, spool_segment *segment, uint32_t offset, uint32_t length,
                              const spool_identity *wanted, octets **out);

/* compact.c: reader thread. All records of a segment as the payload of a footer; 0 or an errno. */
int spool_segment_read_index(spool_shard *self, spool_segment *segment, octets **out);

/* damage.c: reader thread. Of a segment known to be in use: its octets from start to end are not what was written. */
void spool_damage_found(spool_shard *self, spool_segment *segment, uint64_t start, uint64_t end, const char *what);
void spool_torn_found(spool_shard *self, spool_segment *segment, uint64_t start, uint64_t end, uint32_t pieces);

/* recover.c */
void spool_recover(spool_shard *self);          /* reader thread: scans reader.old, hands out, then returns */

/* compact.c: commit thread. For each octet of new mail it has to wait so long, since more is in use than compaction keeps to. */
uint64_t spool_shard_hold_ns(const spool_shard *self);

/* pins.c: loop thread */
void spool_pins_take(spool_shard *self, spool_op *op);      /* a finished op or event, before its done() */
void spool_pins_learn(spool_shard *self, spool_segment *segment);
void spool_pins_scan_over(spool_shard *self);
void spool_pins_consider(spool_shard *self, spool_segment *segment);    /* retires it when nothing in it is needed */
/* False when memory is out: then nothing was noted, and the pin stays. */
bool spool_pins_free_entry(spool_shard *self, uint64_t id, spool_segment *home, spool_segment *state, uint32_t kind);
void spool_freed_destroy(spool_freed *freed);
void spool_pins_take_found(spool_shard *self, const spool_found *found);
/* Of a foreign shard: nobody reads from it any more. */
void spool_pins_forget_foreign(spool_shard *self, spool_segment *segment);

#endif
