#include "crash/layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "crash/cut.h"
#include "crash/mistakes.h"
#include "crash/threads.h"

enum { DESCRIPTORS = 512 };

const char *const layer_fault_names[LAYER_FAULT_COUNT] = {"no fault", "EIO", "ENOSPC", "EDQUOT", "EMFILE", "EINTR", "short", "kill"};
static const int fault_errors[LAYER_FAULT_COUNT] = {0, EIO, ENOSPC, EDQUOT, EMFILE, EINTR, 0, EIO};

typedef struct descriptor {
    bool is_used;
    int file, flags;
    uint64_t position;                  /* of write() and readdir() */
    char path[DISK_PATH_OCTETS];
} descriptor;

static struct {
    disk *on;
    log *record;
    bool is_buffered;
    layer_mutation mutation;
    descriptor descriptors[DESCRIPTORS];
    unsigned roots;                     /* descriptors given by layer_open_root */
    layer_plan plan;
    unsigned calls;
    bool has_struck, is_dead;
    char struck_call[128];
    log_event deferred;                 /* LAYER_EARLY_RETURN: a write said to be done */
    bool has_deferred;
    uint64_t wall_s;
    unsigned stamps;
    cut_random salts;
} layer;

#define lock threads_lock
#define unlock threads_unlock

/* --- the driver's side --- */

static void apply_deferred(void);

void layer_begin(disk *on, log *record, bool is_buffered, layer_mutation mutation)
{
    memset(&layer, 0, sizeof layer);
    layer.on = on;
    layer.record = record;
    layer.is_buffered = is_buffered;
    layer.mutation = mutation;
    layer.wall_s = 1700000000;
}

disk *layer_end(unsigned *descriptors_left)
{
    lock();
    apply_deferred();
    *descriptors_left = 0;
    for (unsigned i = 0; i < DESCRIPTORS; i++)
        *descriptors_left += layer.descriptors[i].is_used;
    *descriptors_left -= layer.roots;
    disk *on = layer.on;
    layer.on = NULL;
    unlock();
    return on;
}

disk *layer_disk(void)
{
    return layer.on;
}

static int take_descriptor(int file, int flags, const char *path)
{
    for (unsigned i = 0; i < DESCRIPTORS; i++)
        if (!layer.descriptors[i].is_used) {
            layer.descriptors[i] = (descriptor){.is_used = true, .file = file, .flags = flags};
            snprintf(layer.descriptors[i].path, sizeof layer.descriptors[i].path, "%s", path);
            disk_opened(layer.on, file, 1);
            return LAYER_FD_BASE + (int)i;
        }
    abort();
}

int layer_open_root(void)
{
    lock();
    layer.roots++;
    int fd = take_descriptor(0, O_RDONLY, "");
    unlock();
    return fd;
}

static int change_locked(log_event event)
{
    int error = log_apply(&event, &layer.on);
    if (error == 0 && layer.record != NULL)
        log_append(layer.record, event);
    else
        free(event.data);
    return error;
}

void layer_note(log_event event)
{
    lock();
    change_locked(event);
    unlock();
}

void layer_stamp(uint64_t wall_s)
{
    lock();
    layer.wall_s = wall_s;
    layer.salts.state = wall_s * 2654435761u + ((uint64_t)++layer.stamps << 40);     /* no salt comes twice */
    unlock();
}

void layer_arm(layer_plan plan)
{
    lock();
    layer.plan = plan;
    layer.calls = 0;
    layer.has_struck = false;
    layer.struck_call[0] = 0;
    unlock();
}

unsigned layer_calls(void)
{
    lock();
    unsigned calls = layer.calls;
    unlock();
    return calls;
}

bool layer_has_struck(void)
{
    lock();
    bool has_struck = layer.has_struck;
    unlock();
    return has_struck;
}

const char *layer_struck_call(void)
{
    return layer.struck_call;
}

bool layer_is_dead(void)
{
    lock();
    bool is_dead = layer.is_dead;
    unlock();
    return is_dead;
}

