/* Mailboxes and paths: RFC 5321 §4.1.2, §4.1.3, RFC 6531 §3.3. */
#include "smtp/path.h"

#include <string.h>

#include "check.h"

#define LABEL_63 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"
#define LOCAL_64 LABEL_63 "l"
#define DOMAIN_255 LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63
#define DOMAIN_252 LABEL_63 "." LABEL_63 "." LABEL_63 ".abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh"

#define OK SMTP_PATH_OK
enum { U = SMTP_PATH_UTF8, N = SMTP_PATH_NULL, P = SMTP_PATH_POSTMASTER };

static const struct mailbox_row {
    const char *text;
    unsigned flags;
    smtp_path_result result;
    const char *reason;
} mailbox_rows[] = {
    {"a@b", 0, OK, "the shortest"},
    {"a.b@c.example", 0, OK, "Dot-string"},
    {"!#$%&'*+-/=?^_`{|}~@c.example", 0, OK, "all of atext"},
    {"a@1.2", 0, OK, "digits are Let-dig, a numeric last label is a label"},
    {"a@xn--bcher-kva.example", 0, OK, "A-label"},
    {"a@b--c.example", 0, OK, "hyphens inside"},
    {LOCAL_64 "@b", 0, OK, "local-part of 64"},
    {LOCAL_64 "x@b", 0, SMTP_PATH_LOCAL_TOO_LONG, "local-part of 65"},
    {"a@" LABEL_63 ".b", 0, OK, "label of 63"},
    {"a@" LABEL_63 "x.b", 0, SMTP_PATH_DOMAIN_TOO_LONG, "label of 64"},
    {"a@" DOMAIN_252, 0, OK, "mailbox of 254, path of 256"},
    {"ab@" DOMAIN_252, 0, SMTP_PATH_TOO_LONG, "path of 257"},
    {"a@" DOMAIN_255, 0, SMTP_PATH_TOO_LONG, "a domain of 255 is one, but no path holds it"},
    {"a@" DOMAIN_255 ".x", 0, SMTP_PATH_DOMAIN_TOO_LONG, "domain of 257"},
    {"", 0, SMTP_PATH_SYNTAX, "empty"},
    {"a", 0, SMTP_PATH_SYNTAX, "no domain"},
    {"a@", 0, SMTP_PATH_SYNTAX, "empty domain"},
    {"@b", 0, SMTP_PATH_SYNTAX, "empty local-part"},
    {".a@b", 0, SMTP_PATH_SYNTAX, "dot first"},
    {"a.@b", 0, SMTP_PATH_SYNTAX, "dot last"},
    {"a..b@c", 0, SMTP_PATH_SYNTAX, "two dots"},
    {"a b@c", 0, SMTP_PATH_SYNTAX, "space in an atom"},
    {"a@b c", 0, SMTP_PATH_SYNTAX, "space in a domain"},
    {"a@b@c", 0, SMTP_PATH_SYNTAX, "two @"},
    {"a@b.", 0, SMTP_PATH_SYNTAX, "trailing dot"},
    {"a@.b", 0, SMTP_PATH_SYNTAX, "leading dot"},
    {"a@-b", 0, SMTP_PATH_SYNTAX, "leading hyphen"},
    {"a@b-", 0, SMTP_PATH_SYNTAX, "trailing hyphen"},
    {"a@b-.c", 0, SMTP_PATH_SYNTAX, "trailing hyphen in an inner label"},
    {"a@b_c", 0, SMTP_PATH_SYNTAX, "underscore"},
    {"(c)a@b", 0, SMTP_PATH_SYNTAX, "comments are for header fields"},
    {"\"\"@b", 0, OK, "*QcontentSMTP may be empty"},
    {"\"a b\"@c", 0, OK, "space in a Quoted-string"},
    {"\"a@b\"@c", 0, OK, "@ in a Quoted-string"},
    {"\"a\\\"b\\\\\"@c", 0, OK, "quoted pairs"},
    {"\"a\\ b\"@c", 0, OK, "quoted space"},
    {"\"a\tb\"@c", 0, SMTP_PATH_SYNTAX, "HTAB is not qtextSMTP"},
    {"\"a\\\tb\"@c", 0, SMTP_PATH_SYNTAX, "nor may it be quoted"},
    {"\"a\x7f\"@c", 0, SMTP_PATH_SYNTAX, "DEL"},
    {"\"a\\\x7f\"@c", 0, SMTP_PATH_SYNTAX, "quoted DEL"},
    {"\"a\r\n b\"@c", 0, SMTP_PATH_SYNTAX, "folding is for header fields"},
    {"\"a@c", 0, SMTP_PATH_SYNTAX, "open Quoted-string"},
    {"\"a\\", 0, SMTP_PATH_SYNTAX, "nothing to quote"},
    {"\"a\"b@c", 0, SMTP_PATH_SYNTAX, "atext behind a Quoted-string"},
    {"\"a\".\"b\"@c", 0, SMTP_PATH_SYNTAX, "obsolete in RFC 5322, unknown to RFC 5321"},
    {"a@[192.0.2.1]", 0, OK, "IPv4"},
    {"a@[0.0.0.0]", 0, OK, "IPv4, lowest"},
    {"a@[255.255.255.255]", 0, OK, "IPv4, highest"},
    {"a@[256.0.0.1]", 0, SMTP_PATH_BAD_LITERAL, "Snum over 255"},
    {"a@[1.2.3]", 0, SMTP_PATH_BAD_LITERAL, "three numbers"},
    {"a@[1.2.3.4.5]", 0, SMTP_PATH_BAD_LITERAL, "five numbers"},
    {"a@[1.2.3.]", 0, SMTP_PATH_BAD_LITERAL, "empty number"},
    {"a@[1.2.3.0004]", 0, SMTP_PATH_BAD_LITERAL, "Snum of four digits"},
    {"a@[]", 0, SMTP_PATH_BAD_LITERAL, "empty"},
    {"a@[1.2.3.4", 0, SMTP_PATH_BAD_LITERAL, "open"},
    {"a@[1.2.3.4]b", 0, SMTP_PATH_SYNTAX, "something behind"},
    {"a@[IPv6:1:2:3:4:5:6:7:8]", 0, OK, "IPv6-full"},
    {"a@[ipV6:1:2:3:4:5:6:7:8]", 0, OK, "tag in any case"},
    {"a@[IPv6:1:2:3:4:5:6:7]", 0, SMTP_PATH_BAD_LITERAL, "seven groups"},
    {"a@[IPv6:1:2:3:4:5:6:7:8:9]", 0, SMTP_PATH_BAD_LITERAL, "nine groups"},
    {"a@[IPv6:::]", 0, OK, "IPv6-comp, all zero"},
    {"a@[IPv6:::1]", 0, OK, "IPv6-comp, leading"},
    {"a@[IPv6:1::]", 0, OK, "IPv6-comp, trailing"},
    {"a@[IPv6:1:2:3:4:5:6::]", 0, OK, "six groups beside ::"},
    {"a@[IPv6:1:2:3:4:5:6:7::]", 0, SMTP_PATH_BAD_LITERAL, "seven groups beside ::"},
    {"a@[IPv6:1:2:3::4:5:6]", 0, OK, "six groups around ::"},
    {"a@[IPv6:1:2:3::4:5:6:7]", 0, SMTP_PATH_BAD_LITERAL, "seven groups around ::"},
    {"a@[IPv6:1::2::3]", 0, SMTP_PATH_BAD_LITERAL, ":: twice"},
    {"a@[IPv6::::]", 0, SMTP_PATH_BAD_LITERAL, ":::"},
    {"a@[IPv6:1:::2]", 0, SMTP_PATH_BAD_LITERAL, "::: inside"},
    {"a@[IPv6::1]", 0, SMTP_PATH_BAD_LITERAL, "one colon first"},
    {"a@[IPv6:1::2:]", 0, SMTP_PATH_BAD_LITERAL, "one colon last"},
    {"a@[IPv6:12345::]", 0, SMTP_PATH_BAD_LITERAL, "five hex digits"},
    {"a@[IPv6:g::]", 0, SMTP_PATH_BAD_LITERAL, "not hex"},
    {"a@[IPv6:]", 0, SMTP_PATH_BAD_LITERAL, "tag alone"},
    {"a@[IPv6:1:2:3:4:5:6:192.0.2.1]", 0, OK, "IPv6v4-full"},
    {"a@[IPv6:1:2:3:4:5:192.0.2.1]", 0, SMTP_PATH_BAD_LITERAL, "five groups and IPv4"},
    {"a@[IPv6:::192.0.2.1]", 0, OK, "IPv6v4-comp"},
    {"a@[IPv6:::ffff:192.0.2.1]", 0, OK, "IPv6v4-comp, mapped"},
    {"a@[IPv6:1:2:3:4::192.0.2.1]", 0, OK, "four groups, :: and IPv4"},
    {"a@[IPv6:1:2:3:4:5::192.0.2.1]", 0, SMTP_PATH_BAD_LITERAL, "five groups, :: and IPv4"},
    {"a@[IPv6:::192.0.2.1:1]", 0, SMTP_PATH_BAD_LITERAL, "IPv4 must be last"},
    {"a@[X-tag:what!ever]", 0, OK, "General-address-literal"},
    {"a@[tag-:x]", 0, SMTP_PATH_BAD_LITERAL, "tag ends with a hyphen"},
    {"a@[tag:]", 0, SMTP_PATH_BAD_LITERAL, "no dcontent"},
    {"a@[tag:a b]", 0, SMTP_PATH_BAD_LITERAL, "space is not dcontent"},
    {"a@[tag:a\\b]", 0, SMTP_PATH_BAD_LITERAL, "backslash is not dcontent"},
    {"a@[tag:\xc3\xa9]", U, SMTP_PATH_BAD_LITERAL, "RFC 6531 leaves literals alone"},
    {"postmaster", 0, SMTP_PATH_SYNTAX, "needs the flag"},
    {"PostMaster", P, OK, "any case"},
    {"postmaste", P, SMTP_PATH_SYNTAX, "another name"},
    {"\"postmaster\"", P, SMTP_PATH_SYNTAX, "the literal word only"},
    {"\xc3\xa9@b", 0, SMTP_PATH_NEEDS_UTF8, "UTF-8 without the flag"},
    {"\xc3\xa9@b", U, OK, "UTF-8 local-part"},
    {"a\xc3\xa9" "b.\xe2\x82\xac@b", U, OK, "UTF-8 in both atoms"},
    {"\"\xf0\x9f\x93\xa8 \"@b", U, OK, "four octets in qtextSMTP"},
    {"\"\\\xc3\xa9\"@b", U, SMTP_PATH_SYNTAX, "quoted-pairSMTP is ASCII"},
    {"a@b\xc3\xbc" "cher.example", U, OK, "U-label"},
    {"a@b\xc3\xbc" "cher.example", 0, SMTP_PATH_NEEDS_UTF8, "U-label without the flag"},
    {"a@-\xc3\xbc", U, SMTP_PATH_SYNTAX, "hyphen before a U-label"},
    {"a@\xc3\xbc-", U, SMTP_PATH_SYNTAX, "hyphen behind a U-label"},
    {"a@abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdef\xc3\xbc", U, OK, "U-label, 59 code points"},
    {"a@abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefg\xc3\xbc", U, SMTP_PATH_DOMAIN_TOO_LONG,
     "60 code points cannot fit 63 octets as an A-label"},
    {"\xc3@b", U, SMTP_PATH_BAD_UTF8, "truncated"},
    {"\xc0\xaf@b", U, SMTP_PATH_BAD_UTF8, "overlong, two octets"},
    {"\xe0\x80\xaf@b", U, SMTP_PATH_BAD_UTF8, "overlong, three octets"},
    {"\xf0\x80\x80\xaf@b", U, SMTP_PATH_BAD_UTF8, "overlong, four octets"},
    {"\xed\xa0\x80@b", U, SMTP_PATH_BAD_UTF8, "surrogate"},
    {"\xf4\x90\x80\x80@b", U, SMTP_PATH_BAD_UTF8, "over U+10FFFF"},
    {"\xdf\xbf@b", U, OK, "U+07FF"},
    {"\xe0\xa0\x80@b", U, OK, "U+0800"},
    {"\xed\x9f\xbf@b", U, OK, "last before the surrogates"},
    {"\xee\x80\x80@b", U, OK, "first behind the surrogates"},
    {"\xf0\x90\x80\x80@b", U, OK, "U+10000"},
    {"\xf4\x8f\xbf\xbf@b", U, OK, "U+10FFFF"},
    {"\xe2\x82@b", U, SMTP_PATH_BAD_UTF8, "two octets of three"},
    {"\xff@b", U, SMTP_PATH_BAD_UTF8, "no lead octet"},
    {"\x80@b", U, SMTP_PATH_BAD_UTF8, "continuation first"},
    {"\xc2\x9b" "31m@b", U, SMTP_PATH_SYNTAX, "C1 control (CSI)"},
    {"\xc2\xa0@b", U, OK, "first code point behind C1"},
};

