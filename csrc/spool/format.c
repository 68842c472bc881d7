/* The octets of a segment. Everything little-endian. docs/spool-format.md tells the same at more length, with a dump.
 *
 * SEGMENT        0 header block (4096) | batches of records, each batch on a 512-octet boundary … | last 4096: locator
 *
 * HEADER         at 0 and again at 2048; the valid copy with the higher generation counts
 * off size field
 *   0    8  magic            "ANGARIUM"
 *   8    4  crc32c           of octets 12 .. 127
 *  12    4  version          1. Every version keeps magic, crc and version here, so that others can say so
 *  16    1  use              0 free 1 live
 *  17    1  shard
 *  18    2  zero
 *  20    4  salt             random, new for every use of the file; every record carries it
 *  24    4  serial           grows by one with every segment brought into use; never reused
 *  28    4  incarnation      of message ids, at the time of writing
 *  32    8  segment_octets
 *  40    8  created_utc_s
 *  48    8  generation
 *  56   72  zero
 *
 * RECORD         8-aligned
 *   0    4  magic            "AngR"
 *   4    4  crc32c           of octets 8 .. end of payload
 *   8    4  salt             of the segment
 *  12    4  length           of the payload; padding to 8 follows it and is not counted
 *  16    1  kind             1 body 2 envelope 3 outcome 4 freed 5 footer
 *  17    3  batch            offset of the first record of the same batch, in sectors of 512
 *  20    4  aux              body: offset of the run in the message; outcome: serial of the segment with the message's
 *                            envelope, its home; else 0
 *  24    8  id               of the message; 0 in freed and footer
 *  32    …  payload
 * freed payload: per message u64 id, u32 serial of its home. body payload: message octets. envelope, outcome: see envelope.c, state.c.
 *
 * FOOTER payload (kind 5): u32 entry count, u32 octets per entry (20), u64 zero, then per record, by rising offset:
 *           u32 offset, u32 length, u64 id, u32 kind
 * LOCATOR        in the first 64 octets of the segment's last 4096
 *   0    8  magic            "ANGINDEX"
 *   8    4  crc32c           of octets 12 .. 63
 *  12    4  salt
 *  16    4  footer_offset
 *  20    4  footer_length
 *  24   40  zero
 *
 * VALID     magic and salt match, length ends inside the segment, crc matches
 * DURABLE   the write with RWF_DSYNC (or write + fdatasync) of the whole batch returned, and before it header, file and
 *           directory were synced
 * TORN      invalid, and nothing valid after it belongs to a later batch: never acknowledged, dropped
 * DAMAGED   invalid, and a later batch is valid (a batch starts only after the one before is durable): reported, set
 *           aside, the scan resumes at the next valid record
 */
#include "spool/format.h"

#include <errno.h>
#include <string.h>

#include "spool/bytes.h"
#include "spool/crc32c.h"
#include "spool/spool.h"

static const uint8_t segment_magic[8] = "ANGARIUM", index_magic[8] = "ANGINDEX", record_magic[4] = "AngR";

void spool_header_encode(uint8_t *block, const spool_segment_header *header)
{
    memset(block, 0, SPOOL_HEADER_OCTETS);
    memcpy(block, segment_magic, 8);
    store32(block + 12, header->version);
    block[16] = header->use;
    block[17] = header->shard;
    store32(block + 20, header->salt);
    store32(block + 24, header->serial);
    store32(block + 28, header->incarnation);
    store64(block + 32, header->segment_octets);
    store64(block + 40, header->created_utc_s);
    store64(block + 48, header->generation);
    store32(block + 8, crc32c(0, block + 12, SPOOL_HEADER_USED_OCTETS - 12));
    memcpy(block + SPOOL_HEADER_COPY_OFFSET, block, SPOOL_HEADER_USED_OCTETS);
}

static bool copy_decode(const uint8_t *at, spool_segment_header *out)
{
    if (memcmp(at, segment_magic, 8) != 0 || load32(at + 8) != crc32c(0, at + 12, SPOOL_HEADER_USED_OCTETS - 12))
        return false;
    out->version = load32(at + 12);
    out->use = at[16];
    out->shard = at[17];
    out->salt = load32(at + 20);
    out->serial = load32(at + 24);
    out->incarnation = load32(at + 28);
    out->segment_octets = load64(at + 32);
    out->created_utc_s = load64(at + 40);
    out->generation = load64(at + 48);
    return true;
}

