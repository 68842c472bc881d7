#include "crash/rig.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash/layer.h"

enum { THREADS = 2, REAP_AT_ONCE = 256 };

static char place[300];

void rig_set_place(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(place, sizeof place, format, arguments);
    va_end(arguments);
}

const char *rig_place(void)
{
    return place;
}

static void wait_quiet(void)
{
    if (layer_wait_quiet(THREADS))
        return;
    printf("%s: the spool hangs\n", place);
    fflush(stdout);
    _exit(3);
}

int rig_open(rig *self)
{
    spool_options options = {RIG_SEGMENT_OCTETS, RIG_SPARE_SEGMENTS, 1000, 0, SPOOL_LAZY_MS};
    spool_error error;
    self->error[0] = 0;
    int result = spool_shard_open(self->root, "00", 0, &options, &self->shard, &error);
    if (result != 0)
        snprintf(self->error, sizeof self->error, "open: %s", error.text);
    else
        wait_quiet();
    return result;
}

void rig_turn(rig *self, uint64_t advance_ms)
{
    layer_advance_ms(advance_ms);
    for (bool has_more = true; has_more;) {
        spool_shard_kick(self->shard, layer_now_ns() / 1000000);
        wait_quiet();
        struct pollfd ready = {spool_shard_event_fd(self->shard), POLLIN, 0};
        has_more = poll(&ready, 1, 0) > 0;
        while (spool_shard_reap(self->shard, REAP_AT_ONCE))
            has_more = true;
    }
}

void rig_close(rig *self)
{
    spool_shard_stop(self->shard);
    while (spool_shard_reap(self->shard, REAP_AT_ONCE))
        ;
    spool_shard_close(self->shard);
    self->shard = NULL;
}

void rig_findings_clear(rig_findings *self)
{
    for (uint32_t i = 0; i < self->count; i++)
        octets_unref(self->items[i].envelope);
    free(self->items);
    *self = (rig_findings){0};
}

__attribute__((format(printf, 2, 3)))
static const char *wrong(rig *self, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(self->error, sizeof self->error, format, arguments);
    va_end(arguments);
    return self->error;
}

/* --- judging --- */

/* A copy made by compaction is the same but for what says so and where its chunks lie. */
static const char *judge_envelope(rig *self, const book_message *expected, bool may_be_copy, const octets *envelope)
{
    spool_envelope view;
    if (envelope->length != expected->envelope->length || spool_envelope_open(envelope->data, envelope->length, &view) != 0)
        return wrong(self, "message %llx: its envelope is another", (unsigned long long)expected->id);
    octets *copy = octets_copy(expected->envelope->data, expected->envelope->length);
    if (expected->is_inline)
        spool_envelope_set_single_chunk(copy->data, spool_envelope_chunk(&view, 0));
    bool is_copy = view.flags & SPOOL_ENVELOPE_COPY && may_be_copy;
    if (is_copy)
        spool_envelope_mark_copy(copy->data, view.flags & SPOOL_ENVELOPE_COPY_FIRST);
    for (uint32_t i = 0; i < view.chunk_count && is_copy; i++)
        spool_envelope_set_chunk(copy->data, i, spool_envelope_chunk(&view, i));
    bool is_same = memcmp(copy->data, envelope->data, copy->length) == 0;
    octets_unref(copy);
    return is_same ? NULL : wrong(self, "message %llx: its envelope has other octets", (unsigned long long)expected->id);
}

static const char *judge_outcome(rig *self, const book *promised, bool may_report, rig_found *found, octets *state)
{
    const promise *about = &promised->promises[found->message];
    uint64_t id = promised->messages[found->message].id;
    if (state != NULL) {
        found->outcome_version = book_outcome_version(state);
        octets *expected = book_outcome(id, found->outcome_version);
        bool is_same = expected->length == state->length && memcmp(expected->data, state->data, state->length) == 0;
        octets_unref(expected);
        if (!is_same)
            return wrong(self, "message %llx: its outcome has other octets", (unsigned long long)id);
    }
    if (may_report && found->outcome_version < about->outcome_durable)
        return NULL;                        /* the newest could not be read this time */
    if (found->outcome_version < about->outcome_durable || found->outcome_version > about->outcome_submitted)
        return wrong(self, "message %llx: outcome %u, but %u was durable and %u the last one", (unsigned long long)id,
                     found->outcome_version, about->outcome_durable, about->outcome_submitted);
    return NULL;
}

static const char *judge_found(rig *self, const book *promised, bool may_report, rig_findings *out, spool_recovered *recovered)
{
    rig_found *found = &out->items[out->count++];
    *found = (rig_found){.message = book_find(promised, recovered->id), .place = recovered->place,
                         .state_segment = recovered->state_segment, .envelope = recovered->envelope};
    if (found->message == UINT32_MAX)
        return wrong(self, "message %llx was never submitted", (unsigned long long)recovered->id);
    const promise *about = &promised->promises[found->message];
    if (about->is_gone && !may_report)
        return wrong(self, "message %llx is back, though it was durably over", (unsigned long long)recovered->id);
    if (!about->is_submitted)
        return wrong(self, "message %llx is there without having been submitted", (unsigned long long)recovered->id);
    for (uint32_t i = 0; i + 1 < out->count; i++)
        if (out->items[i].message == found->message)
            return wrong(self, "message %llx is found twice", (unsigned long long)recovered->id);
    const char *error = judge_envelope(self, &promised->messages[found->message], about->is_copied, recovered->envelope);
    return error != NULL ? error : judge_outcome(self, promised, may_report, found, recovered->state);
}

