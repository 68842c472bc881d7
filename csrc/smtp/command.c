#include "smtp/command.h"

#include <string.h>

smtp_line_result smtp_line_find(const uint8_t *in, size_t size, size_t limit, size_t *length)
{
    size_t window = size < limit ? size : limit;
    const uint8_t *lf = window > 0 ? memchr(in, '\n', window) : NULL;
    size_t before_lf = lf != NULL ? (size_t)(lf - in) : window;
    const uint8_t *cr = before_lf > 0 ? memchr(in, '\r', before_lf) : NULL;

    if (cr == NULL) {
        *length = before_lf;
        if (lf != NULL)
            return SMTP_LINE_BARE_LF;
        return size < limit ? SMTP_LINE_PARTIAL : SMTP_LINE_TOO_LONG;
    }
    *length = (size_t)(cr - in);
    if (*length + 1 == window && lf == NULL)    /* CR is the last octet that may be looked at */
        return size < limit ? SMTP_LINE_PARTIAL : SMTP_LINE_TOO_LONG;
    return cr + 1 == lf ? SMTP_LINE_OK : SMTP_LINE_BARE_CR;
}

typedef enum argument_rule {
    ARGUMENT_NONE,
    ARGUMENT_OPTIONAL,
    ARGUMENT_REQUIRED,
    ARGUMENT_UTF8,              /* required, and may hold UTF-8 where it was offered (RFC 6531 §3.7.4.2) */
    ARGUMENT_CHUNK,             /* RFC 3030 §2 */
    ARGUMENT_MECHANISM,         /* RFC 4954 §4 */
    ARGUMENT_FROM,
    ARGUMENT_TO,
    ARGUMENT_IGNORED,
} argument_rule;

/* The first four octets of a word as a number, so that most comparisons are one; zero behind a short word. */
#define FOUR(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

typedef struct word {
    uint32_t four;
    uint8_t value;
    uint8_t rule;
    uint8_t length;
    char rest[8];               /* behind the first four */
} word;

static const word verbs[] = {   /* most frequent first */
    {FOUR('R', 'C', 'P', 'T'), SMTP_VERB_RCPT, ARGUMENT_TO, 4, ""},
    {FOUR('M', 'A', 'I', 'L'), SMTP_VERB_MAIL, ARGUMENT_FROM, 4, ""},
    {FOUR('D', 'A', 'T', 'A'), SMTP_VERB_DATA, ARGUMENT_NONE, 4, ""},
    {FOUR('B', 'D', 'A', 'T'), SMTP_VERB_BDAT, ARGUMENT_CHUNK, 4, ""},
    {FOUR('E', 'H', 'L', 'O'), SMTP_VERB_EHLO, ARGUMENT_REQUIRED, 4, ""},
    {FOUR('Q', 'U', 'I', 'T'), SMTP_VERB_QUIT, ARGUMENT_NONE, 4, ""},
    {FOUR('R', 'S', 'E', 'T'), SMTP_VERB_RSET, ARGUMENT_NONE, 4, ""},
    {FOUR('S', 'T', 'A', 'R'), SMTP_VERB_STARTTLS, ARGUMENT_NONE, 8, "TTLS"},
    {FOUR('A', 'U', 'T', 'H'), SMTP_VERB_AUTH, ARGUMENT_MECHANISM, 4, ""},
    {FOUR('H', 'E', 'L', 'O'), SMTP_VERB_HELO, ARGUMENT_REQUIRED, 4, ""},
    {FOUR('L', 'H', 'L', 'O'), SMTP_VERB_LHLO, ARGUMENT_REQUIRED, 4, ""},
    {FOUR('N', 'O', 'O', 'P'), SMTP_VERB_NOOP, ARGUMENT_OPTIONAL, 4, ""},
    {FOUR('V', 'R', 'F', 'Y'), SMTP_VERB_VRFY, ARGUMENT_UTF8, 4, ""},
    {FOUR('E', 'X', 'P', 'N'), SMTP_VERB_EXPN, ARGUMENT_UTF8, 4, ""},
    {FOUR('H', 'E', 'L', 'P'), SMTP_VERB_HELP, ARGUMENT_OPTIONAL, 4, ""},
    {FOUR('E', 'T', 'R', 'N'), SMTP_VERB_ETRN, ARGUMENT_REQUIRED, 4, ""},
    {FOUR('X', 'C', 'L', 'I'), SMTP_VERB_XCLIENT, ARGUMENT_REQUIRED, 7, "ENT"},
    {FOUR('X', 'F', 'O', 'R'), SMTP_VERB_XFORWARD, ARGUMENT_REQUIRED, 8, "WARD"},
    {FOUR('G', 'E', 'T', 0), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 3, ""},
    {FOUR('P', 'O', 'S', 'T'), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 4, ""},
    {FOUR('P', 'U', 'T', 0), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 3, ""},
    {FOUR('H', 'E', 'A', 'D'), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 4, ""},
    {FOUR('C', 'O', 'N', 'N'), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 7, "ECT"},
    {FOUR('O', 'P', 'T', 'I'), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 7, "ONS"},
    {FOUR('D', 'E', 'L', 'E'), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 6, "TE"},
    {FOUR('P', 'A', 'T', 'C'), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 5, "H"},
    {FOUR('T', 'R', 'A', 'C'), SMTP_VERB_HTTP, ARGUMENT_IGNORED, 5, "E"},
    {0, SMTP_VERB_UNKNOWN, ARGUMENT_IGNORED, 0, ""},
};

