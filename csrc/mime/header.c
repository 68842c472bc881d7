#include "mime/header.h"

#include <string.h>
#include <strings.h>

/* Behind the CRLF of the line at in[at..); 0 when it is not whole. */
static size_t line_end(const uint8_t *in, size_t length, size_t at)
{
    const uint8_t *lf = at < length ? memchr(in + at, '\n', length - at) : NULL;

    return lf != NULL ? (size_t)(lf - in) + 1 : 0;
}

/* Offset of the colon of the field whose line begins at in[at..end), or `end`: ftext is 33..126 (§3.6.8), blanks before
 * the colon are obsolete and taken (§4.5). */
static size_t colon_of(const uint8_t *in, size_t at, size_t end)
{
    size_t i = at;

    while (i < end && in[i] > 32 && in[i] < 127 && in[i] != ':')
        i++;
    if (i == at)
        return end;
    while (i < end && (in[i] == ' ' || in[i] == '\t'))
        i++;
    return i < end && in[i] == ':' ? i : end;
}

mime_header_end mime_header_find_end(const uint8_t *in, size_t length, size_t *end)
{
    size_t at = 0;

    for (;;) {
        size_t next = line_end(in, length, at);
        *end = at;
        if (next == 0)
            return MIME_HEADER_OPEN;
        if (next - at == 2 && in[at] == '\r')
            return MIME_HEADER_BLANK;
        bool is_folded = at > 0 && (in[at] == ' ' || in[at] == '\t');
        if (!is_folded && colon_of(in, at, next) == next)
            return MIME_HEADER_BODY;
        at = next;
    }
}

static const struct {
    const char *name;
    uint8_t kind;
} names[] = {
    {"date", MIME_FIELD_DATE}, {"message-id", MIME_FIELD_MESSAGE_ID}, {"from", MIME_FIELD_FROM},
    {"sender", MIME_FIELD_SENDER}, {"reply-to", MIME_FIELD_ADDRESSES}, {"to", MIME_FIELD_ADDRESSES},
    {"cc", MIME_FIELD_ADDRESSES}, {"bcc", MIME_FIELD_ADDRESSES}, {"resent-from", MIME_FIELD_ADDRESSES},
    {"resent-sender", MIME_FIELD_ADDRESSES}, {"resent-reply-to", MIME_FIELD_ADDRESSES},
    {"resent-to", MIME_FIELD_ADDRESSES}, {"resent-cc", MIME_FIELD_ADDRESSES}, {"resent-bcc", MIME_FIELD_ADDRESSES},
};

static bool equals_folded(const uint8_t *in, size_t length, const char *lower)
{
    for (size_t i = 0; i < length; i++)
        if (lower[i] == '\0' || (in[i] >= 'A' && in[i] <= 'Z' ? in[i] + 32 : in[i]) != (uint8_t)lower[i])
            return false;
    return lower[length] == '\0';
}

static uint8_t kind_of(const uint8_t *in, size_t length)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (equals_folded(in, length, names[i].name))
            return names[i].kind;
    return MIME_FIELD_OTHER;
}

/* Of the field whose name begins at `start`; blanks may be in front of the colon. */
static uint8_t kind_behind(const uint8_t *in, size_t start, size_t colon)
{
    while (colon > start && (in[colon - 1] == ' ' || in[colon - 1] == '\t'))
        colon--;
    return kind_of(in + start, colon - start);
}

bool mime_field_next(const uint8_t *in, size_t length, size_t *at, mime_field *out)
{
    size_t end = line_end(in, length, *at);

    if (end == 0)
        return false;
    size_t colon = colon_of(in, *at, end);
    if (colon == end)
        return false;
    out->start = *at;
    out->value = colon + 1;
    while (end < length && (in[end] == ' ' || in[end] == '\t')) {
        size_t next = line_end(in, length, end);
        if (next == 0)
            break;
        end = next;
    }
    out->end = *at = end;
    out->kind = kind_behind(in, out->start, colon);
    return true;
}

static size_t line_end_or_all(const uint8_t *in, size_t length, size_t at)
{
    size_t end = line_end(in, length, at);

    return end != 0 ? end : length;
}

