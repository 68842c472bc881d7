/* Steps of the spool's own code left out on purpose, put under it at link time or served by the layer: the checker must notice. */
#ifndef ANGARIUM_CRASH_MISTAKES_H
#define ANGARIUM_CRASH_MISTAKES_H

#include <stdbool.h>

typedef enum mistake {
    MISTAKE_NONE,
    MISTAKE_UNREAD_INDEX_IS_EMPTY,      /* compaction takes the index of a segment that could not be read for an empty one */
    MISTAKE_KEPT_NOT_SYNCED,            /* octets set aside are written and not synced */
    MISTAKE_KEPT_NOT_REWRITTEN,         /* of a file set aside by an earlier start nothing is written again, whatever it has */
    MISTAKE_TORN_NOT_KEPT,              /* the octets of a torn end are told and not set aside */
    MISTAKE_COUNT,
} mistake;
extern const char *const mistake_names[MISTAKE_COUNT];

/* From now on, everywhere. */
void mistake_make(mistake which);
bool mistake_is_made(mistake which);

#endif
