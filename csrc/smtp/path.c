#include "smtp/path.h"

#include <string.h>

enum { ATEXT = 1, LET_DIG = 2, HYPHEN = 4, PRINTABLE = 8, DCONTENT = 16 };

#define A (ATEXT | LET_DIG | PRINTABLE | DCONTENT)      /* ALPHA / DIGIT */
#define H (ATEXT | HYPHEN | PRINTABLE | DCONTENT)       /* "-" */
#define T (ATEXT | PRINTABLE | DCONTENT)                /* other atext (RFC 5322 §3.2.3) */
#define D (PRINTABLE | DCONTENT)                        /* specials that an address literal may hold */
#define P PRINTABLE                                     /* SP [ \ ] */
static const uint8_t octet_class[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    P, T, D, T, T, T, T, T, D, D, T, T, D, H, D, T,     /*  !"#$%&'()*+,-./ */
    A, A, A, A, A, A, A, A, A, A, D, D, D, T, D, T,     /* 0123456789:;<=>? */
    D, A, A, A, A, A, A, A, A, A, A, A, A, A, A, A,     /* @ABCDEFGHIJKLMNO */
    A, A, A, A, A, A, A, A, A, A, A, P, P, P, T, T,     /* PQRSTUVWXYZ[\]^_ */
    T, A, A, A, A, A, A, A, A, A, A, A, A, A, A, A,     /* `abcdefghijklmno */
    A, A, A, A, A, A, A, A, A, A, A, T, T, T, T, 0,     /* pqrstuvwxyz{|}~  */
};
#undef A
#undef H
#undef T
#undef D
#undef P

/* A U-label of n code points has an A-label of at least "xn--" and n octets (RFC 3492 §3.1: each code point
 * costs one octet or more), so more than this cannot be a label, whatever IDNA says later. */
enum { U_LABEL_CODE_POINTS_MAX = SMTP_LABEL_MAX - 4 };

typedef struct cursor {
    const uint8_t *in;
    size_t length;
    size_t at;
    unsigned flags;
    bool has_utf8;
} cursor;

static bool at_octet(const cursor *c, uint8_t octet)
{
    return c->at < c->length && c->in[c->at] == octet;
}

static bool at_class(const cursor *c, unsigned class)
{
    return c->at < c->length && (octet_class[c->in[c->at]] & class) != 0;
}

static bool at_8bit(const cursor *c)
{
    return c->at < c->length && c->in[c->at] > 127;
}

static bool equals_folded(const uint8_t *in, size_t length, const char *lower)
{
    if (length != strlen(lower))
        return false;
    for (size_t i = 0; i < length; i++)
        if ((in[i] >= 'A' && in[i] <= 'Z' ? in[i] | 0x20 : in[i]) != (uint8_t)lower[i])
            return false;
    return true;
}

/* Octets of the well-formed UTF-8 sequence at in, 0 when there is none (RFC 3629 §4, UTF8-octets). */
static size_t utf8_sequence(const uint8_t *in, size_t length)
{
    uint8_t lead = in[0], low = 0x80, high = 0xBF;
    size_t count;

    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)           /* C0, C1: overlong */
        count = 2;
    else if (lead >= 0xE0 && lead <= 0xEF)
        count = 3;
    else if (lead >= 0xF0 && lead <= 0xF4)
        count = 4;
    else
        return 0;
    switch (lead) {                             /* what the second octet may not be */
    case 0xE0: low = 0xA0; break;               /* overlong */
    case 0xED: high = 0x9F; break;              /* surrogates */
    case 0xF0: low = 0x90; break;               /* overlong */
    case 0xF4: high = 0x8F; break;              /* over U+10FFFF */
    }
    if (length < count || in[1] < low || in[1] > high)
        return 0;
    for (size_t i = 2; i < count; i++)
        if (in[i] < 0x80 || in[i] > 0xBF)
            return 0;
    return count;
}

