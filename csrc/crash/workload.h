/* A run of the spool that a seed decides: mail comes, is streamed, deferred, settled; segments fill, roll over and are recycled;
 * the process stops, is killed, or loses its power, and goes on. Everything it does and is told goes to the log and the book.
 *
 * With compaction (mover.h) some mail stays for long, so that what passes leaves segments behind that are worth emptying; and messages
 * are taken, as by a delivery, while they move. */
#ifndef ANGARIUM_CRASH_WORKLOAD_H
#define ANGARIUM_CRASH_WORKLOAD_H

#include "crash/cut.h"
#include "crash/layer.h"
#include "crash/mover.h"
#include "crash/rig.h"

/* LIVE_LIMIT: what the random runs keep to. LIVE_ROOM: what fits; a disk that is filled takes more. */
enum { WORKLOAD_LIVE_LIMIT = 64, WORKLOAD_LIVE_ROOM = 1024, WORKLOAD_CHUNK_LIMIT = 12 };

typedef struct workload_live {          /* a message the queue knows of */
    uint32_t message;
    uint32_t outcome_known, outcome_last;   /* versions: of what the queue knows; the highest ever given */
    uint64_t known_ms;                  /* since when there is one that has not been handed to the shard; 0: none */
    unsigned hand_count;                /* who is busy with it: nothing is written about it or freed meanwhile */
    bool is_taken;                      /* one of them is a delivery */
    bool is_unwritten;                  /* the last one that was handed to the shard came back with an error */
    bool is_dirty, is_over;             /* an outcome is to be written; it is to be freed: when nobody is busy with it */
    bool has_outcome_under_way;         /* then it is neither written again nor freed */
    bool stays;                         /* longer than others */
    spool_place home;
    spool_segment *state;
    uint64_t octets_count;              /* of the envelope and a body beside it */
    spool_segment *chunks[WORKLOAD_CHUNK_LIMIT];    /* of a streamed one */
    uint32_t chunk_octets[WORKLOAD_CHUNK_LIMIT];
    uint32_t chunk_count;
} workload_live;

typedef struct workload_stream {        /* a message on its way in */
    bool is_used, is_waiting, is_failed;
    uint32_t message, chunk_count;
    size_t sent;
    spool_chunk places[WORKLOAD_CHUNK_LIMIT];
    spool_segment *chunks[WORKLOAD_CHUNK_LIMIT];
    uint32_t chunk_octets[WORKLOAD_CHUNK_LIMIT];
} workload_stream;

typedef struct workload {
    rig on;
    book said;
    cut_random random;
    unsigned live_wanted;               /* about so many are kept */
    size_t usual_octets;
    workload_live live[WORKLOAD_LIVE_ROOM];
    unsigned live_count;
    workload_stream streams[3];
    unsigned starts;
    unsigned refused;                   /* ops that came back with an error */
    uint64_t wall_s;
    uint64_t long_turn_ms;              /* when the last long one ended */
    mover mover;
    unsigned reports;                   /* texts for the operator */
    bool was_full;                      /* the shard had no room at some time */
    bool has_damage;                    /* octets were changed on the disk */
    bool may_report;                    /* faults are under way: reports are expected, and what a start cannot read */
    char error[400];                    /* a recovery inside the run was wrong; empty: none */
} workload;

/* layer_begin has been called. All return false when self->error says what was wrong. */
bool workload_begin(workload *self, uint64_t seed);
bool workload_begin_with_compaction(workload *self, uint64_t seed, mover_mutation mutation);
bool workload_run(workload *self, unsigned turns);
void workload_end(workload *self);      /* stops, closes, frees; the book stays until book_clear(&self->said) */

/* What mover.c needs of the queue. A message that is held is there until it is released; else NULL may come. */
workload_live *workload_find_live(workload *self, uint32_t message);
workload_live *workload_find_live_id(workload *self, uint64_t id);
void workload_say(workload *self, uint32_t message, promise_what what, uint32_t version);
void workload_release(workload *self, uint32_t message);
void workload_settle_live(workload *self, workload_live *live);     /* writes or frees what was waiting for it; may end *live */
void workload_meddle(workload *self, uint32_t message);     /* at times a delivery takes it now, and may be done with it at once */

/* The single steps, for faults.c. None may be called after an error. */
void workload_receive(workload *self, size_t octets);
void workload_step_stream(workload *self, unsigned at);     /* its next chunk, its envelope, or, at times, its being given up */
void workload_defer(workload *self, unsigned live);
void workload_write_again(workload *self);      /* outcomes whose write has failed */
void workload_free(workload *self, unsigned live);
void workload_turn(workload *self, uint64_t advance_ms);
void workload_settle(workload *self);           /* until all that was freed is durably gone */
bool workload_restart(workload *self);          /* a clean stop */
bool workload_start(workload *self);            /* after a stop: what is missing may come later */
bool workload_start_after_kill(workload *self);         /* what is missing is over */
void workload_die(workload *self);              /* kill -9 now */
bool workload_kill(workload *self);             /* that, and a start */
bool workload_cut_power(workload *self);        /* kill, a disk the cut could leave, and a start */

#endif
