/* Any octets give a verdict, the same in upper and lower case; what is taken is inside its limits, and what was refused
 * leaves the result as it was. A list of solicitation keywords meets itself. */
#include "smtp/terms.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *in = exact_copy(data, size);
    smtp_by by = {1234567890, 0, false};
    uint64_t utc_s = UINT64_MAX;
    uint32_t seconds = UINT32_MAX;
    int8_t priority = 100;
    bool is_by = smtp_by_parse(in, size, &by), is_time = smtp_date_time_parse(in, size, &utc_s);
    bool is_interval = smtp_interval_parse(in, size, &seconds), is_list = smtp_solicit_is_valid(in, size);

    INVARIANT(is_by ? by.seconds >= -999999999 && by.seconds <= 999999999 && (by.mode == 'N' || by.mode == 'R')
                    : by.seconds == 1234567890);
    INVARIANT(is_time ? utc_s < 253402300800u + 86400 : utc_s == UINT64_MAX);
    INVARIANT(is_interval ? seconds <= 999999999 : seconds == UINT32_MAX);
    INVARIANT(smtp_priority_parse(in, size, &priority) ? priority >= -9 && priority <= 9 : priority == 100);
    if (is_list) {
        INVARIANT(smtp_solicit_meets(in, size, in, size));
        for (size_t i = 0; i < size; i++)
            INVARIANT(in[i] > 32 && in[i] < 127 && in[i] != '=');
    }
    smtp_solicit_meets(in, size / 2, in + size / 2, size - size / 2);
    for (size_t i = 0; i < size; i++)
        if (in[i] >= 'a' && in[i] <= 'z')
            in[i] -= 0x20;
    smtp_by folded = by;
    INVARIANT(smtp_by_parse(in, size, &folded) == is_by && folded.seconds == by.seconds && folded.mode == by.mode);
    INVARIANT(smtp_date_time_parse(in, size, &utc_s) == is_time && smtp_solicit_is_valid(in, size) == is_list);
    free(in);
    return 0;
}
