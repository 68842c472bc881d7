#include "crash/promises.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spool/state.h"

static octets *pattern(uint64_t id, size_t length)
{
    octets *data = octets_new(length + 1);
    uint64_t state = id * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < length; i++)
        data->data[i] = (uint8_t)((state = state * 6364136223846793005u + 1442695040888963407u) >> 56);
    data->length = length;
    return data;
}

static spool_span span_of(const char *text)
{
    return (spool_span){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static octets *envelope_of(uint64_t id, uint64_t message_octets, const spool_chunk *chunks, uint32_t count)
{
    const spool_span none = {NULL, 0};
    char reverse_path[64];
    snprintf(reverse_path, sizeof reverse_path, "sender-%llx@x.example", (unsigned long long)id);
    octets *data = octets_new(256);
    int error = spool_envelope_begin(&data, span_of(id % 5 == 0 ? "" : reverse_path), none, span_of("mail.x.example"),
                                     span_of("192.0.2.1"), none);
    for (unsigned i = 0; i < 1 + id % 7 % 3; i++) {
        char forward_path[64];
        int at = snprintf(forward_path, sizeof forward_path, "b%u-%llx@", i, (unsigned long long)id);
        snprintf(forward_path + at, sizeof forward_path - (size_t)at, "y%u.example", i);
        error |= spool_envelope_add_recipient(&data, span_of(forward_path), (uint32_t)at, none, 0);
    }
    error |= spool_envelope_finish(&data, id, 1700000000000 + id % 1000, 0, message_octets, chunks, count);
    if (error != 0)
        abort();
    return data;
}

uint32_t book_add(book *self, uint64_t id, size_t body_octets)
{
    if (self->count == self->capacity) {
        self->capacity = self->capacity == 0 ? 64 : 2 * self->capacity;
        self->messages = realloc(self->messages, self->capacity * sizeof *self->messages);
        self->promises = realloc(self->promises, self->capacity * sizeof *self->promises);
        if (self->messages == NULL || self->promises == NULL)
            abort();
    }
    self->messages[self->count] = (book_message){id, true, envelope_of(id, body_octets, NULL, 0), pattern(id, body_octets)};
    self->promises[self->count] = (promise){0};
    return self->count++;
}

void book_set_chunks(book *self, uint32_t message, const spool_chunk *chunks, uint32_t count)
{
    book_message *of = &self->messages[message];
    octets_unref(of->envelope);
    of->envelope = envelope_of(of->id, of->body->length, chunks, count);
    of->is_inline = false;
}

octets *book_outcome(uint64_t id, uint32_t version)
{
    char text[200];
    int length = snprintf(text, sizeof text, "451 4.7.1 later %llx %u", (unsigned long long)id, version);
    while (length < (int)(id + version) % 180)
        text[length++] = '.';
    spool_recipient_state state = {
        .status = SPOOL_STATUS_WAITING, .attempts = (uint16_t)version, .next_attempt_utc_s = 1700000000 + version,
        .reply_code = 451, .enhanced_class = 4, .enhanced_subject = 7, .enhanced_detail = 1,
        .reply_text = {(const uint8_t *)text, (uint32_t)length}, .remote_host = span_of("mx.y.example"),
    };
    octets *data = octets_new(64);
    if (spool_state_begin(&data) != 0 || spool_state_append(&data, &state) != 0)
        abort();
    return data;
}

uint32_t book_outcome_version(const octets *data)
{
    spool_state state;
    spool_recipient_state first;
    if (spool_state_open(data->data, data->length, &state) != 0)
        return 0;
    const uint8_t *cursor = state.entries;
    return spool_state_next(&state, &cursor, &first) ? first.attempts : 0;
}

uint32_t book_find(const book *self, uint64_t id)
{
    for (uint32_t i = self->count; i-- > 0;)
        if (self->messages[i].id == id)
            return i;
    return UINT32_MAX;
}

void book_apply(book *self, const log_event *event)
{
    if (event->kind != LOG_PROMISE)
        return;
    promise *at = &self->promises[event->message];
    switch ((promise_what)event->what) {
    case PROMISE_SUBMITTED:
        at->is_submitted = true;
        break;
    case PROMISE_ACKNOWLEDGED:
        at->is_acknowledged = true;
        break;
    case PROMISE_OUTCOME_SUBMITTED:
        at->outcome_submitted = event->version;
        break;
    case PROMISE_OUTCOME_DURABLE:
        at->outcome_durable = event->version;
        break;
    case PROMISE_LEAVING:
        at->is_leaving = true;
        break;
    case PROMISE_GONE:
        at->is_gone = true;
        break;
    case PROMISE_COPY_SUBMITTED:
        at->is_copied = true;
        break;
    case PROMISE_KEPT:
        at->is_leaving = false;
        at->is_acknowledged = true;
        at->outcome_durable = event->version;
        break;
    }
}

void book_clear(book *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        octets_unref(self->messages[i].envelope);
        octets_unref(self->messages[i].body);
    }
    free(self->messages);
    free(self->promises);
    *self = (book){0};
}

book book_copy_without_promises(const book *from)
{
    book made = {.count = from->count, .capacity = from->count + 1};
    made.messages = malloc(made.capacity * sizeof *made.messages);
    made.promises = calloc(made.capacity, sizeof *made.promises);
    if (made.messages == NULL || made.promises == NULL)
        abort();
    for (uint32_t i = 0; i < from->count; i++) {
        made.messages[i] = from->messages[i];
        octets_ref(made.messages[i].envelope);
        octets_ref(made.messages[i].body);
    }
    return made;
}
