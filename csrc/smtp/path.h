/* Mailboxes and paths of RFC 5321 §4.1.2 and §4.1.3, with RFC 6531 §3.3 when asked for.
 *
 * Pure functions: spans into the caller's buffer, no allocation, no copy, no globals.
 */
#ifndef ANGARIUM_SMTP_PATH_H
#define ANGARIUM_SMTP_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smtp/span.h"

enum {                          /* §4.5.3.1, octets */
    SMTP_LOCAL_PART_MAX = 64,
    SMTP_LABEL_MAX = 63,        /* RFC 1035 §2.3.4; of the A-label where a label is a U-label */
    SMTP_DOMAIN_MAX = 255,
    SMTP_PATH_MAX = 256,        /* with brackets and source route */
};

typedef enum smtp_path_result {
    SMTP_PATH_OK = 0,
    SMTP_PATH_SYNTAX,           /* not a path: 501 5.1.7 (reverse) or 5.1.3 (forward) */
    SMTP_PATH_LOCAL_TOO_LONG,   /* local-part over 64 octets, §4.5.3.1.1 */
    SMTP_PATH_DOMAIN_TOO_LONG,  /* domain over 255 octets or label over 63, §4.5.3.1.2 */
    SMTP_PATH_TOO_LONG,         /* path over 256 octets with its brackets, §4.5.3.1.3 */
    SMTP_PATH_NEEDS_UTF8,       /* octets above 127 and SMTP_PATH_UTF8 not given: 553 5.6.7 */
    SMTP_PATH_BAD_UTF8,         /* not well-formed UTF-8 (RFC 3629) */
    SMTP_PATH_BAD_LITERAL,      /* address literal that RFC 5321 §4.1.3 does not allow */
} smtp_path_result;

enum {
    SMTP_PATH_UTF8 = 1,         /* UTF8-non-ascii allowed in local-part and domain (RFC 6531) */
    SMTP_PATH_NULL = 2,         /* "<>" allowed (reverse-path) */
    SMTP_PATH_POSTMASTER = 4,   /* "<Postmaster>" without a domain allowed (forward-path, §4.1.1.3) */
    SMTP_PATH_UNQUALIFIED = 8,  /* any local-part without a domain allowed (submission, RFC 6409 §4.2) */
};

typedef struct smtp_path {
    smtp_span mailbox;          /* local-part "@" domain as written, without route or brackets */
    smtp_span local_part;       /* as written, quotes included */
    smtp_span domain;           /* as written; brackets of a literal included; empty where none was given */
    uint32_t end;               /* octets consumed from the start of input, closing bracket included (in a
                                   smtp_command: offset in the line) */
    bool is_null;
    bool is_quoted;             /* local-part is a Quoted-string */
    bool is_literal;            /* domain is an address literal */
    bool has_source_route;      /* "@a,@b:" was there; it is skipped, never obeyed (§4.1.1.3, appendix C) */
    bool has_utf8;              /* octets above 127 in mailbox or source route */
} smtp_path;

/* Parses "<...>" at the start of in[0..length); what follows `end` is the caller's business (parameters).
 * Limits are judged part by part as they end: a local-part too long is told before the domain is looked at.
 * General-address-literals are accepted by syntax: nothing but "IPv6" is registered, but new tags may be.
 * C1 controls (U+0080..U+009F) are SYNTAX although UTF8-non-ascii covers them: they drive terminals that show
 * a log, and no label and no sane local-part has them (RFC 5198 §2).
 * On failure *out is zeroed but for `end`, the offset where it stopped. */
smtp_path_result smtp_path_parse(const uint8_t *in, size_t length, unsigned flags, smtp_path *out);

/* Parses a bare Mailbox (no brackets) that must fill in[0..length) exactly; TOO_LONG when it would not fit
 * into a path. SMTP_PATH_POSTMASTER allows a bare "Postmaster"; SMTP_PATH_NULL means nothing here. */
smtp_path_result smtp_mailbox_parse(const uint8_t *in, size_t length, unsigned flags, smtp_path *out);

/* True when in[0..length) is a Domain or address literal as HELO and EHLO take it (§4.1.1.1). */
bool smtp_domain_is_valid(const uint8_t *in, size_t length, unsigned flags);

/* True when in[0..length) is well-formed UTF-8 (no overlong forms, no surrogates; RFC 3629). */
bool smtp_utf8_is_valid(const uint8_t *in, size_t length);

#endif
