/* Two small open-addressing tables: counts per segment serial (pins), newest record per message id (recovery).
 * What they are not: general containers. Neither deletes; both are dropped whole. */
#ifndef ANGARIUM_SPOOL_TABLE_H
#define ANGARIUM_SPOOL_TABLE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct spool_count { uint32_t serial; int32_t count; } spool_count;     /* serial 0: empty */

typedef struct spool_counts {
    spool_count *entries;
    uint32_t capacity, used;
    int64_t total;
} spool_counts;

/* Adds `n` (may be negative) to the count of `serial` (not 0); a serial never added before is ignored when n < 0.
 * 0 or -1 when memory is out (then the count is lost). */
int spool_counts_add(spool_counts *self, uint32_t serial, int32_t n);
void spool_counts_drop(spool_counts *self, uint32_t serial);        /* sets the count of serial to 0 */
void spool_counts_clear(spool_counts *self);

typedef struct spool_newest {
    uint64_t id;                    /* 0: empty */
    uint32_t home;                  /* what this is said of: the copy with that home, or one of the two below */
    uint32_t segment;               /* index in the recovery's list of segments */
    uint32_t offset, length;
} spool_newest;
enum {
    SPOOL_ANY_HOME = 0,             /* an outcome: whatever its record names as home, the newest counts */
    SPOOL_COPY_FOUND = -1,          /* a copy has been handed out: older ones are over */
    SPOOL_COPY_DOUBTFUL = -2,   /* a copy waits for the end of the scan; see recover.c */
};

typedef struct spool_ids {
    spool_newest *entries;
    uint64_t capacity, used;
} spool_ids;

/* The entry of `id` (not 0) and `home`, made empty-handed (segment UINT32_MAX) when new; NULL when memory is out. */
spool_newest *spool_ids_put(spool_ids *self, uint64_t id, uint32_t home);
spool_newest *spool_ids_find(const spool_ids *self, uint64_t id, uint32_t home);    /* NULL when absent */
void spool_ids_clear(spool_ids *self);

#endif
