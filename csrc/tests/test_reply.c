/* Replies: RFC 5321 §4.2, RFC 2034, RFC 3463. Every row is read whole, cut in two everywhere, octet by octet. */
#include "smtp/reply.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

#define STRING(text) text, sizeof(text) - 1

static const struct {
    const char *in;
    size_t size;
    smtp_reply_result result;
    size_t consumed;            /* in all */
    unsigned code, class, subject, detail, lines;
    const char *text;
    const char *reason;
} rows[] = {
    {STRING("250 OK\r\n"), SMTP_REPLY_COMPLETE, 8, 250, 0, 0, 0, 1, "OK", "one line"},
    {STRING("250 OK\r\n354 go\r\n"), SMTP_REPLY_COMPLETE, 8, 250, 0, 0, 0, 1, "OK", "stops behind the first"},
    {STRING("250\r\n"), SMTP_REPLY_COMPLETE, 5, 250, 0, 0, 0, 1, "", "no text: §4.2"},
    {STRING("250 \r\n"), SMTP_REPLY_COMPLETE, 6, 250, 0, 0, 0, 1, "", "empty text"},
    {STRING("250-a\r\n250-\r\n250 b\r\n"), SMTP_REPLY_COMPLETE, 20, 250, 0, 0, 0, 3, "a\n\nb", "three lines"},
    {STRING("250-a\r\n250\r\n"), SMTP_REPLY_COMPLETE, 12, 250, 0, 0, 0, 2, "a\n", "code alone ends it"},
    {STRING("250 2.1.5 ok\r\n"), SMTP_REPLY_COMPLETE, 14, 250, 2, 1, 5, 1, "2.1.5 ok", "enhanced status code"},
    {STRING("550 5.7.26\r\n"), SMTP_REPLY_COMPLETE, 12, 550, 5, 7, 26, 1, "5.7.26", "nothing behind it"},
    {STRING("450 4.123.456 x\r\n"), SMTP_REPLY_COMPLETE, 17, 450, 4, 123, 456, 1, "4.123.456 x", "the longest"},
    {STRING("250-2.0.0 a\r\n250 b\r\n"), SMTP_REPLY_COMPLETE, 20, 250, 0, 0, 0, 2, "2.0.0 a\nb",
     "only the last line counts"},
    {STRING("550-5.7.1 a\r\n550 5.7.2 b\r\n"), SMTP_REPLY_COMPLETE, 26, 550, 5, 7, 2, 2, "5.7.1 a\n5.7.2 b",
     "only the last line counts"},
    {STRING("550 4.7.1 a\r\n"), SMTP_REPLY_COMPLETE, 13, 550, 0, 0, 0, 1, "4.7.1 a", "class against code"},
    {STRING("354 3.0.0 a\r\n"), SMTP_REPLY_COMPLETE, 13, 354, 0, 0, 0, 1, "3.0.0 a", "there is no class 3"},
    {STRING("550 5.7.1234 a\r\n"), SMTP_REPLY_COMPLETE, 16, 550, 0, 0, 0, 1, "5.7.1234 a", "four digits"},
    {STRING("550 5.7 a\r\n"), SMTP_REPLY_COMPLETE, 11, 550, 0, 0, 0, 1, "5.7 a", "two numbers"},
    {STRING("550 5..1 a\r\n"), SMTP_REPLY_COMPLETE, 12, 550, 0, 0, 0, 1, "5..1 a", "empty number"},
    {STRING("550 5.7.1: a\r\n"), SMTP_REPLY_COMPLETE, 14, 550, 0, 0, 0, 1, "5.7.1: a", "no space behind it"},
    {STRING("550 5.7.1\ta\r\n"), SMTP_REPLY_COMPLETE, 13, 550, 5, 7, 1, 1, "5.7.1 a", "HTAB becomes a space"},
    {STRING("250 a\0b\x1b[0mc\x7f\r\n"), SMTP_REPLY_COMPLETE, 15, 250, 0, 0, 0, 1, "a?b?[0mc?", "control octets"},
    {STRING("250 \xc3\xa9\xff\r\n"), SMTP_REPLY_COMPLETE, 9, 250, 0, 0, 0, 1, "\xc3\xa9\xff", "8-bit is kept"},
    {STRING("299 x\r\n"), SMTP_REPLY_BAD_CODE, 1, 0, 0, 0, 0, 0, "", "second digit"},
    {STRING("150 x\r\n"), SMTP_REPLY_BAD_CODE, 0, 0, 0, 0, 0, 0, "", "first digit 1"},
    {STRING("650 x\r\n"), SMTP_REPLY_BAD_CODE, 0, 0, 0, 0, 0, 0, "", "first digit 6"},
    {STRING("25x x\r\n"), SMTP_REPLY_BAD_CODE, 2, 0, 0, 0, 0, 0, "", "third digit"},
    {STRING("2500 x\r\n"), SMTP_REPLY_BAD_CODE, 3, 0, 0, 0, 0, 0, "", "four digits"},
    {STRING("\r\n"), SMTP_REPLY_BAD_CODE, 0, 0, 0, 0, 0, 0, "", "empty line"},
    {STRING("250-a\r\n\r\n"), SMTP_REPLY_BAD_CODE, 7, 0, 0, 0, 0, 0, "", "empty line inside"},
    {STRING("HTTP/1.1 400\r\n"), SMTP_REPLY_BAD_CODE, 0, 0, 0, 0, 0, 0, "", "another protocol"},
    {STRING("250-a\r\n251 b\r\n"), SMTP_REPLY_CODE_CHANGED, 9, 0, 0, 0, 0, 0, "", "§4.2.1"},
    {STRING("250 a\n"), SMTP_REPLY_BARE_LF, 5, 0, 0, 0, 0, 0, "", "in text"},
    {STRING("250\n"), SMTP_REPLY_BARE_LF, 3, 0, 0, 0, 0, 0, "", "behind the code"},
    {STRING("\n"), SMTP_REPLY_BARE_LF, 0, 0, 0, 0, 0, 0, "", "first"},
    {STRING("250 a\rb\r\n"), SMTP_REPLY_BARE_CR, 6, 0, 0, 0, 0, 0, "", "in text"},
    {STRING("250 a\r\r\n"), SMTP_REPLY_BARE_CR, 6, 0, 0, 0, 0, 0, "", "CR CR LF"},
    {STRING("250 a\r"), SMTP_REPLY_PARTIAL, 6, 0, 0, 0, 0, 0, "", "LF to come"},
    {STRING("250-a\r\n"), SMTP_REPLY_PARTIAL, 7, 0, 0, 0, 0, 0, "", "a line to come"},
    {STRING(""), SMTP_REPLY_PARTIAL, 0, 0, 0, 0, 0, 0, "", "nothing"},
};