bool mime_field_find(const uint8_t *in, size_t length, size_t *at, mime_field *out)
{
    while (*at < length) {
        size_t start = *at, end = line_end_or_all(in, length, start);
        if (end - start == 2 && in[start] == '\r')
            return false;
        size_t colon = colon_of(in, start, end);
        *at = end;
        while (*at < length && (in[*at] == ' ' || in[*at] == '\t'))
            *at = line_end_or_all(in, length, *at);
        if (colon == end)
            continue;
        *out = (mime_field){start, colon + 1, *at, kind_behind(in, start, colon)};
        return true;
    }
    return false;
}

bool mime_field_is(const uint8_t *in, const mime_field *field, const uint8_t *name, size_t length)
{
    size_t at = field->start + length;

    if (at >= field->value || strncasecmp((const char *)in + field->start, (const char *)name, length) != 0)
        return false;
    while (in[at] == ' ' || in[at] == '\t')     /* obsolete, and seen: white space in front of the colon */
        at++;
    return at == field->value - 1;
}

/* Behind the comment, quoted string or domain literal that begins at in[at]; `length` when it does not end. */
static size_t skip_enclosed(const uint8_t *in, size_t length, size_t at, bool *does_end)
{
    uint8_t open = in[at], close = open == '(' ? ')' : open == '[' ? ']' : '"';
    size_t depth = 1;

    *does_end = true;
    for (at++; at < length; at++) {
        if (in[at] == '\\')
            at++;
        else if (in[at] == close && --depth == 0)
            return at + 1;
        else if (open == '(' && in[at] == '(')
            depth++;
    }
    *does_end = false;
    return length;
}

static bool is_special(uint8_t octet)
{
    return octet <= ' ' || octet == 127 || memchr("()<>[]:;@\\,\"", octet, 12) != NULL;
}

/* Tokens between two separators, in or outside of angle brackets. */
typedef struct tokens {
    size_t start, end;          /* of the first, behind the last */
    unsigned words;             /* runs of atoms, dots and quoted strings with nothing between */
    bool has_at;
    bool is_bad;
} tokens;

static void add(tokens *self, size_t start, size_t end)
{
    if (self->words == 0 && !self->has_at)
        self->start = start;
    if (self->words == 0 || start != self->end)
        self->words++;
    self->end = end;
}

static bool is_mailbox(const tokens *self, mime_mailbox *out)
{
    if (self->is_bad || self->words == 0 || (!self->has_at && self->words > 1))
        return false;
    *out = (mime_mailbox){self->start, self->end, self->has_at};
    return true;
}

bool mime_mailbox_next(const uint8_t *in, size_t length, size_t *at, mime_mailbox *out)
{
    tokens outside = {0}, inside = {0};
    bool is_inside = false, has_inside = false, does_end;
    size_t i = *at;

    while (i < length) {
        tokens *now = is_inside ? &inside : &outside;
        uint8_t octet = in[i];
        size_t start = i;
        if (octet == '(') {
            i = skip_enclosed(in, length, i, &does_end);
        } else if (octet == '"' || octet == '[') {
            i = skip_enclosed(in, length, i, &does_end);
            now->is_bad |= !does_end;
            add(now, start, i);
        } else if (octet == '@') {
            if (now->words == 0 && !now->has_at)
                now->start = i;
            now->has_at = true;
            now->end = ++i;
        } else if (octet == '<' && !is_inside && !has_inside) {
            is_inside = has_inside = true;
            i++;
        } else if (octet == '>' && is_inside) {
            is_inside = false;
            i++;
        } else if (octet == ':' && !is_inside) {
            outside = (tokens){0};          /* what stood before is the name of a group */
            i++;
        } else if ((octet == ',' || octet == ';') && !is_inside) {
            i++;
            if (is_mailbox(has_inside ? &inside : &outside, out)) {
                *at = i;
                return true;
            }
            outside = inside = (tokens){0};
            has_inside = false;
        } else if (octet == ',' || octet == ':') {      /* of a source route */
            i++;
        } else if (octet <= ' ') {
            i++;
        } else if (is_special(octet)) {
            now->is_bad = true;
            i++;
        } else {
            while (i < length && !is_special(in[i]))
                i++;
            add(now, start, i);
        }
    }
    *at = length;
    return !is_inside && is_mailbox(has_inside ? &inside : &outside, out);
}

