/* Opening a shard: its directory, lock, a look at every segment's header, the threads. Destroying is here too: it is the reverse.
 * What it is not: reading records; the scan runs later, in the reader thread (recover.c). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "spool/shard.h"

enum {
    DEFAULT_SEGMENT_OCTETS = 64 << 20,
    STAGING_OCTETS = 1 << 20,
    /* Ids of incarnations begun after the last header was written are on no disk; a counter lasts for 16 million ids and a
     * header is written every few 100,000 messages, so that one or two can be missing. */
    INCARNATION_MARGIN = 16,
    /* A header that cannot be read just now may be the newest: its serial and incarnation are stepped over, widely, since
     * segments between it and the newest that can be read may have come and gone. */
    UNREAD_SERIALS = 1 << 20,
    UNREAD_INCARNATIONS = 1 << 10,
};

__attribute__((format(printf, 3, 4)))
static int fail(spool_error *error, int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    error->code = code;
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return code;
}

static int open_directory(spool_shard *self, int dirfd, spool_error *error)
{
    if (mkdirat(dirfd, self->name, 0700) != 0 && errno != EEXIST)
        return fail(error, errno, "spool shard %s: cannot create: %s", self->name, strerror(errno));
    self->dirfd = openat(dirfd, self->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (self->dirfd < 0)
        return fail(error, errno, "spool shard %s: cannot open: %s", self->name, strerror(errno));
    /* Also when it was there: an earlier start may have ended between making and syncing it. */
    if (fsync(dirfd) != 0)
        return fail(error, errno, "spool shard %s: cannot sync its directory's name: %s", self->name, strerror(errno));
    return 0;
}

static int lock_directory(spool_shard *self, spool_error *error)
{
    self->lock_fd = openat(self->dirfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (self->lock_fd < 0)
        return fail(error, errno, "spool shard %s: cannot open its lock: %s", self->name, strerror(errno));
    char pid[24] = "";
    if (flock(self->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return fail(error, errno, "spool shard %s: cannot lock: %s", self->name, strerror(errno));
        ssize_t got = pread(self->lock_fd, pid, sizeof pid - 1, 0);
        pid[got > 0 ? got : 0] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return fail(error, EBUSY, "spool shard %s is in use by process %s", self->name, pid[0] != 0 ? pid : "(unknown)");
    }
    int length = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(self->lock_fd, 0) != 0 || pwrite(self->lock_fd, pid, (size_t)length, 0) != length)
        return fail(error, errno, "spool shard %s: cannot write its lock: %s", self->name, strerror(errno));
    return 0;
}

static bool slot_of_name(const char *name, uint32_t *slot)
{
    char canonical[24];
    unsigned number;
    if (sscanf(name, "seg-%9u.ang", &number) != 1)
        return false;
    spool_segment_name(number, canonical);
    *slot = number;
    return strcmp(name, canonical) == 0;
}

static bool is_all_zero(const uint8_t *data, size_t length)
{
    return length == 0 || (data[0] == 0 && memcmp(data, data + 1, length - 1) == 0);
}

/* Up to `length` octets from the start of a file, less only when it is shorter; -1 with errno. */
static ssize_t read_start(int fd, uint8_t *out, size_t length)
{
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(fd, out + done, length - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static int add_old(spool_shard *self, const spool_segment_header *header, uint32_t slot)
{
    uint32_t count = self->reader.old_count;
    if ((count & (count + 1)) == 0) {           /* grows at 0, 1, 3, 7 ... */
        spool_segment **old = realloc(self->reader.old, 2 * (count + 1) * sizeof *old);
        if (old == NULL)
            return ENOMEM;
        self->reader.old = old;
    }
    spool_segment *segment = spool_segment_new();
    if (segment == NULL)
        return ENOMEM;
    segment->serial = header->serial;
    segment->salt = header->salt;
    segment->slot = slot;
    segment->octets = header->segment_octets;
    segment->header = *header;
    segment->is_old = segment->is_sealed = true;
    self->reader.old[self->reader.old_count++] = segment;
    spool_pins_learn(self, segment);
    SPOOL_COUNT(self, sealed_segments, 1);
    return 0;
}

/* Counts a file that nothing will be done with in this run. */
static spool_notice_place left_alone(spool_shard *self, uint32_t serial)
{
    SPOOL_COUNT(self, unread_segments, 1);
    return (spool_notice_place){SPOOL_NOTICE_UNREAD, serial, 0, 0};
}

/* Whether nothing was ever written to a file whose header block is zeros: a header that is lost has records behind it. */
static bool is_unused(int fd)
{
    uint8_t block[32768];
    off_t at = SPOOL_HEADER_OCTETS;
    for (;;) {
        ssize_t got = pread(fd, block, sizeof block, at);
        if (got == 0)
            return true;
        if (got > 0 ? !is_all_zero(block, (size_t)got) : errno != EINTR)
            return false;
        if (got > 0)
            at += got;
    }
}

/* What was pinned by a segment is given back because its header says FREE, so it must not become LIVE again with a power cut. What is
 * read here may be in the page cache only: written by a process that was killed before its sync, or whose sync failed. After the latter
 * the kernel takes the pages for clean, and another sync would succeed over what is not on the disk: they are written anew. */
static int confirm_free(spool_shard *self, uint32_t slot, spool_segment_header *header)
{
    uint8_t block[SPOOL_HEADER_OCTETS] = {0};
    header->generation++;
    spool_header_encode(block, header);
    int fd = spool_slot_open(self, slot);
    if (fd < 0)
        return errno;
    int error = spool_write_at(fd, block, sizeof block, 0);
    while (error == 0 && fdatasync(fd) != 0)
        if (errno != EINTR)
            error = errno;
    close(fd);
    return error;
}

/* Looks at the header of one file and sorts it: free, old, or not ours to touch. */
static int look_at_segment(spool_shard *self, uint32_t slot, uint32_t *last_incarnation, spool_error *error)
{
    char name[24];
    uint8_t block[SPOOL_HEADER_OCTETS];
    spool_segment_header header;
    struct stat status;
    spool_segment_name(slot, name);
    int fd = openat(self->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fail(error, errno, "spool shard %s: cannot open %s: %s", self->name, name, strerror(errno));
    ssize_t got = read_start(fd, block, sizeof block);
    if (got < 0 || fstat(fd, &status) != 0) {
        spool_report_at(self, left_alone(self, 0),
                        "shard %s: %s: header cannot be read: %s; left alone, nothing old is recycled until a restart", self->name,
                        name, strerror(errno));
        close(fd);
        self->reader.is_uncertain = true;
        return 0;
    }
    bool is_never_used = is_all_zero(block, (size_t)got) && is_unused(fd);
    close(fd);
    if (is_never_used) {                        /* a crash before its first header */
        unlinkat(self->dirfd, name, 0);
        spool_slots_push(&self->commit.unused_slots, slot);
        return 0;
    }
    int result = got == SPOOL_HEADER_OCTETS ? spool_header_decode(block, &header) : -EBADMSG;
    if (result == -EPROTO)
        return fail(error, EPROTO, "spool shard %s: %s has format version %u, this program reads version %u", self->name,
                    name, header.version, SPOOL_FORMAT_VERSION);
    if (result == 0 && header.shard != self->number)
        return fail(error, EPROTO, "spool shard %s: %s belongs to shard %u", self->name, name, header.shard);
    if (result == 0 && (header.serial == 0 || header.salt == 0 || header.segment_octets < 4 * SPOOL_HEADER_OCTETS
                        || header.segment_octets > 1u << 30))
        result = -EBADMSG;
    if (result != 0) {
        SPOOL_COUNT(self, damaged_records, 1);
        spool_report_at(self, left_alone(self, 0), "shard %s: %s: both copies of its header are damaged; left alone", self->name, name);
        return 0;
    }

    int free_error = header.use == SPOOL_SEGMENT_FREE ? confirm_free(self, slot, &header) : 0;
    if (header.incarnation > *last_incarnation)
        *last_incarnation = header.incarnation;
    if (header.generation > self->commit.generation)
        self->commit.generation = header.generation;
    if (header.serial > self->commit.serial)
        self->commit.serial = header.serial;
    if (free_error != 0) {
        self->reader.is_uncertain = true;
        SPOOL_COUNT(self, sync_errors, 1);
        spool_report_at(self, left_alone(self, header.serial),
                        "shard %s: %s: its header cannot be written: %s; left alone, nothing old is recycled until a restart", self->name, name,
                        strerror(free_error));
        return 0;
    }
    if (header.use == SPOOL_SEGMENT_FREE) {
        spool_segment_let_go(self, slot, header.segment_octets);
        return 0;
    }
    if (spool_shard_segment(self, header.serial) != NULL) {
        spool_report_at(self, left_alone(self, header.serial), "shard %s: %s: another file has serial %u too; left alone", self->name,
                        name, header.serial);
        return 0;
    }
    if (add_old(self, &header, slot) != 0)
        return fail(error, ENOMEM, "spool shard %s: out of memory", self->name);
    if ((uint64_t)status.st_size < header.segment_octets) {         /* what is there is served: the rest reads as damage does */
        spool_notice_place end = {SPOOL_NOTICE_DAMAGED, header.serial, (uint64_t)status.st_size, header.segment_octets - (uint64_t)status.st_size};
        SPOOL_COUNT(self, damaged_records, 1);
        spool_report_at(self, end, "shard %s segment %u: %s is too short: from offset %llu on %llu octets are missing", self->name, header.serial,
                        name, (unsigned long long)end.offset, (unsigned long long)end.octets);
    }
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    uint32_t left = (*(spool_segment *const *)a)->serial, right = (*(spool_segment *const *)b)->serial;
    return left < right ? 1 : left > right ? -1 : 0;
}

static int look_at_directory(spool_shard *self, uint32_t *last_incarnation, spool_error *error)
{
    spool_slots present = {0};
    int result = 0, fd = openat(self->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (directory == NULL) {
        result = fail(error, errno, "spool shard %s: cannot list: %s", self->name, strerror(errno));
        if (fd >= 0)
            close(fd);
        return result;
    }
    errno = 0;                      /* a list cut short is no list: segments would be missed, and their serials given again */
    for (struct dirent *entry; (entry = readdir(directory)) != NULL; errno = 0) {
        uint32_t slot;
        if (slot_of_name(entry->d_name, &slot) && spool_slots_push(&present, slot) != 0)
            result = fail(error, ENOMEM, "spool shard %s: out of memory", self->name);
    }
    if (errno != 0 && result == 0)
        result = fail(error, errno, "spool shard %s: cannot list: %s", self->name, strerror(errno));
    closedir(directory);

    for (uint32_t i = 0; i < present.count; i++)
        if (present.items[i] >= self->commit.slot_count)
            self->commit.slot_count = present.items[i] + 1;
    bool *is_present = calloc(self->commit.slot_count + 1, sizeof *is_present);
    if (is_present == NULL)
        result = fail(error, ENOMEM, "spool shard %s: out of memory", self->name);
    for (uint32_t i = 0; i < present.count && result == 0; i++) {
        is_present[present.items[i]] = true;
        result = look_at_segment(self, present.items[i], last_incarnation, error);
    }
    for (uint32_t slot = 0; slot < self->commit.slot_count && result == 0; slot++)
        if (!is_present[slot] && spool_slots_push(&self->commit.unused_slots, slot) != 0)
            result = fail(error, ENOMEM, "spool shard %s: out of memory", self->name);
    if (self->reader.is_uncertain) {
        self->commit.serial += UNREAD_SERIALS;
        *last_incarnation += UNREAD_INCARNATIONS;
    }
    free(is_present);
    free(present.items);
    if (self->reader.old_count > 0)
        qsort(self->reader.old, self->reader.old_count, sizeof *self->reader.old, newest_first);
    return result;
}

static int check_options(spool_shard *self, const spool_options *options, spool_error *error)
{
    self->options = options != NULL ? *options : (spool_options){DEFAULT_SEGMENT_OCTETS, 4, 1000, 0, SPOOL_LAZY_MS};
    if (self->options.segment_octets == 0)
        self->options.segment_octets = DEFAULT_SEGMENT_OCTETS;
    self->options.segment_octets &= ~(uint64_t)4095;
    if (self->options.segment_octets < 1 << 20 || self->options.segment_octets > 1 << 30)
        return fail(error, EINVAL, "spool shard %s: segments must have 1 MiB to 1 GiB", self->name);
    return 0;
}

/* Threads of ours never run a signal handler: Python's belong to its main thread. */
static int start_threads(spool_shard *self, spool_error *error)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&self->commit_thread, NULL, spool_commit_main, self);
    if (result == 0) {
        result = pthread_create(&self->reader_thread, NULL, spool_reader_main, self);
        if (result != 0) {
            pthread_mutex_lock(&self->mutex);
            self->shared.is_stopping = true;
            pthread_cond_signal(&self->commit_wake);
            pthread_mutex_unlock(&self->mutex);
            pthread_join(self->commit_thread, NULL);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result == 0 ? 0 : fail(error, result, "spool shard %s: cannot start a thread: %s", self->name, strerror(result));
}

static void init_lists(spool_shard *self)
{
    spool_ops_clear(&self->pending);
    spool_ops_clear(&self->done_local);
    spool_ops_clear(&self->shared.ops);
    spool_ops_clear(&self->shared.done);
    spool_ops_clear(&self->commit.batch);
    spool_ops_clear(&self->commit.finished);
    self->shared.freed_last = &self->shared.freed;
    self->shared.retire_last = &self->shared.retire;
    self->shared.reads_last = &self->shared.reads;
    self->shared.reads_done_last = &self->shared.reads_done;
    self->shared.found_last = &self->shared.found;
}

static int open_all(spool_shard *self, int dirfd, const spool_options *options, spool_error *error)
{
    uint32_t last_incarnation = options != NULL ? options->last_incarnation : 0;
    int result = check_options(self, options, error);
    if (result == 0)
        result = open_directory(self, dirfd, error);
    if (result == 0)
        result = lock_directory(self, error);
    if (result == 0)
        result = look_at_directory(self, &last_incarnation, error);
    if (result != 0)
        return result;
    self->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->event_fd < 0)
        return fail(error, errno, "spool shard %s: eventfd: %s", self->name, strerror(errno));
    if (posix_memalign((void **)&self->commit.staging, 4096, STAGING_OCTETS) != 0)
        return fail(error, ENOMEM, "spool shard %s: out of memory", self->name);
    self->commit.staging_octets = STAGING_OCTETS;
    self->commit.alignment = SPOOL_SECTOR_OCTETS;

    uint32_t now_s = (uint32_t)time(NULL);
    self->incarnation = last_incarnation + INCARNATION_MARGIN > now_s ? last_incarnation + INCARNATION_MARGIN : now_s;
    return start_threads(self, error);
}

void spool_shard_destroy(spool_shard *self)
{
    while (self->known != NULL) {
        spool_segment *segment = self->known;
        self->known = segment->next_known;
        spool_segment_destroy(segment);
    }
    while (self->shared.closing != NULL) {
        spool_segment *segment = self->shared.closing;
        self->shared.closing = segment->next_closing;
        spool_segment_destroy(segment);
    }
    free(self->reader.old);
    free(self->reader.damage);
    free(self->commit.staging);
    free(self->commit.free_slots.items);
    free(self->commit.unused_slots.items);
    if (self->event_fd >= 0)
        close(self->event_fd);
    if (self->lock_fd >= 0)
        close(self->lock_fd);
    if (self->dirfd >= 0)
        close(self->dirfd);
    pthread_mutex_destroy(&self->mutex);
    pthread_cond_destroy(&self->commit_wake);
    pthread_cond_destroy(&self->reader_wake);
    free(self);
}

spool_shard *spool_shard_new(const char *name, uint8_t number)
{
    spool_shard *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->dirfd = self->lock_fd = self->event_fd = -1;
    self->number = number;
    snprintf(self->name, sizeof self->name, "%s", name);
    init_lists(self);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->commit_wake, &attributes);
    pthread_cond_init(&self->reader_wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return self;
}

int spool_shard_open(int dirfd, const char *name, uint8_t number, const spool_options *options,
                     spool_shard **out, spool_error *error)
{
    *out = NULL;
    *error = (spool_error){0};
    spool_shard *self = spool_shard_new(name, number);
    if (self == NULL)
        return fail(error, ENOMEM, "spool shard %s: out of memory", name);
    int result = open_all(self, dirfd, options, error);
    if (result != 0)
        spool_shard_destroy(self);
    else
        *out = self;
    return result;
}
