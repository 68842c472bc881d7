/* Command lines: RFC 5321 §4.1.1, RFC 3030, 3461, 6531. */
#include "smtp/command.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { U = SMTP_PATH_UTF8, ALL = -1 };

static void test_line_find(void)
{
    static const struct {
        const char *text;
        size_t size, limit;
        smtp_line_result result;
        size_t length;
        const char *reason;
    } rows[] = {
        {"NOOP\r\n", 6, 512, SMTP_LINE_OK, 4, "a line"},
        {"\r\n", 2, 512, SMTP_LINE_OK, 0, "an empty line"},
        {"A\r\nB\r\n", 6, 512, SMTP_LINE_OK, 1, "the first of two"},
        {"A\r\nB\nC", 6, 512, SMTP_LINE_OK, 1, "what follows is not judged yet"},
        {"A\0\x01\r\n", 5, 512, SMTP_LINE_OK, 3, "control octets are the parser's"},
        {"NOOP", 4, 512, SMTP_LINE_PARTIAL, 4, "no CRLF"},
        {"", 0, 512, SMTP_LINE_PARTIAL, 0, "nothing"},
        {"NOOP\r", 5, 512, SMTP_LINE_PARTIAL, 4, "CR last"},
        {"NOOP\n", 5, 512, SMTP_LINE_BARE_LF, 4, "bare LF"},
        {"\nNOOP\r\n", 7, 512, SMTP_LINE_BARE_LF, 0, "bare LF first"},
        {"NO\rOP\r\n", 7, 512, SMTP_LINE_BARE_CR, 2, "bare CR"},
        {"NO\r\r\n", 5, 512, SMTP_LINE_BARE_CR, 2, "CR CR LF"},
        {"NO\r\r", 4, 512, SMTP_LINE_BARE_CR, 2, "known before the line ends"},
        {"NO\rOP\n", 6, 512, SMTP_LINE_BARE_CR, 2, "the first fault"},
        {"1234\r\n", 6, 6, SMTP_LINE_OK, 4, "as long as the limit"},
        {"12345\r\n", 7, 6, SMTP_LINE_TOO_LONG, 5, "one over"},
        {"12345\r", 6, 6, SMTP_LINE_TOO_LONG, 5, "a CR as last octet inside the limit is too late"},
        {"12345", 5, 6, SMTP_LINE_PARTIAL, 5, "still room"},
        {"123456", 6, 6, SMTP_LINE_TOO_LONG, 6, "no room for CRLF"},
        {"123456\n", 7, 6, SMTP_LINE_TOO_LONG, 6, "nothing is looked at behind the limit"},
        {"12345\n", 6, 6, SMTP_LINE_BARE_LF, 5, "inside the limit"},
        {"\r\n", 2, 1, SMTP_LINE_TOO_LONG, 0, "limit under 2"},
        {"\r\n", 2, 0, SMTP_LINE_TOO_LONG, 0, "limit 0"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t length = 12345;
        smtp_line_result result = smtp_line_find((const uint8_t *)rows[i].text, rows[i].size, rows[i].limit,
                                                 &length);
        CHECK(result == rows[i].result && length == rows[i].length, "row %zu: %s: got %d at %zu", i,
              rows[i].reason, result, length);
    }
}

/* An allocation of the exact size, without NUL, so that a sanitizer sees every octet read past the end. */
static uint8_t *exact_copy(const char *text)
{
    size_t size = strlen(text);
    uint8_t *copy = malloc(size + (size == 0));
    memcpy(copy, text, size);
    return copy;
}

static smtp_command_result parse(const char *text, int length, unsigned flags, smtp_command *out)
{
    size_t size = length == ALL ? strlen(text) : (size_t)length;
    uint8_t *line = malloc(size + (size == 0));
    memcpy(line, text, size);
    smtp_command_result result = smtp_command_parse(line, size, flags, out);
    free(line);
    return result;
}

static const struct {
    const char *text;
    int length;
    unsigned flags;
    smtp_command_result result;
    smtp_verb verb;
    const char *reason;
} rows[] = {
    {"EHLO mx.example", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_EHLO, "plain"},
    {"ehlo mx.example", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_EHLO, "verbs in any case"},
    {"HeLo mx.example", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HELO, "verbs in any case"},
    {"LHLO mx.example", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_LHLO, "RFC 2033"},
    {"EHLO", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_EHLO, "needs an argument"},
    {"EHLO   ", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_EHLO, "spaces are no argument"},
    {"EHLO any thing", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_EHLO, "the domain is the session's to judge"},
    {"EHLO m\xc3\xbc.example", ALL, U, SMTP_COMMAND_HAS_8BIT, SMTP_VERB_EHLO, "RFC 6531 §3.6: A-labels"},
    {"", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "empty line"},
    {" NOOP", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "space first"},
    {"NOO", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "shorter than a verb"},
    {"NOOPS", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "longer than a verb"},
    {"GET\0", 4, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "NUL is no end of a verb"},
    {"STARTTL", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "one octet missing"},
    {"STARTTLZ", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "last octet differs"},
    {"XFOO bar\x01", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "unknown comes first"},
    {"NOOP", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_NOOP, "without argument"},
    {"NOOP x", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_NOOP, "with argument"},
    {"NOOP x\ty", ALL, 0, SMTP_COMMAND_CONTROL, SMTP_VERB_NOOP, "HTAB is a control octet"},
    {"NOOP a\0b", 8, 0, SMTP_COMMAND_CONTROL, SMTP_VERB_NOOP, "NUL"},
    {"NOOP \x1b[31m", ALL, 0, SMTP_COMMAND_CONTROL, SMTP_VERB_NOOP, "ESC"},
    {"NOOP \x7f", ALL, 0, SMTP_COMMAND_CONTROL, SMTP_VERB_NOOP, "DEL"},
    {"NOOP \xc3\xa9", ALL, U, SMTP_COMMAND_HAS_8BIT, SMTP_VERB_NOOP, "String is ASCII"},
    {"HELP", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HELP, "without argument"},
    {"DATA", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_DATA, "plain"},
    {"DATA  ", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_DATA, "§4.1.1: trailing white space"},
    {"DATA x", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_DATA, "takes no argument"},
    {"RSET x", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_RSET, "takes no argument"},
    {"QUIT now", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_QUIT, "takes no argument"},
    {"STARTTLS", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_STARTTLS, "plain"},
    {"starttls x", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_STARTTLS, "RFC 3207 §4: no parameters"},
    {"VRFY", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_VRFY, "needs an argument"},
    {"VRFY user", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_VRFY, "plain"},
    {"VRFY \xc3\xa9", ALL, U, SMTP_COMMAND_OK, SMTP_VERB_VRFY, "RFC 6531 §3.7.4.2"},
    {"VRFY \xc3\xa9", ALL, 0, SMTP_COMMAND_HAS_8BIT, SMTP_VERB_VRFY, "not offered"},
    {"VRFY \xc3", ALL, U, SMTP_COMMAND_HAS_8BIT, SMTP_VERB_VRFY, "not UTF-8"},
    {"EXPN list", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_EXPN, "plain"},
    {"AUTH PLAIN AGEAYg==", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_AUTH, "plain"},
    {"AUTH", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_AUTH, "needs a mechanism"},
    {"auth scram-sha-256-plus", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_AUTH, "any case"},
    {"AUTH PLAIN =", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_AUTH, "RFC 4954 §4: an empty initial response"},
    {"AUTH PLAIN ==", ALL, 0, SMTP_COMMAND_BAD_BASE64, SMTP_VERB_AUTH, "not that and no base64"},
    {"AUTH PLAIN  AGEAYg==", ALL, 0, SMTP_COMMAND_BAD_BASE64, SMTP_VERB_AUTH, "two spaces"},
    {"AUTH PLAIN AGEAYg== x", ALL, 0, SMTP_COMMAND_BAD_BASE64, SMTP_VERB_AUTH, "something behind"},
    {"AUTH PLAIN AGEAYg", ALL, 0, SMTP_COMMAND_BAD_BASE64, SMTP_VERB_AUTH, "not padded"},
    {"AUTH PLAIN AGEAYh==", ALL, 0, SMTP_COMMAND_BAD_BASE64, SMTP_VERB_AUTH, "RFC 4648 §3.5: unused bits"},
    {"AUTH PLAIN AGE\0YWJj", 18, 0, SMTP_COMMAND_CONTROL, SMTP_VERB_AUTH, "NUL"},
    {"AUTH PLA!N", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_AUTH, "RFC 4422 §3.1: mechanism characters"},
    {"AUTH ABCDEFGHIJKLMNOPQRST", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_AUTH, "20 of them"},
    {"AUTH ABCDEFGHIJKLMNOPQRSTU", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_AUTH, "21"},
    {"ETRN example.com", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_ETRN, "RFC 1985"},
    {"GET / HTTP/1.1", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "cross-protocol"},
    {"POST / \x01\xff", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "whatever follows"},
    {"CONNECT mx:25 HTTP/1.1", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "cross-protocol"},
    {"OPTIONS * HTTP/1.1", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "cross-protocol"},
    {"PATCH", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "cross-protocol"},
    {"PRI * HTTP/2.0", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "RFC 9113 §3.4: by its shape"},
    {"MKCOL / HTTP/1.1", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "any method"},
    {"X HTTP/2", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "one digit"},
    {"link / http/1.0  ", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "in any case, spaces behind"},
    {"NOOP / HTTP/1.1", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "a method that is called like a command"},
    {"MAIL FROM:<a@b> HTTP/1.1", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "no parameter looks like that"},
    {" HTTP/1.1", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "nothing in front"},
    {"X \x01\xff HTTP/1.1", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_HTTP, "whatever is in it"},
    {"HTTP/1.1", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "no space: not a request's line"},
    {"LINK /HTTP/1.1", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "a path"},
    {"LINK / HTTP/1.", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "no digit behind the point"},
    {"LINK / HTTP/.1", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "nor in front"},
    {"LINK / HTTP/11", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "two digits"},
    {"LINK / HTTP/1.11", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "two digits"},
    {"LINK / HTTPS/1.1", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "another protocol"},
    {"NOOP HTTP/1.1 x", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_NOOP, "not at the end"},
    {"1", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "short"},
    {".1", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "shorter than what is looked for"},
    {"1.1", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "likewise"},
    {"HTTP/1", ALL, 0, SMTP_COMMAND_UNKNOWN, SMTP_VERB_UNKNOWN, "an octet too short"},
    {"BDAT 0 LAST", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_BDAT, "RFC 3030 §2"},
    {"BDAT", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_BDAT, "no size"},
    {"BDAT x", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_BDAT, "no number"},
    {"BDAT -1", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_BDAT, "sign"},
    {"BDAT 1 FIRST", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_BDAT, "not LAST"},
    {"BDAT 1 LASTX", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_BDAT, "not LAST"},
    {"BDAT 1 LAST 2", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_BDAT, "something behind"},
    {"BDAT 18446744073709551616", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_BDAT, "2^64"},
    {"MAIL FROM:<a@b>", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_MAIL, "plain"},
    {"mail from:<a@b>", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_MAIL, "any case"},
    {"MAIL FROM:  <a@b>", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_MAIL, "spaces behind the colon"},
    {"MAIL FROM: ", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_MAIL, "no path"},
    {"MAIL", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_MAIL, "nothing"},
    {"MAIL FROM", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_MAIL, "no colon"},
    {"MAIL FROM :<a@b>", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_MAIL, "space before the colon"},
    {"MAIL  FROM:<a@b>", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_MAIL, "two spaces behind the verb"},
    {"MAIL TO:<a@b>", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_MAIL, "the other one's word"},
    {"RCPT FROM:<a@b>", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_RCPT, "the other one's word"},
    {"MAIL FROM:<>", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_MAIL, "null reverse-path"},
    {"RCPT TO:<>", ALL, 0, SMTP_COMMAND_BAD_PATH, SMTP_VERB_RCPT, "no null forward-path"},
    {"RCPT TO:<Postmaster>", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_RCPT, "§4.1.1.3"},
    {"MAIL FROM:<Postmaster>", ALL, 0, SMTP_COMMAND_BAD_PATH, SMTP_VERB_MAIL, "only as a forward-path"},
    {"MAIL FROM:a@b", ALL, 0, SMTP_COMMAND_BAD_PATH, SMTP_VERB_MAIL, "no brackets"},
    {"MAIL FROM:<a@b>SIZE=1", ALL, 0, SMTP_COMMAND_SYNTAX, SMTP_VERB_MAIL, "no space behind the path"},
    {"MAIL FROM:<a@b> SIZE=1  BODY=8BITMIME ", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_MAIL, "parameters"},
    {"MAIL FROM:<a@b> SIZE=", ALL, 0, SMTP_COMMAND_BAD_PARAMETER, SMTP_VERB_MAIL, "empty value"},
    {"MAIL FROM:<a@b> =1", ALL, 0, SMTP_COMMAND_BAD_PARAMETER, SMTP_VERB_MAIL, "no keyword"},
    {"MAIL FROM:<a@b> -X", ALL, 0, SMTP_COMMAND_BAD_PARAMETER, SMTP_VERB_MAIL, "hyphen first"},
    {"MAIL FROM:<a@b> X-Y.Z", ALL, 0, SMTP_COMMAND_BAD_PARAMETER, SMTP_VERB_MAIL, "dot in a keyword"},
    {"MAIL FROM:<a@b> X=1=2", ALL, 0, SMTP_COMMAND_BAD_PARAMETER, SMTP_VERB_MAIL, "= in a value"},
    {"MAIL FROM:<a@b> SMTPUTF8=1", ALL, U, SMTP_COMMAND_BAD_PARAMETER, SMTP_VERB_MAIL, "RFC 6531 §3.4"},
    {"MAIL FROM:<a@b> SIZE=1 size=2", ALL, 0, SMTP_COMMAND_TWICE, SMTP_VERB_MAIL, "known, twice"},
    {"MAIL FROM:<a@b> X-a=1 x-A=2", ALL, 0, SMTP_COMMAND_TWICE, SMTP_VERB_MAIL, "unknown, twice"},
    {"MAIL FROM:<a@b> X-a=1 X-b=2", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_MAIL, "two unknown of one length"},
    {"MAIL FROM:<a@b> A B C D E F G H I J K L M N O P", ALL, 0, SMTP_COMMAND_OK, SMTP_VERB_MAIL, "16"},
    {"MAIL FROM:<a@b> A B C D E F G H I J K L M N O P Q", ALL, 0, SMTP_COMMAND_TOO_MANY, SMTP_VERB_MAIL, "17"},
    {"MAIL FROM:<\xc3\xa9@b> SMTPUTF8", ALL, U, SMTP_COMMAND_OK, SMTP_VERB_MAIL, "RFC 6531"},
    {"MAIL FROM:<\xc3\xa9@b>", ALL, U, SMTP_COMMAND_BAD_PATH, SMTP_VERB_MAIL, "without the parameter"},
    {"MAIL FROM:<\xc3\xa9@b> SMTPUTF8", ALL, 0, SMTP_COMMAND_BAD_PATH, SMTP_VERB_MAIL, "not offered"},
    {"RCPT TO:<\xc3\xa9@b>", ALL, U, SMTP_COMMAND_OK, SMTP_VERB_RCPT, "in an SMTPUTF8 transaction"},
    {"RCPT TO:<\xc3\xa9@b>", ALL, 0, SMTP_COMMAND_BAD_PATH, SMTP_VERB_RCPT, "in another"},
    {"RCPT TO:<a@b> ORCPT=utf-8;\xc3\xa9", ALL, U, SMTP_COMMAND_OK, SMTP_VERB_RCPT, "RFC 6533 §3"},
    {"RCPT TO:<a@b> ORCPT=utf-8;\xc3", ALL, U, SMTP_COMMAND_HAS_8BIT, SMTP_VERB_RCPT, "not UTF-8"},
    {"RCPT TO:<a@b> ORCPT=utf-8;\xc3\xa9", ALL, 0, SMTP_COMMAND_HAS_8BIT, SMTP_VERB_RCPT, "not offered"},
    {"MAIL FROM:<a@b> ENVID=\xc3\xa9", ALL, U, SMTP_COMMAND_HAS_8BIT, SMTP_VERB_MAIL, "without SMTPUTF8"},
    {"MAIL FROM:<a@b> \xc3\xa9", ALL, U, SMTP_COMMAND_HAS_8BIT, SMTP_VERB_MAIL, "keywords are ASCII"},
};

static void test_results(void)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        smtp_command command;
        smtp_command_result result = parse(rows[i].text, rows[i].length, rows[i].flags, &command);
        CHECK(result == rows[i].result && command.verb == rows[i].verb, "%s: %s: got %d, verb %d",
              rows[i].text, rows[i].reason, result, command.verb);
        if (result != SMTP_COMMAND_OK)
            CHECK(command.error_offset <= (rows[i].length == ALL ? strlen(rows[i].text) : (size_t)rows[i].length),
                  "%s: error offset", rows[i].text);
    }
}