static void test_mailboxes(void)
{
    for (size_t i = 0; i < COUNT(mailbox_rows); i++) {
        const struct mailbox_row *row = &mailbox_rows[i];
        char bracketed[600];
        size_t length = strlen(row->text);
        smtp_path path;

        smtp_path_result result = smtp_mailbox_parse((const uint8_t *)row->text, length, row->flags, &path);
        CHECK(result == row->result, "%s: %s: got %d", row->text, row->reason, result);
        if (result != OK) {
            CHECK(path.mailbox.length == 0 && path.domain.length == 0, "%s: zeroed", row->text);
            CHECK(path.end <= length, "%s: stopped inside", row->text);
        } else {
            CHECK(path.mailbox.offset == 0 && path.mailbox.length == length, "%s: whole", row->text);
        }

        /* In brackets, with parameters behind, the verdict is the same, but that an open Quoted-string or
         * literal now ends elsewhere: still no path. */
        int size = snprintf(bracketed, sizeof bracketed, "<%s> SIZE=1", row->text);
        smtp_path_result path_result = smtp_path_parse((const uint8_t *)bracketed, (size_t)size, row->flags,
                                                       &path);
        CHECK((path_result == OK) == (result == OK), "<%s>: %s: got %d", row->text, row->reason, path_result);
        if (path_result == OK)
            CHECK(path.end == length + 2 && path.mailbox.offset == 1 && path.mailbox.length == length,
                  "<%s>: spans", row->text);
    }
}