void layer_disarm(void)
{
    lock();
    layer.plan = (layer_plan){0};
    layer.is_dead = false;
    unlock();
}

/* --- what every call begins with --- */

static void apply_deferred(void)
{
    if (!layer.has_deferred)
        return;
    layer.has_deferred = false;
    log_event sync = {.kind = LOG_SYNC_RANGE, .file = layer.deferred.file, .offset = layer.deferred.offset,
                      .length = layer.deferred.length};
    if (change_locked(layer.deferred) == 0)
        change_locked(sync);
}

enum { CAN_FILL = 1, CAN_INTERRUPT = 2, CAN_OPEN = 4, CAN_CUT_SHORT = 8 };

static bool is_plausible(layer_fault fault, int can)
{
    switch (fault) {
    case LAYER_EIO:
    case LAYER_KILL:
        return true;
    case LAYER_ENOSPC:
    case LAYER_EDQUOT:
        return can & CAN_FILL;
    case LAYER_EMFILE:
        return can & CAN_OPEN;
    case LAYER_EINTR:
        return can & CAN_INTERRUPT;
    case LAYER_SHORT:
        return can & CAN_CUT_SHORT;
    default:
        return false;
    }
}

/* LAYER_NO_FAULT: go on. Else errno is set, except with LAYER_SHORT. Lock held. */
static layer_fault strike(const char *call, const char *path, int can)
{
    apply_deferred();
    if (layer.is_dead) {
        errno = EIO;
        return LAYER_EIO;
    }
    unsigned number = layer.calls++;
    if (layer.plan.fault == LAYER_NO_FAULT || number < layer.plan.at || (number > layer.plan.at && !layer.plan.is_lasting)
        || !is_plausible(layer.plan.fault, can) || (layer.plan.fault == LAYER_SHORT && layer.plan.is_lasting))
        return LAYER_NO_FAULT;
    if (!layer.has_struck)
        snprintf(layer.struck_call, sizeof layer.struck_call, "%s(%s)", call, path);
    layer.has_struck = true;
    layer.is_dead = layer.plan.fault == LAYER_KILL;
    errno = fault_errors[layer.plan.fault];
    return layer.plan.fault;
}

static descriptor *of(int fd)
{
    if (fd < LAYER_FD_BASE || fd >= LAYER_FD_BASE + DESCRIPTORS || !layer.descriptors[fd - LAYER_FD_BASE].is_used) {
        fprintf(stderr, "layer: a call on descriptor %d, which is not open\n", fd);
        abort();
    }
    return &layer.descriptors[fd - LAYER_FD_BASE];
}

static bool is_ours(int fd)
{
    return fd >= LAYER_FD_BASE;
}

static void join(char out[DISK_PATH_OCTETS], int dirfd, const char *name)
{
    const char *parent = of(dirfd)->path;
    if (strcmp(name, ".") == 0)
        snprintf(out, DISK_PATH_OCTETS, "%s", parent);
    else
        snprintf(out, DISK_PATH_OCTETS, "%.*s%s%.*s", 30, parent, parent[0] != 0 ? "/" : "", 32, name);
}

static int fail(int error)
{
    errno = error;
    return -1;
}

/* --- names --- */

static int open_locked(int dirfd, const char *name, int flags)
{
    char path[DISK_PATH_OCTETS];
    join(path, dirfd, name);
    if (strike("openat", path, CAN_OPEN | CAN_INTERRUPT | (flags & O_CREAT ? CAN_FILL : 0)) != LAYER_NO_FAULT)
        return -1;
    int file = disk_find(layer.on, path);
    if (file != DISK_NONE && flags & O_CREAT && flags & O_EXCL)
        return fail(EEXIST);
    if (file == DISK_NONE && !(flags & O_CREAT))
        return fail(ENOENT);
    if (file == DISK_NONE) {
        log_event event = {.kind = LOG_MAKE};
        memcpy(event.path, path, sizeof path);
        change_locked(event);
        file = disk_find(layer.on, path);
    }
    if (flags & O_DIRECT && layer.is_buffered)      /* as where the kernel creates first and refuses then */
        return fail(EINVAL);
    return take_descriptor(file, flags, path);
}

