/* A disk in memory that knows what a power cut may take: files as sectors of 512 octets, names, and for each of them what is
 * durable and what has only been written.
 *
 * The model is as unkind as POSIX allows. A sector written and not synced holds, after a cut, any one of the things written to
 * it since its last sync, or what it held before; every sector for itself. A name made or removed is there, or not, until its
 * directory has been synced; the sync of a file says nothing about its name. A size changed without a sync is the old or the
 * new one. After a failed sync the octets it should have covered are never made durable by a later one, as with Linux.
 *
 * What it is not: a file system in the sense of the calls; see layer.c. One thread at a time.
 */
#ifndef ANGARIUM_CRASH_DISK_H
#define ANGARIUM_CRASH_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DISK_SECTOR_OCTETS = 512, DISK_PAGE_OCTETS = 4096, DISK_PATH_OCTETS = 64, DISK_NONE = -1 };

typedef struct disk disk;

/* An empty one with its root directory, which is file 0 and has the path "". quota_octets 0: no limit. */
disk *disk_new(uint64_t quota_octets);
void disk_free(disk *self);
void disk_set_quota(disk *self, uint64_t quota_octets);

/* Names. Paths have no leading slash. A file number stays the same for the life of the disk. */
int disk_find(const disk *self, const char *path);                      /* file number or DISK_NONE */
int disk_make(disk *self, const char *path, bool is_directory);         /* the name must not be there; the new file's number */
void disk_unlink(disk *self, const char *path);
bool disk_is_directory(const disk *self, int file);
/* The index-th path directly below directory `parent` ("" for the root), or NULL behind the last. */
const char *disk_entry(const disk *self, const char *parent, unsigned index);

/* Contents as a program sees them. Errors: 0 or ENOSPC. */
uint64_t disk_size(const disk *self, int file);
size_t disk_read(const disk *self, int file, uint64_t offset, void *out, size_t length);
int disk_write(disk *self, int file, uint64_t offset, const void *data, size_t length);
int disk_reserve(disk *self, int file, uint64_t size);                  /* grows, with blocks */
void disk_resize(disk *self, int file, uint64_t size);
void disk_opened(disk *self, int file, int by);                         /* +1, -1: a file removed keeps its blocks while open */
uint64_t disk_used_octets(const disk *self);

/* What syncs do. A directory's sync covers the names right below it. */
void disk_sync(disk *self, int file);
void disk_sync_range(disk *self, int file, uint64_t offset, size_t length);     /* a write with RWF_DSYNC has returned */
void disk_sync_failed(disk *self, int file);

/* What a cut leaves: a new disk, all of it durable. `choose` is asked once per thing that can be in several states, in a fixed
 * order, and answers with a number below `alternatives`: 0 is the durable one, the last is what was written last. */
typedef unsigned disk_choose(void *context, unsigned alternatives);
disk *disk_after_cut(const disk *self, disk_choose *choose, void *context);
unsigned disk_choose_durable(void *context, unsigned alternatives);     /* loses all that may be lost */
unsigned disk_choose_written(void *context, unsigned alternatives);     /* keeps everything */

/* Of names, sizes and contents as a program sees them; files whose path ends in "lock" count by name only. */
uint64_t disk_hash(const disk *self);

#endif