typedef struct reading {
    spool_read_op op;
    bool is_done;
} reading;

static void read_done(spool_read_op *op, void *context)
{
    (void)op;
    ((reading *)context)->is_done = true;
}

/* *failed: the errno of a chunk that cannot be read now; then nothing is wrong. NULL: it must be readable. */
static const char *judge_chunks(rig *self, const book_message *expected, int *failed, reading *readings, uint32_t count)
{
    size_t at = 0;
    const char *error = NULL;
    for (uint32_t i = 0; i < count && error == NULL; i++) {
        const octets *out = readings[i].op.out;
        if (failed != NULL && readings[i].is_done && readings[i].op.error != 0 && readings[i].op.error != EBADMSG) {
            *failed = readings[i].op.error;
            return NULL;                /* tried again later */
        }
        if (!readings[i].is_done || readings[i].op.error != 0)
            error = wrong(self, "message %llx: chunk %u cannot be read: %s", (unsigned long long)expected->id, i,
                          readings[i].is_done ? strerror(readings[i].op.error) : "no answer");
        else if (at + out->length > expected->body->length || memcmp(expected->body->data + at, out->data, out->length) != 0)
            error = wrong(self, "message %llx: chunk %u has other octets", (unsigned long long)expected->id, i);
        else
            at += out->length;
    }
    if (error == NULL && at != expected->body->length)
        error = wrong(self, "message %llx: %zu of %zu octets", (unsigned long long)expected->id, at, expected->body->length);
    return error;
}

static const char *read_bodies(rig *self, const book *promised, const rig_findings *out, int *failed)
{
    uint32_t total = 0, at = 0;
    spool_envelope view;
    for (uint32_t i = 0; i < out->count; i++)
        total += spool_envelope_open(out->items[i].envelope->data, out->items[i].envelope->length, &view) == 0 ? view.chunk_count : 0;
    reading *readings = calloc(total + 1, sizeof *readings);
    for (uint32_t i = 0; i < out->count; i++) {
        spool_envelope_open(out->items[i].envelope->data, out->items[i].envelope->length, &view);
        for (uint32_t j = 0; j < view.chunk_count; j++, at++) {
            spool_chunk chunk = spool_envelope_chunk(&view, j);
            readings[at].op = (spool_read_op){
                .place = {spool_shard_segment(self->shard, chunk.segment_serial), chunk.offset, chunk.length},
                .done = read_done, .context = &readings[at]};
            spool_shard_read(self->shard, &readings[at].op);
        }
    }
    rig_turn(self, 0);
    const char *error = NULL;
    at = 0;
    for (uint32_t i = 0; i < out->count && error == NULL; i++) {
        spool_envelope_open(out->items[i].envelope->data, out->items[i].envelope->length, &view);
        error = judge_chunks(self, &promised->messages[out->items[i].message], failed, readings + at, view.chunk_count);
        at += view.chunk_count;
    }
    for (uint32_t i = 0; i < total; i++)
        octets_unref(readings[i].op.out);
    free(readings);
    return error;
}

const char *rig_read_message(rig *self, const book *promised, uint32_t message, spool_place home, int *error)
{
    const book_message *expected = &promised->messages[message];
    reading first = {.op = {.place = home, .wanted = {SPOOL_ENVELOPE, expected->id, 0}, .done = read_done, .context = &first}};
    rig_findings one = {&(rig_found){.message = message}, 1};
    spool_shard_read(self->shard, &first.op);
    rig_turn(self, 0);
    *error = first.op.error;
    if (*error != 0)
        return *error == EBADMSG ? wrong(self, "message %llx: its envelope is damaged", (unsigned long long)expected->id) : NULL;
    const char *words = judge_envelope(self, expected, promised->promises[message].is_copied, first.op.out);
    one.items[0].envelope = first.op.out;
    if (words == NULL)
        words = read_bodies(self, promised, &one, error);
    octets_unref(first.op.out);
    return words;
}

static const char *judge_missing(rig *self, const book *promised, const rig_findings *out)
{
    bool *is_found = calloc(promised->count + 1, sizeof *is_found);
    for (uint32_t i = 0; i < out->count; i++)
        is_found[out->items[i].message] = true;
    const char *error = NULL;
    for (uint32_t i = 0; i < promised->count && error == NULL; i++) {
        const promise *about = &promised->promises[i];
        if (about->is_acknowledged && !about->is_leaving && !about->is_gone && !is_found[i])
            error = wrong(self, "message %llx was acknowledged and is lost", (unsigned long long)promised->messages[i].id);
    }
    free(is_found);
    return error;
}

