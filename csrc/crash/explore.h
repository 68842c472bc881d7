/* Every disk that a power cut could leave of a run, recovered and held against what had been promised by then. */
#ifndef ANGARIUM_CRASH_EXPLORE_H
#define ANGARIUM_CRASH_EXPLORE_H

#include "crash/workload.h"

typedef struct explore_options {
    uint64_t seed;
    unsigned turns, samples;            /* samples: per position with more than a few open sectors */
    unsigned processes;
    bool is_buffered, has_compaction;
    layer_mutation mutation;
    mover_mutation mover_mutation;      /* with compaction */
    uint32_t position, index;           /* only this state; UINT32_MAX: all */
    bool has_trace;                     /* print the log, up to that position */
} explore_options;

typedef struct explore_result {
    uint64_t positions, states, distinct, failures;     /* states: recovered and judged; distinct: by their octets */
    uint64_t acknowledged, headers, starts;             /* headers: segments begun and given back */
    mover_figures compaction;
    char first[600];                    /* the failure at the earliest position, with how to see it again */
} explore_result;

/* Distinct states are counted over all calls that share `seen`. */
typedef struct explore_seen explore_seen;
explore_seen *explore_seen_new(void);

/* Runs the workload, then judges. Stops early once a failure has been found. */
explore_result explore(const explore_options *options, explore_seen *seen);

/* One disk: recovered, judged, given one more message, and recovered again. NULL or what is wrong. Takes `on`. */
const char *explore_judge(disk *on, bool is_buffered, const book *promised, uint64_t wall_s, unsigned variant);

#endif
