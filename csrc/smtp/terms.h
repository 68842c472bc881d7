/* Values of the MAIL parameters that say when and how a message is to be handled: BY (RFC 2852 §4), HOLDFOR and HOLDUNTIL
 * (RFC 4865 §3, RFC 3339 §5.6), MT-PRIORITY (RFC 6710 §7), SOLICIT (RFC 3865 §2.2).
 *
 * Each takes in[0..length) whole, allocates nothing, and says false for anything that its grammar does not have; *out is
 * then left as it was. Whether a value is allowed here and now is not judged.
 */
#ifndef ANGARIUM_SMTP_TERMS_H
#define ANGARIUM_SMTP_TERMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SMTP_SOLICIT_MAX = 1000 };       /* octets, RFC 3865 §2.2 */

typedef struct smtp_by {
    int32_t seconds;                    /* from now; at most nine digits either way */
    uint8_t mode;                       /* 'N' notify, 'R' return */
    bool is_traced;                     /* "T" */
} smtp_by;

/* by-time ";" by-mode ["T"]: "[+-]" 1*9 digits, then N or R in any case. */
bool smtp_by_parse(const uint8_t *in, size_t length, smtp_by *out);

/* HOLDFOR: one to nine digits, seconds; not 0, and none in front (RFC 4865 §3 (2)). */
bool smtp_interval_parse(const uint8_t *in, size_t length, uint32_t *seconds);

/* date-time of RFC 3339: "2026-11-26T14:30:00Z", with a fraction (dropped) and an offset instead of "Z" if need be. UTC
 * seconds since 1970. Dates that there are not are refused; a leap second counts as the second before it. */
bool smtp_date_time_parse(const uint8_t *in, size_t length, uint64_t *utc_s);

/* "-9" to "9"; "-0" and "+1" are not in the grammar. */
bool smtp_priority_parse(const uint8_t *in, size_t length, int8_t *priority);

/* Solicitation keywords: words of letters, digits, ".", "-", "_" and ":", each beginning with a letter, "," between. */
bool smtp_solicit_is_valid(const uint8_t *in, size_t length);
/* Whether two such lists have a word in common, any case. */
bool smtp_solicit_meets(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length);

#endif
