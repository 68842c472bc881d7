/* Segment files: names, allocation ahead of need, headers, recycling, durable writes.
 * Commit thread only (and spool_shard_open, before the thread runs). What it is not: records; see commit.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "spool/shard.h"

enum { FILL_SLICE_OCTETS = 1 << 20 };

void spool_segment_name(uint32_t slot, char out[24])
{
    snprintf(out, 24, "seg-%04u.ang", slot);
}

spool_segment *spool_segment_new(void)
{
    spool_segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL)
        return NULL;
    segment->fd = segment->read_fd = -1;
    segment->slot = SPOOL_NO_SLOT;
    segment->opened.kind = SPOOL_EVENT_OPENED;
    segment->sealed.kind = SPOOL_EVENT_SEALED;
    segment->retired.kind = SPOOL_EVENT_RETIRED;
    segment->opened.place.segment = segment->sealed.place.segment = segment->retired.place.segment = segment;
    return segment;
}

void spool_segment_destroy(spool_segment *segment)
{
    if (segment == NULL)
        return;
    if (segment->fd >= 0)
        close(segment->fd);
    if (segment->read_fd >= 0)
        close(segment->read_fd);
    free(segment->index);
    free(segment->foreign_freed);
    spool_counts_clear(&segment->about);
    spool_counts_clear(&segment->scan_about);
    free(segment);
}

int spool_slots_push(spool_slots *self, uint32_t slot)
{
    if (self->count == self->capacity) {
        uint32_t capacity = self->capacity == 0 ? 16 : self->capacity * 2;
        uint32_t *items = realloc(self->items, capacity * sizeof *items);
        if (items == NULL)
            return ENOMEM;
        self->items = items;
        self->capacity = capacity;
    }
    self->items[self->count++] = slot;
    return 0;
}

static uint32_t slots_take_first(spool_slots *self)
{
    uint32_t slot = self->items[0];
    memmove(self->items, self->items + 1, --self->count * sizeof *self->items);
    return slot;
}

/* Everything or an error. With O_DIRECT one call writes and syncs (RWF_DSYNC: half the system calls and CPU of
 * write + fdatasync). An error is final for the segment: the kernel may have dropped the pages, and a second sync
 * would then succeed over lost data. */
int spool_write_durable(spool_shard *self, int fd, const uint8_t *data, size_t length, uint64_t offset)
{
    bool is_direct = self->commit.io_mode == SPOOL_IO_DIRECT;
    while (length > 0) {
        struct iovec vector = {(void *)data, length};
        ssize_t written = pwritev2(fd, &vector, 1, (off_t)offset, is_direct ? RWF_DSYNC : 0);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        if (is_direct)      /* a short direct write continues at a boundary */
            written -= written % self->commit.alignment;
        if (written == 0)
            return EIO;
        data += written;
        length -= (size_t)written;
        offset += (uint64_t)written;
    }
    if (!is_direct) {
        while (fdatasync(fd) != 0)
            if (errno != EINTR)
                return errno;
    }
    return 0;
}

int spool_segment_write_header(spool_shard *self, spool_segment *segment, spool_segment_use use)
{
    spool_committer *commit = &self->commit;
    uint8_t *block;
    if (posix_memalign((void **)&block, 4096, SPOOL_HEADER_OCTETS) != 0)
        return ENOMEM;
    segment->header.use = (uint8_t)use;
    segment->header.generation = ++commit->generation;
    segment->header.incarnation = __atomic_load_n(&self->incarnation, __ATOMIC_RELAXED);
    spool_header_encode(block, &segment->header);
    int error = spool_write_durable(self, segment->fd, block, SPOOL_HEADER_OCTETS, 0);
    free(block);
    return error;
}