/* Pushes in pieces of `first` octets and then of `step`; *consumed is the sum. */
static smtp_reply_result read_cut(smtp_reply_machine *machine, const char *in, size_t size, size_t first,
                                  size_t step, size_t *consumed)
{
    smtp_reply_result result = SMTP_REPLY_PARTIAL;
    size_t at = 0, piece = first;

    while (at < size && result == SMTP_REPLY_PARTIAL) {
        size_t used, length = piece < size - at ? piece : size - at;
        uint8_t *copy = malloc(length + (length == 0));     /* exact size: a sanitizer sees every overrun */
        memcpy(copy, in + at, length);
        result = smtp_reply_push(machine, copy, length, &used);
        free(copy);
        at += used;
        piece = step;
    }
    *consumed = at;
    return result;
}

static void test_rows_for_every_cut(void)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t cut = 0; cut <= rows[i].size + 1; cut++) {
            smtp_reply_machine m;
            size_t consumed, step = cut > rows[i].size ? 1 : rows[i].size + 1;
            smtp_reply_reset(&m);
            smtp_reply_result result = read_cut(&m, rows[i].in, rows[i].size, cut > rows[i].size ? 1 : cut, step,
                                                &consumed);
            CHECK(result == rows[i].result && consumed == rows[i].consumed,
                  "%s (%s), cut %zu: got %d at %zu", rows[i].reason, rows[i].in, cut, result, consumed);
            if (result == SMTP_REPLY_COMPLETE) {
                CHECK(m.code == rows[i].code && m.status_class == rows[i].class
                      && m.status_subject == rows[i].subject && m.status_detail == rows[i].detail
                      && m.line_count == rows[i].lines, "%s, cut %zu: %u %u.%u.%u", rows[i].reason, cut,
                      m.code, m.status_class, m.status_subject, m.status_detail);
                CHECK(m.text_length == strlen(rows[i].text)
                      && memcmp(m.text, rows[i].text, m.text_length) == 0 && m.text_dropped == 0,
                      "%s, cut %zu: %.*s", rows[i].reason, cut, m.text_length, m.text);
            }
        }
    }
}

