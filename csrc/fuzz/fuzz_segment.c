/* Any segment image: headers decode or are refused; the scan ends, its effort linear in the segment; its entries rise, do not overlap, lie
 * inside; every entry not taken from a footer really has its checksum; damaged holes lie inside and between entries.
 *
 * The input is a script: its octets place records with right or wrong salts, checksums, lengths and batches, raw octets, a
 * footer, a locator, so that the fuzzer need not find checksums. */
#include "fuzz.h"
#include "spool/crc32c.h"
#include "spool/scan.h"
#include "spool/spool.h"

enum { SEGMENT = 64 << 10, SALT = 0x5a17 };

typedef struct image { uint8_t data[SEGMENT]; uint64_t read_octets; } image;

static int read_image(void *context, uint64_t offset, void *out, size_t length)
{
    image *self = context;
    INVARIANT(offset <= SEGMENT && length <= SEGMENT - offset);
    self->read_octets += length;
    if (self->data[100] == 7 && offset / 4096 == 5)         /* some images have an unreadable block */
        return 5;
    memcpy(out, self->data + offset, length);
    return 0;
}

static uint32_t take(const uint8_t **in, const uint8_t *end, unsigned octets_wanted)
{
    uint32_t value = 0;
    while (octets_wanted-- > 0)
        value = value << 8 | (*in < end ? *(*in)++ : 0);
    return value;
}

static void place_record(image *self, const uint8_t **in, const uint8_t *end, uint32_t at)
{
    uint32_t length = take(in, end, 2), how = take(in, end, 1);
    spool_record record = {.salt = how & 1 ? 99 : SALT, .length = length, .kind = (uint8_t)(take(in, end, 1) % 8),
                           .batch_offset = take(in, end, 1) * 512, .id = take(in, end, 1)};
    if (how & 2)
        record.batch_offset = at;
    if (at + spool_record_size(length) > SEGMENT)
        return;
    uint8_t *payload = malloc(length + 1);
    INVARIANT(payload != NULL);
    memset(payload, (int)(how & 0xf0), length + 1);
    spool_record_encode(self->data + at, &record, payload);
    free(payload);
    if (how & 4)
        self->data[at + 4] ^= 1;                            /* checksum */
    if (how & 8)
        memset(self->data + at + 12, 0xff, 4);              /* a length far beyond */
}

static void place_footer(image *self, const uint8_t **in, const uint8_t *end, uint32_t at)
{
    spool_index_entry entries[8];
    uint32_t count = take(in, end, 1) % 8;
    for (uint32_t i = 0; i < count; i++)
        entries[i] = (spool_index_entry){take(in, end, 2) * 8, take(in, end, 2), take(in, end, 1), take(in, end, 1) % 6};
    uint8_t payload[16 + 8 * SPOOL_INDEX_ENTRY_OCTETS];
    spool_index_encode(payload, entries, count);
    spool_record record = {.salt = SALT, .length = (uint32_t)spool_index_octets(count), .kind = SPOOL_FOOTER, .batch_offset = at};
    if (at + spool_record_size(record.length) <= SEGMENT)
        spool_record_encode(self->data + at, &record, payload);
    spool_locator locator = {SALT, at, record.length};
    spool_locator_encode(self->data + SEGMENT - SPOOL_HEADER_OCTETS, &locator);
}

static void check(image *self, const spool_scan *out)
{
    uint64_t end = SPOOL_HEADER_OCTETS;
    for (uint32_t i = 0; i < out->count; i++) {
        spool_index_entry entry = out->entries[i];
        spool_record record;
        INVARIANT(entry.offset >= end && entry.offset % 8 == 0 && entry.kind >= SPOOL_BODY && entry.kind <= SPOOL_FREED);
        end = entry.offset + spool_record_size(entry.length);
        INVARIANT(end <= SEGMENT && spool_scan_find(out, entry.offset) == &out->entries[i]);
        if (out->has_footer)
            continue;
        const uint8_t *at = self->data + entry.offset;
        INVARIANT(self->data[100] == 7 || (spool_record_decode(at, &record) && record.salt == SALT
                  && record.crc == crc32c(spool_record_crc_header(at), at + SPOOL_RECORD_OCTETS, entry.length)));
    }
    uint64_t before = SPOOL_HEADER_OCTETS;
    for (uint32_t i = 0; i < out->damaged_count; i++) {
        INVARIANT(out->damaged[i].start >= before && out->damaged[i].start < out->damaged[i].end && out->damaged[i].end <= SEGMENT);
        before = out->damaged[i].end;
    }
    INVARIANT(self->read_octets < 40 * SEGMENT + (40 << 18));
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t size)
{
    const uint8_t *end = in + size;
    image *self = calloc(1, sizeof *self);
    INVARIANT(self != NULL);
    uint32_t at = SPOOL_HEADER_OCTETS;
    while (in < end) {
        uint32_t step = take(&in, end, 1);
        switch (step % 6) {
        case 0: place_record(self, &in, end, at); break;
        case 1: at = take(&in, end, 2) & (SEGMENT - 8); break;
        case 2: at = (uint32_t)spool_align(at, 512) % SEGMENT; break;
        case 3: place_footer(self, &in, end, at); break;
        case 4: {                                           /* raw octets, the header block included */
            uint32_t length = take(&in, end, 1);
            for (uint32_t i = 0; i < length && at + i < SEGMENT; i++)
                self->data[step & 64 ? i : at + i] = (uint8_t)take(&in, end, 1);
            break;
        }
        default: {                                          /* on to where the record here says it ends */
            spool_record record;
            if (at + SPOOL_RECORD_OCTETS <= SEGMENT && spool_record_decode(self->data + at, &record)
                && at + spool_record_size(record.length) < SEGMENT)
                at += (uint32_t)spool_record_size(record.length);
        }
        }
    }
    spool_segment_header header;
    int result = spool_header_decode(self->data, &header);
    INVARIANT(result <= 0);

    spool_source source = {SEGMENT, SALT, read_image, self};
    spool_scan out;
    INVARIANT(spool_scan_segment(&source, NULL, &out) == 0);
    check(self, &out);
    spool_scan_clear(&out);
    free(self);
    return 0;
}
