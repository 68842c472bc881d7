/* SMTP replies as a client reads them (RFC 5321 §4.2, RFC 2034): one machine per connection.
 *
 * Feed it whatever the network gave; it stops behind each complete reply. It keeps the text of the reply
 * (all lines, joined by LF, each without code, separator and CRLF; the enhanced status code stays in the
 * text) in a buffer of fixed size inside the struct; text past that is counted and dropped, never stored.
 * Control octets in text (NUL, ESC ...) are replaced by '?', HTAB by a space (§4.2 allows it in text), and
 * octets above 127 are kept, so that nothing from a peer can break a log line or a DSN.
 */
#ifndef ANGARIUM_SMTP_REPLY_H
#define ANGARIUM_SMTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SMTP_REPLY_LINE_MAX 1000        /* octets of one line with CRLF; §4.5.3.1.5 says 512, the field says more */
#define SMTP_REPLY_LINES_MAX 128        /* lines of one reply; a peer that says more is broken */
#define SMTP_REPLY_TEXT_MAX 1024        /* octets of text kept */

#define SMTP_REPLY_STATUS_MAX 9         /* "5.123.123" */

typedef enum smtp_reply_result {
    SMTP_REPLY_PARTIAL = 0,     /* all input consumed, no complete reply yet */
    SMTP_REPLY_COMPLETE,        /* a reply is ready; *consumed may be less than given */
    SMTP_REPLY_BAD_CODE,        /* line does not start with [2-5][0-5][0-9] and SP, "-" or CRLF */
    SMTP_REPLY_CODE_CHANGED,    /* lines of one reply with different codes (§4.2.1) */
    SMTP_REPLY_LINE_TOO_LONG,
    SMTP_REPLY_TOO_MANY_LINES,
    SMTP_REPLY_BARE_LF,
    SMTP_REPLY_BARE_CR,
} smtp_reply_result;

typedef struct smtp_reply_machine {
    /* results, valid after COMPLETE until the next feed */
    uint16_t code;
    uint8_t status_class;       /* enhanced status code (RFC 3463), 0 0 0 when the last line has none or
                                   its class differs from the code's first digit */
    uint16_t status_subject;
    uint16_t status_detail;
    uint16_t line_count;
    uint16_t text_length;
    uint32_t text_dropped;      /* octets of text that did not fit, LFs between lines counted */
    /* private */
    uint8_t state;
    uint8_t sticky_error;       /* smtp_reply_result; errors stick until reset */
    bool is_last_line;
    uint8_t status_length;
    uint16_t line_octets;
    uint16_t line_code;
    uint8_t status_text[SMTP_REPLY_STATUS_MAX + 1];  /* how the line's text starts: `text` may be full by then */
    uint8_t text[SMTP_REPLY_TEXT_MAX];  /* result: text_length octets */
} smtp_reply_machine;

void smtp_reply_reset(smtp_reply_machine *self);

/* Consumes up to `size` octets, at most one reply. After COMPLETE the next call begins the next reply.
 * On an error *consumed stops before the octet at fault. */
smtp_reply_result smtp_reply_push(smtp_reply_machine *self, const uint8_t *in, size_t size, size_t *consumed);

#endif
