/* Envelope octets.
 *
 * off size field                little-endian; the payload of a record of kind ENVELOPE
 *   0    1  version             1; a reader refuses others
 *   1    3  zero
 *   4    4  flags               SPOOL_ENVELOPE_*
 *   8    8  id                  the same as in the record header
 *  16    8  received_utc_ms
 *  24    8  message_octets      all chunks together
 *  32    4  recipient_count     at least 1 in an acceptable message; 0 is readable
 *  36    4  chunk_count
 *  40    4  chunks_offset       from the start of the envelope; the chunk table ends the envelope
 *  44    2  reverse_path_length
 *  46    2  envid_length
 *  48    2  helo_length
 *  50    2  client_address_length
 *  52    2  listener_length
 *  54    2  attributes_length   of all attributes together; 0 in what was written before there were any
 *  56    …  the five texts one after the other, no terminators
 *   …    …  recipients, each: u16 forward_path_length, u16 domain_offset, u16 orcpt_length, u8 notify, u8 zero,
 *           forward_path, orcpt
 *   …    …  attributes, each: u16 key (SPOOL_ATTRIBUTE_*), u16 length, text
 *   …  12*n chunks, each: u32 segment serial, u32 offset of the BODY record in it, u32 payload length
 * VALID: version 1, every length inside, recipients end exactly where attributes begin, these at chunks_offset, chunks
 *        exactly at the end, no text holds NUL, CR or LF. An unknown key is valid: kept, and nobody's. Integrity is the record's checksum, not repeated here.
 */
#include "spool/envelope.h"

#include <errno.h>
#include <string.h>

#include "spool/bytes.h"

enum {
    VERSION = 1,
    FIXED_OCTETS = 56,
    RECIPIENT_FIXED_OCTETS = 8,
    ATTRIBUTE_FIXED_OCTETS = 4,
    CHUNK_OCTETS = 12,
    /* Far above what RFC 5321 §4.5.3.1 and RFC 3461 §4 allow a peer to send; it only keeps lengths in 16 bits. */
    TEXT_LIMIT_OCTETS = 4096,
    CHUNKS_LIMIT = 1u << 24,
};

static bool text_is_clean(const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (data[i] == 0 || data[i] == '\r' || data[i] == '\n')
            return false;
    return true;
}

static int append_text(octets **self, spool_span text)
{
    if (text.length > TEXT_LIMIT_OCTETS || !text_is_clean(text.data, text.length))
        return -EINVAL;
    return octets_append(self, text.data, text.length) == 0 ? 0 : -ENOMEM;
}

int spool_envelope_begin(octets **self, spool_span reverse_path, spool_span envid, spool_span helo,
                         spool_span client_address, spool_span listener)
{
    const spool_span texts[5] = {reverse_path, envid, helo, client_address, listener};
    uint8_t fixed[FIXED_OCTETS] = {VERSION};
    for (int i = 0; i < 5; i++) {
        if (texts[i].length > TEXT_LIMIT_OCTETS)
            return -EINVAL;
        store16(fixed + 44 + 2 * i, (uint16_t)texts[i].length);
    }
    (*self)->length = 0;
    if (octets_append(self, fixed, sizeof fixed) != 0)
        return -ENOMEM;
    for (int i = 0; i < 5; i++) {
        int error = append_text(self, texts[i]);
        if (error != 0)
            return error;
    }
    return 0;
}

int spool_envelope_add_recipient(octets **self, spool_span forward_path, uint32_t domain_offset,
                                 spool_span orcpt, uint8_t notify)
{
    size_t before = (*self)->length;
    uint8_t fixed[RECIPIENT_FIXED_OCTETS] = {0};
    if (before < FIXED_OCTETS || forward_path.length > TEXT_LIMIT_OCTETS || orcpt.length > TEXT_LIMIT_OCTETS
        || domain_offset > forward_path.length || load16((*self)->data + 54) != 0)
        return -EINVAL;
    store16(fixed, (uint16_t)forward_path.length);
    store16(fixed + 2, (uint16_t)domain_offset);
    store16(fixed + 4, (uint16_t)orcpt.length);
    fixed[6] = notify;
    int error = octets_append(self, fixed, sizeof fixed) == 0 ? 0 : -ENOMEM;
    if (error == 0)
        error = append_text(self, forward_path);
    if (error == 0)
        error = append_text(self, orcpt);
    if (error != 0) {
        (*self)->length = before;
        return error;
    }
    store32((*self)->data + 32, load32((*self)->data + 32) + 1);
    return 0;
}

void spool_envelope_cut(octets *self, size_t length, uint32_t recipient_count)
{
    self->length = length;
    store32(self->data + 32, recipient_count);
}

