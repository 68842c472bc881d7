/* Message data: the only place that knows where a message ends (RFC 5321 §4.1.1.4, §4.5.2, RFC 3030).
 *
 * One pass un-stuffs dots, finds CRLF "." CRLF, and judges: bare CR, bare LF, NUL, lines over the limit,
 * octets above 127, header fields "Received:" (loop detection, §6.3) and "TLS-Required: No" (RFC 8689 §3),
 * whether any line starts with a dot (so that sending by DATA needs no second look). A fault is remembered (the
 * first one, with its offset) and the machine reads on to the true end: the caller refuses the message there, so
 * that commands never resume in the middle of one. DATA and BDAT use the same machine in two modes.
 *
 * Only CRLF "." CRLF ends a message. LF "." LF, CR "." CR, LF "." CRLF, CRLF "." LF and so on are data (and
 * faults).
 */
#ifndef ANGARIUM_SMTP_DATA_H
#define ANGARIUM_SMTP_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum smtp_data_fault {
    SMTP_DATA_FAULT_NONE = 0,
    SMTP_DATA_FAULT_BARE_LF,
    SMTP_DATA_FAULT_BARE_CR,
    SMTP_DATA_FAULT_NUL,
    SMTP_DATA_FAULT_LINE_TOO_LONG,
} smtp_data_fault;

typedef struct smtp_data_machine {
    /* results, readable at any time, final at the end */
    uint64_t octets_in;         /* consumed, terminator included */
    uint64_t octets_out;        /* message octets after un-stuffing, terminator excluded */
    uint64_t fault_offset;      /* in octets_out */
    uint32_t received_count;    /* "Received:" fields in the header section, any case */
    uint32_t longest_line;      /* octets with CRLF, after un-stuffing */
    uint8_t fault;              /* smtp_data_fault, the first one */
    bool has_8bit;
    bool has_dot_line;          /* a line of the un-stuffed message starts with "." */
    bool is_tls_optional;       /* the header section has "TLS-Required: No" (RFC 8689 §3), any case, folded or not */
    bool ends_with_crlf;        /* DATA mode: always true for a non-empty message; BDAT: maybe not */
    bool is_chunking;
    /* private */
    uint8_t state;
    bool in_header;
    bool is_tls_field;          /* the line began like "TLS-Required:" */
    bool is_binary;
    uint8_t field_match;
    uint8_t held_match;         /* field_match at the end of the lines before, while the field may go on */
    uint32_t line_limit;
    uint64_t line_start;        /* of the line being read, in octets_out */
} smtp_data_machine;

/* `line_limit` counts the CRLF; 0 means no limit. The fault is at the first octet over the limit. */
void smtp_data_begin(smtp_data_machine *self, bool is_chunking, uint32_t line_limit);

/* BODY=BINARYMIME (RFC 3030 §3): chunks in which any octets are allowed and lines have no limit: there is never a fault.
 * All else is found as above. */
void smtp_data_begin_binary(smtp_data_machine *self);

/* Consumes up to `size` octets of in, writes un-stuffed octets to out (capacity at least size + 2: octets
 * may be held back from the previous call), sets *consumed and *written. out must not overlap in; what is
 * in out behind *written is garbage.
 * DATA: returns true when the end of data was consumed; octets behind it are not touched.
 * BDAT: never returns true; the caller counts chunk octets and calls smtp_data_end_chunks at LAST. */
bool smtp_data_push(smtp_data_machine *self, const uint8_t *in, size_t size, uint8_t *out,
                    size_t *consumed, size_t *written);

/* The end of the last chunk: judges an unfinished line (a CR held back is a fault), writes at most 2 octets. */
void smtp_data_end_chunks(smtp_data_machine *self, uint8_t *out, size_t *written);

/* Sending by DATA. A message goes out as smtp_data_stuff over its octets in any cuts, then
 * smtp_data_stuff_end. `at_line_start` is the whole state: true before the first octet. */
typedef struct smtp_stuff_state {
    bool at_line_start;
    bool after_cr;
} smtp_stuff_state;

void smtp_data_stuff_begin(smtp_stuff_state *self);

/* Writes in[0..size) with dots doubled at line starts; out needs size + size/2 + 2 octets at most (a dot
 * line takes at least 3 octets). Returns octets written. */
size_t smtp_data_stuff(smtp_stuff_state *self, const uint8_t *in, size_t size, uint8_t *out);

/* Writes [CRLF] "." CRLF: at most 5 octets; the CRLF only when the message did not end with one. */
size_t smtp_data_stuff_end(smtp_stuff_state *self, uint8_t *out);

#endif
