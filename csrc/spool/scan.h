/* Finds the records of one segment, from its footer or octet by octet. Pure over a read function: the fuzz target scans memory.
 * What it is not: it does not know what messages are; see recover.c. */
#ifndef ANGARIUM_SPOOL_SCAN_H
#define ANGARIUM_SPOOL_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spool/format.h"

typedef struct spool_source {
    uint64_t octets;                        /* length of the segment */
    uint32_t salt;
    /* 0 or an errno; length octets at offset, all inside. */
    int (*read)(void *context, uint64_t offset, void *out, size_t length);
    void *context;
} spool_source;

typedef struct spool_hole { uint64_t start, end; } spool_hole;      /* octets that should be records and are not */

typedef struct spool_scan {
    spool_index_entry *entries;             /* by rising offset, each valid (by its checksum, or by the footer's word) */
    uint32_t count, capacity;
    bool has_footer;                        /* entries come from the footer: payloads are not yet checked */
    uint64_t last_batch;                    /* offset of the last batch that has a valid record; without footer only */
    spool_hole *damaged;                    /* before last_batch: had been durable */
    uint32_t damaged_count, damaged_capacity;
    uint32_t torn_count;                    /* invalid pieces in or behind the last batch */
    uint64_t torn_start, torn_end;          /* where the first of them begins and the last one would end; 0: there is none */
    uint64_t end;                           /* behind the last valid record */
} spool_scan;

/* Fills *out (free it with spool_scan_clear whatever is returned). 0, ENOMEM, or ECANCELED when `is_stopping` said so.
 * Any octets give a result: entries inside the segment, not overlapping, rising; time linear in the segment's length. */
int spool_scan_segment(const spool_source *source, bool (*is_stopping)(void *context), spool_scan *out);
/* The same without looking for a footer. */
int spool_scan_records(const spool_source *source, bool (*is_stopping)(void *context), spool_scan *out);
void spool_scan_clear(spool_scan *self);
/* The entry that starts at `offset`, or NULL. */
const spool_index_entry *spool_scan_find(const spool_scan *self, uint32_t offset);

#endif