static void test_errors_stick_until_reset(void)
{
    smtp_reply_machine m;
    size_t consumed;

    smtp_reply_reset(&m);
    CHECK(smtp_reply_push(&m, (const uint8_t *)"x", 1, &consumed) == SMTP_REPLY_BAD_CODE, "first");
    CHECK(smtp_reply_push(&m, (const uint8_t *)"250 a\r\n", 7, &consumed) == SMTP_REPLY_BAD_CODE
          && consumed == 0, "again, nothing consumed");
    smtp_reply_reset(&m);
    CHECK(smtp_reply_push(&m, (const uint8_t *)"250 a\r\n", 7, &consumed) == SMTP_REPLY_COMPLETE, "as new");
}

static void test_next_reply_forgets_the_last(void)
{
    static const char in[] = "550-5.7.1 no\r\n550 5.7.1 never\r\n250\r\n";
    smtp_reply_machine m;
    size_t first, second;

    smtp_reply_reset(&m);
    CHECK(smtp_reply_push(&m, (const uint8_t *)in, sizeof in - 1, &first) == SMTP_REPLY_COMPLETE, "first");
    CHECK(smtp_reply_push(&m, (const uint8_t *)in, 0, &second) == SMTP_REPLY_PARTIAL && m.code == 550,
          "no octets, no change");
    CHECK(smtp_reply_push(&m, (const uint8_t *)in + first, sizeof in - 1 - first, &second)
          == SMTP_REPLY_COMPLETE, "second");
    CHECK(m.code == 250 && m.status_class == 0 && m.line_count == 1 && m.text_length == 0, "nothing left over");
}

static void test_line_limit(void)
{
    static char line[SMTP_REPLY_LINE_MAX + 1];
    smtp_reply_machine m;
    size_t consumed;

    memset(line, 'x', sizeof line);
    memcpy(line, "250 ", 4);
    memcpy(line + SMTP_REPLY_LINE_MAX - 2, "\r\n", 2);
    smtp_reply_reset(&m);
    CHECK(smtp_reply_push(&m, (uint8_t *)line, SMTP_REPLY_LINE_MAX, &consumed) == SMTP_REPLY_COMPLETE, "the limit");
    memcpy(line + SMTP_REPLY_LINE_MAX - 2, "x\r\n", 3);
    smtp_reply_reset(&m);
    CHECK(smtp_reply_push(&m, (uint8_t *)line, SMTP_REPLY_LINE_MAX + 1, &consumed) == SMTP_REPLY_LINE_TOO_LONG
          && consumed == SMTP_REPLY_LINE_MAX, "one over");
}

static void test_long_reply_is_bounded_and_keeps_its_status(void)
{
    smtp_reply_machine m;
    char line[120];
    size_t consumed, text = 0;

    smtp_reply_reset(&m);
    for (int i = 0; i < SMTP_REPLY_LINES_MAX; i++) {
        bool is_last = i == SMTP_REPLY_LINES_MAX - 1;
        int size = snprintf(line, sizeof line, "550%c5.7.1 line %d with some text in it\r\n", is_last ? ' ' : '-', i);
        smtp_reply_result result = smtp_reply_push(&m, (uint8_t *)line, (size_t)size, &consumed);
        CHECK(result == (is_last ? SMTP_REPLY_COMPLETE : SMTP_REPLY_PARTIAL), "line %d: %d", i, result);
        text += (size_t)size - 6 + !is_last;
    }
    CHECK(m.text_length == SMTP_REPLY_TEXT_MAX && m.text_length + m.text_dropped == text, "counted");
    CHECK(m.status_class == 5 && m.status_subject == 7 && m.status_detail == 1, "status from a dropped line");
    CHECK(m.line_count == SMTP_REPLY_LINES_MAX, "lines");

    smtp_reply_reset(&m);
    for (int i = 0; i < SMTP_REPLY_LINES_MAX; i++)
        smtp_reply_push(&m, (const uint8_t *)"250-a\r\n", 7, &consumed);
    CHECK(smtp_reply_push(&m, (const uint8_t *)"250 a\r\n", 7, &consumed) == SMTP_REPLY_TOO_MANY_LINES
          && consumed == 0, "one line more");
}

int main(void)
{
    test_rows_for_every_cut();
    test_errors_stick_until_reset();
    test_next_reply_forgets_the_last();
    test_line_limit();
    test_long_reply_is_bounded_and_keeps_its_status();
    return check_report();
}
