/* The queue's half of compaction, in C: what src/angarium/queue/compaction.pyx does to the spool, step by step in the same order,
 * over the messages of a workload. Only the times between its looks are shorter.
 *
 * It can be told to leave a step out: the checker must notice.
 */
#ifndef ANGARIUM_CRASH_MOVER_H
#define ANGARIUM_CRASH_MOVER_H

#include "octets/octets.h"
#include "spool/spool.h"

typedef enum mover_mutation {
    MOVER_HONEST,
    MOVER_FREES_EARLY,              /* the old copy is freed when the new one is handed over, not when it is durable */
    MOVER_WITHOUT_OUTCOME,          /* no outcome is written behind a copy that says there is one */
    MOVER_WITHOUT_REPEATS,          /* the victim goes with its freed records, though their homes are still there */
    MOVER_FREED_ANY_HOME,           /* recovery takes a freed record for the end of every copy, not of the one it names */
    MOVER_LAZY_COPIES,              /* the outcome behind a copy waits for a commit to ride on, and the message's own wait for it */
    MOVER_INTO_ITS_HOME,            /* a message whose home is still being written is moved, into the same segment */
    MOVER_AGAIN_TOO_SOON,           /* and one whose last copy was given up, into the segment where that copy lies */
    MOVER_MUTATION_COUNT,
} mover_mutation;

typedef struct mover_figures {
    unsigned moved, moved_with_outcome, moved_in_chunks, given_up;     /* messages */
    unsigned outcomes, repeats;     /* outcomes written again alone; freed entries handed over again */
    unsigned emptied, postponed;    /* victims */
} mover_figures;

typedef struct mover_given_up { uint64_t id; uint32_t home; } mover_given_up;

typedef struct mover {
    bool is_on;
    mover_mutation mutation;
    spool_segment *victim;
    octets *index;
    uint32_t count, cursor;
    unsigned under_way;             /* moves and reads */
    bool is_stopping, is_damaged, is_left_over;
    bool is_settling;               /* the whole index was gone through */
    uint64_t due_ms;                /* the next look */
    mover_given_up *given_up;       /* copies: their messages are not moved again before that home is sealed */
    unsigned given_up_count;
    mover_figures figures;
} mover;

struct workload;
/* Whatever is due now. Called in every turn; does nothing while !is_on. */
void mover_turn(struct workload *self);
/* Begins nothing more, and turns until nothing is under way. The victim in hand stays as it is. */
void mover_stop(struct workload *self);
/* The process is gone: forgets all but the figures. Every callback has run. */
void mover_forget(struct workload *self);

/* MOVER_FREED_ANY_HOME for all recoveries from now on; see the head of mover.c. */
void mover_confuse_homes(bool is_confused);

#endif