/* Behind a "[" of a name and its "]"; 0 when there is anything between them but words, dots and blanks. */
static size_t skip_words_in_brackets(const uint8_t *in, size_t length, size_t at)
{
    for (at++; at < length && (in[at] == ' ' || in[at] == '\t' || !is_special(in[at])); at++)
        ;
    return at < length && in[at] == ']' ? at + 1 : 0;
}

/* One mailbox of a list: an address in front of brackets that is another than the one in them is somebody's, too. What is bad
 * outside may only be a name. */
static bool is_clear(const uint8_t *in, const tokens *outside, const tokens *inside, bool has_inside)
{
    size_t length = outside->end - outside->start;

    if (outside->is_bad && !has_inside)
        return false;
    return !has_inside || !outside->has_at
        || (length == inside->end - inside->start
            && strncasecmp((const char *)in + outside->start, (const char *)in + inside->start, length) == 0);
}

bool mime_mailboxes_are_clear(const uint8_t *in, size_t length)
{
    enum { BEFORE, INSIDE, BEHIND } where = BEFORE;     /* the angle brackets */
    tokens outside = {0}, inside = {0};
    bool does_end = true;

    for (size_t i = 0; i < length && does_end;) {
        tokens *now = where == INSIDE ? &inside : &outside;
        uint8_t octet = in[i];
        size_t start = i;
        if (octet == ' ' || octet == '\t' || octet == '\r' || octet == '\n') {
            i++;
        } else if (octet == '(') {
            i = skip_enclosed(in, length, i, &does_end);
        } else if ((octet == ',' || octet == ';') && where != INSIDE) {
            if (!is_clear(in, &outside, &inside, where == BEHIND))
                return false;
            outside = inside = (tokens){0};
            where = BEFORE;
            i++;
        } else if (where == BEHIND) {
            return false;
        } else if (octet == '"' || (octet == '[' && now->has_at)) {
            i = skip_enclosed(in, length, i, &does_end);
            add(now, start, i);
        } else if (octet == '[' && where == BEFORE) {
            i = skip_words_in_brackets(in, length, i);
            if (i == 0)
                return false;
            outside.is_bad = true;
            add(&outside, start, i);
        } else if (octet == '@') {
            if (now->words == 0 && !now->has_at)
                now->start = i;
            now->has_at = true;
            now->end = ++i;
        } else if (octet == '<' && where == BEFORE) {
            where = INSIDE;
            i++;
        } else if (octet == '>' && where == INSIDE) {
            where = BEHIND;
            i++;
        } else if (octet == ':' && where == BEFORE) {
            if (outside.has_at)
                return false;
            outside = (tokens){0};
            i++;
        } else if ((octet == ':' || octet == ',') && where == INSIDE) {
            i++;
        } else if (is_special(octet)) {
            return false;
        } else {
            while (i < length && !is_special(in[i]))
                i++;
            add(now, start, i);
        }
    }
    return does_end && where != INSIDE && is_clear(in, &outside, &inside, where == BEHIND);
}

static size_t put(uint8_t *out, size_t written, const uint8_t *from, size_t length)
{
    if (out != NULL && length > 0)
        memcpy(out + written, from, length);
    return written + length;
}

size_t mime_header_complete(const uint8_t *in, size_t length, const uint8_t *domain, size_t domain_length,
                            bool without_sender, uint8_t *out)
{
    size_t at = 0, written = 0;
    mime_field field;

    while (mime_field_next(in, length, &at, &field)) {
        size_t copied = field.start, inner = 0;
        mime_mailbox mailbox;
        if (without_sender && field.kind == MIME_FIELD_SENDER)
            continue;
        while (field.kind >= MIME_FIELD_FROM
               && mime_mailbox_next(in + field.value, field.end - field.value, &inner, &mailbox)) {
            if (mailbox.has_domain)
                continue;
            size_t place = field.value + mailbox.end;
            written = put(out, written, in + copied, place - copied);
            written = put(out, written, (const uint8_t *)"@", 1);
            written = put(out, written, domain, domain_length);
            copied = place;
        }
        written = put(out, written, in + copied, field.end - copied);
    }
    return written;
}