bool smtp_utf8_is_valid(const uint8_t *in, size_t length)
{
    size_t at = 0;

    while (at < length) {
        uint64_t eight;
        if (length - at >= 8) {
            memcpy(&eight, in + at, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                at += 8;
                continue;
            }
        }
        size_t count = utf8_sequence(in + at, length - at);
        if (count == 0)
            return false;
        at += count;
    }
    return true;
}

/* One UTF8-non-ascii at the cursor. */
static smtp_path_result take_utf8(cursor *c)
{
    const uint8_t *in = c->in + c->at;

    if (!(c->flags & SMTP_PATH_UTF8))
        return SMTP_PATH_NEEDS_UTF8;
    size_t count = utf8_sequence(in, c->length - c->at);
    if (count == 0)
        return SMTP_PATH_BAD_UTF8;
    if (in[0] == 0xC2 && in[1] < 0xA0)          /* C1 controls: see the header */
        return SMTP_PATH_SYNTAX;
    c->at += count;
    c->has_utf8 = true;
    return SMTP_PATH_OK;
}

/* Atom *("." Atom) */
static smtp_path_result take_dot_string(cursor *c)
{
    for (;; c->at++) {
        size_t start = c->at;
        for (;;) {
            while (at_class(c, ATEXT))
                c->at++;
            if (!at_8bit(c))
                break;
            smtp_path_result result = take_utf8(c);
            if (result != SMTP_PATH_OK)
                return result;
        }
        if (c->at == start)
            return SMTP_PATH_SYNTAX;
        if (!at_octet(c, '.'))
            return SMTP_PATH_OK;
    }
}

/* DQUOTE *QcontentSMTP DQUOTE; quoted pairs take no UTF-8 (RFC 6531 §3.3 extends qtextSMTP only). */
static smtp_path_result take_quoted_string(cursor *c)
{
    c->at++;
    while (c->at < c->length) {
        uint8_t octet = c->in[c->at];
        if (octet > 127) {
            smtp_path_result result = take_utf8(c);
            if (result != SMTP_PATH_OK)
                return result;
            continue;
        }
        if (!(octet_class[octet] & PRINTABLE))
            return SMTP_PATH_SYNTAX;
        c->at++;
        if (octet == '"')
            return SMTP_PATH_OK;
        if (octet == '\\') {
            if (!at_class(c, PRINTABLE))
                return SMTP_PATH_SYNTAX;
            c->at++;
        }
    }
    return SMTP_PATH_SYNTAX;
}

static smtp_path_result take_label(cursor *c)
{
    size_t start = c->at, code_points = 0;
    bool is_u_label = false;

    if (at_octet(c, '-'))
        return SMTP_PATH_SYNTAX;
    for (;; code_points++) {
        if (at_class(c, LET_DIG | HYPHEN)) {
            c->at++;
        } else if (at_8bit(c)) {
            smtp_path_result result = take_utf8(c);
            if (result != SMTP_PATH_OK)
                return result;
            is_u_label = true;
        } else {
            break;
        }
    }
    if (c->at == start || c->in[c->at - 1] == '-')
        return SMTP_PATH_SYNTAX;
    if (is_u_label ? code_points > U_LABEL_CODE_POINTS_MAX : code_points > SMTP_LABEL_MAX)
        return SMTP_PATH_DOMAIN_TOO_LONG;
    return SMTP_PATH_OK;
}

/* sub-domain *("." sub-domain) */
static smtp_path_result take_domain(cursor *c)
{
    size_t start = c->at;

    for (;; c->at++) {
        smtp_path_result result = take_label(c);
        if (result != SMTP_PATH_OK)
            return result;
        if (!at_octet(c, '.'))
            return c->at - start > SMTP_DOMAIN_MAX ? SMTP_PATH_DOMAIN_TOO_LONG : SMTP_PATH_OK;
    }
}

