#include "smtp/data.h"

#include <string.h>

#if defined(__SSE2__) && !defined(SMTP_DATA_SCALAR)     /* SMTP_DATA_SCALAR: tests run both paths */
#define HAVE_SSE2 1
#include <emmintrin.h>
#endif

/*
 * state        what was read                           held back (neither written nor lost)
 * LINE_START   nothing, or CRLF                        -
 * IN_LINE      octets of a line                        -
 * AFTER_CR     ... CR, already written                 -
 * DOT          LINE_START "."                          the dot: it goes, unless the message ends here
 * DOT_CR       LINE_START "." CR                       the CR: part of the end, or an octet of the line
 * END          LINE_START "." CRLF                     -
 *
 * A line starts behind CRLF and nowhere else; DOT and DOT_CR do not exist when chunking.
 */
enum { LINE_START = 0, IN_LINE, AFTER_CR, DOT, DOT_CR, END };

static const uint8_t received_field[] = "received:";
enum { RECEIVED_OCTETS = 9, NOT_RECEIVED = 255 };       /* field_match: octets matched so far, or NOT_RECEIVED */
static const uint8_t tls_required_field[] = "tls-required:";
/* Then field_match is where in the value: nothing yet, "N", "No" and perhaps space; at a line's end, CRLF inside the first
 * or behind the last of these. TLS_FIELD_SPACE: space between name and colon. */
enum { TLS_FIELD_COLON = 12, TLS_FIELD_OCTETS, TLS_FIELD_N, TLS_FIELD_NO, TLS_FIELD_SPACE };

void smtp_data_begin(smtp_data_machine *self, bool is_chunking, uint32_t line_limit)
{
    memset(self, 0, sizeof *self);
    self->is_chunking = is_chunking;
    self->line_limit = line_limit;
    self->in_header = true;
}

void smtp_data_begin_binary(smtp_data_machine *self)
{
    smtp_data_begin(self, true, 0);
    self->is_binary = true;
}

/* Copies octets up to the first CR, LF or NUL; returns how many. May write up to 16 octets from out on where
 * 16 octets of input are left: out is ahead of in by at most the one octet that DOT_CR held back, so this
 * stays inside the capacity of size + 2. */
#ifdef HAVE_SSE2
static inline size_t copy_run(const uint8_t *in, size_t size, uint8_t *out, bool *has_8bit)
{
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n'), nul = _mm_setzero_si128();
    __m128i seen = _mm_setzero_si128();
    size_t i = 0;
    unsigned above = 0;

    for (; size - i >= 16; i += 16) {
        __m128i block = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
        __m128i special = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(block, cr), _mm_cmpeq_epi8(block, lf)),
                                       _mm_cmpeq_epi8(block, nul));
        unsigned mask = (unsigned)_mm_movemask_epi8(special);
        _mm_storeu_si128((__m128i *)(void *)(out + i), block);
        if (mask != 0) {
            /* Only octets before the special one count: behind it the message may have ended. */
            above = (unsigned)_mm_movemask_epi8(block) & ((mask & -mask) - 1);
            i += (size_t)__builtin_ctz(mask);
            goto done;
        }
        seen = _mm_or_si128(seen, block);
    }
    for (; i < size && in[i] != '\r' && in[i] != '\n' && in[i] != 0; i++) {
        out[i] = in[i];
        above |= in[i] & 0x80u;
    }
done:
    *has_8bit |= (above | (unsigned)_mm_movemask_epi8(seen)) != 0;
    return i;
}
#else
/* Not zero when an octet of the word is zero. */
static inline uint64_t zero_octets(uint64_t word)
{
    return (word - 0x0101010101010101u) & ~word & 0x8080808080808080u;
}

static inline size_t copy_run(const uint8_t *in, size_t size, uint8_t *out, bool *has_8bit)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t word, seen = 0;
    size_t i = 0;

    for (; size - i >= 8; i += 8) {
        memcpy(&word, in + i, 8);
        if (zero_octets(word) | zero_octets(word ^ ones * '\r') | zero_octets(word ^ ones * '\n'))
            break;
        memcpy(out + i, &word, 8);
        seen |= word;
    }
    for (; i < size && in[i] != '\r' && in[i] != '\n' && in[i] != 0; i++) {
        out[i] = in[i];
        seen |= in[i];
    }
    *has_8bit |= (seen & 0x8080808080808080u) != 0;
    return i;
}
#endif

/* The first fault in the order of octets. A line grows too long silently (only line ends and the end of a
 * push look at its length), so a fault behind the limit is in truth the line's length. */
static void fault_set(smtp_data_machine *self, smtp_data_fault fault, uint64_t offset)
{
    if (self->fault != SMTP_DATA_FAULT_NONE || self->is_binary)
        return;
    if (self->line_limit != 0 && offset - self->line_start >= self->line_limit) {
        fault = SMTP_DATA_FAULT_LINE_TOO_LONG;
        offset = self->line_start + self->line_limit;
    }
    self->fault = (uint8_t)fault;
    self->fault_offset = offset;
}