int __wrap_openat(int dirfd, const char *name, int flags, ...);
int __wrap_openat(int dirfd, const char *name, int flags, ...)
{
    lock();
    int fd = open_locked(dirfd, name, flags);
    unlock();
    return fd;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    if (!is_ours(fd))
        return __real_close(fd);
    lock();
    disk_opened(layer.on, of(fd)->file, -1);
    of(fd)->is_used = false;
    unlock();
    return 0;
}

int __wrap_mkdirat(int dirfd, const char *name, mode_t mode);
int __wrap_mkdirat(int dirfd, const char *name, mode_t mode)
{
    (void)mode;
    lock();
    log_event event = {.kind = LOG_MAKE, .is_directory = true};
    join(event.path, dirfd, name);
    int result = 0;
    if (strike("mkdirat", event.path, CAN_FILL) != LAYER_NO_FAULT)
        result = -1;
    else if (disk_find(layer.on, event.path) != DISK_NONE)
        result = fail(EEXIST);
    else
        change_locked(event);
    unlock();
    return result;
}

int __wrap_unlinkat(int dirfd, const char *name, int flags);
int __wrap_unlinkat(int dirfd, const char *name, int flags)
{
    (void)flags;
    lock();
    log_event event = {.kind = LOG_UNLINK};
    join(event.path, dirfd, name);
    int result = 0;
    if (strike("unlinkat", event.path, 0) != LAYER_NO_FAULT)
        result = -1;
    else if (disk_find(layer.on, event.path) == DISK_NONE)
        result = fail(ENOENT);
    else
        change_locked(event);
    unlock();
    return result;
}

/* The DIR of this disk is its descriptor; the spool has one open at a time. */
static struct dirent entry;

DIR *__wrap_fdopendir(int fd);
DIR *__wrap_fdopendir(int fd)
{
    lock();
    DIR *made = strike("fdopendir", of(fd)->path, 0) != LAYER_NO_FAULT ? NULL : (DIR *)of(fd);
    unlock();
    return made;
}

struct dirent *__wrap_readdir(DIR *directory);
struct dirent *__wrap_readdir(DIR *directory)
{
    lock();
    descriptor *from = (descriptor *)directory;
    struct dirent *result = NULL;
    if (strike("readdir", from->path, 0) == LAYER_NO_FAULT) {
        const char *path = disk_entry(layer.on, from->path, (unsigned)from->position++);
        if (path != NULL) {
            const char *slash = strrchr(path, '/');
            snprintf(entry.d_name, sizeof entry.d_name, "%s", slash != NULL ? slash + 1 : path);
            result = &entry;
        }
    }
    unlock();
    return result;
}

int __wrap_closedir(DIR *directory);
int __wrap_closedir(DIR *directory)
{
    return __wrap_close(LAYER_FD_BASE + (int)((descriptor *)directory - layer.descriptors));
}

/* --- contents --- */

static bool are_zeros(const uint8_t *data, size_t length)
{
    return length == 0 || (data[0] == 0 && memcmp(data, data + 1, length - 1) == 0);
}

