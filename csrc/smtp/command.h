/* SMTP command lines: where one ends, and what it says (RFC 5321 §4.1.1, RFC 3030, 3461, 2033, 4954, 6531).
 *
 * Two functions: smtp_line_find() finds the end of the next line and is the only judge of line endings in
 * command phase; smtp_command_parse() splits one line. Both give spans into the caller's buffer, allocate
 * nothing and keep no state.
 */
#ifndef ANGARIUM_SMTP_COMMAND_H
#define ANGARIUM_SMTP_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smtp/path.h"
#include "smtp/span.h"

typedef enum smtp_line_result {
    SMTP_LINE_OK = 0,           /* *length octets, then CRLF */
    SMTP_LINE_PARTIAL,          /* no CRLF yet; nothing wrong so far */
    SMTP_LINE_TOO_LONG,         /* more than `limit` octets (CRLF counted) before CRLF or end of input */
    SMTP_LINE_BARE_LF,          /* LF without CR before it at *length: the session must end */
    SMTP_LINE_BARE_CR,          /* CR followed by something else than LF at *length: likewise */
} smtp_line_result;

/* Looks for CRLF in in[0..size). A CR as last octet is PARTIAL. `limit` counts the CRLF; TOO_LONG is told as
 * soon as `limit` octets are there and hold no CRLF, so that a buffer of `limit` octets is enough. The line
 * itself may hold NUL and control octets: smtp_command_parse refuses those, with the session usable.
 * *length is set always: octets looked at and found harmless, for PARTIAL and TOO_LONG. */
smtp_line_result smtp_line_find(const uint8_t *in, size_t size, size_t limit, size_t *length);

typedef enum smtp_verb {
    SMTP_VERB_UNKNOWN = 0,
    SMTP_VERB_HELO, SMTP_VERB_EHLO, SMTP_VERB_LHLO,
    SMTP_VERB_MAIL, SMTP_VERB_RCPT, SMTP_VERB_DATA, SMTP_VERB_BDAT,
    SMTP_VERB_RSET, SMTP_VERB_NOOP, SMTP_VERB_VRFY, SMTP_VERB_EXPN, SMTP_VERB_HELP, SMTP_VERB_QUIT,
    SMTP_VERB_STARTTLS, SMTP_VERB_AUTH, SMTP_VERB_ETRN,
    SMTP_VERB_XCLIENT, SMTP_VERB_XFORWARD,      /* Postfix's: who speaks, and where a message came from */
    SMTP_VERB_HTTP,             /* GET, POST, PUT, HEAD, CONNECT, OPTIONS, DELETE, PATCH, TRACE, and any line that ends as a
                                   request line does, " HTTP/1.1" (RFC 9112 §3): cross-protocol; always
                                   SMTP_COMMAND_OK, whatever else the line holds: the session ends */
} smtp_verb;

typedef enum smtp_command_result {
    SMTP_COMMAND_OK = 0,
    SMTP_COMMAND_UNKNOWN,       /* no such verb: 500 5.5.1 */
    SMTP_COMMAND_CONTROL,       /* NUL or another control octet (or DEL) in the line: 500 5.5.2 */
    SMTP_COMMAND_SYNTAX,        /* argument malformed or missing or not allowed: 501 5.5.4 */
    SMTP_COMMAND_BAD_PATH,      /* see path_result: 501 5.1.7 / 5.1.3, 553 5.6.7 */
    SMTP_COMMAND_BAD_PARAMETER, /* parameter not `esmtp-keyword ["=" esmtp-value]`: 501 5.5.4 */
    SMTP_COMMAND_TWICE,         /* the same parameter keyword twice: 501 5.5.4 */
    SMTP_COMMAND_TOO_MANY,      /* more parameters than SMTP_PARAMETERS_MAX: 501 5.5.4 */
    SMTP_COMMAND_HAS_8BIT,      /* octets above 127 where only RFC 6531 allows them and it does not here: 500 5.5.2 */
    SMTP_COMMAND_BAD_BASE64,    /* initial response that is not strict base64: 501 5.5.2 (RFC 4954 §4) */
} smtp_command_result;

