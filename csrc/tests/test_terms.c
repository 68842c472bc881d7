/* Values of BY, HOLDFOR, HOLDUNTIL, MT-PRIORITY and SOLICIT: RFC 2852 §4, RFC 4865 §4, RFC 3339 §5.6, RFC 6710 §3, RFC 3865 §2. */
#include "smtp/terms.h"

#include <string.h>

#include "check.h"

static const struct by_row {
    const char *text;
    bool is_valid;
    int32_t seconds;
    char mode;
    bool is_traced;
    const char *reason;
} by_rows[] = {
    {"120;R", true, 120, 'R', false, "return"},
    {"+120;nT", true, 120, 'N', true, "any case, a sign, trace"},
    {"-5;N", true, -5, 'N', false, "late already"},
    {"0;R", true, 0, 'R', false, "grammar only: that R needs more than 0 is said elsewhere"},
    {"999999999;RT", true, 999999999, 'R', true, "nine digits"},
    {"1000000000;R", false, 0, 0, false, "ten digits"},
    {"", false, 0, 0, false, "empty"},
    {"-;N", false, 0, 0, false, "no digits"},
    {";N", false, 0, 0, false, "no time"},
    {"5", false, 0, 0, false, "no mode"},
    {"5;", false, 0, 0, false, "an empty mode"},
    {"5;X", false, 0, 0, false, "no such mode"},
    {"5;NX", false, 0, 0, false, "no such modifier"},
    {"5;NTT", false, 0, 0, false, "too much"},
    {"5:N", false, 0, 0, false, "no semicolon"},
    {"--5;N", false, 0, 0, false, "two signs"},
};

static const struct time_row {
    const char *text;
    bool is_valid;
    uint64_t utc_s;
    const char *reason;
} time_rows[] = {
    {"1970-01-01T00:00:00Z", true, 0, "the beginning"},
    {"2000-02-29T23:59:59Z", true, 951868799, "a leap day"},
    {"2026-11-26T14:30:00z", true, 1795703400, "lower case"},
    {"2026-11-26T14:30:00.123456789Z", true, 1795703400, "a fraction is dropped"},
    {"2026-11-26T15:30:00+01:00", true, 1795703400, "east"},
    {"2026-11-26T09:00:00-05:30", true, 1795703400, "west"},
    {"2016-12-31T23:59:60Z", true, 1483228799, "a leap second"},
    {"9999-12-31T23:59:59Z", true, 253402300799, "the end"},
    {"2100-02-29T00:00:00Z", false, 0, "2100 has no leap day"},
    {"2026-04-31T00:00:00Z", false, 0, "no such day"},
    {"2026-00-10T00:00:00Z", false, 0, "no such month"},
    {"2026-13-10T00:00:00Z", false, 0, "nor this"},
    {"2026-01-00T00:00:00Z", false, 0, "day 0"},
    {"2026-01-01T24:00:00Z", false, 0, "hour 24"},
    {"2026-01-01T00:60:00Z", false, 0, "minute 60"},
    {"2026-01-01T00:00:61Z", false, 0, "second 61"},
    {"2026-01-01T00:00:00", false, 0, "no zone"},
    {"2026-01-01T00:00:00.Z", false, 0, "an empty fraction"},
    {"2026-01-01T00:00:00+1:00", false, 0, "a short offset"},
    {"2026-01-01T00:00:00+24:00", false, 0, "an offset that there is not"},
    {"2026-01-01T00:00:00Zx", false, 0, "more behind it"},
    {"2026-01-01 00:00:00Z", false, 0, "a space"},
    {"1969-12-31T23:59:59Z", false, 0, "before the beginning"},
    {"1970-01-01T00:00:00+01:00", false, 0, "likewise"},
    {"2026-1-1T00:00:00Z", false, 0, "short numbers"},
    {"", false, 0, "empty"},
};