static const word keywords[] = {
    {FOUR('S', 'I', 'Z', 'E'), SMTP_KEYWORD_SIZE, 0, 4, ""},
    {FOUR('B', 'O', 'D', 'Y'), SMTP_KEYWORD_BODY, 0, 4, ""},
    {FOUR('S', 'M', 'T', 'P'), SMTP_KEYWORD_SMTPUTF8, 0, 8, "UTF8"},
    {FOUR('R', 'E', 'T', 0), SMTP_KEYWORD_RET, 0, 3, ""},
    {FOUR('E', 'N', 'V', 'I'), SMTP_KEYWORD_ENVID, 0, 5, "D"},
    {FOUR('N', 'O', 'T', 'I'), SMTP_KEYWORD_NOTIFY, 0, 6, "FY"},
    {FOUR('O', 'R', 'C', 'P'), SMTP_KEYWORD_ORCPT, 0, 5, "T"},
    {FOUR('A', 'U', 'T', 'H'), SMTP_KEYWORD_AUTH, 0, 4, ""},
    {FOUR('B', 'Y', 0, 0), SMTP_KEYWORD_BY, 0, 2, ""},
    {FOUR('H', 'O', 'L', 'D'), SMTP_KEYWORD_HOLDFOR, 0, 7, "FOR"},
    {FOUR('H', 'O', 'L', 'D'), SMTP_KEYWORD_HOLDUNTIL, 0, 9, "UNTIL"},
    {FOUR('M', 'T', '-', 'P'), SMTP_KEYWORD_MT_PRIORITY, 0, 11, "RIORITY"},
    {FOUR('S', 'O', 'L', 'I'), SMTP_KEYWORD_SOLICIT, 0, 7, "CIT"},
    {0, SMTP_KEYWORD_UNKNOWN, 0, 0, ""},
};

static uint8_t upper(uint8_t octet)
{
    return octet >= 'a' && octet <= 'z' ? octet - 0x20 : octet;
}

static bool equals_folded(const uint8_t *in, const char *upper_text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (upper(in[i]) != (uint8_t)upper_text[i])
            return false;
    return true;
}

/* The word of the table that in[0..length) is, or the table's last entry. */
static const word *word_find(const word *table, const uint8_t *in, size_t length)
{
    uint32_t four = 0;

    for (size_t i = 0; i < 4; i++)
        four = four << 8 | (i < length ? upper(in[i]) : 0);
    for (; table->length != 0; table++)
        if (table->four == four && table->length == length
            && (length <= 4 || equals_folded(in + 4, table->rest, length - 4)))
            break;
    return table;
}

static bool is_let_dig(uint8_t octet)
{
    return (octet >= '0' && octet <= '9') || (upper(octet) >= 'A' && upper(octet) <= 'Z');
}

