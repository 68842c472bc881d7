#include "crash/log.h"

#include <stdlib.h>

#include "crash/cut.h"

void log_append(log *self, log_event event)
{
    if (self->count == self->capacity) {
        self->capacity = self->capacity == 0 ? 1024 : 2 * self->capacity;
        self->events = realloc(self->events, self->capacity * sizeof *self->events);
        if (self->events == NULL)
            abort();
    }
    self->events[self->count++] = event;
}

void log_clear(log *self)
{
    for (uint32_t i = 0; i < self->count; i++)
        free(self->events[i].data);
    free(self->events);
    *self = (log){0};
}

static int apply_write(const log_event *event, disk *on)
{
    if (event->data != NULL)
        return disk_write(on, event->file, event->offset, event->data, event->length);
    static const uint8_t zeros[DISK_PAGE_OCTETS];
    int error = 0;
    for (size_t done = 0; done < event->length && error == 0;) {
        size_t part = event->length - done < sizeof zeros ? event->length - done : sizeof zeros;
        error = disk_write(on, event->file, event->offset + done, zeros, part);
        done += part;
    }
    return error;
}

static void apply_cut(const log_event *event, disk **on)
{
    disk *after = cut_sampled(*on, event->offset, (unsigned)event->length);
    disk_free(*on);
    *on = after;
}

int log_apply(const log_event *event, disk **on)
{
    switch (event->kind) {
    case LOG_MAKE:
        disk_make(*on, event->path, event->is_directory);
        return 0;
    case LOG_UNLINK:
        disk_unlink(*on, event->path);
        return 0;
    case LOG_WRITE:
        return apply_write(event, *on);
    case LOG_RESERVE:
        return disk_reserve(*on, event->file, event->length);
    case LOG_RESIZE:
        disk_resize(*on, event->file, event->length);
        return 0;
    case LOG_SYNC:
        disk_sync(*on, event->file);
        return 0;
    case LOG_SYNC_RANGE:
        disk_sync_range(*on, event->file, event->offset, event->length);
        return 0;
    case LOG_SYNC_FAILED:
        disk_sync_failed(*on, event->file);
        return 0;
    case LOG_CUT:
        apply_cut(event, on);
        return 0;
    case LOG_PROMISE:
        return 0;
    }
    return 0;
}
