/* A shard in a directory of its own, driven synchronously, and system calls that fail on request.
 *
 * pwritev2, fallocate, fsync and fdatasync defined here come before libc's when the test program is linked, so the shard under test needs
 * no hooks. `faults` is read by the commit thread: set it with atomics.
 */
#ifndef ANGARIUM_TESTS_SPOOL_FIXTURE_H
#define ANGARIUM_TESTS_SPOOL_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "spool/envelope.h"
#include "spool/format.h"
#include "spool/shard.h"

static struct {
    int write_errno;            /* every durable write fails with it ... */
    bool writes_then_fails;     /* ... after the octets have gone to the disk all the same */
    int allocate_errno;
    int fsync_errno, fdatasync_errno;
    bool is_held;               /* durable writes wait */
    int waiting, durable_writes;
    bool has_no_direct;         /* O_DIRECT writes give EINVAL: as on a file system without it */
    int short_writes;           /* durable writes end early, so often */
    uint32_t unreadable_serial; /* records of this segment give EIO */
} faults;

#define SET(field, value) __atomic_store_n(&faults.field, (value), __ATOMIC_SEQ_CST)
#define GET(field) __atomic_load_n(&faults.field, __ATOMIC_SEQ_CST)

static void pause_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static bool is_direct(int fd)
{
    return fcntl(fd, F_GETFL) & O_DIRECT;
}

ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
    if (GET(has_no_direct) && is_direct(fd)) {
        errno = EINVAL;
        return -1;
    }
    if (flags & RWF_DSYNC) {
        __atomic_add_fetch(&faults.waiting, 1, __ATOMIC_SEQ_CST);
        while (GET(is_held))
            pause_ms(1);
        __atomic_sub_fetch(&faults.waiting, 1, __ATOMIC_SEQ_CST);
        int error = GET(write_errno);
        if (error != 0) {
            if (GET(writes_then_fails))
                syscall(SYS_pwritev2, fd, vector, count, offset, 0, flags);
            errno = error;
            return -1;
        }
        if (GET(short_writes) > 0 && vector->iov_len > 1024 && offset >= SPOOL_HEADER_OCTETS) {
            __atomic_sub_fetch(&faults.short_writes, 1, __ATOMIC_SEQ_CST);
            struct iovec less = {vector->iov_base, 700};        /* not even a boundary */
            char block[1024] __attribute__((aligned(4096)));
            memcpy(block, less.iov_base, 512);
            less.iov_base = block;
            less.iov_len = 512;
            return syscall(SYS_pwritev2, fd, &less, 1, offset, 0, flags) == 512 ? 700 : -1;
        }
        __atomic_add_fetch(&faults.durable_writes, 1, __ATOMIC_SEQ_CST);
    }
    return syscall(SYS_pwritev2, fd, vector, count, offset, 0, flags);
}

static bool is_unreadable(int fd, off_t offset)
{
    uint8_t header[SPOOL_HEADER_USED_OCTETS];
    uint32_t serial, wanted = GET(unreadable_serial);
    if (wanted == 0 || offset < SPOOL_HEADER_OCTETS || syscall(SYS_pread64, fd, header, sizeof header, 0) != sizeof header)
        return false;
    memcpy(&serial, header + 24, sizeof serial);
    return serial == wanted;
}

ssize_t pread(int fd, void *out, size_t length, off_t offset)
{
    if (is_unreadable(fd, offset)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, out, length, offset);
}