static ssize_t write_locked(const char *call, descriptor *to, const uint8_t *data, size_t length, uint64_t offset, bool is_synced)
{
    bool is_direct = to->flags & O_DIRECT;
    if (is_direct && (length % DISK_SECTOR_OCTETS != 0 || offset % DISK_SECTOR_OCTETS != 0))
        return fail(EINVAL);
    layer_fault fault = strike(call, to->path, CAN_FILL | CAN_INTERRUPT | CAN_CUT_SHORT);
    int error = errno;
    size_t arrives = length;
    if (fault == LAYER_SHORT)
        arrives = length / 2;
    else if (fault != LAYER_NO_FAULT)
        arrives = layer.has_struck && (!layer.is_dead || fault == LAYER_KILL) && fault != LAYER_EINTR ? length / 4 * layer.plan.arrives : 0;
    if (arrives == 0)
        return fault == LAYER_NO_FAULT ? 0 : fail(fault == LAYER_SHORT ? EINTR : error);

    log_event event = {.kind = LOG_WRITE, .file = to->file, .offset = offset, .length = arrives};
    if (!are_zeros(data, arrives)) {
        event.data = malloc(arrives);
        if (event.data == NULL)
            abort();
        memcpy(event.data, data, arrives);
    }
    if (is_synced && fault == LAYER_NO_FAULT && layer.mutation == LAYER_EARLY_RETURN) {
        layer.deferred = event;
        layer.has_deferred = true;
        return (ssize_t)length;
    }
    if (change_locked(event) != 0)
        return fail(ENOSPC);
    if (fault != LAYER_NO_FAULT && fault != LAYER_SHORT)
        return fail(error);
    if (is_synced && layer.mutation != LAYER_NO_DATA_SYNC)
        change_locked((log_event){.kind = LOG_SYNC_RANGE, .file = to->file, .offset = offset, .length = arrives});
    return (ssize_t)arrives;
}

ssize_t __wrap_pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
    lock();
    if (count != 1)
        abort();                            /* the spool writes one run at a time */
    ssize_t written = write_locked("pwritev2", of(fd), vector->iov_base, vector->iov_len, (uint64_t)offset, flags & RWF_DSYNC);
    unlock();
    return written;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t offset)
{
    lock();
    ssize_t written = write_locked("pwrite", of(fd), data, length, (uint64_t)offset, false);
    unlock();
    return written;
}

ssize_t __real_write(int fd, const void *data, size_t length);
ssize_t __wrap_write(int fd, const void *data, size_t length);
ssize_t __wrap_write(int fd, const void *data, size_t length)
{
    if (!is_ours(fd))
        return __real_write(fd, data, length);
    lock();
    ssize_t written = write_locked("write", of(fd), data, length, of(fd)->position, false);
    if (written > 0)
        of(fd)->position += (uint64_t)written;
    unlock();
    return written;
}

static bool is_set_aside(const descriptor *what)
{
    return strstr(what->path, "/damaged/") != NULL;
}

static int sync_descriptor(const char *call, int fd)
{
    lock();
    descriptor *of_what = of(fd);
    bool is_directory = disk_is_directory(layer.on, of_what->file);
    int result = 0;
    if (strike(call, of_what->path, CAN_INTERRUPT | CAN_FILL) != LAYER_NO_FAULT) {
        int error = errno;
        if (error != EINTR && !layer.is_dead)
            change_locked((log_event){.kind = LOG_SYNC_FAILED, .file = of_what->file});
        result = fail(error);
    } else if (mistake_is_made(MISTAKE_KEPT_NOT_SYNCED) && is_set_aside(of_what))
        ;
    else if (layer.mutation != (is_directory ? LAYER_NO_DIRECTORY_SYNC : LAYER_NO_DATA_SYNC))
        change_locked((log_event){.kind = LOG_SYNC, .file = of_what->file});
    unlock();
    return result;
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return sync_descriptor("fsync", fd);
}

int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    return sync_descriptor("fdatasync", fd);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (mode != 0 || offset != 0)
        abort();
    lock();
    int result = -1;
    if (strike("fallocate", of(fd)->path, CAN_INTERRUPT | CAN_FILL) == LAYER_NO_FAULT)
        result = change_locked((log_event){.kind = LOG_RESERVE, .file = of(fd)->file, .length = (size_t)length}) == 0
               ? 0 : fail(ENOSPC);
    unlock();
    return result;
}

int __wrap_ftruncate(int fd, off_t length);
int __wrap_ftruncate(int fd, off_t length)
{
    lock();
    int result = -1;
    if (strike("ftruncate", of(fd)->path, CAN_INTERRUPT | CAN_FILL) == LAYER_NO_FAULT)
        result = change_locked((log_event){.kind = LOG_RESIZE, .file = of(fd)->file, .length = (size_t)length});
    unlock();
    return result;
}