/* Snum 3("." Snum), each 1*3DIGIT and at most 255 */
static bool ipv4_is_valid(const uint8_t *in, size_t length)
{
    size_t at = 0;

    for (int number = 0; number < 4; number++) {
        unsigned value = 0;
        size_t start;
        if (number > 0 && (at == length || in[at++] != '.'))
            return false;
        for (start = at; at < length && at - start < 3 && in[at] >= '0' && in[at] <= '9'; at++)
            value = value * 10 + (in[at] - '0');
        if (at == start || value > 255)
            return false;
    }
    return at == length;
}

static bool is_hex(uint8_t octet)
{
    return (octet >= '0' && octet <= '9') || ((octet | 0x20) >= 'a' && (octet | 0x20) <= 'f');
}

/* IPv6-full, IPv6-comp, IPv6v4-full, IPv6v4-comp. "::" stands for two groups or more (§4.1.3), unlike in
 * RFC 4291, hence at most 6 groups beside it, or 4 and an IPv4 address. */
static bool ipv6_is_valid(const uint8_t *in, size_t length)
{
    size_t at = 0, groups = 0;
    bool is_compressed = false;

    if (length >= 2 && in[0] == ':' && in[1] == ':') {
        is_compressed = true;
        at = 2;
        if (at == length)
            return true;
    }
    for (;;) {
        size_t digits = 0;
        while (digits < 4 && at + digits < length && is_hex(in[at + digits]))
            digits++;
        if (digits == 0)
            return false;
        if (at + digits < length && in[at + digits] == '.')
            return ipv4_is_valid(in + at, length - at) && (is_compressed ? groups <= 4 : groups == 6);
        groups++;
        at += digits;
        if (at == length)
            return is_compressed ? groups <= 6 : groups == 8;
        if (in[at++] != ':')
            return false;
        if (at < length && in[at] == ':') {
            if (is_compressed)
                return false;
            is_compressed = true;
            if (++at == length)
                return groups <= 6;
        }
    }
}

/* Standardized-tag ":" 1*dcontent; the tag is an Ldh-str. The caller has checked that all is dcontent. */
static bool general_literal_is_valid(const uint8_t *in, size_t length)
{
    size_t tag = 0;

    while (tag < length && (octet_class[in[tag]] & (LET_DIG | HYPHEN)))
        tag++;
    return tag > 0 && in[tag - 1] != '-' && tag + 1 < length && in[tag] == ':';
}

static smtp_path_result take_literal(cursor *c)
{
    size_t start = c->at++, length;
    const uint8_t *in = c->in + c->at;

    while (at_class(c, DCONTENT))
        c->at++;
    if (!at_octet(c, ']'))
        return SMTP_PATH_BAD_LITERAL;
    length = c->at - start - 1;
    c->at++;
    if (c->at - start > SMTP_DOMAIN_MAX)
        return SMTP_PATH_DOMAIN_TOO_LONG;
    if (length >= 5 && equals_folded(in, 5, "ipv6:"))
        return ipv6_is_valid(in + 5, length - 5) ? SMTP_PATH_OK : SMTP_PATH_BAD_LITERAL;
    return ipv4_is_valid(in, length) || general_literal_is_valid(in, length)
        ? SMTP_PATH_OK : SMTP_PATH_BAD_LITERAL;
}

static smtp_span span_from(size_t start, const cursor *c)
{
    return (smtp_span){(uint32_t)start, (uint32_t)(c->at - start)};
}

/* Local-part "@" ( Domain / address-literal ), or "Postmaster" where the flag allows it and `closing` (0 for
 * the end of input) follows. */