typedef enum smtp_keyword {     /* of MAIL and RCPT parameters; UNKNOWN ones are spans too */
    SMTP_KEYWORD_UNKNOWN = 0,
    SMTP_KEYWORD_SIZE, SMTP_KEYWORD_BODY, SMTP_KEYWORD_SMTPUTF8,
    SMTP_KEYWORD_RET, SMTP_KEYWORD_ENVID, SMTP_KEYWORD_NOTIFY, SMTP_KEYWORD_ORCPT, SMTP_KEYWORD_AUTH,
    SMTP_KEYWORD_BY, SMTP_KEYWORD_HOLDFOR, SMTP_KEYWORD_HOLDUNTIL, SMTP_KEYWORD_MT_PRIORITY, SMTP_KEYWORD_SOLICIT,
} smtp_keyword;

#define SMTP_PARAMETERS_MAX 16
#define SMTP_MECHANISM_MAX 20   /* RFC 4422 §3.1 */

typedef struct smtp_parameter {
    smtp_span keyword;
    smtp_span value;            /* length 0 and has_value false when there is no "=" */
    uint8_t known;              /* smtp_keyword */
    bool has_value;
} smtp_parameter;

typedef struct smtp_command {
    uint8_t verb;               /* smtp_verb; set as far as it could be read even on failure */
    uint8_t path_result;        /* smtp_path_result, for SMTP_COMMAND_BAD_PATH */
    uint8_t parameter_count;
    bool is_last;               /* BDAT ... LAST */
    uint32_t error_offset;      /* where parsing stopped, on failure */
    uint64_t chunk_octets;      /* BDAT size */
    smtp_span verb_text;
    smtp_span argument;         /* everything behind the verb and one space, trailing spaces removed */
    smtp_path path;             /* MAIL, RCPT */
    smtp_parameter parameters[SMTP_PARAMETERS_MAX];     /* MAIL, RCPT; AUTH: [0] is mechanism and initial response */
} smtp_command;

/* Splits in[0..length), a line without its CRLF. `flags` are smtp_path flags: SMTP_PATH_UTF8 says that
 * RFC 6531 was offered (whether a UTF-8 path may be used is decided by the SMTPUTF8 parameter, which is
 * found here: a UTF-8 path without it is BAD_PATH with SMTP_PATH_NEEDS_UTF8, for MAIL; for RCPT pass the
 * flag only inside an SMTPUTF8 transaction).
 * Spaces between "FROM:" / "TO:" and the path are accepted (common in the field); between verb and colon
 * they are not. Verbs and keywords are case-insensitive. DATA, RSET, QUIT and STARTTLS take no argument
 * (SYNTAX); HELO, EHLO and LHLO need one, a domain or address literal is not enforced here
 * (smtp_domain_is_valid); VRFY, EXPN, AUTH, ETRN, XCLIENT and XFORWARD need one; NOOP and HELP may have one.
 * Null reverse-path (MAIL) and "<Postmaster>" (RCPT) are always allowed: do not pass the flags for them.
 * Values are not judged, but SMTPUTF8 must have none. Octets above 127 are allowed, as well-formed UTF-8, in
 * paths and parameter values (MAIL: with SMTPUTF8) and in the argument of VRFY and EXPN; nowhere else.
 * AUTH: an initial response is "=" or strict base64, never empty.
 * An unknown verb is UNKNOWN whatever follows but HTTP's version; then CONTROL comes before any other fault.
 * Of *out, `parameters` is written only up to parameter_count. `length` is at most UINT32_MAX. */
smtp_command_result smtp_command_parse(const uint8_t *in, size_t length, unsigned flags, smtp_command *out);

/* Strict base64 (RFC 4648 §4): whole quanta, padded, unused bits zero, nothing else. Empty is valid. */
bool smtp_base64_is_valid(const uint8_t *in, size_t length);

/* Decimal SIZE values (RFC 1870), xtext and NOTIFY (RFC 3461 §4; §4.1: the keywords in any case). */
bool smtp_decimal_parse(const uint8_t *in, size_t length, uint64_t *value);     /* 1..20 digits, no overflow */
bool smtp_xtext_is_valid(const uint8_t *in, size_t length);
enum { SMTP_NOTIFY_NEVER = 1, SMTP_NOTIFY_SUCCESS = 2, SMTP_NOTIFY_FAILURE = 4, SMTP_NOTIFY_DELAY = 8 };
bool smtp_notify_parse(const uint8_t *in, size_t length, uint8_t *notify);      /* NEVER stands alone */

#endif
