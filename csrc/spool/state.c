/* State octets.
 *
 * off size field                little-endian; the payload of a record of kind OUTCOME
 *   0    1  version             1; a reader refuses others
 *   1    3  zero
 *   4    4  recipient_count     as in the envelope
 *   8    …  entries, one per recipient, in the order of the envelope:
 *           +0   1  status      0 waiting 1 delivered 2 failed 3 expired
 *           +1   1  flags       SPOOL_STATE_*
 *           +2   2  attempts
 *           +4   8  next_attempt_utc_s
 *           +12  2  reply_code
 *           +14  2  enhanced_subject
 *           +16  2  enhanced_detail
 *           +18  1  enhanced_class
 *           +19  1  reply_length        at most 200
 *           +20  1  host_length         at most 100
 *           +21  1  zero
 *           +22  …  reply text, then remote host
 * VALID: version 1, entries fill the payload exactly, known status, lengths within limits, no control octets in texts.
 */
#include "spool/state.h"

#include <errno.h>

#include "spool/bytes.h"

enum { VERSION = 1, FIXED_OCTETS = 8, ENTRY_FIXED_OCTETS = 22 };

static bool is_control(uint8_t octet)
{
    return octet < 32 || octet == 127;
}

int spool_state_begin(octets **self)
{
    const uint8_t fixed[FIXED_OCTETS] = {VERSION};
    (*self)->length = 0;
    return octets_append(self, fixed, sizeof fixed) == 0 ? 0 : -ENOMEM;
}

static void append_clean(octets *self, const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++)
        self->data[self->length++] = is_control(data[i]) ? '?' : data[i];
}

int spool_state_append(octets **self, const spool_recipient_state *recipient)
{
    if (recipient->status > SPOOL_STATUS_EXPIRED || (*self)->length < FIXED_OCTETS)
        return -EINVAL;
    uint32_t reply_length = recipient->reply_text.length, host_length = recipient->remote_host.length;
    if (reply_length > SPOOL_STATE_REPLY_LIMIT)
        reply_length = SPOOL_STATE_REPLY_LIMIT;
    if (host_length > SPOOL_STATE_HOST_LIMIT)
        host_length = SPOOL_STATE_HOST_LIMIT;
    if (octets_reserve(self, ENTRY_FIXED_OCTETS + reply_length + host_length) != 0)
        return -ENOMEM;
    uint8_t *at = (*self)->data + (*self)->length;
    at[0] = recipient->status;
    at[1] = recipient->flags;
    store16(at + 2, recipient->attempts);
    store64(at + 4, recipient->next_attempt_utc_s);
    store16(at + 12, recipient->reply_code);
    store16(at + 14, recipient->enhanced_subject);
    store16(at + 16, recipient->enhanced_detail);
    at[18] = recipient->enhanced_class;
    at[19] = (uint8_t)reply_length;
    at[20] = (uint8_t)host_length;
    at[21] = 0;
    (*self)->length += ENTRY_FIXED_OCTETS;
    append_clean(*self, recipient->reply_text.data, reply_length);
    append_clean(*self, recipient->remote_host.data, host_length);
    store32((*self)->data + 4, load32((*self)->data + 4) + 1);
    return 0;
}

static bool text_is_clean(const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (is_control(data[i]))
            return false;
    return true;
}

static bool entry_read(const uint8_t **cursor, const uint8_t *end, spool_recipient_state *out)
{
    const uint8_t *at = *cursor;
    if (end - at < ENTRY_FIXED_OCTETS)
        return false;
    uint32_t reply_length = at[19], host_length = at[20];
    if (at[0] > SPOOL_STATUS_EXPIRED || reply_length > SPOOL_STATE_REPLY_LIMIT || host_length > SPOOL_STATE_HOST_LIMIT
        || (size_t)(end - at) < ENTRY_FIXED_OCTETS + reply_length + host_length)
        return false;
    out->status = at[0];
    out->flags = at[1];
    out->attempts = load16(at + 2);
    out->next_attempt_utc_s = load64(at + 4);
    out->reply_code = load16(at + 12);
    out->enhanced_subject = load16(at + 14);
    out->enhanced_detail = load16(at + 16);
    out->enhanced_class = at[18];
    at += ENTRY_FIXED_OCTETS;
    out->reply_text = (spool_span){at, reply_length};
    out->remote_host = (spool_span){at + reply_length, host_length};
    *cursor = at + reply_length + host_length;
    return true;
}

int spool_state_open(const uint8_t *data, size_t length, spool_state *out)
{
    if (length < FIXED_OCTETS || data[0] != VERSION)
        return -EBADMSG;
    out->recipient_count = load32(data + 4);
    out->entries = data + FIXED_OCTETS;
    out->end = data + length;
    const uint8_t *at = out->entries;
    for (uint32_t i = 0; i < out->recipient_count; i++) {
        spool_recipient_state entry;
        if (!entry_read(&at, out->end, &entry) || !text_is_clean(entry.reply_text.data, entry.reply_text.length)
            || !text_is_clean(entry.remote_host.data, entry.remote_host.length))
            return -EBADMSG;
    }
    return at == out->end ? 0 : -EBADMSG;
}

bool spool_state_next(const spool_state *self, const uint8_t **cursor, spool_recipient_state *out)
{
    return *cursor < self->end && entry_read(cursor, self->end, out);
}