ssize_t preadv(int fd, const struct iovec *vector, int count, off_t offset)
{
    if (is_unreadable(fd, offset)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_preadv, fd, vector, count, offset, 0);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    int error = GET(allocate_errno);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fsync(int fd)
{
    int error = GET(fsync_errno);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    int error = GET(fdatasync_errno);
    if (error != 0) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- a shard --- */

typedef struct fixture {
    char path[64];
    int dirfd;
    spool_shard *shard;
    spool_options options;
} fixture;

static void fixture_open(fixture *self)
{
    spool_error error;
    int result = spool_shard_open(self->dirfd, "00", 0, &self->options, &self->shard, &error);
    CHECK(result == 0, "open: %s", error.text);
    if (result != 0)
        exit(1);
}

static fixture fixture_make(uint64_t segment_octets, uint32_t spare_segments)
{
    fixture self = {.options = {segment_octets, spare_segments, 1000, 0, SPOOL_LAZY_MS}};
    const char *parent = getenv("SPOOL_TEST_DIR") != NULL ? getenv("SPOOL_TEST_DIR") : "/tmp";
    snprintf(self.path, sizeof self.path, "%s/spool-XXXXXX", parent);
    if (mkdtemp(self.path) == NULL)
        exit(1);
    self.dirfd = open(self.path, O_RDONLY | O_DIRECTORY);
    fixture_open(&self);
    return self;
}

static void fixture_close(fixture *self)
{
    spool_shard_stop(self->shard);
    while (spool_shard_reap(self->shard, 100))
        ;
    spool_shard_close(self->shard);
    self->shard = NULL;
}

static void fixture_remove(fixture *self)
{
    if (self->shard != NULL)
        fixture_close(self);
    close(self->dirfd);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", self->path);
    CHECK(system(command) == 0, "rm");
}

/* What a power cut leaves when every write that has returned is on the disk: a copy of the files as they are. */
static fixture fixture_crash_copy(const fixture *self)
{
    fixture copy = {.options = self->options};
    snprintf(copy.path, sizeof copy.path, "%.50s.crash", self->path);
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s; cp -r %s %s", copy.path, self->path, copy.path);
    CHECK(system(command) == 0, "cp");
    copy.dirfd = open(copy.path, O_RDONLY | O_DIRECTORY);
    return copy;
}

static void turn(fixture *self, int timeout_ms)
{
    struct pollfd ready = {spool_shard_event_fd(self->shard), POLLIN, 0};
    spool_shard_kick(self->shard, now_ms());
    poll(&ready, 1, timeout_ms);
    while (spool_shard_reap(self->shard, 64))
        ;
}

/* Until nothing changes any more: background work (retiring, allocation) has come to rest. */
/* Whether nothing waits for the commit thread or of it; what found no room on a full disk is not waited for. */
static bool is_at_rest(fixture *self)
{
    spool_shard *shard = self->shard;
    if (shard->pending_count != 0 || shard->freed_pending != NULL || shard->done_local.first != NULL)
        return false;
    pthread_mutex_lock(&shard->mutex);
    bool is_at_rest = shard->shared.ops.first == NULL && shard->shared.freed == NULL && shard->shared.retire == NULL
                   && shard->shared.done.first == NULL && shard->shared.closing == NULL && shard->shared.wake_at != 0;
    pthread_mutex_unlock(&shard->mutex);
    return is_at_rest;
}

/* Until all that was begun is durable, and all that follows from it. */
static void settle(fixture *self)
{
    for (int i = 0, calm = 0; i < 4000 && calm < 3; i++) {
        turn(self, 5);
        calm = is_at_rest(self) ? calm + 1 : 0;
    }
}

static spool_statistics statistics(fixture *self)
{
    spool_statistics out;
    spool_shard_statistics(self->shard, &out);
    return out;
}

static unsigned file_count(const fixture *self)
{
    char path[80];
    snprintf(path, sizeof path, "%s/00", self->path);
    DIR *directory = opendir(path);
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += strncmp(entry->d_name, "seg-", 4) == 0;
    closedir(directory);
    return count;
}

/* The file whose header has `serial`, open for reading and writing; -1 when there is none. */
__attribute__((unused))
static int segment_file(const fixture *self, uint32_t serial)
{
    for (unsigned slot = 0; slot < 100; slot++) {
        char path[100];
        uint8_t block[SPOOL_HEADER_OCTETS];
        spool_segment_header header;
        snprintf(path, sizeof path, "%s/00/seg-%04u.ang", self->path, slot);
        int fd = open(path, O_RDWR);
        if (fd < 0)
            continue;
        if (pread(fd, block, sizeof block, 0) == sizeof block && spool_header_decode(block, &header) == 0
            && header.serial == serial)
            return fd;
        close(fd);
    }
    return -1;
}

/* --- messages --- */

typedef struct item {           /* one op and what became of it */
    spool_op op;
    bool is_done;
    int called_after_writes;    /* durable writes that had returned when done was called */
} item;

static void item_done(spool_op *op, void *context)
{
    item *self = context;
    (void)op;
    self->is_done = true;
    self->called_after_writes = GET(durable_writes);
}

static octets *pattern(uint64_t id, size_t length)
{
    octets *data = octets_new(length);
    uint64_t state = id * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < length; i++)
        data->data[i] = (uint8_t)((state = state * 6364136223846793005u + 1442695040888963407u) >> 56);
    data->length = length;
    return data;
}

static octets *envelope_of(uint64_t id, uint64_t message_octets, const spool_chunk *chunks, uint32_t chunk_count)
{
    const spool_span none = {NULL, 0}, path = {(const uint8_t *)"a@x.example", 11};
    octets *data = octets_new(256);
    int error = spool_envelope_begin(&data, path, none, none, none, none);
    error |= spool_envelope_add_recipient(&data, path, 2, none, 0);
    error |= spool_envelope_finish(&data, id, 1, 0, message_octets, chunks, chunk_count);
    CHECK(error == 0, "envelope");
    return data;
}

static item *submit(fixture *self, uint8_t kind, uint64_t id, octets *payload, octets *body)
{
    item *made = calloc(1, sizeof *made);
    made->op = (spool_op){.kind = kind, .id = id, .payload = payload, .body = body, .done = item_done, .context = made};
    spool_shard_submit(self->shard, &made->op);
    return made;
}

static item *submit_message(fixture *self, size_t length)
{
    uint64_t id = spool_shard_next_id(self->shard);
    return submit(self, SPOOL_ENVELOPE, id, envelope_of(id, length, NULL, 0), pattern(id, length));
}

__attribute__((unused))
static item *submit_outcome(fixture *self, const item *message, const item *previous, const char *text)
{
    item *made = calloc(1, sizeof *made);
    made->op = (spool_op){
        .kind = SPOOL_OUTCOME, .id = message->op.id, .payload = octets_copy((const uint8_t *)text, strlen(text)),
        .about = message->op.place.segment, .previous_state = previous != NULL ? previous->op.place.segment : NULL,
        .done = item_done, .context = made};
    spool_shard_submit(self->shard, &made->op);
    return made;
}

static int wait_for(fixture *self, item *one)
{
    for (int i = 0; i < 500 && !one->is_done; i++)
        turn(self, 20);
    CHECK(one->is_done, "an op of kind %u never came back", one->op.kind);
    return one->is_done ? one->op.error : ETIMEDOUT;
}

static void item_free(item *one)
{
    octets_unref(one->op.payload);
    octets_unref(one->op.body);
    free(one);
}

static item *append(fixture *self, size_t length)
{
    item *one = submit_message(self, length);
    int error = wait_for(self, one);
    CHECK(error == 0, "append: %s", strerror(error));
    return one;
}

/* After a fault has ended: allocation is tried again about once a second. */
__attribute__((unused))
static item *append_when_served_again(fixture *self, size_t length)
{
    for (int i = 0; i < 200; i++) {
        item *one = submit_message(self, length);
        if (wait_for(self, one) == 0)
            return one;
        item_free(one);
        turn(self, 20);
    }
    CHECK(false, "service does not resume");
    exit(1);
}

/* Appends and frees until `wanted` more segments have been opened. */
__attribute__((unused))
static void churn(fixture *self, uint32_t wanted)
{
    uint32_t first = 0;
    for (;;) {
        item *one = append(self, 100000);
        uint32_t serial = spool_segment_serial(one->op.place.segment);
        first = first == 0 ? serial : first;
        spool_shard_free(self->shard, one->op.id, one->op.place.segment, NULL,
                         (uint64_t)one->op.place.length + one->op.body_place.length);
        item_free(one);
        if (serial >= first + wanted)
            return;
    }
}

/* --- recovery --- */

typedef struct found_message { uint64_t id; octets *envelope, *state; spool_place place; spool_segment *state_segment; } found_message;
typedef struct found_list { found_message items[4096]; unsigned count; } found_list;

static void recover_all(fixture *self, found_list *out)
{
    spool_recovered message;
    out->count = 0;
    for (int i = 0; i < 2000; i++) {
        int result = spool_shard_recover_next(self->shard, &message);
        if (result < 0)
            return;
        if (result == 0) {
            turn(self, 5);
            continue;
        }
        if (out->count < 4096)
            out->items[out->count++] = (found_message){message.id, message.envelope, message.state, message.place, message.state_segment};
        i = 0;
    }
    CHECK(false, "recovery does not end");
}

static const found_message *find(const found_list *list, uint64_t id)
{
    for (unsigned i = 0; i < list->count; i++)
        if (list->items[i].id == id)
            return &list->items[i];
    return NULL;
}

static void found_clear(found_list *list)
{
    for (unsigned i = 0; i < list->count; i++) {
        octets_unref(list->items[i].envelope);
        octets_unref(list->items[i].state);
    }
    list->count = 0;
}

typedef struct reading { spool_read_op op; bool is_done; } reading;

static void reading_done(spool_read_op *op, void *context)
{
    (void)op;
    ((reading *)context)->is_done = true;
}

/* 0 and the octets, or the error. */
static int read_place(fixture *self, spool_place place, octets **out)
{
    reading one = {.op = {.place = place, .done = reading_done}};
    one.op.context = &one;
    spool_shard_read(self->shard, &one.op);
    for (int i = 0; i < 500 && !one.is_done; i++)
        turn(self, 20);
    CHECK(one.is_done, "a read never came back");
    *out = one.op.out;
    return one.op.error;
}

/* Is the whole body of a message found at start there, octet for octet? */
static int check_body(fixture *self, const found_message *message, size_t length)
{
    spool_envelope envelope;
    CHECK(spool_envelope_open(message->envelope->data, message->envelope->length, &envelope) == 0, "envelope");
    octets *expected = pattern(message->id, length), *all = octets_new(length + 1);
    int error = 0;
    for (uint32_t i = 0; i < envelope.chunk_count && error == 0; i++) {
        spool_chunk chunk = spool_envelope_chunk(&envelope, i);
        octets *part = NULL;
        error = read_place(self, (spool_place){spool_shard_segment(self->shard, chunk.segment_serial), chunk.offset, chunk.length}, &part);
        if (part != NULL && octets_append(&all, part->data, part->length) != 0)
            error = ENOMEM;
        octets_unref(part);
    }
    if (error == 0)
        CHECK(all->length == length && memcmp(all->data, expected->data, length) == 0, "body of %llu differs",
              (unsigned long long)message->id);
    octets_unref(expected);
    octets_unref(all);
    return error;
}

/* The first notice of this kind; the others are gone. */
__attribute__((unused))
static bool take_notice(fixture *self, spool_notice_kind kind, spool_notice *out)
{
    bool is_there = false;
    spool_notice notice;
    while (spool_shard_next_notice(self->shard, &notice))
        if (!is_there && notice.at.kind == kind) {
            *out = notice;
            is_there = true;
        }
    return is_there;
}

__attribute__((unused))
static bool has_report(fixture *self, const char *words)
{
    spool_notice notice;
    bool is_there = false;
    while (spool_shard_next_notice(self->shard, &notice))
        is_there |= strstr(notice.text, words) != NULL;
    return is_there;
}

#endif
