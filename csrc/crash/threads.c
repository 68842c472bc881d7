#include "crash/threads.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "crash/layer.h"

enum { CONDITIONS = 8, HANG_S = 10 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t now_ns = 1000000000000u;

static struct {
    pthread_cond_t *condition;          /* NULL: not in use */
    bool is_waiting;
    uint64_t until_ns;                  /* 0: no deadline */
    unsigned signals, seen;             /* seen: of signals, when the waiter lay down */
} conditions[CONDITIONS];

void threads_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void threads_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

static int find(const pthread_cond_t *condition)
{
    for (int i = 0; i < CONDITIONS; i++)
        if (conditions[i].condition == condition)
            return i;
    return -1;
}

/* --- the clock --- */

uint64_t layer_now_ns(void)
{
    threads_lock();
    uint64_t now = now_ns;
    threads_unlock();
    return now;
}

void layer_advance_ms(uint64_t ms)
{
    threads_lock();
    now_ns += ms * 1000000;
    threads_unlock();
}

int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    (void)clock;
    uint64_t now = layer_now_ns();
    *out = (struct timespec){(time_t)(now / 1000000000u), (long)(now % 1000000000u)};
    return 0;
}

/* --- conditions --- */

int __real_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes)
{
    threads_lock();
    int at = find(NULL);
    conditions[at].condition = condition;
    conditions[at].is_waiting = false;
    conditions[at].signals = conditions[at].seen = 0;
    threads_unlock();
    return __real_pthread_cond_init(condition, attributes);
}

int __real_pthread_cond_destroy(pthread_cond_t *condition);
int __wrap_pthread_cond_destroy(pthread_cond_t *condition);
int __wrap_pthread_cond_destroy(pthread_cond_t *condition)
{
    threads_lock();
    conditions[find(condition)].condition = NULL;
    threads_unlock();
    return __real_pthread_cond_destroy(condition);
}

int __real_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
    threads_lock();
    conditions[find(condition)].signals++;
    threads_unlock();
    return __real_pthread_cond_signal(condition);
}

static int lie_down(const pthread_cond_t *condition, uint64_t until_ns)
{
    threads_lock();
    int at = find(condition);
    conditions[at].is_waiting = true;
    conditions[at].until_ns = until_ns;
    conditions[at].seen = conditions[at].signals;
    pthread_cond_broadcast(&changed);
    threads_unlock();
    return at;
}

static void get_up(int at)
{
    threads_lock();
    conditions[at].is_waiting = false;
    threads_unlock();
}

int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *with);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *with);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *with)
{
    int at = lie_down(condition, 0);
    int result = __real_pthread_cond_wait(condition, with);
    get_up(at);
    return result;
}

static bool is_signalled(int at)
{
    threads_lock();
    bool result = conditions[at].signals != conditions[at].seen;
    threads_unlock();
    return result;
}

/* The deadline is one of the driver's clock; looked at once a millisecond of the real one. */
int __real_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *with, const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *with, const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *with, const struct timespec *until)
{
    uint64_t until_ns = (uint64_t)until->tv_sec * 1000000000u + (uint64_t)until->tv_nsec;
    int at = lie_down(condition, until_ns), result = 0;
    /* A signal that comes while the mutex is being taken again has nobody to wake: it is seen here. */
    while (!is_signalled(at)) {
        if (layer_now_ns() >= until_ns) {
            result = ETIMEDOUT;
            break;
        }
        struct timespec soon;
        __real_clock_gettime(CLOCK_MONOTONIC, &soon);
        soon.tv_nsec += 1000000;
        if (soon.tv_nsec >= 1000000000) {
            soon.tv_nsec -= 1000000000;
            soon.tv_sec++;
        }
        if (__real_pthread_cond_timedwait(condition, with, &soon) == 0)
            break;
    }
    get_up(at);
    return result;
}

static unsigned asleep_locked(void)
{
    unsigned asleep = 0;
    for (int i = 0; i < CONDITIONS; i++)
        asleep += conditions[i].condition != NULL && conditions[i].is_waiting && conditions[i].signals == conditions[i].seen
               && (conditions[i].until_ns == 0 || now_ns < conditions[i].until_ns);
    return asleep;
}

bool layer_wait_quiet(unsigned threads)
{
    struct timespec until;
    __real_clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += HANG_S;
    int error = 0;
    threads_lock();
    while (asleep_locked() < threads && error == 0)
        error = __real_pthread_cond_timedwait(&changed, &mutex, &until);
    bool is_quiet = asleep_locked() >= threads;
    threads_unlock();
    return is_quiet;
}

/* --- the order at a start: the commit thread first, then the reader --- */

typedef struct beginning {
    void *(*main)(void *argument);
    void *argument;
} beginning;

static void *begin_second(void *context)
{
    beginning self = *(beginning *)context;
    free(context);
    layer_wait_quiet(1);                /* or else the driver finds that nobody ever sleeps */
    return self.main(self.argument);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *argument)
{
    static unsigned made;
    if (made++ % 2 == 0)
        return __real_pthread_create(thread, attributes, main, argument);
    beginning *second = malloc(sizeof *second);
    if (second == NULL)
        abort();
    *second = (beginning){main, argument};
    return __real_pthread_create(thread, attributes, begin_second, second);
}