static bool span_is(const char *text, smtp_span span, const char *expected)
{
    return span.length == strlen(expected) && memcmp(text + span.offset, expected, span.length) == 0;
}

static void test_spans_are_offsets_in_the_line(void)
{
    static const char text[] = "MAIL FROM: <@r:a.b@c.example> SIZE=12 body=8BITMIME X-y  ";
    smtp_command command;

    CHECK(parse(text, ALL, 0, &command) == SMTP_COMMAND_OK, "parses");
    CHECK(span_is(text, command.verb_text, "MAIL"), "verb");
    CHECK(span_is(text, command.argument, "FROM: <@r:a.b@c.example> SIZE=12 body=8BITMIME X-y"), "argument");
    CHECK(span_is(text, command.path.mailbox, "a.b@c.example"), "mailbox");
    CHECK(span_is(text, command.path.local_part, "a.b"), "local-part");
    CHECK(span_is(text, command.path.domain, "c.example"), "domain");
    CHECK(text[command.path.end - 1] == '>', "end");
    CHECK(command.parameter_count == 3, "parameters");
    CHECK(command.parameters[0].known == SMTP_KEYWORD_SIZE && span_is(text, command.parameters[0].value, "12"),
          "SIZE");
    CHECK(command.parameters[1].known == SMTP_KEYWORD_BODY
          && span_is(text, command.parameters[1].value, "8BITMIME"), "BODY");
    CHECK(command.parameters[2].known == SMTP_KEYWORD_UNKNOWN && !command.parameters[2].has_value
          && span_is(text, command.parameters[2].keyword, "X-y"), "unknown, without value");
}

