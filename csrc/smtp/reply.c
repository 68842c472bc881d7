#include "smtp/reply.h"

#include <string.h>

enum {
    STATE_CODE_1 = 0,           /* the digits, in order: STATE_CODE_2 is STATE_CODE_1 + 1 */
    STATE_CODE_2,
    STATE_CODE_3,
    STATE_SEPARATOR,
    STATE_TEXT,
    STATE_AFTER_CR,
    STATE_COMPLETE,             /* the next octet begins the next reply */
};

void smtp_reply_reset(smtp_reply_machine *self)
{
    memset(self, 0, offsetof(smtp_reply_machine, text));
}

static void text_put(smtp_reply_machine *self, uint8_t octet)
{
    /* Once one octet was dropped the buffer is full, so what is kept is always the text's beginning. */
    if (self->text_length < SMTP_REPLY_TEXT_MAX)
        self->text[self->text_length++] = octet;
    else if (self->text_dropped < UINT32_MAX)
        self->text_dropped++;
}

static uint8_t printable(uint8_t octet)
{
    if (octet == '\t')
        return ' ';
    return octet < 32 || octet == 127 ? '?' : octet;
}

static bool take_number(const uint8_t *in, size_t length, size_t *at, uint16_t *value)
{
    size_t start = *at;

    for (*value = 0; *at < length && *at - start < 3 && in[*at] >= '0' && in[*at] <= '9'; ++*at)
        *value = (uint16_t)(*value * 10 + (in[*at] - '0'));
    return *at > start;
}

/* class "." subject "." detail (RFC 3463 §2), then a space or the end of the line. */
static void status_parse(smtp_reply_machine *self)
{
    const uint8_t *in = self->status_text;
    size_t length = self->status_length, at = 2;
    uint16_t subject, detail;

    self->status_class = 0;
    self->status_subject = self->status_detail = 0;
    if (length < 5 || in[0] != '0' + self->code / 100 || in[0] == '3' || in[1] != '.')
        return;
    if (!take_number(in, length, &at, &subject) || at == length || in[at++] != '.')
        return;
    if (!take_number(in, length, &at, &detail) || (at < length && in[at] != ' '))
        return;
    self->status_class = (uint8_t)(in[0] - '0');
    self->status_subject = subject;
    self->status_detail = detail;
}

/* One digit of the code: [2-5] [0-5] [0-9] (RFC 5321 §4.2). */
static smtp_reply_result take_code_digit(smtp_reply_machine *self, uint8_t octet)
{
    static const uint8_t lowest[3] = {'2', '0', '0'}, highest[3] = {'5', '5', '9'};

    if (octet == '\n')
        return SMTP_REPLY_BARE_LF;
    if (octet < lowest[self->state] || octet > highest[self->state])
        return SMTP_REPLY_BAD_CODE;
    if (self->state == STATE_CODE_1) {
        if (self->line_count == SMTP_REPLY_LINES_MAX)
            return SMTP_REPLY_TOO_MANY_LINES;
        self->line_code = 0;
    }
    self->line_code = (uint16_t)(self->line_code * 10 + (octet - '0'));
    if (self->state == STATE_CODE_3) {
        if (self->line_count > 0 && self->line_code != self->code)
            return SMTP_REPLY_CODE_CHANGED;
        self->code = self->line_code;
        if (self->line_count > 0)
            text_put(self, '\n');
        self->line_count++;
    }
    self->state++;
    return SMTP_REPLY_PARTIAL;
}

static smtp_reply_result take_separator(smtp_reply_machine *self, uint8_t octet)
{
    switch (octet) {
    case ' ':
    case '-':
        self->is_last_line = octet == ' ';
        self->state = STATE_TEXT;
        return SMTP_REPLY_PARTIAL;
    case '\r':                  /* no text at all: to be accepted, §4.2 */
        self->is_last_line = true;
        self->state = STATE_AFTER_CR;
        return SMTP_REPLY_PARTIAL;
    case '\n':
        return SMTP_REPLY_BARE_LF;
    default:
        return SMTP_REPLY_BAD_CODE;
    }
}

static smtp_reply_result take_text(smtp_reply_machine *self, uint8_t octet)
{
    if (octet == '\r') {
        self->state = STATE_AFTER_CR;
        return SMTP_REPLY_PARTIAL;
    }
    if (octet == '\n')
        return SMTP_REPLY_BARE_LF;
    octet = printable(octet);
    if (self->status_length < sizeof self->status_text)
        self->status_text[self->status_length++] = octet;
    text_put(self, octet);
    return SMTP_REPLY_PARTIAL;
}

static smtp_reply_result take_line_end(smtp_reply_machine *self, uint8_t octet)
{
    if (octet != '\n')
        return SMTP_REPLY_BARE_CR;
    self->line_octets = 0;
    if (self->is_last_line) {
        status_parse(self);
        self->state = STATE_COMPLETE;
        return SMTP_REPLY_COMPLETE;
    }
    self->status_length = 0;
    self->state = STATE_CODE_1;
    return SMTP_REPLY_PARTIAL;
}

static smtp_reply_result take_octet(smtp_reply_machine *self, uint8_t octet)
{
    if (self->line_octets == SMTP_REPLY_LINE_MAX)
        return SMTP_REPLY_LINE_TOO_LONG;
    self->line_octets++;
    switch (self->state) {
    case STATE_SEPARATOR: return take_separator(self, octet);
    case STATE_TEXT:      return take_text(self, octet);
    case STATE_AFTER_CR:  return take_line_end(self, octet);
    default:              return take_code_digit(self, octet);
    }
}

smtp_reply_result smtp_reply_push(smtp_reply_machine *self, const uint8_t *in, size_t size, size_t *consumed)
{
    *consumed = 0;
    if (self->sticky_error != SMTP_REPLY_PARTIAL)
        return (smtp_reply_result)self->sticky_error;
    if (size > 0 && self->state == STATE_COMPLETE)
        smtp_reply_reset(self);
    for (size_t i = 0; i < size; i++) {
        smtp_reply_result result = take_octet(self, in[i]);
        if (result == SMTP_REPLY_PARTIAL)
            continue;
        if (result == SMTP_REPLY_COMPLETE) {
            *consumed = i + 1;
            return result;
        }
        self->sticky_error = (uint8_t)result;
        *consumed = i;
        return result;
    }
    *consumed = size;
    return SMTP_REPLY_PARTIAL;
}
