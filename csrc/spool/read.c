/* The reader thread: bodies for spool_shard_read, and the scan of old segments at start (recover.c).
 * It reads through the page cache with descriptors of its own, a bounded number of them, opened when needed. Direct writes
 * invalidate the cached pages they touch, so what it sees is what was written; should a checksum fail all the same, the pages
 * are dropped and read once more before the record is called damaged. */
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "spool/crc32c.h"
#include "spool/shard.h"

enum {
    OPEN_LIMIT = 128,
    AHEAD_READS = 8,                        /* of those that wait: one at a time leaves the disk idle while it answers */
    AHEAD_OCTETS = 256 << 10,               /* of each of them */
};

/* --- descriptors, least recently used first out --- */

static void unlink_read(spool_shard *self, spool_segment *segment)
{
    if (segment->newer_read != NULL)
        segment->newer_read->older_read = segment->older_read;
    else
        self->reader.newest_read = segment->older_read;
    if (segment->older_read != NULL)
        segment->older_read->newer_read = segment->newer_read;
    else
        self->reader.oldest_read = segment->newer_read;
    segment->newer_read = segment->older_read = NULL;
}

static void link_newest(spool_shard *self, spool_segment *segment)
{
    segment->older_read = self->reader.newest_read;
    if (segment->older_read != NULL)
        segment->older_read->newer_read = segment;
    else
        self->reader.oldest_read = segment;
    self->reader.newest_read = segment;
}

static void close_read(spool_shard *self, spool_segment *segment)
{
    if (segment->read_fd < 0)
        return;
    unlink_read(self, segment);
    close(segment->read_fd);
    segment->read_fd = -1;
    self->reader.open_count--;
}