/* Judges the length of the line that reaches to `offset`, ended or not. */
static inline uint64_t line_measure(smtp_data_machine *self, uint64_t offset)
{
    uint64_t octets = offset - self->line_start;

    if (octets > self->longest_line)
        self->longest_line = octets < UINT32_MAX ? (uint32_t)octets : UINT32_MAX;
    if (octets > self->line_limit && self->line_limit != 0)
        fault_set(self, SMTP_DATA_FAULT_LINE_TOO_LONG, self->line_start + self->line_limit);
    return octets;
}

static inline uint8_t lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? octet | 0x20 : octet;
}

/* "TLS-Required:" FWS "No" CRLF (RFC 8689 §3), in any case, folded anywhere, and with the white space in front of the colon
 * that old fields have (RFC 5322 §4.5.8). CR and LF pass: what is left of the field is known when the next line begins. */
static void tls_field_push(smtp_data_machine *self, const uint8_t *line, size_t size)
{
    for (size_t i = 0; i < size && self->field_match != NOT_RECEIVED; i++) {
        uint8_t octet = lower(line[i]), at = self->field_match;
        bool is_space = octet == ' ' || octet == '\t', is_white = is_space || octet == '\r' || octet == '\n';
        if (at < TLS_FIELD_COLON)
            self->field_match = octet == tls_required_field[at] ? at + 1 : NOT_RECEIVED;
        else if (at == TLS_FIELD_COLON || at == TLS_FIELD_SPACE)
            self->field_match = octet == ':' ? TLS_FIELD_OCTETS : is_space ? TLS_FIELD_SPACE : NOT_RECEIVED;
        else if (at == TLS_FIELD_OCTETS)
            self->field_match = octet == 'n' ? TLS_FIELD_N : is_white ? at : NOT_RECEIVED;
        else if (at == TLS_FIELD_N)
            self->field_match = octet == 'o' ? TLS_FIELD_NO : NOT_RECEIVED;
        else
            self->field_match = is_white ? at : NOT_RECEIVED;
    }
}

/* A header line ends. A TLS-Required field that may still be one is kept: the next line may go on with it. */
static void field_line_end(smtp_data_machine *self)
{
    bool may_go_on = self->is_tls_field && (self->field_match == TLS_FIELD_OCTETS || self->field_match == TLS_FIELD_NO);

    self->held_match = may_go_on ? self->field_match : 0;
    self->field_match = 0;
}

/* The field that lines before this one had has ended. */
static inline void field_end(smtp_data_machine *self)
{
    self->is_tls_optional |= self->held_match == TLS_FIELD_NO;
    self->held_match = 0;
}

/* More octets of a header line, as written to out. */
static void field_match_push(smtp_data_machine *self, const uint8_t *line, size_t size)
{
    if (self->field_match == 0 && size > 0) {
        if (self->held_match == 0) {
            self->is_tls_field = (line[0] | 0x20) == 't';
        } else if (line[0] == ' ' || line[0] == '\t') {
            self->field_match = self->held_match;
            self->held_match = 0;
        } else {
            field_end(self);
            self->is_tls_field = (line[0] | 0x20) == 't';
        }
    }
    if (self->is_tls_field) {
        tls_field_push(self, line, size);
        return;
    }
    for (size_t i = 0; i < size && self->field_match < RECEIVED_OCTETS; i++) {
        uint8_t octet = lower(line[i]);
        if (octet != received_field[self->field_match]) {
            self->field_match = NOT_RECEIVED;
        } else if (++self->field_match == RECEIVED_OCTETS) {
            self->received_count++;
        }
    }
}

/* Where the line being read starts in this push's out. */
static inline const uint8_t *line_in_out(const smtp_data_machine *self, const uint8_t *out, uint64_t base)
{
    return self->line_start > base ? out + (self->line_start - base) : out;
}

static inline void line_end(smtp_data_machine *self, const uint8_t *out, size_t written, uint64_t base)
{
    uint64_t octets = line_measure(self, base + written);

    if (self->in_header) {
        const uint8_t *line = line_in_out(self, out, base);
        field_match_push(self, line, (size_t)(out + written - line));
        field_line_end(self);
        self->in_header = octets != 2;
    }
    self->line_start = base + written;
}