static ssize_t read_locked(const char *call, descriptor *from, uint8_t *out, size_t length, uint64_t offset)
{
    layer_fault fault = strike(call, from->path, CAN_INTERRUPT | CAN_CUT_SHORT);
    if (fault == LAYER_SHORT && length > 1)
        length /= 2;
    else if (fault != LAYER_NO_FAULT && fault != LAYER_SHORT)
        return -1;
    return (ssize_t)disk_read(layer.on, from->file, offset, out, length);
}

ssize_t __wrap_pread(int fd, void *out, size_t length, off_t offset);
ssize_t __wrap_pread(int fd, void *out, size_t length, off_t offset)
{
    lock();
    ssize_t got = read_locked("pread", of(fd), out, length, (uint64_t)offset);
    unlock();
    return got;
}

ssize_t __wrap_preadv(int fd, const struct iovec *parts, int count, off_t offset);
ssize_t __wrap_preadv(int fd, const struct iovec *parts, int count, off_t offset)
{
    lock();
    ssize_t got = read_locked("preadv", of(fd), parts[0].iov_base, parts[0].iov_len, (uint64_t)offset);
    for (int i = 1; i < count && got > 0 && (size_t)got >= parts[i - 1].iov_len; i++)
        got += (ssize_t)disk_read(layer.on, of(fd)->file, (uint64_t)offset + (uint64_t)got, parts[i].iov_base, parts[i].iov_len);
    unlock();
    return got;
}

ssize_t __real_read(int fd, void *out, size_t length);
ssize_t __wrap_read(int fd, void *out, size_t length);
ssize_t __wrap_read(int fd, void *out, size_t length)
{
    if (is_ours(fd))
        abort();                            /* the spool reads files by offset */
    return __real_read(fd, out, length);
}

/* --- the rest --- */

int __wrap_fstat(int fd, struct stat *out);
int __wrap_fstat(int fd, struct stat *out)
{
    lock();
    int result = strike("fstat", of(fd)->path, 0) != LAYER_NO_FAULT ? -1 : 0;
    if (result == 0)
        *out = (struct stat){.st_size = (off_t)disk_size(layer.on, of(fd)->file)};
    if (result == 0 && out->st_size > 0 && mistake_is_made(MISTAKE_KEPT_NOT_REWRITTEN) && is_set_aside(of(fd)))
        out->st_size = INT64_MAX;       /* what has more octets than were to be kept is left as it is */
    unlock();
    return result;
}

int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    lock();
    int result = 0;
    if (command == F_GETFL)
        result = of(fd)->flags;
    else if (command == F_SETFL)
        of(fd)->flags = va_arg(arguments, int);
    else
        abort();
    unlock();
    va_end(arguments);
    return result;
}

int __wrap_flock(int fd, int operation);
int __wrap_flock(int fd, int operation)
{
    (void)operation;
    lock();
    int result = strike("flock", of(fd)->path, CAN_INTERRUPT) != LAYER_NO_FAULT ? -1 : 0;
    unlock();
    return result;
}

int __wrap_posix_fadvise(int fd, off_t offset, off_t length, int advice);
int __wrap_posix_fadvise(int fd, off_t offset, off_t length, int advice)
{
    (void)fd, (void)offset, (void)length, (void)advice;
    return 0;
}

/* The same every time, so that a run can be repeated. */
ssize_t __wrap_getrandom(void *out, size_t length, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t length, unsigned flags)
{
    (void)flags;
    lock();
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)out)[i] = (uint8_t)cut_random_below(&layer.salts, 256);
    unlock();
    return (ssize_t)length;
}

time_t __wrap_time(time_t *out);
time_t __wrap_time(time_t *out)
{
    (void)out;
    lock();
    time_t now = (time_t)layer.wall_s;
    unlock();
    return now;
}

pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void)
{
    return 4711;
}
