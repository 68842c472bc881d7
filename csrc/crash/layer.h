/* The recording layer: the calls of csrc/spool that reach the system, put under it at link time (calls.txt says which), served
 * from a disk in memory. It can make any of them fail, end the process between two of them, and lie about syncs.
 *
 * Descriptors of this disk start at LAYER_FD_BASE; calls on others (the eventfd) go through to the system. The clock is the
 * driver's. Every call is served under one lock, so that the log has an order.
 */
#ifndef ANGARIUM_CRASH_LAYER_H
#define ANGARIUM_CRASH_LAYER_H

#include "crash/log.h"

enum { LAYER_FD_BASE = 1 << 24 };

typedef enum layer_mutation {           /* how the layer lies: the checker must notice */
    LAYER_HONEST,
    LAYER_NO_DATA_SYNC,                 /* data syncs return 0 and do nothing */
    LAYER_NO_DIRECTORY_SYNC,            /* syncs of directories do */
    LAYER_EARLY_RETURN,                 /* a synced write returns before it has begun; it is done with the next call */
} layer_mutation;

typedef enum layer_fault { LAYER_NO_FAULT, LAYER_EIO, LAYER_ENOSPC, LAYER_EDQUOT, LAYER_EMFILE, LAYER_EINTR, LAYER_SHORT, LAYER_KILL,
                           LAYER_FAULT_COUNT } layer_fault;
extern const char *const layer_fault_names[LAYER_FAULT_COUNT];

typedef struct layer_plan {             /* which call fails how; calls are counted from layer_arm() */
    layer_fault fault;
    unsigned at;
    bool is_lasting;                    /* every call from there on that can fail so */
    unsigned arrives;                   /* quarters of a failed write that reach the file all the same: 0 .. 4 */
} layer_plan;

/* Starts with this disk (and owns it) and, when `record` is not NULL, logs to it. */
void layer_begin(disk *on, log *record, bool is_buffered, layer_mutation mutation);
/* Gives the disk back. Counts descriptors left open, besides those of layer_open_root. */
disk *layer_end(unsigned *descriptors_left);
disk *layer_disk(void);
int layer_open_root(void);              /* a descriptor for spool_shard_open */
void layer_note(log_event event);       /* a promise or a cut, in its place in the log; applied to the disk */
void layer_stamp(uint64_t wall_s);      /* what time() says from now on; getrandom starts anew from it too */

void layer_arm(layer_plan plan);
unsigned layer_calls(void);             /* since layer_arm */
bool layer_has_struck(void);            /* the plan's fault has happened */
const char *layer_struck_call(void);    /* which call it was */
void layer_disarm(void);
bool layer_is_dead(void);               /* LAYER_KILL: since then every call fails and changes nothing, until layer_disarm */

/* The clock and the threads. */
uint64_t layer_now_ns(void);
void layer_advance_ms(uint64_t ms);
/* Waits until `threads` threads of the spool sleep on their conditions with nothing to wake them; false after ten seconds. */
bool layer_wait_quiet(unsigned threads);

#endif
