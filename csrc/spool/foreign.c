/* Another process's shard, for reading alone: no lock, no commit thread, no scan. Its owner says where records lie and keeps their
 * segments while they are read (docs/home-workers.md); a segment that went all the same has another salt, and what is read from it is
 * refused. The reader thread is the usual one (read.c); damage that it meets it tells and sets aside as the owner would (damage.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "spool/shard.h"

static int start_reader(spool_shard *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&self->reader_thread, NULL, spool_reader_main, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

int spool_shard_open_foreign(int dirfd, const char *name, uint8_t number, spool_shard **out, spool_error *error)
{
    *out = NULL;
    *error = (spool_error){0};
    spool_shard *self = spool_shard_new(name, number);
    int result = ENOMEM;
    if (self != NULL) {
        self->is_foreign = true;
        self->dirfd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        result = self->dirfd < 0 ? errno : 0;
        if (result == 0 && (self->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
            result = errno;
        if (result == 0)
            result = start_reader(self);
    }
    if (result != 0) {
        error->code = result;
        snprintf(error->text, sizeof error->text, "spool shard %s: cannot be read: %s", name, strerror(result));
        if (self != NULL)
            spool_shard_destroy(self);
        return result;
    }
    *out = self;
    return 0;
}

void spool_segment_describe(const spool_segment *segment, spool_segment_face *out)
{
    *out = (spool_segment_face){segment->serial, segment->slot, segment->salt, segment->octets};
}

spool_segment *spool_shard_hold_foreign(spool_shard *self, const spool_segment_face *face)
{
    spool_segment *segment = spool_shard_segment(self, face->serial);
    /* After a restart of its owner on a spool that was replaced, a serial may come again. */
    while (segment != NULL && (segment->serial != face->serial || segment->salt != face->salt || segment->slot != face->slot
                               || segment->octets != face->octets))
        segment = segment->next_in_bucket;
    if (segment == NULL) {
        segment = spool_segment_new();
        if (segment == NULL)
            return NULL;
        segment->serial = face->serial;
        segment->slot = face->slot;
        segment->salt = face->salt;
        segment->octets = face->octets;
        spool_pins_learn(self, segment);
    }
    segment->live++;
    return segment;
}

void spool_shard_drop_foreign(spool_shard *self, spool_segment *segment)
{
    if (--segment->live == 0)
        spool_pins_forget_foreign(self, segment);
}