bool smtp_decimal_parse(const uint8_t *in, size_t length, uint64_t *value)
{
    uint64_t sum = 0;

    if (length == 0 || length > 20)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (in[i] < '0' || in[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(in[i] - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

static bool is_xtext_hex(uint8_t octet)
{
    return (octet >= '0' && octet <= '9') || (octet >= 'A' && octet <= 'F');    /* upper case only */
}

bool smtp_xtext_is_valid(const uint8_t *in, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (in[i] == '+') {
            if (length - i < 3 || !is_xtext_hex(in[i + 1]) || !is_xtext_hex(in[i + 2]))
                return false;
            i += 2;
        } else if (in[i] < 33 || in[i] > 126 || in[i] == '=') {
            return false;
        }
    }
    return true;
}

bool smtp_notify_parse(const uint8_t *in, size_t length, uint8_t *notify)
{
    uint8_t set = 0;

    if (length == 5 && equals_folded(in, "NEVER", 5)) {
        *notify = SMTP_NOTIFY_NEVER;
        return true;
    }
    for (size_t at = 0;; at++) {
        size_t start = at;
        while (at < length && in[at] != ',')
            at++;
        if (at - start == 7 && equals_folded(in + start, "SUCCESS", 7))
            set |= SMTP_NOTIFY_SUCCESS;
        else if (at - start == 7 && equals_folded(in + start, "FAILURE", 7))
            set |= SMTP_NOTIFY_FAILURE;
        else if (at - start == 5 && equals_folded(in + start, "DELAY", 5))
            set |= SMTP_NOTIFY_DELAY;
        else
            return false;
        if (at == length)
            break;
    }
    *notify = set;
    return true;
}

static smtp_command_result fail(smtp_command *out, smtp_command_result result, size_t offset)
{
    out->error_offset = (uint32_t)offset;
    return result;
}

/* Octets of in[at..end) that a parameter or an argument may hold: judges those above 127, which need to be
 * allowed and well-formed. */
static bool octets_are_allowed(const uint8_t *in, size_t length, bool is_utf8_allowed)
{
    for (size_t i = 0; i < length; i++)
        if (in[i] > 127)
            return is_utf8_allowed && smtp_utf8_is_valid(in, length);
    return true;
}

/* chunk-size [ SP "LAST" ]; strict, because whoever misreads a size takes message octets for commands. */
static smtp_command_result parse_chunk(const uint8_t *in, smtp_command *out)
{
    size_t at = out->argument.offset, end = at + out->argument.length, start = at;

    while (at < end && in[at] != ' ')
        at++;
    if (!smtp_decimal_parse(in + start, at - start, &out->chunk_octets))
        return fail(out, SMTP_COMMAND_SYNTAX, start);
    if (at == end)
        return SMTP_COMMAND_OK;
    at++;
    if (end - at != 4 || !equals_folded(in + at, "LAST", 4))
        return fail(out, SMTP_COMMAND_SYNTAX, at);
    out->is_last = true;
    return SMTP_COMMAND_OK;
}

/* The six bits that a base64 character stands for; 64 when it is none (RFC 4648 §4). */
static uint8_t base64_value(uint8_t octet)
{
    if (octet >= 'A' && octet <= 'Z')
        return octet - 'A';
    if (octet >= 'a' && octet <= 'z')
        return octet - 'a' + 26;
    if (octet >= '0' && octet <= '9')
        return octet - '0' + 52;
    return octet == '+' ? 62 : octet == '/' ? 63 : 64;
}

bool smtp_base64_is_valid(const uint8_t *in, size_t length)
{
    size_t padding = 0;

    if (length % 4 != 0)
        return false;
    while (padding < 2 && padding < length && in[length - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < length - padding; i++)
        if (base64_value(in[i]) == 64)
            return false;
    /* Bits behind the last octet are zero: no two texts for the same octets (RFC 4648 §3.5). */
    uint8_t unused = padding == 2 ? 15 : padding == 1 ? 3 : 0;
    return unused == 0 || (base64_value(in[length - 1 - padding]) & unused) == 0;
}

/* sasl-mech [ SP ( base64 / "=" ) ]: sasl-mech is 1 to 20 letters, digits, "-" and "_" (RFC 4422 §3.1). */
static smtp_command_result parse_mechanism(const uint8_t *in, smtp_command *out)
{
    size_t at = out->argument.offset, end = at + out->argument.length, start = at;
    smtp_parameter *mechanism = &out->parameters[0];

    while (at < end && (is_let_dig(in[at]) || in[at] == '-' || in[at] == '_'))
        at++;
    if (at == start || at - start > SMTP_MECHANISM_MAX || (at < end && in[at] != ' '))
        return fail(out, SMTP_COMMAND_SYNTAX, at);
    *mechanism = (smtp_parameter){.keyword = {(uint32_t)start, (uint32_t)(at - start)}, .value = {(uint32_t)at, 0}};
    if (at < end) {
        at++;
        mechanism->value = (smtp_span){(uint32_t)at, (uint32_t)(end - at)};
        mechanism->has_value = true;
        if (!(end - at == 1 && in[at] == '=') && !smtp_base64_is_valid(in + at, end - at))
            return fail(out, SMTP_COMMAND_BAD_BASE64, at);
    }
    out->parameter_count = 1;
    return SMTP_COMMAND_OK;
}

static bool is_twice(const uint8_t *in, const smtp_command *out, const smtp_parameter *new)
{
    for (size_t i = 0; i < out->parameter_count; i++) {
        const smtp_parameter *old = &out->parameters[i];
        size_t j = 0;
        if (old->keyword.length != new->keyword.length)
            continue;
        while (j < new->keyword.length
               && upper(in[old->keyword.offset + j]) == upper(in[new->keyword.offset + j]))
            j++;
        if (j == new->keyword.length)
            return true;
    }
    return false;
}

/* esmtp-keyword ["=" esmtp-value] at *at; leaves *at behind it. */
static smtp_command_result parse_parameter(const uint8_t *in, size_t *at, size_t end, smtp_parameter *new)
{
    size_t start = *at;

    while (*at < end && (is_let_dig(in[*at]) || (in[*at] == '-' && *at > start)))
        ++*at;
    if (*at == start)
        return SMTP_COMMAND_BAD_PARAMETER;
    new->keyword = (smtp_span){(uint32_t)start, (uint32_t)(*at - start)};
    new->known = word_find(keywords, in + start, *at - start)->value;
    new->has_value = *at < end && in[*at] == '=';
    new->value = (smtp_span){(uint32_t)*at, 0};
    if (new->has_value) {
        size_t value_start = ++*at;
        while (*at < end && in[*at] != ' ' && in[*at] != '=')
            ++*at;
        if (*at == value_start)
            return SMTP_COMMAND_BAD_PARAMETER;
        new->value = (smtp_span){(uint32_t)value_start, (uint32_t)(*at - value_start)};
    }
    if (*at < end && in[*at] != ' ')
        return SMTP_COMMAND_BAD_PARAMETER;
    if (new->known == SMTP_KEYWORD_SMTPUTF8 && new->has_value)
        return SMTP_COMMAND_BAD_PARAMETER;
    return SMTP_COMMAND_OK;
}

static smtp_command_result parse_parameters(const uint8_t *in, size_t at, size_t end, smtp_command *out,
                                            bool *is_smtputf8)
{
    for (;;) {
        while (at < end && in[at] == ' ')
            at++;
        if (at == end)
            return SMTP_COMMAND_OK;
        if (out->parameter_count == SMTP_PARAMETERS_MAX)
            return fail(out, SMTP_COMMAND_TOO_MANY, at);

        smtp_parameter new;
        smtp_command_result result = parse_parameter(in, &at, end, &new);
        if (result != SMTP_COMMAND_OK)
            return fail(out, at < end && in[at] > 127 ? SMTP_COMMAND_HAS_8BIT : result, at);
        if (is_twice(in, out, &new))
            return fail(out, SMTP_COMMAND_TWICE, new.keyword.offset);
        *is_smtputf8 |= new.known == SMTP_KEYWORD_SMTPUTF8;
        out->parameters[out->parameter_count++] = new;
    }
}

static smtp_command_result parse_path(const uint8_t *in, size_t at, size_t end, unsigned flags,
                                      smtp_command *out)
{
    smtp_path *path = &out->path;

    out->path_result = (uint8_t)smtp_path_parse(in + at, end - at, flags, path);
    path->end += (uint32_t)at;
    if (out->path_result != SMTP_PATH_OK)
        return fail(out, SMTP_COMMAND_BAD_PATH, path->end);
    path->mailbox.offset += (uint32_t)at;
    path->local_part.offset += (uint32_t)at;
    path->domain.offset += (uint32_t)at;
    return SMTP_COMMAND_OK;
}

/* "FROM:" / "TO:" Path [ SP Mail-parameters / Rcpt-parameters ] */
static smtp_command_result parse_mail_or_rcpt(const uint8_t *in, unsigned flags, smtp_command *out)
{
    bool is_mail = out->verb == SMTP_VERB_MAIL;
    size_t at = out->argument.offset, end = at + out->argument.length;
    size_t prefix = is_mail ? 5 : 3;
    smtp_command_result result;

    if (end - at < prefix || !equals_folded(in + at, is_mail ? "FROM:" : "TO:", prefix))
        return fail(out, SMTP_COMMAND_SYNTAX, at);
    at += prefix;
    while (at < end && in[at] == ' ')
        at++;
    if (at == end)
        return fail(out, SMTP_COMMAND_SYNTAX, at);
    result = parse_path(in, at, end, (flags & (SMTP_PATH_UTF8 | SMTP_PATH_UNQUALIFIED)) | (is_mail ? SMTP_PATH_NULL
                                                                         : SMTP_PATH_POSTMASTER), out);
    if (result != SMTP_COMMAND_OK)
        return result;
    if (out->path.end < end && in[out->path.end] != ' ')
        return fail(out, SMTP_COMMAND_SYNTAX, out->path.end);

    /* RCPT has no SMTPUTF8 parameter: the flag says that the transaction has it (RFC 6531 §3.4). */
    bool is_smtputf8 = !is_mail;
    result = parse_parameters(in, out->path.end, end, out, &is_smtputf8);
    if (result != SMTP_COMMAND_OK)
        return result;
    if (out->path.has_utf8 && !is_smtputf8) {
        out->path_result = SMTP_PATH_NEEDS_UTF8;
        return fail(out, SMTP_COMMAND_BAD_PATH, out->path.mailbox.offset);
    }
    for (size_t i = 0; i < out->parameter_count; i++) {
        smtp_span value = out->parameters[i].value;
        if (!octets_are_allowed(in + value.offset, value.length, is_smtputf8 && (flags & SMTP_PATH_UTF8)))
            return fail(out, SMTP_COMMAND_HAS_8BIT, value.offset);
    }
    return SMTP_COMMAND_OK;
}

/* Ends in SP "HTTP/" DIGIT [ "." DIGIT ] (RFC 9112 §3): whatever the method is called. No command of SMTP's does. */
static bool is_request_line(const uint8_t *in, size_t length)
{
    if (length == 0 || in[length - 1] < '0' || in[length - 1] > '9')
        return false;
    length--;
    if (length >= 2 && in[length - 1] == '.' && in[length - 2] >= '0' && in[length - 2] <= '9')
        length -= 2;
    return length >= 6 && in[length - 1] == '/' && equals_folded(in + length - 6, " HTTP/", 6);
}

smtp_command_result smtp_command_parse(const uint8_t *in, size_t length, unsigned flags, smtp_command *out)
{
    size_t at = 0;

    /* Not the parameters: zeroing 320 octets would cost as much as reading the line. */
    memset(out, 0, offsetof(smtp_command, parameters));
    if (length > UINT32_MAX)            /* spans could not tell */
        return SMTP_COMMAND_UNKNOWN;
    while (at < length && in[at] != ' ')
        at++;
    out->verb_text.length = (uint32_t)at;
    const word *verb = word_find(verbs, in, at);
    size_t end = length;
    while (end > at && in[end - 1] == ' ')
        end--;
    out->verb = is_request_line(in, end) ? SMTP_VERB_HTTP : verb->value;
    if (out->verb == SMTP_VERB_UNKNOWN)
        return SMTP_COMMAND_UNKNOWN;

    if (at < end)
        at++;
    out->argument = (smtp_span){(uint32_t)at, (uint32_t)(end - at)};
    if (out->verb == SMTP_VERB_HTTP)
        return SMTP_COMMAND_OK;

    for (size_t i = at; i < end; i++)
        if (in[i] < 32 || in[i] == 127)
            return fail(out, SMTP_COMMAND_CONTROL, i);
    if (verb->rule == ARGUMENT_FROM || verb->rule == ARGUMENT_TO)
        return parse_mail_or_rcpt(in, flags, out);
    if (!octets_are_allowed(in + at, end - at, verb->rule == ARGUMENT_UTF8 && (flags & SMTP_PATH_UTF8)))
        return fail(out, SMTP_COMMAND_HAS_8BIT, at);
    if (verb->rule == ARGUMENT_CHUNK)
        return parse_chunk(in, out);
    if (verb->rule == ARGUMENT_MECHANISM)
        return parse_mechanism(in, out);
    if (verb->rule == ARGUMENT_NONE ? at < end : verb->rule != ARGUMENT_OPTIONAL && at == end)
        return fail(out, SMTP_COMMAND_SYNTAX, at);
    return SMTP_COMMAND_OK;
}
