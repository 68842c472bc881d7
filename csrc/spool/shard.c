/* The shard as the loop thread sees it: submit, kick, reap, stop. What it is not: opening (open.c), writing (commit.c), reading
 * (read.c), recovery (recover.c), pins (pins.c). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "spool/shard.h"

enum {
    COUNTER_LIMIT = (1 << 24) - 1,          /* of an id */
    UNWRITTEN_RETRY_MS = 1000,
};

/* --- reports and wake-ups: any thread --- */

static void add_notice(spool_shard *self, spool_notice_place place, const char *format, va_list arguments)
{
    pthread_mutex_lock(&self->mutex);
    uint32_t at = (self->shared.notice_first + self->shared.notice_count) % SPOOL_REPORT_LIMIT;
    if (self->shared.notice_count < SPOOL_REPORT_LIMIT)
        self->shared.notice_count++;
    else {
        self->shared.notice_first = (self->shared.notice_first + 1) % SPOOL_REPORT_LIMIT;
        self->shared.notices_lost++;
    }
    self->shared.notices[at].at = place;
    vsnprintf(self->shared.notices[at].text, SPOOL_REPORT_OCTETS, format, arguments);
    pthread_mutex_unlock(&self->mutex);
}

void spool_report(spool_shard *self, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    add_notice(self, (spool_notice_place){SPOOL_NOTICE_TROUBLE, 0, 0, 0}, format, arguments);
    va_end(arguments);
}

void spool_report_at(spool_shard *self, spool_notice_place at, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    add_notice(self, at, format, arguments);
    va_end(arguments);
}

bool spool_shard_next_notice(spool_shard *self, spool_notice *out)
{
    pthread_mutex_lock(&self->mutex);
    bool is_there = self->shared.notice_count > 0;
    if (self->shared.notices_lost > 0) {
        *out = (spool_notice){0};
        snprintf(out->text, sizeof out->text, "shard %s: %u earlier reports found no room; angarium spool check names every place",
                 self->name, self->shared.notices_lost);
        self->shared.notices_lost = 0;
    } else if (is_there) {
        *out = self->shared.notices[self->shared.notice_first];
        self->shared.notice_first = (self->shared.notice_first + 1) % SPOOL_REPORT_LIMIT;
        self->shared.notice_count--;
    }
    pthread_mutex_unlock(&self->mutex);
    return is_there;
}

void spool_show(spool_shard *self)
{
    __atomic_add_fetch(&self->handed_over, 1, __ATOMIC_RELEASE);
}