static const struct priority_row {
    const char *text;
    bool is_valid;
    int8_t priority;
} priority_rows[] = {
    {"0", true, 0}, {"9", true, 9}, {"-9", true, -9}, {"-1", true, -1},
    {"10", false, 0}, {"-10", false, 0}, {"-0", false, 0}, {"+1", false, 0}, {"", false, 0}, {"-", false, 0}, {"a", false, 0},
};

static const struct solicit_row {
    const char *text;
    bool is_valid;
    const char *reason;
} solicit_rows[] = {
    {"net.example:ADV", true, "as in the RFC"},
    {"net.example:ADV,org.example:ADV:ADLT", true, "two"},
    {"a", true, "the shortest"},
    {"a-b_c.d:1", true, "all octets of a word"},
    {"", false, "empty"},
    {"1a", false, "begins with a digit"},
    {"a,", false, "an empty word"},
    {",a", false, "likewise"},
    {"a,,b", false, "likewise"},
    {"a,1", false, "the second begins with a digit"},
    {"a b", false, "a space"},
    {"a\xc3\xa9", false, "not ASCII"},
};

static bool meets(const char *a, const char *b)
{
    return smtp_solicit_meets((const uint8_t *)a, strlen(a), (const uint8_t *)b, strlen(b));
}

int main(void)
{
    uint8_t long_list[SMTP_SOLICIT_MAX + 1];
    uint32_t seconds = 7;

    for (size_t i = 0; i < COUNT(by_rows); i++) {
        const struct by_row *row = &by_rows[i];
        smtp_by by = {77, 'x', false};
        bool is_valid = smtp_by_parse((const uint8_t *)row->text, strlen(row->text), &by);
        CHECK(is_valid == row->is_valid, "%s: %s", row->text, row->reason);
        CHECK(by.seconds == (is_valid ? row->seconds : 77) && by.mode == (is_valid ? row->mode : 'x')
              && by.is_traced == row->is_traced, "%s: %s", row->text, row->reason);
    }
    for (size_t i = 0; i < COUNT(time_rows); i++) {
        const struct time_row *row = &time_rows[i];
        uint64_t utc_s = 0;
        CHECK(smtp_date_time_parse((const uint8_t *)row->text, strlen(row->text), &utc_s) == row->is_valid
              && utc_s == row->utc_s, "%s: %s", row->text, row->reason);
    }
    for (size_t i = 0; i < COUNT(priority_rows); i++) {
        const struct priority_row *row = &priority_rows[i];
        int8_t priority = 0;
        CHECK(smtp_priority_parse((const uint8_t *)row->text, strlen(row->text), &priority) == row->is_valid
              && priority == row->priority, "%s", row->text);
    }
    for (size_t i = 0; i < COUNT(solicit_rows); i++) {
        const struct solicit_row *row = &solicit_rows[i];
        CHECK(smtp_solicit_is_valid((const uint8_t *)row->text, strlen(row->text)) == row->is_valid,
              "%s: %s", row->text, row->reason);
    }
    memset(long_list, 'a', sizeof long_list);
    CHECK(smtp_solicit_is_valid(long_list, SMTP_SOLICIT_MAX), "1000 octets");
    CHECK(!smtp_solicit_is_valid(long_list, SMTP_SOLICIT_MAX + 1), "1001 octets");
    CHECK(meets("a:B,c", "x,C"), "any case, any place");
    CHECK(!meets("a:b,c", "a,b,cc"), "whole words only");
    CHECK(!meets("", "a") && !meets("a", ""), "nothing meets nothing");
    CHECK(smtp_interval_parse((const uint8_t *)"86400", 5, &seconds) && seconds == 86400, "an interval");
    CHECK(!smtp_interval_parse((const uint8_t *)"1234567890", 10, &seconds), "ten digits");
    CHECK(!smtp_interval_parse((const uint8_t *)"", 0, &seconds), "empty");
    CHECK(!smtp_interval_parse((const uint8_t *)"-1", 2, &seconds) && seconds == 86400, "a sign");
    return check_report();
}