static bool span_is(const char *text, smtp_span span, const char *expected)
{
    return span.length == strlen(expected) && memcmp(text + span.offset, expected, span.length) == 0;
}

static const struct path_row {
    const char *text;
    unsigned flags;
    smtp_path_result result;
    uint32_t end;
    const char *local_part, *domain;
    bool is_null, has_source_route;
    const char *reason;
} path_rows[] = {
    {"<>", N, OK, 2, "", "", true, false, "null reverse-path"},
    {"<>", 0, SMTP_PATH_SYNTAX, 1, "", "", false, false, "not for a forward-path"},
    {"< >", N, SMTP_PATH_SYNTAX, 1, "", "", false, false, "not null"},
    {"<a@b>x", 0, OK, 5, "a", "b", false, false, "what follows is the caller's"},
    {"a@b", 0, SMTP_PATH_SYNTAX, 0, "", "", false, false, "brackets are part of a path"},
    {"<a@b", 0, SMTP_PATH_SYNTAX, 4, "", "", false, false, "open"},
    {"<a@b >", 0, SMTP_PATH_SYNTAX, 4, "", "", false, false, "space before the bracket"},
    {"<<a@b>>", 0, SMTP_PATH_SYNTAX, 1, "", "", false, false, "two brackets"},
    {"<@x:a@b>", 0, OK, 8, "a", "b", false, true, "source route"},
    {"<@x.y,@z:a@b>", 0, OK, 13, "a", "b", false, true, "source route of two"},
    {"<@x,y:a@b>", 0, SMTP_PATH_SYNTAX, 4, "", "", false, false, "each hop has its @"},
    {"<@x a@b>", 0, SMTP_PATH_SYNTAX, 3, "", "", false, false, "no colon"},
    {"<@[1.2.3.4]:a@b>", 0, SMTP_PATH_SYNTAX, 2, "", "", false, false, "At-domain takes no literal"},
    {"<@x:>", N, SMTP_PATH_SYNTAX, 4, "", "", false, false, "a route to nobody"},
    {"<Postmaster>", P, OK, 12, "Postmaster", "", false, false, "§4.1.1.3"},
    {"<@x:postmaster>", P, SMTP_PATH_SYNTAX, 14, "", "", false, false, "not at the end of a route"},
    {"<postmaster@b>", P, OK, 14, "postmaster", "b", false, false, "with a domain it is a mailbox"},
    {"<\"a>b\"@c>", 0, OK, 9, "\"a>b\"", "c", false, false, "bracket in a Quoted-string"},
    {"<a@[1.2.3.4]>", 0, OK, 13, "a", "[1.2.3.4]", false, false, "literal with its brackets"},
};