/* The write is a system call that wakes a thread: some 10 us, in which that thread would meet a mutex that is still held. */
void spool_unlock_and_signal(spool_shard *self)
{
    bool is_first = !self->shared.is_signalled;
    self->shared.is_signalled = true;
    pthread_mutex_unlock(&self->mutex);
    if (!is_first)
        return;
    uint64_t one = 1;
    while (write(self->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* --- submitting --- */

uint64_t spool_shard_next_id(spool_shard *self)
{
    if (++self->counter > COUNTER_LIMIT) {
        uint32_t now_s = (uint32_t)time(NULL), next = self->incarnation + 1;
        __atomic_store_n(&self->incarnation, now_s > next ? now_s : next, __ATOMIC_RELAXED);
        self->counter = 1;
    }
    return (uint64_t)self->number << 56 | (uint64_t)self->incarnation << 24 | self->counter;
}

int spool_shard_event_fd(const spool_shard *self)
{
    return self->event_fd;
}

void spool_shard_submit(spool_shard *self, spool_op *op)
{
    if (op->kind == SPOOL_OUTCOME) {
        op->about->busy++;
        if (op->previous_state != NULL)
            op->previous_state->busy++;
    }
    if (self->is_stopped) {
        op->error = ESHUTDOWN;
        op->place = op->body_place = (spool_place){0};
        spool_ops_append(&self->done_local, op);
        return;
    }
    self->pending_count++;
    self->copy_count += op->is_copy;
    self->urgent_count += op->kind != SPOOL_OUTCOME || op->is_copy;
    spool_ops_append(&self->pending, op);
}

bool spool_shard_is_lazy_waiting(const spool_shard *self)
{
    return !self->is_stopped
        && (self->pending_count > self->urgent_count || self->freed_pending != NULL || self->unwritten != NULL);
}

uint64_t spool_shard_kick_due_ms(const spool_shard *self, uint64_t now_mono_ms)
{
    if (!spool_shard_is_lazy_waiting(self))
        return 0;
    if (self->lazy_since_ms == 0)               /* freed records that failed */
        return UNWRITTEN_RETRY_MS;
    uint64_t waited = now_mono_ms - self->lazy_since_ms;
    return waited < self->options.lazy_ms ? self->options.lazy_ms - waited : 1;
}

void spool_shard_hurry(spool_shard *self)
{
    self->options.lazy_ms = 0;
}

/* Freed records that failed go again, except those whose home is just being retired: it may take them along. */
static void retry_unwritten(spool_shard *self, uint64_t now_mono_ms)
{
    if (self->unwritten == NULL || now_mono_ms - self->unwritten_retry_ms < UNWRITTEN_RETRY_MS)
        return;
    self->unwritten_retry_ms = now_mono_ms;
    spool_freed **at = &self->unwritten;
    while (*at != NULL) {
        spool_freed *freed = *at;
        bool is_leaving = false;
        for (uint32_t i = 0; i < freed->count; i++)
            is_leaving |= freed->entries[i].kind != SPOOL_FREE_CHUNK && freed->entries[i].home->is_retiring;
        if (is_leaving) {
            at = &freed->next;
            continue;
        }
        *at = freed->next;
        for (uint32_t i = 0; i < freed->count; i++)
            if (freed->entries[i].kind != SPOOL_FREE_CHUNK)
                freed->entries[i].home->unwritten--;
        freed->next = NULL;
        spool_freed **last = &self->freed_pending;      /* behind: the first is the one being filled */
        while (*last != NULL)
            last = &(*last)->next;
        *last = freed;
    }
}

static void hand_over_locked(spool_shard *self)
{
    spool_ops_join(&self->shared.ops, &self->pending);
    self->shared.op_count += self->pending_count - self->copy_count;
    spool_freed *oldest_first = NULL;
    while (self->freed_pending != NULL) {
        spool_freed *freed = self->freed_pending;
        self->freed_pending = freed->next;
        freed->next = oldest_first;
        oldest_first = freed;
    }
    *self->shared.freed_last = oldest_first;
    while (*self->shared.freed_last != NULL)
        self->shared.freed_last = &(*self->shared.freed_last)->next;
    self->pending_count = self->urgent_count = self->copy_count = 0;
    self->lazy_since_ms = 0;
}

void spool_shard_kick(spool_shard *self, uint64_t now_mono_ms)
{
    if (self->is_stopped)
        return;
    retry_unwritten(self, now_mono_ms);
    if (self->pending_count == 0 && self->freed_pending == NULL)
        return;
    if (self->urgent_count == 0) {
        if (self->lazy_since_ms == 0)
            self->lazy_since_ms = now_mono_ms;
        if (now_mono_ms - self->lazy_since_ms < self->options.lazy_ms)
            return;
    }
    pthread_mutex_lock(&self->mutex);
    hand_over_locked(self);
    uint32_t waiting = self->shared.op_count + (self->shared.freed != NULL);
    bool is_idle = self->shared.wake_at == 1;
    bool wakes = self->shared.wake_at != 0 && (is_idle || waiting >= self->shared.wake_at);
    if (wakes)
        self->shared.wake_at = 0;               /* once is enough */
    pthread_mutex_unlock(&self->mutex);
    spool_show(self);
    if (wakes)                                  /* unlocked, as in spool_unlock_and_signal() */
        pthread_cond_signal(&self->commit_wake);
}

void spool_shard_expect(spool_shard *self, uint32_t active_transactions)
{
    __atomic_store_n(&self->expected, active_transactions, __ATOMIC_RELAXED);
}

void spool_shard_read(spool_shard *self, spool_read_op *op)
{
    op->next = NULL;
    op->out = NULL;
    if (op->place.segment != NULL)
        op->place.segment->busy++;
    pthread_mutex_lock(&self->mutex);
    if (self->is_stopped) {                     /* the thread is gone: straight to the finished ones */
        op->error = ESHUTDOWN;
        *self->shared.reads_done_last = op;
        self->shared.reads_done_last = &op->next;
    } else {
        *self->shared.reads_last = op;
        self->shared.reads_last = &op->next;
        pthread_cond_signal(&self->reader_wake);
    }
    pthread_mutex_unlock(&self->mutex);
}

/* --- finishing --- */

bool spool_shard_reap(spool_shard *self, unsigned limit)
{
    uint64_t count;
    ssize_t ignored = read(self->event_fd, &count, sizeof count);   /* before the lock: what is posted later signals again */
    (void)ignored;
    pthread_mutex_lock(&self->mutex);
    self->shared.is_signalled = false;
    spool_ops_join(&self->done_local, &self->shared.done);
    if (self->reads_local == NULL) {
        self->reads_local = self->shared.reads_done;
        self->shared.reads_done = NULL;
        self->shared.reads_done_last = &self->shared.reads_done;
    }
    pthread_mutex_unlock(&self->mutex);

    for (; limit > 0 && self->done_local.first != NULL; limit--) {
        spool_op *op = self->done_local.first;
        self->done_local.first = op->next;
        if (op->next == NULL)
            self->done_local.last = &self->done_local.first;
        uint8_t kind = op->kind;
        spool_pins_take(self, op);
        if (kind < SPOOL_EVENT_OPENED)
            op->done(op, op->context);
    }
    for (; limit > 0 && self->reads_local != NULL; limit--) {
        spool_read_op *op = self->reads_local;
        self->reads_local = op->next;
        if (op->place.segment != NULL) {
            op->place.segment->busy--;
            spool_pins_consider(self, op->place.segment);
        }
        op->done(op, op->context);
    }
    return self->done_local.first != NULL || self->reads_local != NULL;
}

/* 1: found_local has something; 0: nothing at the moment; -1: the scan is over. */
static int await_found(spool_shard *self)
{
    if (self->found_local != NULL)
        return 1;
    pthread_mutex_lock(&self->mutex);
    self->found_local = self->shared.found;
    self->shared.found = NULL;
    self->shared.found_last = &self->shared.found;
    self->shared.found_count = 0;
    bool is_over = self->shared.is_scan_over, is_broken = self->shared.is_scan_broken;
    pthread_cond_signal(&self->reader_wake);
    pthread_mutex_unlock(&self->mutex);
    if (self->found_local != NULL)
        return 1;
    if (is_over && !self->is_scan_merged)
        spool_pins_scan_over(self);
    return is_over || is_broken ? -1 : 0;
}

int spool_shard_recover_next(spool_shard *self, spool_recovered *out)
{
    for (;;) {
        int result = await_found(self);
        if (result != 1)
            return result;
        spool_found *found = self->found_local;
        self->found_local = found->next;
        spool_pins_take_found(self, found);
        bool is_message = !found->is_stale;
        if (found->is_stale)
            octets_unref(found->envelope);
        else
            *out = (spool_recovered){found->id, found->envelope, found->state,
                                     {found->home, found->offset, (uint32_t)found->envelope->length}, found->state_segment};
        free(found);
        if (is_message)
            return 1;
    }
}

/* --- the end --- */

void spool_shard_stop(spool_shard *self)
{
    if (self->is_stopped)
        return;
    retry_unwritten(self, self->unwritten_retry_ms + UNWRITTEN_RETRY_MS);
    pthread_mutex_lock(&self->mutex);
    hand_over_locked(self);
    self->shared.is_stopping = true;
    pthread_cond_signal(&self->commit_wake);
    pthread_cond_signal(&self->reader_wake);
    pthread_mutex_unlock(&self->mutex);
    spool_show(self);
    if (!self->is_foreign)
        pthread_join(self->commit_thread, NULL);
    pthread_join(self->reader_thread, NULL);
    self->is_stopped = true;
}

static void destroy_freed_list(spool_freed *freed)
{
    while (freed != NULL) {
        spool_freed *next = freed->next;
        spool_freed_destroy(freed);
        freed = next;
    }
}

static void destroy_found_list(spool_found *found)
{
    while (found != NULL) {
        spool_found *next = found->next;
        octets_unref(found->envelope);
        octets_unref(found->state);
        free(found);
        found = next;
    }
}

void spool_shard_close(spool_shard *self)
{
    if (self == NULL)
        return;
    spool_shard_stop(self);
    /* Events still count (a segment opened must be known to be freed); callbacks do not. */
    pthread_mutex_lock(&self->mutex);
    spool_ops_join(&self->done_local, &self->shared.done);
    pthread_mutex_unlock(&self->mutex);
    while (self->done_local.first != NULL) {
        spool_op *op = self->done_local.first;
        self->done_local.first = op->next;
        if (op->kind >= SPOOL_EVENT_OPENED)
            spool_pins_take(self, op);
    }
    destroy_freed_list(self->freed_pending);
    destroy_freed_list(self->unwritten);
    destroy_found_list(self->found_local);
    destroy_found_list(self->shared.found);
    spool_shard_destroy(self);
}

/* --- figures --- */

void spool_shard_statistics(spool_shard *self, spool_statistics *out)
{
    const spool_statistics *in = &self->counts;
#define TAKE(field) out->field = __atomic_load_n(&in->field, __ATOMIC_RELAXED)
    TAKE(commits); TAKE(records); TAKE(octets_written); TAKE(sync_errors); TAKE(write_errors);
    TAKE(recovered_messages); TAKE(torn_records); TAKE(damaged_records); TAKE(damaged_octets); TAKE(unread_segments);
    TAKE(live_octets); TAKE(segment_octets); TAKE(compactions);
    TAKE(segments); TAKE(free_segments); TAKE(sealed_segments); TAKE(excess_segments); TAKE(commit_us_last); TAKE(commit_us_max);
    TAKE(held_us);
    TAKE(is_scan_broken);
#undef TAKE
    out->is_full = __atomic_load_n(&self->is_full, __ATOMIC_RELAXED);
}

bool spool_shard_has_room(const spool_shard *self)
{
    return !__atomic_load_n(&self->is_full, __ATOMIC_RELAXED);
}