static int open_read(spool_shard *self, spool_segment *segment)
{
    if (segment->read_fd >= 0) {
        if (self->reader.newest_read != segment) {
            unlink_read(self, segment);
            link_newest(self, segment);
        }
        return 0;
    }
    if (self->reader.open_count >= OPEN_LIMIT)
        close_read(self, self->reader.oldest_read);
    char name[24];
    spool_segment_name(segment->slot, name);
    for (;;) {
        segment->read_fd = openat(self->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (segment->read_fd >= 0)
            break;
        if (errno == EINTR)
            continue;
        if (errno != EMFILE || self->reader.oldest_read == NULL)
            return errno;
        close_read(self, self->reader.oldest_read);
    }
    link_newest(self, segment);
    self->reader.open_count++;
    return 0;
}

/* --- reads --- */

int spool_segment_pread(spool_shard *self, spool_segment *segment, void *out, size_t length, uint64_t offset)
{
    int error = open_read(self, segment);
    uint8_t *at = out;
    while (error == 0 && length > 0) {
        ssize_t got = pread(segment->read_fd, at, length, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : EIO;
        at += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return error;
}

int spool_segment_write_again(spool_shard *self, spool_segment *segment, uint64_t start, uint64_t end)
{
    uint8_t block[16384];
    int fd = spool_slot_open(self, segment->slot);      /* that a direct open works would say nothing of how it was written */
    if (fd < 0)
        return errno;
    int error = 0;
    while (start < end && error == 0) {
        size_t part = end - start < sizeof block ? end - start : sizeof block;
        error = spool_segment_pread(self, segment, block, part, start);
        if (error == 0)
            error = spool_write_at(fd, block, part, start);
        start += part;
    }
    close(fd);
    return error;
}

int spool_segment_sync(spool_shard *self, spool_segment *segment)
{
    int error = open_read(self, segment);
    while (error == 0 && fdatasync(segment->read_fd) != 0)
        error = errno == EINTR ? 0 : errno;
    return error;
}

static bool is_wanted(const spool_record *record, const spool_identity *wanted)
{
    return wanted->kind == 0 || (record->kind == wanted->kind && record->id == wanted->id
                                 && (record->kind != SPOOL_BODY || record->aux == wanted->run_offset));
}

static int read_once(spool_shard *self, spool_segment *segment, uint32_t offset, uint32_t length,
                     const spool_identity *wanted, octets *out)
{
    int error = open_read(self, segment);
    if (error != 0)
        return error;
    uint8_t header[SPOOL_RECORD_OCTETS];
    spool_record record;
    struct iovec parts[2] = {{header, sizeof header}, {out->data, length}};
    ssize_t got = preadv(segment->read_fd, parts, 2, offset);
    if (got != (ssize_t)(sizeof header + length)) {         /* rare: interrupted, or an error to be told exactly */
        error = spool_segment_pread(self, segment, header, sizeof header, offset);
        if (error == 0)
            error = spool_segment_pread(self, segment, out->data, length, offset + sizeof header);
        if (error != 0)
            return error;
    }
    if (!spool_record_decode(header, &record) || record.salt != segment->salt || record.length != length
        || !is_wanted(&record, wanted)
        || crc32c(spool_record_crc_header(header), out->data, length) != record.crc)
        return EBADMSG;
    return 0;
}

int spool_segment_read_record(spool_shard *self, spool_segment *segment, uint32_t offset, uint32_t length,
                              const spool_identity *wanted, octets **out)
{
    if (segment == NULL && self->reader.is_uncertain)
        return EIO;                     /* it may be in the file that could not be read at start */
    if (segment == NULL || offset < SPOOL_HEADER_OCTETS
        || (uint64_t)offset + spool_record_size(length) > segment->octets)
        return EBADMSG;
    octets *data = octets_new(length);
    if (data == NULL)
        return ENOMEM;
    int error = read_once(self, segment, offset, length, wanted, data);
    if (error == EBADMSG) {
        posix_fadvise(segment->read_fd, offset, SPOOL_RECORD_OCTETS + (off_t)length, POSIX_FADV_DONTNEED);
        error = read_once(self, segment, offset, length, wanted, data);
    }
    if (error != 0) {
        octets_unref(data);
        return error;
    }
    data->length = length;
    *out = data;
    return 0;
}

/* --- the thread --- */

static void close_retired(spool_shard *self, spool_segment *closing)
{
    while (closing != NULL) {
        spool_segment *segment = closing;
        closing = segment->next_closing;
        close_read(self, segment);
        spool_segment_destroy(segment);
    }
}

/* Another process may have recycled what we read from, if it was restarted meanwhile: then nothing is damaged. */
static bool is_still_there(spool_shard *self, spool_segment *segment)
{
    uint8_t block[SPOOL_HEADER_OCTETS];
    spool_segment_header header;
    if (!self->is_foreign)
        return true;
    return spool_segment_pread(self, segment, block, sizeof block, 0) == 0 && spool_header_decode(block, &header) == 0
        && header.serial == segment->serial && header.salt == segment->salt && header.use == SPOOL_SEGMENT_LIVE;
}

/* The disk begins with it while those before it are read. No more than a hint: what fails here is told by the read itself. */
static void begin_read(const spool_read_op *op)
{
    spool_segment *segment = op->place.segment;
    if (segment == NULL || op->wants_index || segment->read_fd < 0)
        return;
    size_t size = spool_record_size(op->place.length);
    posix_fadvise(segment->read_fd, op->place.offset, (off_t)(size < AHEAD_OCTETS ? size : AHEAD_OCTETS), POSIX_FADV_WILLNEED);
}

static void read_all(spool_shard *self, spool_read_op *reads)
{
    spool_read_op *ahead = reads != NULL ? reads->next : NULL;
    for (unsigned i = 1; i < AHEAD_READS && ahead != NULL; i++, ahead = ahead->next)
        begin_read(ahead);
    while (reads != NULL) {
        if (ahead != NULL) {
            begin_read(ahead);
            ahead = ahead->next;
        }
        spool_read_op *op = reads;
        reads = op->next;
        op->next = NULL;
        op->out = NULL;
        if (op->wants_index)
            op->error = spool_segment_read_index(self, op->place.segment, &op->out);
        else
            op->error = spool_segment_read_record(self, op->place.segment, op->place.offset, op->place.length, &op->wanted,
                                                  &op->out);
        if (op->error == EBADMSG && op->place.segment != NULL && !op->wants_index && is_still_there(self, op->place.segment))
            spool_damage_found(self, op->place.segment, op->place.offset,
                               op->place.offset + spool_record_size(op->place.length), "not the record that was written there");
        pthread_mutex_lock(&self->mutex);       /* one by one: a large body must not hold up the small one before it */
        *self->shared.reads_done_last = op;
        self->shared.reads_done_last = &op->next;
        spool_unlock_and_signal(self);
    }
}

static void take_reads_locked(spool_shard *self, spool_read_op **reads, spool_segment **closing)
{
    *reads = self->shared.reads;
    self->shared.reads = NULL;
    self->shared.reads_last = &self->shared.reads;
    *closing = self->shared.closing;
    self->shared.closing = NULL;
}

void spool_reader_serve(spool_shard *self)
{
    spool_read_op *reads;
    spool_segment *closing;
    pthread_mutex_lock(&self->mutex);
    take_reads_locked(self, &reads, &closing);
    pthread_mutex_unlock(&self->mutex);
    read_all(self, reads);
    close_retired(self, closing);
}

bool spool_reader_is_stopping(spool_shard *self)
{
    pthread_mutex_lock(&self->mutex);
    bool is_stopping = self->shared.is_stopping;
    pthread_mutex_unlock(&self->mutex);
    return is_stopping;
}

void *spool_reader_main(void *shard)
{
    spool_shard *self = shard;
    if (!self->is_foreign)
        spool_recover(self);
    for (;;) {
        spool_read_op *reads;
        spool_segment *closing;
        pthread_mutex_lock(&self->mutex);
        while (self->shared.reads == NULL && self->shared.closing == NULL && !self->shared.is_stopping)
            pthread_cond_wait(&self->reader_wake, &self->mutex);
        bool is_stopping = self->shared.is_stopping;
        take_reads_locked(self, &reads, &closing);
        pthread_mutex_unlock(&self->mutex);
        read_all(self, reads);
        close_retired(self, closing);
        if (is_stopping && reads == NULL)
            return NULL;
    }
}
