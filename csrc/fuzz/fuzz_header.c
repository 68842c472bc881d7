/* Any octets: fields tile the header section and have their names, mailboxes lie in their values in order, completing adds
 * domains only; a list of mailboxes that is clear stays so when a domain is put behind those that have none. */
#include "mime/header.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *in = exact_copy(data, size);
    size_t end, at = 0, before = 0, added = 0;
    mime_header_end how = mime_header_find_end(in, size, &end);
    mime_field field;

    INVARIANT(end <= size);
    if (how == MIME_HEADER_BLANK)
        INVARIANT(size - end >= 2 && in[end] == '\r' && in[end + 1] == '\n');
    while (mime_field_next(in, end, &at, &field)) {
        size_t inner = 0, last = 0;
        mime_mailbox mailbox;
        INVARIANT(field.start == before && field.value > field.start && field.value <= field.end && field.end == at);
        while (mime_mailbox_next(in + field.value, field.end - field.value, &inner, &mailbox)) {
            INVARIANT(mailbox.start >= last && mailbox.end > mailbox.start && mailbox.end <= inner);
            last = mailbox.end;
            added += field.kind >= MIME_FIELD_FROM && !mailbox.has_domain;
        }
        size_t name = 0;
        while (in[field.start + name] != ':' && in[field.start + name] != ' ' && in[field.start + name] != '\t')
            name++;
        INVARIANT(mime_field_is(in, &field, in + field.start, name));
        INVARIANT(name == 0 || !mime_field_is(in, &field, in + field.start, name - 1));
        INVARIANT(field.value - field.start >= size || !mime_field_is(in, &field, in, field.value - field.start));
        before = field.end;
    }
    INVARIANT(before == end);
    /* Whoever passes over what is no field finds all fields, in their places, and what is behind. */
    size_t found_at = 0, wanted_at = 0;
    mime_field found, wanted;
    while (mime_field_next(in, end, &wanted_at, &wanted)) {
        INVARIANT(mime_field_find(in, size, &found_at, &found) && found.start == wanted.start && found.value == wanted.value
                  && found.kind == wanted.kind && found.end >= wanted.end);
        if (found.end > wanted.end)     /* a last folded line that does not end */
            INVARIANT(how == MIME_HEADER_OPEN && found.end == size);
    }
    for (before = found_at; mime_field_find(in, size, &found_at, &found); before = found.end)
        INVARIANT(found.start >= before && found.value > found.start && found.value <= found.end && found.end == found_at
                  && found.end <= size);
    INVARIANT(how != MIME_HEADER_BLANK || before == end);
    size_t length = mime_header_complete(in, end, (const uint8_t *)"d.example", 9, false, NULL);
    INVARIANT(length == end + 10 * added);
    uint8_t *out = malloc(length + 1);
    INVARIANT(mime_header_complete(in, end, (const uint8_t *)"d.example", 9, false, out) == length);
    mime_field done;
    for (size_t old_at = 0, new_at = 0; mime_field_next(in, end, &old_at, &field);) {
        INVARIANT(mime_field_next(out, length, &new_at, &done) && done.kind == field.kind);
        if (mime_mailboxes_are_clear(in + field.value, field.end - field.value))
            INVARIANT(mime_mailboxes_are_clear(out + done.value, done.end - done.value));
    }
    free(out);
    free(in);
    return 0;
}
