#include "smtp/terms.h"

#include <string.h>

static bool is_digit(uint8_t octet)
{
    return octet >= '0' && octet <= '9';
}

static uint8_t lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? octet | 0x20 : octet;
}

/* Exactly `digits` digits from in[*at] on. */
static bool take_number(const uint8_t *in, size_t length, size_t *at, size_t digits, uint32_t *value)
{
    uint32_t sum = 0;

    if (length - *at < digits)
        return false;
    for (size_t end = *at + digits; *at < end; ++*at) {
        if (!is_digit(in[*at]))
            return false;
        sum = sum * 10 + (uint32_t)(in[*at] - '0');
    }
    *value = sum;
    return true;
}

static bool take_octet(const uint8_t *in, size_t length, size_t *at, uint8_t wanted)
{
    if (*at >= length || lower(in[*at]) != wanted)
        return false;
    ++*at;
    return true;
}

bool smtp_interval_parse(const uint8_t *in, size_t length, uint32_t *seconds)
{
    size_t at = 0;

    return length >= 1 && length <= 9 && in[0] != '0' && take_number(in, length, &at, length, seconds);
}

bool smtp_by_parse(const uint8_t *in, size_t length, smtp_by *out)
{
    bool is_negative = length > 0 && in[0] == '-';
    size_t at = is_negative || (length > 0 && in[0] == '+') ? 1 : 0, digits = 0;
    uint32_t seconds;

    while (at + digits < length && is_digit(in[at + digits]))
        digits++;
    if (digits < 1 || digits > 9 || !take_number(in, length, &at, digits, &seconds))
        return false;
    if (length - at < 2 || length - at > 3 || in[at] != ';')
        return false;
    uint8_t mode = lower(in[at + 1]);
    bool is_traced = length - at == 3;
    if ((mode != 'n' && mode != 'r') || (is_traced && lower(in[at + 2]) != 't'))
        return false;
    out->seconds = is_negative ? -(int32_t)seconds : (int32_t)seconds;
    out->mode = mode == 'n' ? 'N' : 'R';
    out->is_traced = is_traced;
    return true;
}

static bool is_leap_year(uint32_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static uint32_t days_in_month(uint32_t year, uint32_t month)
{
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return month == 2 && is_leap_year(year) ? 29 : days[month - 1];
}

bool smtp_date_time_parse(const uint8_t *in, size_t length, uint64_t *utc_s)
{
    uint32_t year, month, day, hour, minute, second, offset_hour = 0, offset_minute = 0;
    size_t at = 0;
    bool is_behind = false;

    if (!take_number(in, length, &at, 4, &year) || !take_octet(in, length, &at, '-')
        || !take_number(in, length, &at, 2, &month) || !take_octet(in, length, &at, '-')
        || !take_number(in, length, &at, 2, &day) || !take_octet(in, length, &at, 't')
        || !take_number(in, length, &at, 2, &hour) || !take_octet(in, length, &at, ':')
        || !take_number(in, length, &at, 2, &minute) || !take_octet(in, length, &at, ':')
        || !take_number(in, length, &at, 2, &second))
        return false;
    if (at < length && in[at] == '.') {
        size_t first = ++at;
        while (at < length && is_digit(in[at]))
            at++;
        if (at == first)
            return false;
    }
    if (!take_octet(in, length, &at, 'z')) {
        if (at >= length || (in[at] != '+' && in[at] != '-'))
            return false;
        is_behind = in[at++] == '-';
        if (!take_number(in, length, &at, 2, &offset_hour) || !take_octet(in, length, &at, ':')
            || !take_number(in, length, &at, 2, &offset_minute))
            return false;
    }
    if (at != length || year < 1970 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)
        || hour > 23 || minute > 59 || second > 60 || offset_hour > 23 || offset_minute > 59)
        return false;
    int64_t days = (int64_t)day - 1;
    for (uint32_t each = 1970; each < year; each++)
        days += is_leap_year(each) ? 366 : 365;
    for (uint32_t each = 1; each < month; each++)
        days += days_in_month(year, each);
    int64_t offset_s = (int64_t)offset_hour * 3600 + (int64_t)offset_minute * 60;
    int64_t time_s = days * 86400 + (int64_t)hour * 3600 + (int64_t)minute * 60 + (second < 60 ? second : 59)
                     + (is_behind ? offset_s : -offset_s);
    if (time_s < 0)                     /* the first hours of 1970, east of Greenwich */
        return false;
    *utc_s = (uint64_t)time_s;
    return true;
}

bool smtp_priority_parse(const uint8_t *in, size_t length, int8_t *priority)
{
    if (length == 1 && is_digit(in[0])) {
        *priority = (int8_t)(in[0] - '0');
        return true;
    }
    if (length == 2 && in[0] == '-' && is_digit(in[1]) && in[1] != '0') {
        *priority = (int8_t)('0' - in[1]);
        return true;
    }
    return false;
}

bool smtp_solicit_is_valid(const uint8_t *in, size_t length)
{
    bool is_first = true;

    if (length == 0 || length > SMTP_SOLICIT_MAX)
        return false;
    for (size_t i = 0; i < length; i++) {
        uint8_t octet = lower(in[i]);
        bool is_letter = octet >= 'a' && octet <= 'z';
        if (is_first && !is_letter)
            return false;
        is_first = octet == ',';
        if (!is_letter && !is_first && !is_digit(octet) && octet != '.' && octet != '-' && octet != '_' && octet != ':')
            return false;
    }
    return !is_first;
}

static size_t word_length(const uint8_t *in, size_t length)
{
    const uint8_t *comma = memchr(in, ',', length);

    return comma != NULL ? (size_t)(comma - in) : length;
}

static bool is_same_word(const uint8_t *a, const uint8_t *b, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (lower(a[i]) != lower(b[i]))
            return false;
    return true;
}

bool smtp_solicit_meets(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length)
{
    for (size_t i = 0, word; i < a_length; i += word + 1) {
        word = word_length(a + i, a_length - i);
        for (size_t j = 0, other; j < b_length; j += other + 1) {
            other = word_length(b + j, b_length - j);
            if (word == other && word > 0 && is_same_word(a + i, b + j, word))
                return true;
        }
    }
    return false;
}
