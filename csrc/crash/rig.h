/* A shard on the layer's disk, driven so that nothing depends on the scheduler: every turn ends when all threads sleep. */
#ifndef ANGARIUM_CRASH_RIG_H
#define ANGARIUM_CRASH_RIG_H

#include "crash/disk.h"
#include "crash/promises.h"
#include "spool/spool.h"

enum { RIG_SEGMENT_OCTETS = 1 << 20, RIG_SPARE_SEGMENTS = 2 };

/* Octets of which the operator was told that they are kept, and in which file. */
typedef struct rig_kept { char path[DISK_PATH_OCTETS]; octets *expected; } rig_kept;
enum { RIG_KEPT_LIMIT = 32 };

typedef struct rig {
    int root;
    spool_shard *shard;
    char error[300];                    /* of rig_open, or what went wrong first */
    rig_kept kept[RIG_KEPT_LIMIT];
    unsigned kept_count;
} rig;

/* On the disk that layer_begin was given. 0 or the errno of spool_shard_open. */
int rig_open(rig *self);
/* Advances the clock, hands everything over, waits, and runs all callbacks. A hang ends the program. */
void rig_turn(rig *self, uint64_t advance_ms);
/* Stops, reaps and closes. */
void rig_close(rig *self);

/* What recovery handed out; the envelope is owned. */
typedef struct rig_found {
    uint32_t message, outcome_version;
    spool_place place;
    spool_segment *state_segment;
    octets *envelope;
} rig_found;
typedef struct rig_findings { rig_found *items; uint32_t count; } rig_findings;
void rig_findings_clear(rig_findings *self);

/* What the operator is told, without torn ends: a cut leaves them. What is said to be kept is noted, with the octets of the segment. */
bool rig_next_trouble(rig *self, spool_notice *out);

/* Takes all that recovery hands out, reads every chunk of every message, and holds it against the book. NULL, or what is
 * wrong; `out` is to be cleared in any case. `may_report`: calls were made to fail, so that something may not have been read this time,
 * and the operator told; *reports counts that. Else not a word may be said but of torn ends. */
const char *rig_judge(rig *self, const book *promised, bool may_report, unsigned *reports, rig_findings *out);

/* Reads one message back, as a delivery does, and holds it against the book. NULL: *error is 0 and it is right, or the errno for which
 * it could not be read now. Else what is wrong: octets or damage. */
const char *rig_read_message(rig *self, const book *promised, uint32_t message, spool_place home, int *error);

/* Whether all that is said to be kept is on that disk, octet for octet. NULL or what is wrong. */
const char *rig_judge_kept(rig *self, const disk *after);
void rig_forget_kept(rig *self);

/* One more message: taken (its number in the book) or UINT32_MAX and self->error. */
uint32_t rig_take_message(rig *self, book *into, size_t body_octets);

/* For the words of a hang. */
void rig_set_place(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *rig_place(void);

#endif