bool smtp_data_push(smtp_data_machine *self, const uint8_t *in, size_t size, uint8_t *out,
                    size_t *consumed, size_t *written)
{
    const uint64_t base = self->octets_out;
    unsigned state = self->state;
    size_t i = 0, o = 0;

    while (i < size && state != END) {
        uint8_t octet = in[i];
        switch (state) {
        case LINE_START:
            if (octet == '.' && !self->is_chunking) {
                i++;
                state = DOT;
                break;
            }
            self->has_dot_line |= octet == '.';
            state = IN_LINE;
            /* fall through */
        case IN_LINE: {
            size_t run = copy_run(in + i, size - i, out + o, &self->has_8bit);
            i += run;
            o += run;
            if (i == size)
                break;
            octet = in[i++];
            out[o++] = octet;
            if (octet != '\r') {
                fault_set(self, octet == 0 ? SMTP_DATA_FAULT_NUL : SMTP_DATA_FAULT_BARE_LF, base + o - 1);
            } else if (i < size && in[i] == '\n') {
                out[o++] = in[i++];
                line_end(self, out, o, base);
                state = LINE_START;
            } else {
                state = AFTER_CR;
            }
            break;
        }
        case AFTER_CR:
            if (octet == '\n') {
                i++;
                out[o++] = octet;
                line_end(self, out, o, base);
                state = LINE_START;
            } else {
                fault_set(self, SMTP_DATA_FAULT_BARE_CR, base + o - 1);
                state = IN_LINE;
            }
            break;
        case DOT:
            if (octet == '\r') {
                i++;
                state = DOT_CR;
                break;
            }
            self->has_dot_line |= octet == '.';
            state = IN_LINE;
            break;
        case DOT_CR:
            if (octet == '\n') {
                i++;
                state = END;
            } else {
                out[o++] = '\r';
                state = AFTER_CR;
            }
            break;
        }
    }

    self->octets_in += i;
    self->octets_out = base + o;
    self->state = (uint8_t)state;
    if (state == END)
        field_end(self);
    /* What a later push may no longer see of an unfinished line, and what "readable at any time" promises. */
    if (state == IN_LINE || state == AFTER_CR) {
        line_measure(self, self->octets_out);
        if (self->in_header) {
            const uint8_t *line = line_in_out(self, out, base);
            field_match_push(self, line, (size_t)(out + o - line));
        }
    }
    self->ends_with_crlf = state != IN_LINE && state != AFTER_CR && self->octets_out > 0;
    *consumed = i;
    *written = o;
    return state == END;
}

void smtp_data_end_chunks(smtp_data_machine *self, uint8_t *out, size_t *written)
{
    /* Nothing is held back when chunking: a CR was written as it came and only its judgement is due. */
    (void)out;
    *written = 0;
    if (self->state == AFTER_CR)
        fault_set(self, SMTP_DATA_FAULT_BARE_CR, self->octets_out - 1);
    field_end(self);
    self->state = END;
}

void smtp_data_stuff_begin(smtp_stuff_state *self)
{
    self->at_line_start = true;
    self->after_cr = false;
}

/* Copies up to and including the first LF that a dot follows; returns how many octets. */
#ifdef HAVE_SSE2
static inline size_t copy_to_dot(const uint8_t *in, size_t size, uint8_t *out)
{
    const __m128i lf = _mm_set1_epi8('\n'), dot = _mm_set1_epi8('.');
    size_t i = 0;

    for (; size - i >= 17; i += 16) {
        __m128i block = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
        __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(in + i + 1));
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(block, lf),
                                                                  _mm_cmpeq_epi8(next, dot)));
        _mm_storeu_si128((__m128i *)(void *)(out + i), block);
        if (mask != 0)
            return i + (size_t)__builtin_ctz(mask) + 1;
    }
    while (i < size) {
        out[i] = in[i];
        i++;
        if (in[i - 1] == '\n' && i < size && in[i] == '.')
            break;
    }
    return i;
}
#else
static inline size_t copy_to_dot(const uint8_t *in, size_t size, uint8_t *out)
{
    size_t i = 0;

    while (i < size) {
        const uint8_t *lf = memchr(in + i, '\n', size - i);
        i = lf != NULL ? (size_t)(lf - in) + 1 : size;
        if (i < size && in[i] == '.')
            break;
    }
    memcpy(out, in, i);
    return i;
}
#endif

size_t smtp_data_stuff(smtp_stuff_state *self, const uint8_t *in, size_t size, uint8_t *out)
{
    size_t i = 0, o = 0;

    while (i < size) {
        if (self->at_line_start && in[i] == '.')
            out[o++] = '.';
        size_t run = copy_to_dot(in + i, size - i, out + o);
        i += run;
        o += run;
        uint8_t before_last = run >= 2 ? in[i - 2] : self->after_cr ? '\r' : 0;
        self->at_line_start = in[i - 1] == '\n' && before_last == '\r';
        self->after_cr = in[i - 1] == '\r';
    }
    return o;
}

size_t smtp_data_stuff_end(smtp_stuff_state *self, uint8_t *out)
{
    size_t o = 0;

    if (!self->at_line_start) {
        out[o++] = '\r';
        out[o++] = '\n';
    }
    out[o++] = '.';
    out[o++] = '\r';
    out[o++] = '\n';
    self->at_line_start = true;
    self->after_cr = false;
    return o;
}