static void test_keywords_are_known_whole(void)
{
    static const char text[] = "MAIL FROM:<> by=1;N HoldFor=1 HOLDUNTIL=x MT-Priority=-1 SOLICIT=a HOLD=1 B=1 MT-PRIORITX=1";
    static const uint8_t known[] = {SMTP_KEYWORD_BY, SMTP_KEYWORD_HOLDFOR, SMTP_KEYWORD_HOLDUNTIL, SMTP_KEYWORD_MT_PRIORITY,
                                    SMTP_KEYWORD_SOLICIT, SMTP_KEYWORD_UNKNOWN, SMTP_KEYWORD_UNKNOWN, SMTP_KEYWORD_UNKNOWN};
    smtp_command command;

    CHECK(parse(text, ALL, 0, &command) == SMTP_COMMAND_OK && command.parameter_count == COUNT(known), "parses");
    for (size_t i = 0; i < COUNT(known); i++)
        CHECK(command.parameters[i].known == known[i], "parameter %zu", i);
}

static void test_failed_path_says_why_and_where(void)
{
    smtp_command command;

    CHECK(parse("RCPT TO:<a@b_c>", ALL, 0, &command) == SMTP_COMMAND_BAD_PATH, "underscore");
    CHECK(command.path_result == SMTP_PATH_SYNTAX && command.error_offset == 12, "at the underscore");
    CHECK(parse("RCPT TO:<a@[1.2.3]>", ALL, 0, &command) == SMTP_COMMAND_BAD_PATH
          && command.path_result == SMTP_PATH_BAD_LITERAL, "literal");
    CHECK(parse("MAIL FROM:<\xc3\xa9@b>", ALL, U, &command) == SMTP_COMMAND_BAD_PATH
          && command.path_result == SMTP_PATH_NEEDS_UTF8, "SMTPUTF8 missing");
}

