/* A clock for a whole process that nobody has to know of: loaded before the C library (LD_PRELOAD), it answers
 * clock_gettime() and its like for Python, Cython and C together, wall clock and monotonic clock as one.
 *
 * Time passes where the event loop waits for it: epoll_wait() and epoll_pwait() of the simulated thread return at once, with the clock
 * moved to their timeout, when no descriptor is ready and no other thread is at work. So real sockets and a real spool need no
 * stand-ins: they are waited for, and no time passes meanwhile. Besides, each look at a clock takes a microsecond, so
 * that work which is done in slices of time ends its slices.
 *
 * Before simulated_clock_begin() everything is the kernel's. Behind it the wall clock is everybody's. The monotonic clock is
 * that of the calling thread alone: others wait by it in the kernel (the commit thread for company), which knows nothing of
 * this file. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    LOOK_NS = 1000,
    THREADS = 64,                       /* whose descriptors are kept */
    STUCK_MS = 30000,                   /* of real time, in which nothing happens though there is no timer */
};

static int64_t passed_ns, utc_begin_ns, mono_begin_ns, step_ms;
static int has_begun;
static __thread int is_of_thread;

void simulated_clock_begin(int64_t utc_ns, int64_t least_step_ms);

static int from_kernel(clockid_t clock, struct timespec *out)
{
    return (int)syscall(SYS_clock_gettime, clock, out);
}

/* The calling thread is the event loop's. least_step_ms: of a wait that ends by time, so that timers near to each other fire
 * together. */
void simulated_clock_begin(int64_t utc_ns, int64_t least_step_ms)
{
    struct timespec mono;
    from_kernel(CLOCK_MONOTONIC, &mono);
    mono_begin_ns = (int64_t)mono.tv_sec * 1000000000 + mono.tv_nsec;
    utc_begin_ns = utc_ns;
    step_ms = least_step_ms;
    is_of_thread = 1;
    __atomic_store_n(&has_begun, 1, __ATOMIC_RELEASE);
}

static void tell(int64_t begin_ns, struct timespec *out)
{
    int64_t now_ns = begin_ns + (is_of_thread ? __atomic_add_fetch(&passed_ns, LOOK_NS, __ATOMIC_RELAXED)
                                              : __atomic_load_n(&passed_ns, __ATOMIC_RELAXED));
    out->tv_sec = now_ns / 1000000000;
    out->tv_nsec = now_ns % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    if (!__atomic_load_n(&has_begun, __ATOMIC_ACQUIRE))
        return from_kernel(clock, out);
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_TAI:
        tell(utc_begin_ns, out);
        return 0;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME:
        if (is_of_thread) {
            tell(mono_begin_ns, out);
            return 0;
        }
    }
    return from_kernel(clock, out);
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

/* --- where time passes --- */

static int epoll_of_kernel(int fd, struct epoll_event *events, int count, int timeout, const sigset_t *mask)
{
    return (int)syscall(SYS_epoll_pwait, fd, events, count, timeout, mask, mask != NULL ? _NSIG / 8 : 0);
}

/* Of /proc/self/task/THREAD/stat (proc_pid_stat(5)): S sleeps. Whoever was woken, or waits for a disk, does not. */
static char state_of(int thread)
{
    static struct { int thread, fd; } kept[THREADS];
    char path[64], text[512];
    int fd = -1, place = -1;
    for (int i = 0; i < THREADS && fd < 0; i++) {
        if (kept[i].thread == thread)
            fd = kept[place = i].fd;
        else if (kept[i].thread == 0 && place < 0)
            place = i;
    }
    if (fd < 0) {
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return 'S';                 /* it has ended */
        if (place >= 0) {
            kept[place].thread = thread;
            kept[place].fd = fd;
        }
    }
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = 0;
    if (length <= 0 || place < 0)
        close(fd);
    if (length <= 0 && place >= 0)
        kept[place].thread = 0;
    const char *behind_name = strrchr(text, ')');
    return behind_name != NULL && behind_name[1] == ' ' ? behind_name[2] : 'S';
}

static int is_anybody_at_work(void)
{
    static DIR *tasks;
    struct dirent *entry;
    int own = (int)syscall(SYS_gettid), is_work = 0;
    if (tasks == NULL && (tasks = opendir("/proc/self/task")) == NULL)
        abort();
    rewinddir(tasks);
    while ((entry = readdir(tasks)) != NULL && !is_work) {
        int thread = atoi(entry->d_name);
        is_work = thread != 0 && thread != own && state_of(thread) != 'S';
    }
    return is_work;
}

int epoll_pwait(int fd, struct epoll_event *events, int count, int timeout, const sigset_t *mask)
{
    if (!is_of_thread || timeout == 0)
        return epoll_of_kernel(fd, events, count, timeout, mask);
    int found = epoll_of_kernel(fd, events, count, 0, mask);
    while (found == 0) {
        /* In this order: what a thread has told before it went to sleep is seen. */
        int is_work = is_anybody_at_work();
        found = epoll_of_kernel(fd, events, count, is_work ? 1 : 0, mask);
        if (!is_work)
            break;
    }
    if (found != 0)
        return found;
    if (timeout < 0) {
        found = epoll_of_kernel(fd, events, count, STUCK_MS, mask);
        if (found == 0) {
            fputs("simulated clock: there is no timer, and nothing else that could ever happen\n", stderr);
            abort();
        }
        return found;
    }
    __atomic_add_fetch(&passed_ns, (timeout > step_ms ? timeout : step_ms) * (int64_t)1000000, __ATOMIC_RELAXED);
    return 0;
}

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    return epoll_pwait(fd, events, count, timeout, NULL);
}