static smtp_path_result take_mailbox(cursor *c, smtp_path *out, uint8_t closing)
{
    size_t start = c->at;
    smtp_path_result result;

    out->is_quoted = at_octet(c, '"');
    result = out->is_quoted ? take_quoted_string(c) : take_dot_string(c);
    if (result != SMTP_PATH_OK)
        return result;
    out->local_part = span_from(start, c);
    if (out->local_part.length > SMTP_LOCAL_PART_MAX)
        return SMTP_PATH_LOCAL_TOO_LONG;
    if (!at_octet(c, '@')) {
        bool is_closed = closing != 0 ? at_octet(c, closing) : c->at == c->length;
        bool is_postmaster = (c->flags & SMTP_PATH_POSTMASTER) && equals_folded(c->in + start, c->at - start, "postmaster");
        if (!is_closed || !(is_postmaster || (c->flags & SMTP_PATH_UNQUALIFIED)))
            return SMTP_PATH_SYNTAX;
        out->mailbox = out->local_part;
        return SMTP_PATH_OK;
    }
    c->at++;

    size_t domain_start = c->at;
    out->is_literal = at_octet(c, '[');
    result = out->is_literal ? take_literal(c) : take_domain(c);
    out->domain = span_from(domain_start, c);
    out->mailbox = span_from(start, c);
    return result;
}

/* "@" Domain *( "," "@" Domain ) ":" */
static smtp_path_result take_source_route(cursor *c)
{
    for (;; c->at++) {
        if (!at_octet(c, '@'))
            return SMTP_PATH_SYNTAX;
        c->at++;
        smtp_path_result result = take_domain(c);
        if (result != SMTP_PATH_OK)
            return result;
        if (at_octet(c, ':')) {
            c->at++;
            return SMTP_PATH_OK;
        }
        if (!at_octet(c, ','))
            return SMTP_PATH_SYNTAX;
    }
}

static smtp_path_result take_path(cursor *c, smtp_path *out)
{
    smtp_path_result result;

    if (!at_octet(c, '<'))
        return SMTP_PATH_SYNTAX;
    c->at++;
    if (at_octet(c, '>') && (c->flags & SMTP_PATH_NULL)) {
        c->at++;
        out->is_null = true;
        return SMTP_PATH_OK;
    }
    if (at_octet(c, '@')) {
        out->has_source_route = true;
        c->flags &= ~(unsigned)(SMTP_PATH_POSTMASTER | SMTP_PATH_UNQUALIFIED);
        result = take_source_route(c);
        if (result != SMTP_PATH_OK)
            return result;
    }
    result = take_mailbox(c, out, '>');
    if (result != SMTP_PATH_OK)
        return result;
    if (!at_octet(c, '>'))
        return SMTP_PATH_SYNTAX;
    c->at++;
    return c->at > SMTP_PATH_MAX ? SMTP_PATH_TOO_LONG : SMTP_PATH_OK;
}

static smtp_path_result finish(const cursor *c, smtp_path_result result, smtp_path *out)
{
    if (result != SMTP_PATH_OK)
        memset(out, 0, sizeof *out);
    else
        out->has_utf8 = c->has_utf8;
    out->end = (uint32_t)c->at;
    return result;
}

smtp_path_result smtp_path_parse(const uint8_t *in, size_t length, unsigned flags, smtp_path *out)
{
    cursor c = {in, length, 0, flags, false};

    memset(out, 0, sizeof *out);
    if (length > UINT32_MAX)            /* spans could not tell */
        return SMTP_PATH_SYNTAX;
    return finish(&c, take_path(&c, out), out);
}

smtp_path_result smtp_mailbox_parse(const uint8_t *in, size_t length, unsigned flags, smtp_path *out)
{
    cursor c = {in, length, 0, flags, false};
    smtp_path_result result;

    memset(out, 0, sizeof *out);
    if (length > UINT32_MAX)
        return SMTP_PATH_SYNTAX;
    result = take_mailbox(&c, out, 0);
    if (result == SMTP_PATH_OK && c.at != length)
        result = SMTP_PATH_SYNTAX;
    if (result == SMTP_PATH_OK && length + 2 > SMTP_PATH_MAX)
        result = SMTP_PATH_TOO_LONG;
    return finish(&c, result, out);
}

bool smtp_domain_is_valid(const uint8_t *in, size_t length, unsigned flags)
{
    cursor c = {in, length, 0, flags, false};
    smtp_path_result result = at_octet(&c, '[') ? take_literal(&c) : take_domain(&c);

    return result == SMTP_PATH_OK && c.at == length;
}
