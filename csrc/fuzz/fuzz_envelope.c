/* Any octets are refused, or are an envelope whose every span lies inside them, whose recipients and chunks are as many as it says, and
 * which builds into the same octets again. */
#include "fuzz.h"
#include "spool/envelope.h"

static void check_span(spool_span span, const uint8_t *data, size_t size)
{
    INVARIANT(span.data >= data && span.length <= size && span.data <= data + size - span.length);
    for (uint32_t i = 0; i < span.length; i++)
        INVARIANT(span.data[i] != 0 && span.data[i] != '\r' && span.data[i] != '\n');
}

static void check_rebuild(const spool_envelope *view, const uint8_t *data, size_t size)
{
    octets *again = octets_new(16);
    spool_chunk *chunks = calloc(view->chunk_count + 1, sizeof *chunks);
    INVARIANT(again != NULL && chunks != NULL);
    int error = spool_envelope_begin(&again, view->reverse_path, view->envid, view->helo, view->client_address, view->listener);
    const uint8_t *cursor = view->recipients;
    spool_recipient recipient;
    while (error == 0 && spool_envelope_next_recipient(view, &cursor, &recipient))
        error = spool_envelope_add_recipient(&again, recipient.forward_path, recipient.domain_offset, recipient.orcpt, recipient.notify);
    spool_attribute attribute;
    cursor = view->end;
    while (error == 0 && spool_envelope_next_attribute(view, &cursor, &attribute))
        error = spool_envelope_add_attribute(&again, attribute.key, attribute.text);
    for (uint32_t i = 0; i < view->chunk_count; i++)
        chunks[i] = spool_envelope_chunk(view, i);
    if (error == 0)
        error = spool_envelope_finish(&again, view->id, view->received_utc_ms, view->flags, view->message_octets, chunks, view->chunk_count);
    if (error == 0) {                   /* the reader is laxer than the builder about lengths and reserved octets */
        spool_envelope second;
        INVARIANT(again->length == size);
        INVARIANT(spool_envelope_open(again->data, again->length, &second) == 0);
        INVARIANT(second.id == view->id && second.recipient_count == view->recipient_count && second.chunk_count == view->chunk_count);
    }
    (void)data;
    free(chunks);
    octets_unref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t size)
{
    uint8_t *data = exact_copy(in, size);
    spool_envelope view;
    int result = spool_envelope_open(data, size, &view);
    INVARIANT(result == 0 || result < 0);
    if (result == 0) {
        const uint8_t *cursor = view.recipients;
        spool_recipient recipient;
        uint32_t count = 0;
        const spool_span texts[] = {view.reverse_path, view.envid, view.helo, view.client_address, view.listener};
        for (int i = 0; i < 5; i++)
            check_span(texts[i], data, size);
        for (; spool_envelope_next_recipient(&view, &cursor, &recipient); count++) {
            check_span(recipient.forward_path, data, size);
            check_span(recipient.orcpt, data, size);
            INVARIANT(recipient.domain_offset <= recipient.forward_path.length);
        }
        INVARIANT(count == view.recipient_count);
        spool_attribute attribute;
        spool_span first;
        cursor = view.end;
        while (spool_envelope_next_attribute(&view, &cursor, &attribute)) {
            check_span(attribute.text, data, size);
            INVARIANT(spool_envelope_find_attribute(&view, attribute.key, &first) && first.data <= attribute.text.data);
        }
        check_rebuild(&view, data, size);
    }
    uint64_t id;
    if (spool_id_decode((const char *)data, size, &id)) {
        char text[13];
        spool_id_encode(id, text);
        for (int i = 0; i < 13; i++)
            INVARIANT(text[i] == data[i] || text[i] == data[i] - 'a' + 'A');
    }
    free(data);
    return 0;
}
