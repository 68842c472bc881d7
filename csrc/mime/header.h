/* Header sections of messages (RFC 5322 §2.2, §3.4), as far as submission has to read them (RFC 6409 §8).
 *
 * Pure functions over the caller's octets: no allocation, no globals. Lines end with CRLF (the data machine has seen to
 * that). What is malformed is left as it is: an address that cannot be understood is nobody's to complete.
 */
#ifndef ANGARIUM_MIME_HEADER_H
#define ANGARIUM_MIME_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum mime_header_end {
    MIME_HEADER_OPEN = 0,       /* no end in sight: more octets may belong to it */
    MIME_HEADER_BLANK,          /* the empty line that ends it follows */
    MIME_HEADER_BODY,           /* a line that is no field follows: the empty line is missing */
} mime_header_end;

/* Where the header section at the start of in[0..length) ends: *end is the offset behind its last field. For OPEN it is
 * behind the last line that is whole. */
mime_header_end mime_header_find_end(const uint8_t *in, size_t length, size_t *end);

typedef enum mime_field_kind {
    MIME_FIELD_OTHER = 0,
    MIME_FIELD_DATE, MIME_FIELD_MESSAGE_ID, MIME_FIELD_FROM, MIME_FIELD_SENDER,
    MIME_FIELD_ADDRESSES,       /* Reply-To, To, Cc, Bcc and the Resent- fields: address lists */
} mime_field_kind;

typedef struct mime_field {
    size_t start;               /* of its name */
    size_t value;               /* behind the colon */
    size_t end;                 /* behind its CRLF, folded lines included */
    uint8_t kind;               /* mime_field_kind */
} mime_field;

/* The next field from *at on, in a header section in[0..length); false at its end. *at is left behind it. */
bool mime_field_next(const uint8_t *in, size_t length, size_t *at, mime_field *out);

/* The same in a whole message, for who must miss no field that some reader may find: lines that are no fields are passed over, as far as
 * the empty line or the end of in[0..length), and a last line counts that has no CRLF. */
bool mime_field_find(const uint8_t *in, size_t length, size_t *at, mime_field *out);

/* Whether the field has this name, in any case. `name` without the colon. */
bool mime_field_is(const uint8_t *in, const mime_field *field, const uint8_t *name, size_t length);

typedef struct mime_mailbox {
    size_t start;               /* of the addr-spec, without brackets: from its first token ... */
    size_t end;                 /* ... to behind its last; comments and blanks may be between */
    bool has_domain;            /* there is an "@" */
} mime_mailbox;

/* The next mailbox from *at on, in the value of an address field, in[0..length); false when there is none. Groups,
 * comments, quoted strings, domain literals and source routes are understood; words without brackets around an address
 * ("John Doe") are no mailbox. */
bool mime_mailbox_next(const uint8_t *in, size_t length, size_t *at, mime_mailbox *out);

/* Whether every reader finds the same mailboxes in the value of an address field as mime_mailbox_next(): no second pair of brackets,
 * no comment, quoted string or bracket that does not end, no octet that belongs nowhere, no other address as a name in front of
 * brackets or of a group. What is spelled as RFC 5322 has it is clear; so are empty elements and dots in names (§4), and square
 * brackets with plain words in them in the name in front of angle brackets ("[IT] Alice <a@x.example>"). */
bool mime_mailboxes_are_clear(const uint8_t *in, size_t length);

/* Copies a header section with "@" domain behind every mailbox that has none, and without its Sender fields when asked.
 * out NULL: only counts. Returns the octets written. */
size_t mime_header_complete(const uint8_t *in, size_t length, const uint8_t *domain, size_t domain_length,
                            bool without_sender, uint8_t *out);

#endif
