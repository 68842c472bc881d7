/* What happened in a run, in order: everything that changed the disk, and everything that was promised or given up.
 * A run is replayed by applying its events to an empty disk; a crash is a prefix of them. */
#ifndef ANGARIUM_CRASH_LOG_H
#define ANGARIUM_CRASH_LOG_H

#include "crash/disk.h"

typedef enum log_kind {
    LOG_MAKE,           /* a file or directory under a new name */
    LOG_UNLINK,
    LOG_WRITE,          /* begun: from here on any part of it may be on the disk */
    LOG_RESERVE,
    LOG_RESIZE,
    LOG_SYNC,           /* a sync of a file or directory has returned 0 */
    LOG_SYNC_RANGE,     /* a write that syncs itself has returned */
    LOG_SYNC_FAILED,
    LOG_CUT,            /* the power went, and came back: offset is the state's seed, length its style */
    LOG_PROMISE,        /* something about a message: see promises.h */
} log_kind;

typedef struct log_event {
    log_kind kind;
    int file;
    bool is_directory;
    uint64_t offset;
    size_t length;
    uint8_t *data;      /* of a write; NULL: zeros */
    char path[DISK_PATH_OCTETS];
    uint32_t message, what, version;    /* of a promise */
} log_event;

typedef struct log {
    log_event *events;
    uint32_t count, capacity;
} log;

/* Both copy what they need of `event`; `data` of length octets belongs to the log afterwards. */
void log_append(log *self, log_event event);
void log_clear(log *self);

/* 0 or ENOSPC. A promise does nothing to a disk. *on may become another one (LOG_CUT). */
int log_apply(const log_event *event, disk **on);

#endif