int spool_write_at(int fd, const uint8_t *data, size_t length, uint64_t offset)
{
    while (length > 0) {
        ssize_t written = pwrite(fd, data, length, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? errno : EIO;
        data += written;
        length -= (size_t)written;
        offset += (uint64_t)written;
    }
    return 0;
}

int spool_slot_open(const spool_shard *self, uint32_t slot)
{
    char name[24];
    int fd;
    spool_segment_name(slot, name);
    do
        fd = openat(self->dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* O_DIRECT where the file system has it; *is_new tells whether the file was made. */
static int open_slot(spool_shard *self, uint32_t slot, int flags, int *fd)
{
    char name[24];
    spool_segment_name(slot, name);
    flags |= O_RDWR | O_CLOEXEC | O_NOFOLLOW;
    if (self->commit.io_mode == SPOOL_IO_DIRECT) {
        *fd = openat(self->dirfd, name, flags | O_DIRECT, 0600);
        if (*fd >= 0 || errno != EINVAL)
            return *fd >= 0 ? 0 : errno;
        self->commit.io_mode = SPOOL_IO_BUFFERED;
        flags &= ~O_EXCL;               /* an open refused for O_DIRECT may have left the file behind */
    }
    *fd = openat(self->dirfd, name, flags, 0600);
    return *fd >= 0 ? 0 : errno;
}

/* Finds out, before any record is laid out, whether direct writes work here and on which boundary. What is there is written back: of a
 * file that is used again the header goes on saying that it is free, until the next one is complete. */
static int probe_alignment(spool_shard *self, int fd)
{
    spool_committer *commit = &self->commit;
    while (commit->io_mode == SPOOL_IO_DIRECT) {
        uint32_t step = commit->alignment;
        struct iovec vector = {commit->staging + SPOOL_HEADER_OCTETS - step, step};
        ssize_t written = pread(fd, commit->staging, SPOOL_HEADER_OCTETS, 0);
        if (written == SPOOL_HEADER_OCTETS)
            written = pwritev2(fd, &vector, 1, SPOOL_HEADER_OCTETS - step, RWF_DSYNC);
        if (written == (ssize_t)step)
            return 0;
        if (written >= 0 || (errno != EINVAL && errno != EOPNOTSUPP && errno != EINTR))
            return written >= 0 ? EIO : errno;
        if (errno == EINTR)
            continue;
        if (errno == EINVAL && step == SPOOL_SECTOR_OCTETS) {
            commit->alignment = 4096;
            continue;
        }
        commit->io_mode = SPOOL_IO_BUFFERED;
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_DIRECT) != 0)
            return errno;
    }
    return 0;
}

static int allocate(int fd, uint64_t octets)
{
    int error;
    do
        error = fallocate(fd, 0, 0, (off_t)octets) == 0 ? 0 : errno;
    while (error == EINTR);
    if (error == EOPNOTSUPP)            /* no promise of space then; writes tell */
        error = ftruncate(fd, (off_t)octets) == 0 ? 0 : errno;
    return error;
}

static void unlink_slot(spool_shard *self, uint32_t slot)
{
    char name[24];
    spool_segment_name(slot, name);
    unlinkat(self->dirfd, name, 0);     /* a failure leaves a FREE file, found again at the next start */
    spool_slots_push(&self->commit.unused_slots, slot);
}

static int prepare_abandon(spool_shard *self, int error)
{
    spool_committer *commit = &self->commit;
    spool_segment *segment = commit->next;
    if (segment->slot != SPOOL_NO_SLOT)
        unlink_slot(self, segment->slot);
    spool_segment_destroy(segment);
    commit->next = NULL;
    commit->next_state = SPOOL_NEXT_NONE;
    return error;
}

/* Header with new serial and salt over whatever the file was. Only here does the file enter the log. */
static int prepare_activate(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    spool_segment *segment = commit->next;
    segment->serial = ++commit->serial;
    do {
        if (getrandom(&segment->salt, sizeof segment->salt, 0) != sizeof segment->salt)
            return prepare_abandon(self, errno == 0 ? EIO : errno);
    } while (segment->salt == 0);
    segment->octets = self->options.segment_octets;
    segment->end = SPOOL_HEADER_OCTETS;
    segment->header = (spool_segment_header){
        .version = SPOOL_FORMAT_VERSION, .shard = self->number, .salt = segment->salt, .serial = segment->serial,
        .segment_octets = segment->octets, .created_utc_s = (uint64_t)time(NULL),
    };
    int error = spool_segment_write_header(self, segment, SPOOL_SEGMENT_LIVE);
    if (error != 0)
        return prepare_abandon(self, error);
    commit->next_state = SPOOL_NEXT_READY;
    return 0;
}

int spool_segment_prepare_begin(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    spool_segment *segment = commit->next = spool_segment_new();
    if (segment == NULL)
        return ENOMEM;
    segment->knows_foreign_freed = true;

    while (commit->free_slots.count > 0) {
        uint32_t slot = slots_take_first(&commit->free_slots);
        struct stat status;
        int error = open_slot(self, slot, 0, &segment->fd);
        if (error == EMFILE || error == ENFILE) {
            spool_slots_push(&commit->free_slots, slot);
            return prepare_abandon(self, error);
        }
        segment->slot = slot;
        if (error == 0 && fstat(segment->fd, &status) == 0 && (uint64_t)status.st_size == self->options.segment_octets)
            error = probe_alignment(self, segment->fd);
        else
            error = error == 0 ? EINVAL : error;
        if (error == 0)
            return prepare_activate(self);
        if (segment->fd >= 0)
            close(segment->fd);
        segment->fd = -1;
        segment->slot = SPOOL_NO_SLOT;
        unlink_slot(self, slot);        /* another size, or broken: a new file is better */
    }

    uint32_t slot = commit->unused_slots.count > 0 ? slots_take_first(&commit->unused_slots) : commit->slot_count++;
    int error = open_slot(self, slot, O_CREAT | O_EXCL, &segment->fd);
    if (error != 0) {
        if (error != EEXIST)
            spool_slots_push(&commit->unused_slots, slot);
        return prepare_abandon(self, error);
    }
    segment->slot = slot;
    error = allocate(segment->fd, self->options.segment_octets);
    if (error == 0)
        error = probe_alignment(self, segment->fd);
    if (error != 0)
        return prepare_abandon(self, error);
    commit->next_filled = SPOOL_HEADER_OCTETS;
    commit->next_state = SPOOL_NEXT_FILLING;
    return 0;
}

/* Writing zeros ahead is worth it: the first write to an allocated but unwritten extent makes the file system commit its
 * journal inside our sync (measured on ext4: 180 us instead of 120 us a commit), 64 MiB of zeros cost 26 ms in the
 * background. Slices, so that a waiting commit is held up by one of them at most. */
int spool_segment_prepare_fill(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    uint64_t left = self->options.segment_octets - commit->next_filled;
    if (left == 0)
        return spool_segment_prepare_finish(self);
    size_t slice = left < FILL_SLICE_OCTETS ? left : FILL_SLICE_OCTETS;
    memset(commit->staging, 0, slice);
    struct iovec vector = {commit->staging, slice};
    ssize_t written = pwritev2(commit->next->fd, &vector, 1, (off_t)commit->next_filled, 0);
    if (written < 0 && errno == EINTR)
        return 0;
    if (written <= 0)
        return prepare_abandon(self, written < 0 ? errno : EIO);
    commit->next_filled += (uint64_t)written;
    if (commit->next_filled % 4096 != 0)            /* a short write: direct ones must stay aligned */
        commit->next_filled -= commit->next_filled % 4096;
    return 0;
}

int spool_segment_prepare_finish(spool_shard *self)
{
    spool_committer *commit = &self->commit;
    /* Both before the header: once a record in it is acknowledged the file must be found under its name after a power cut. */
    if (fsync(commit->next->fd) != 0 || fsync(self->dirfd) != 0)
        return prepare_abandon(self, errno);
    return prepare_activate(self);
}

void spool_segment_let_go(spool_shard *self, uint32_t slot, uint64_t octets)
{
    spool_committer *commit = &self->commit;
    if (commit->free_slots.count >= self->options.spare_segments || octets != self->options.segment_octets
        || spool_slots_push(&commit->free_slots, slot) != 0)
        unlink_slot(self, slot);
    SPOOL_GAUGE(self, free_segments, commit->free_slots.count);
}