/* --- what is set aside --- */

static void note_kept(rig *self, const spool_notice *told)
{
    const char *name = strstr(told->text, "kept in damaged/");
    const spool_segment *segment = spool_shard_segment(self->shard, told->at.serial);
    spool_segment_face face;
    if (name == NULL || strstr(name, "unreadable") != NULL || segment == NULL || told->at.octets == 0 || self->kept_count == RIG_KEPT_LIMIT)
        return;
    rig_kept *made = &self->kept[self->kept_count];
    spool_segment_describe(segment, &face);
    char path[DISK_PATH_OCTETS];
    snprintf(path, sizeof path, "00/seg-%04u.ang", face.slot);
    int file = disk_find(layer_disk(), path);
    if (file == DISK_NONE)
        return;
    snprintf(made->path, sizeof made->path, "00/damaged/%u-%llu.bin", told->at.serial, (unsigned long long)told->at.offset);
    made->expected = octets_new(told->at.octets);
    made->expected->length = disk_read(layer_disk(), file, told->at.offset, made->expected->data, told->at.octets);
    self->kept_count++;
}

const char *rig_judge_kept(rig *self, const disk *after)
{
    const char *error = NULL;
    for (unsigned i = 0; i < self->kept_count && error == NULL; i++) {
        const rig_kept *one = &self->kept[i];
        int file = disk_find(after, one->path);
        octets *there = octets_new(one->expected->length);
        if (file == DISK_NONE)
            error = wrong(self, "%s is said to be kept and is not there", one->path);
        else if (disk_size(after, file) < one->expected->length
                 || disk_read(after, file, 0, there->data, one->expected->length) != one->expected->length
                 || memcmp(there->data, one->expected->data, one->expected->length) != 0)
            error = wrong(self, "%s is said to be kept and has other octets", one->path);
        octets_unref(there);
    }
    return error;
}

void rig_forget_kept(rig *self)
{
    for (unsigned i = 0; i < self->kept_count; i++)
        octets_unref(self->kept[i].expected);
    self->kept_count = 0;
}

bool rig_next_trouble(rig *self, spool_notice *out)
{
    bool is_there;
    while ((is_there = spool_shard_next_notice(self->shard, out))) {
        note_kept(self, out);
        if (out->at.kind != SPOOL_NOTICE_TORN)
            break;
        if (out->at.octets != 0 && strstr(out->text, "kept") == NULL)      /* or "not kept: ", with the reason */
            break;                      /* octets that are there and nobody speaks of: that is trouble */
    }
    return is_there;
}

const char *rig_judge(rig *self, const book *promised, bool may_report, unsigned *reports, rig_findings *out)
{
    const char *error = NULL;
    spool_recovered recovered;
    int result, failed = 0;
    *out = (rig_findings){calloc(promised->count + 1, sizeof *out->items), 0};
    rig_turn(self, 0);
    while ((result = spool_shard_recover_next(self->shard, &recovered)) == 1) {
        if (error == NULL && out->count <= promised->count)
            error = judge_found(self, promised, may_report, out, &recovered);
        else
            octets_unref(recovered.envelope);
        octets_unref(recovered.state);
    }
    if (result == 0)
        return wrong(self, "recovery does not end");
    if (error == NULL)
        error = read_bodies(self, promised, out, may_report ? &failed : NULL);
    spool_notice notice;
    for (; rig_next_trouble(self, &notice); ++*reports)
        if (error == NULL && !may_report)
            error = wrong(self, "the operator is told: %s", notice.text);
    if (error == NULL && !(may_report && *reports > 0))
        error = judge_missing(self, promised, out);
    return error;
}

/* --- a message --- */

typedef struct taking {
    spool_op op;
    bool is_done;
} taking;

static void take_done(spool_op *op, void *context)
{
    (void)op;
    ((taking *)context)->is_done = true;
}

uint32_t rig_take_message(rig *self, book *into, size_t body_octets)
{
    uint64_t id = spool_shard_next_id(self->shard);
    uint32_t same = book_find(into, id);
    if (same != UINT32_MAX && into->promises[same].is_acknowledged) {
        wrong(self, "id %llx is given a second time", (unsigned long long)id);
        return UINT32_MAX;
    }
    uint32_t message = book_add(into, id, body_octets);
    book_message *of = &into->messages[message];
    into->promises[message].is_submitted = true;
    octets *envelope = octets_copy(of->envelope->data, of->envelope->length);
    taking one = {.op = {.kind = SPOOL_ENVELOPE, .id = id, .payload = envelope, .body = of->body, .done = take_done}};
    one.op.context = &one;
    spool_shard_submit(self->shard, &one.op);
    rig_turn(self, 0);
    octets_unref(envelope);
    if (!one.is_done) {
        printf("%s: an op never came back\n", place);
        fflush(stdout);
        _exit(3);
    }
    if (one.op.error != 0) {
        into->promises[message].is_leaving = true;
        wrong(self, "a new message is refused: %s", strerror(one.op.error));
        return UINT32_MAX;
    }
    into->promises[message].is_acknowledged = true;
    return message;
}