int spool_header_decode(const uint8_t *block, spool_segment_header *out)
{
    spool_segment_header second;
    bool has_first = copy_decode(block, out);
    bool has_second = copy_decode(block + SPOOL_HEADER_COPY_OFFSET, &second);
    if (!has_first && !has_second)
        return -EBADMSG;
    if (!has_first || (has_second && second.generation > out->generation))
        *out = second;
    return out->version == SPOOL_FORMAT_VERSION ? 0 : -EPROTO;
}

uint32_t spool_record_crc_header(const uint8_t *at)
{
    return crc32c(0, at + 8, SPOOL_RECORD_OCTETS - 8);
}

void spool_record_encode(uint8_t *at, const spool_record *record, const uint8_t *payload)
{
    memcpy(at, record_magic, 4);
    store32(at + 8, record->salt);
    store32(at + 12, record->length);
    store32(at + 16, record->kind | record->batch_offset / SPOOL_SECTOR_OCTETS << 8);
    store32(at + 20, record->aux);
    store64(at + 24, record->id);
    uint64_t padded = spool_align8(record->length);
    memset(at + SPOOL_RECORD_OCTETS + record->length, 0, padded - record->length);
    if (record->length != 0)
        memcpy(at + SPOOL_RECORD_OCTETS, payload, record->length);
    store32(at + 4, crc32c(0, at + 8, SPOOL_RECORD_OCTETS - 8 + (size_t)record->length));
}

bool spool_record_decode(const uint8_t *at, spool_record *out)
{
    if (memcmp(at, record_magic, 4) != 0)
        return false;
    out->crc = load32(at + 4);
    out->salt = load32(at + 8);
    out->length = load32(at + 12);
    out->kind = at[16];
    out->batch_offset = (load32(at + 16) >> 8) * SPOOL_SECTOR_OCTETS;
    out->aux = load32(at + 20);
    out->id = load64(at + 24);
    return true;
}

void spool_index_encode(uint8_t *at, const spool_index_entry *entries, uint32_t count)
{
    store32(at, count);
    store32(at + 4, SPOOL_INDEX_ENTRY_OCTETS);
    store64(at + 8, 0);
    at += SPOOL_INDEX_FIXED_OCTETS;
    for (uint32_t i = 0; i < count; i++, at += SPOOL_INDEX_ENTRY_OCTETS) {
        store32(at, entries[i].offset);
        store32(at + 4, entries[i].length);
        store64(at + 8, entries[i].id);
        store32(at + 16, entries[i].kind);
    }
}

spool_index_entry spool_index_at(const uint8_t *payload, uint32_t index)
{
    const uint8_t *at = payload + SPOOL_INDEX_FIXED_OCTETS + (size_t)index * SPOOL_INDEX_ENTRY_OCTETS;
    return (spool_index_entry){load32(at), load32(at + 4), load64(at + 8), load32(at + 16)};
}

bool spool_index_check(const uint8_t *payload, size_t length, uint64_t segment_octets, uint32_t *count)
{
    if (length < SPOOL_INDEX_FIXED_OCTETS || load32(payload + 4) != SPOOL_INDEX_ENTRY_OCTETS
        || spool_index_octets(load32(payload)) != length)
        return false;
    *count = load32(payload);
    uint64_t end = SPOOL_HEADER_OCTETS;
    for (uint32_t i = 0; i < *count; i++) {
        spool_index_entry entry = spool_index_at(payload, i);
        if (entry.offset < end || entry.offset % 8 != 0 || entry.kind < SPOOL_BODY || entry.kind > SPOOL_FREED)
            return false;
        end = entry.offset + spool_record_size(entry.length);
        if (end > segment_octets)
            return false;
    }
    return true;
}

void spool_locator_encode(uint8_t *at, const spool_locator *locator)
{
    memset(at, 0, SPOOL_LOCATOR_OCTETS);
    memcpy(at, index_magic, 8);
    store32(at + 12, locator->salt);
    store32(at + 16, locator->footer_offset);
    store32(at + 20, locator->footer_length);
    store32(at + 8, crc32c(0, at + 12, SPOOL_LOCATOR_OCTETS - 12));
}

bool spool_locator_decode(const uint8_t *at, spool_locator *out)
{
    if (memcmp(at, index_magic, 8) != 0 || load32(at + 8) != crc32c(0, at + 12, SPOOL_LOCATOR_OCTETS - 12))
        return false;
    *out = (spool_locator){load32(at + 12), load32(at + 16), load32(at + 20)};
    return true;
}