static void test_chunk_size(void)
{
    smtp_command command;

    CHECK(parse("BDAT 18446744073709551615 last", ALL, 0, &command) == SMTP_COMMAND_OK
          && command.chunk_octets == UINT64_MAX && command.is_last, "2^64 - 1, LAST in any case");
    CHECK(parse("bdat 86", ALL, 0, &command) == SMTP_COMMAND_OK && command.chunk_octets == 86
          && !command.is_last, "not last");
}

static void test_mechanism_and_initial_response(void)
{
    smtp_command command;

    CHECK(parse("AUTH LOGIN", ALL, 0, &command) == SMTP_COMMAND_OK && command.parameter_count == 1
          && span_is("AUTH LOGIN", command.parameters[0].keyword, "LOGIN") && !command.parameters[0].has_value, "none");
    CHECK(parse("AUTH PLAIN AGEAYg==", ALL, 0, &command) == SMTP_COMMAND_OK && command.parameters[0].has_value
          && span_is("AUTH PLAIN AGEAYg==", command.parameters[0].value, "AGEAYg=="), "one");
}

static void test_base64(void)
{
    static const struct { const char *text; bool is_valid; const char *reason; } rows[] = {
        {"", true, "nothing"}, {"Zg==", true, "one octet"}, {"Zm8=", true, "two"}, {"Zm9v", true, "three"},
        {"+/+/", true, "both signs"}, {"Zg=", false, "short of padding"}, {"Z===", false, "six bits are no octet"},
        {"====", false, "padding only"}, {"Zg==Zg==", false, "padding inside"}, {"Zh==", false, "unused bits, 4"},
        {"Zm9=", false, "unused bits, 2"}, {"Zm9-", false, "the other alphabet"}, {"Zm 9v", false, "a space"},
        {"Zm9v\n", false, "a line end"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t *text = exact_copy(rows[i].text);
        CHECK(smtp_base64_is_valid(text, strlen(rows[i].text)) == rows[i].is_valid, "base64 %s: %s", rows[i].text,
              rows[i].reason);
        free(text);
    }
}

static void test_values(void)
{
    static const struct { const char *text; bool is_valid; uint64_t value; } decimals[] = {
        {"0", true, 0}, {"007", true, 7}, {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0}, {"99999999999999999999", false, 0}, {"", false, 0},
        {"1 ", false, 0}, {"+1", false, 0}, {"000000000000000000001", false, 0},
    };
    static const struct { const char *text; bool is_valid; } xtexts[] = {
        {"", true}, {"abc", true}, {"a+3Db", true}, {"+2B+2B", true}, {"a+3d", false}, {"a+", false},
        {"a+3", false}, {"a=b", false}, {"a b", false}, {"\x7f", false}, {"\xc3\xa9", false},
    };
    static const struct { const char *text; bool is_valid; uint8_t notify; } notifies[] = {
        {"NEVER", true, SMTP_NOTIFY_NEVER}, {"never", true, SMTP_NOTIFY_NEVER},
        {"SUCCESS", true, SMTP_NOTIFY_SUCCESS},
        {"failure,DELAY", true, SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY},
        {"SUCCESS,FAILURE,DELAY", true, SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY},
        {"NEVER,DELAY", false, 0}, {"DELAY,NEVER", false, 0}, {"", false, 0}, {",", false, 0},
        {"DELAY,", false, 0}, {",DELAY", false, 0}, {"DELAY, FAILURE", false, 0}, {"DELAYS", false, 0},
    };

    for (size_t i = 0; i < COUNT(decimals); i++) {
        uint64_t value = 0;
        uint8_t *text = exact_copy(decimals[i].text);
        bool is_valid = smtp_decimal_parse(text, strlen(decimals[i].text), &value);
        free(text);
        CHECK(is_valid == decimals[i].is_valid && value == decimals[i].value, "decimal %s", decimals[i].text);
    }
    for (size_t i = 0; i < COUNT(xtexts); i++) {
        uint8_t *text = exact_copy(xtexts[i].text);
        CHECK(smtp_xtext_is_valid(text, strlen(xtexts[i].text)) == xtexts[i].is_valid, "xtext %s", xtexts[i].text);
        free(text);
    }
    for (size_t i = 0; i < COUNT(notifies); i++) {
        uint8_t notify = 0;
        uint8_t *text = exact_copy(notifies[i].text);
        bool is_valid = smtp_notify_parse(text, strlen(notifies[i].text), &notify);
        free(text);
        CHECK(is_valid == notifies[i].is_valid && notify == notifies[i].notify, "notify %s", notifies[i].text);
    }
}

int main(void)
{
    test_keywords_are_known_whole();
    test_line_find();
    test_results();
    test_spans_are_offsets_in_the_line();
    test_failed_path_says_why_and_where();
    test_chunk_size();
    test_mechanism_and_initial_response();
    test_base64();
    test_values();
    return check_report();
}