static void test_paths(void)
{
    for (size_t i = 0; i < COUNT(path_rows); i++) {
        const struct path_row *row = &path_rows[i];
        smtp_path path;

        smtp_path_result result = smtp_path_parse((const uint8_t *)row->text, strlen(row->text), row->flags,
                                                  &path);
        CHECK(result == row->result, "%s: %s: got %d", row->text, row->reason, result);
        CHECK(path.end == row->end, "%s: %s: end %u", row->text, row->reason, path.end);
        CHECK(path.is_null == row->is_null && path.has_source_route == row->has_source_route,
              "%s: %s", row->text, row->reason);
        CHECK(span_is(row->text, path.local_part, row->local_part), "%s: %s", row->text, row->reason);
        CHECK(span_is(row->text, path.domain, row->domain), "%s: %s", row->text, row->reason);
    }
}

static void test_source_route_counts_for_path_limit(void)
{
    char text[600];
    smtp_path path;

    int size = snprintf(text, sizeof text, "<@%s:a@b>", DOMAIN_252);
    CHECK(smtp_path_parse((const uint8_t *)text, (size_t)size, 0, &path) == SMTP_PATH_TOO_LONG,
          "§4.5.3.1.3 counts punctuation and separators");
}

static void test_domains(void)
{
    static const struct { const char *text; bool is_valid; const char *reason; } rows[] = {
        {"mx.example", true, "domain"},
        {"localhost", true, "one label"},
        {"[192.0.2.1]", true, "literal"},
        {"[IPv6:::1]", true, "IPv6 literal"},
        {DOMAIN_255, true, "255 octets"},
        {"", false, "empty"},
        {"a b", false, "space"},
        {"a_b", false, "underscore"},
        {"192.0.2.1]", false, "half a literal"},
        {"[192.0.2.1] ", false, "something behind"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        CHECK(smtp_domain_is_valid((const uint8_t *)rows[i].text, strlen(rows[i].text), 0) == rows[i].is_valid,
              "%s: %s", rows[i].text, rows[i].reason);
}

/* One wrong entry of the class table is enough, so every octet is tried in every place. */
static void test_every_octet(void)
{
    static const char atext_specials[] = "!#$%&'*+-/=?^_`{|}~";

    for (unsigned octet = 1; octet < 128; octet++) {
        char text[16];
        smtp_path path;
        bool is_let_dig = (octet >= '0' && octet <= '9') || (octet >= 'a' && octet <= 'z')
            || (octet >= 'A' && octet <= 'Z');
        bool is_atext = is_let_dig || strchr(atext_specials, (int)octet) != NULL;
        bool is_printable = octet >= 32 && octet <= 126;
        const struct { const char *format; bool is_valid; } places[] = {
            {"%c@b", is_atext},
            {"a%cc@b", is_atext || octet == '.'},
            {"a@%c", is_let_dig},
            {"a@b%cc", is_let_dig || octet == '-' || octet == '.'},
            {"\"%c\"@b", is_printable && octet != '"' && octet != '\\'},
            {"\"\\%c\"@b", is_printable},
            {"a@[x:%c]", octet >= 33 && octet <= 126 && strchr("[\\]", (int)octet) == NULL},
            {"a@[%cx:y]", is_let_dig || octet == '-'},
        };
        for (size_t i = 0; i < COUNT(places); i++) {
            int size = snprintf(text, sizeof text, places[i].format, (int)octet);
            smtp_path_result result = smtp_mailbox_parse((const uint8_t *)text, (size_t)size, 0, &path);
            CHECK((result == OK) == places[i].is_valid, "octet %u in %s", octet, places[i].format);
        }
    }
}

static void test_utf8(void)
{
    static const char long_text[] = "twenty octets, ASCII\xc3\xa9 and sixteen more";
    CHECK(smtp_utf8_is_valid((const uint8_t *)long_text, sizeof long_text - 1), "behind eight at a time");
    CHECK(!smtp_utf8_is_valid((const uint8_t *)long_text, 21), "cut in the sequence");
    CHECK(smtp_utf8_is_valid((const uint8_t *)"", 0), "empty");
}

int main(void)
{
    test_mailboxes();
    test_paths();
    test_source_route_counts_for_path_limit();
    test_domains();
    test_every_octet();
    test_utf8();
    return check_report();
}