bool spool_envelope_has_recipient(const octets *self, spool_span forward_path, uint8_t unless_notify, uint32_t limit)
{
    if (self->length < FIXED_OCTETS)
        return false;
    const uint8_t *at = self->data + FIXED_OCTETS, *end = self->data + self->length;
    for (int i = 0; i < 5; i++)
        at += load16(self->data + 44 + 2 * i);
    uint32_t count = load32(self->data + 32);
    if (count > limit)
        count = limit;
    for (uint32_t i = 0; i < count && end - at >= RECIPIENT_FIXED_OCTETS; i++) {
        uint32_t length = load16(at), orcpt_length = load16(at + 4);
        const uint8_t *path = at + RECIPIENT_FIXED_OCTETS;
        if ((size_t)(end - path) < (size_t)length + orcpt_length)
            break;
        if (length == forward_path.length && !(at[6] & unless_notify) && memcmp(path, forward_path.data, length) == 0)
            return true;
        at = path + length + orcpt_length;
    }
    return false;
}

int spool_envelope_add_attribute(octets **self, uint16_t key, spool_span text)
{
    size_t before = (*self)->length;
    uint8_t fixed[ATTRIBUTE_FIXED_OCTETS];
    if (before < FIXED_OCTETS || text.length > TEXT_LIMIT_OCTETS)
        return -EINVAL;
    size_t length = (size_t)load16((*self)->data + 54) + sizeof fixed + text.length;
    if (length > UINT16_MAX)
        return -EINVAL;
    store16(fixed, key);
    store16(fixed + 2, (uint16_t)text.length);
    int error = octets_append(self, fixed, sizeof fixed) == 0 ? 0 : -ENOMEM;
    if (error == 0)
        error = append_text(self, text);
    if (error != 0) {
        (*self)->length = before;
        return error;
    }
    store16((*self)->data + 54, (uint16_t)length);
    return 0;
}

int spool_envelope_finish(octets **self, uint64_t id, uint64_t received_utc_ms, uint32_t flags,
                          uint64_t message_octets, const spool_chunk *chunks, uint32_t chunk_count)
{
    size_t chunks_offset = (*self)->length;
    const spool_chunk reserved = {0, 0, 0};
    if (chunks == NULL) {
        chunks = &reserved;
        chunk_count = 1;
        flags |= SPOOL_ENVELOPE_INLINE;
    } else
        flags &= ~(uint32_t)SPOOL_ENVELOPE_INLINE;
    if (chunks_offset < FIXED_OCTETS || chunks_offset > UINT32_MAX || chunk_count > CHUNKS_LIMIT)
        return -EINVAL;
    if (octets_reserve(self, (size_t)chunk_count * CHUNK_OCTETS) != 0)
        return -ENOMEM;
    uint8_t *data = (*self)->data;
    store32(data + 4, flags);
    store64(data + 8, id);
    store64(data + 16, received_utc_ms);
    store64(data + 24, message_octets);
    store32(data + 36, chunk_count);
    store32(data + 40, (uint32_t)chunks_offset);
    for (uint32_t i = 0; i < chunk_count; i++) {
        uint8_t *at = data + chunks_offset + (size_t)i * CHUNK_OCTETS;
        store32(at, chunks[i].segment_serial);
        store32(at + 4, chunks[i].offset);
        store32(at + 8, chunks[i].length);
    }
    (*self)->length += (size_t)chunk_count * CHUNK_OCTETS;
    return 0;
}

void spool_envelope_set_chunk(uint8_t *payload, uint32_t index, spool_chunk chunk)
{
    uint8_t *at = payload + load32(payload + 40) + (size_t)index * CHUNK_OCTETS;
    store32(at, chunk.segment_serial);
    store32(at + 4, chunk.offset);
    store32(at + 8, chunk.length);
}

void spool_envelope_set_single_chunk(uint8_t *payload, spool_chunk chunk)
{
    spool_envelope_set_chunk(payload, 0, chunk);
}

void spool_envelope_mark_copy(uint8_t *payload, bool has_outcome)
{
    uint32_t flags = load32(payload + 4) & ~(uint32_t)SPOOL_ENVELOPE_COPY_FIRST;
    store32(payload + 4, flags | SPOOL_ENVELOPE_COPY | (has_outcome ? SPOOL_ENVELOPE_COPY_FIRST : 0));
}

/* Reads the recipient at *cursor, every length checked against `end`. */
static bool recipient_read(const uint8_t **cursor, const uint8_t *end, spool_recipient *out)
{
    const uint8_t *at = *cursor;
    if (end - at < RECIPIENT_FIXED_OCTETS)
        return false;
    uint32_t forward_path_length = load16(at), orcpt_length = load16(at + 4);
    out->domain_offset = load16(at + 2);
    out->notify = at[6];
    out->reserved = 0;
    at += RECIPIENT_FIXED_OCTETS;
    if ((size_t)(end - at) < (size_t)forward_path_length + orcpt_length || out->domain_offset > forward_path_length)
        return false;
    out->forward_path = (spool_span){at, forward_path_length};
    out->orcpt = (spool_span){at + forward_path_length, orcpt_length};
    *cursor = at + forward_path_length + orcpt_length;
    return true;
}

/* Reads the attribute at *cursor, its length checked against `end`. */
static bool attribute_read(const uint8_t **cursor, const uint8_t *end, spool_attribute *out)
{
    const uint8_t *at = *cursor;
    if (end - at < ATTRIBUTE_FIXED_OCTETS)
        return false;
    out->key = load16(at);
    out->text = (spool_span){at + ATTRIBUTE_FIXED_OCTETS, load16(at + 2)};
    at += ATTRIBUTE_FIXED_OCTETS;
    if ((size_t)(end - at) < out->text.length)
        return false;
    *cursor = at + out->text.length;
    return true;
}

static bool attributes_are_valid(const spool_envelope *view)
{
    const uint8_t *at = view->end;
    while (at != view->chunks) {
        spool_attribute attribute;
        if (!attribute_read(&at, view->chunks, &attribute) || !text_is_clean(attribute.text.data, attribute.text.length))
            return false;
    }
    return true;
}

int spool_envelope_open(const uint8_t *data, size_t length, spool_envelope *out)
{
    if (length < FIXED_OCTETS || data[0] != VERSION)
        return -EBADMSG;
    size_t chunks_offset = load32(data + 40);
    uint64_t chunk_count = load32(data + 36);
    if (chunks_offset < FIXED_OCTETS || chunks_offset > length
        || length - chunks_offset != chunk_count * CHUNK_OCTETS)
        return -EBADMSG;

    out->flags = load32(data + 4);
    out->id = load64(data + 8);
    out->received_utc_ms = load64(data + 16);
    out->message_octets = load64(data + 24);
    out->recipient_count = load32(data + 32);
    out->chunk_count = (uint32_t)chunk_count;
    out->chunks = data + chunks_offset;
    if (chunks_offset - FIXED_OCTETS < load16(data + 54))
        return -EBADMSG;
    out->end = out->chunks - load16(data + 54);     /* of the recipients; the attributes lie behind */

    spool_span *texts[5] = {&out->reverse_path, &out->envid, &out->helo, &out->client_address, &out->listener};
    const uint8_t *at = data + FIXED_OCTETS;
    for (int i = 0; i < 5; i++) {
        uint32_t text_length = load16(data + 44 + 2 * i);
        if ((size_t)(out->end - at) < text_length || !text_is_clean(at, text_length))
            return -EBADMSG;
        *texts[i] = (spool_span){at, text_length};
        at += text_length;
    }

    out->recipients = at;
    for (uint32_t i = 0; i < out->recipient_count; i++) {
        spool_recipient recipient;
        if (!recipient_read(&at, out->end, &recipient)
            || !text_is_clean(recipient.forward_path.data, recipient.forward_path.length)
            || !text_is_clean(recipient.orcpt.data, recipient.orcpt.length))
            return -EBADMSG;
    }
    return at == out->end && attributes_are_valid(out) ? 0 : -EBADMSG;
}

bool spool_envelope_next_attribute(const spool_envelope *self, const uint8_t **cursor, spool_attribute *out)
{
    return attribute_read(cursor, self->chunks, out);
}

bool spool_envelope_find_attribute(const spool_envelope *self, uint16_t key, spool_span *text)
{
    const uint8_t *cursor = self->end;
    spool_attribute attribute;
    while (attribute_read(&cursor, self->chunks, &attribute))
        if (attribute.key == key) {
            *text = attribute.text;
            return true;
        }
    return false;
}

spool_chunk spool_envelope_chunk(const spool_envelope *self, uint32_t index)
{
    const uint8_t *at = self->chunks + (size_t)index * CHUNK_OCTETS;
    return (spool_chunk){load32(at), load32(at + 4), load32(at + 8)};
}

uint32_t spool_envelope_chunk_position(const spool_envelope *self, uint32_t index)
{
    uint32_t position = 0;          /* modulo 2^32, as in the record */
    for (uint32_t i = 0; i < index; i++)
        position += spool_envelope_chunk(self, i).length;
    return position;
}

bool spool_envelope_next_recipient(const spool_envelope *self, const uint8_t **cursor, spool_recipient *out)
{
    return *cursor < self->end && recipient_read(cursor, self->end, out);
}

static const char crockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

void spool_id_encode(uint64_t id, char out[13])
{
    for (int i = 12; i >= 0; i--, id >>= 5)
        out[i] = crockford[id & 31];
}

bool spool_id_decode(const char *in, size_t length, uint64_t *id)
{
    if (length != 13)
        return false;
    uint64_t value = 0;
    for (int i = 0; i < 13; i++) {
        char c = in[i] >= 'a' && in[i] <= 'z' ? (char)(in[i] - 'a' + 'A') : in[i];
        const char *found = c == 0 ? NULL : strchr(crockford, c);
        if (found == NULL || value > UINT64_MAX >> 5)     /* the first of 13 characters carries four bits only */
            return false;
        value = value << 5 | (uint64_t)(found - crockford);
    }
    *id = value;
    return true;
}
