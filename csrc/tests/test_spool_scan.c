/* Scanning a segment image: torn tails against damage in the middle, footers against full scans. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "spool/scan.h"
#include "spool/spool.h"

enum { SEGMENT = 1 << 18, SALT = 0xfeedface };

typedef struct image {
    uint8_t *data;
    uint64_t end, batch;                    /* where the next record and where its batch starts */
    spool_index_entry index[256];
    uint32_t count;
    uint64_t unreadable;                    /* 4096 octets there give EIO; 0: none */
    uint32_t alignment;
} image;

static int image_read(void *context, uint64_t offset, void *out, size_t length)
{
    image *self = context;
    CHECK(offset + length <= SEGMENT, "read outside: %llu", (unsigned long long)offset);
    if (self->unreadable != 0 && offset < self->unreadable + 4096 && offset + length > self->unreadable)
        return EIO;
    memcpy(out, self->data + offset, length);
    return 0;
}

static image image_new(uint32_t alignment)
{
    return (image){.data = calloc(1, SEGMENT), .end = SPOOL_HEADER_OCTETS, .batch = SPOOL_HEADER_OCTETS, .alignment = alignment};
}

static uint64_t image_add(image *self, uint8_t kind, uint64_t id, uint32_t length)
{
    uint8_t *payload = malloc(length + 1);
    memset(payload, (int)('a' + id % 26), length + 1);
    spool_record record = {.salt = SALT, .length = length, .kind = kind, .batch_offset = (uint32_t)self->batch, .id = id};
    spool_record_encode(self->data + self->end, &record, payload);
    free(payload);
    uint64_t at = self->end;
    self->index[self->count++] = (spool_index_entry){(uint32_t)at, length, id, kind};
    self->end += spool_record_size(length);
    return at;
}

static void image_next_batch(image *self)
{
    self->end = self->batch = spool_align(self->end, self->alignment);
}

static void image_seal(image *self)
{
    image_next_batch(self);
    uint32_t length = (uint32_t)spool_index_octets(self->count);
    uint8_t *payload = malloc(length);
    spool_index_encode(payload, self->index, self->count);
    spool_record record = {.salt = SALT, .length = length, .kind = SPOOL_FOOTER, .batch_offset = (uint32_t)self->batch};
    spool_record_encode(self->data + self->batch, &record, payload);
    free(payload);
    spool_locator locator = {SALT, (uint32_t)self->batch, length};
    spool_locator_encode(self->data + SEGMENT - SPOOL_HEADER_OCTETS, &locator);
}

/* Three batches of three messages, 100 to 3,000 octets. */
static image image_of_nine(uint32_t alignment)
{
    image self = image_new(alignment);
    for (uint64_t id = 1; id <= 9; id++) {
        image_add(&self, SPOOL_BODY, id, (uint32_t)(100 + id * 311));
        image_add(&self, SPOOL_ENVELOPE, id, 80);
        if (id % 3 == 0)
            image_next_batch(&self);
    }
    return self;
}

static spool_scan scan(image *self)
{
    spool_source source = {SEGMENT, SALT, image_read, self};
    spool_scan out;
    CHECK(spool_scan_segment(&source, NULL, &out) == 0, "scan");
    return out;
}

static bool are_same(const spool_index_entry *a, const spool_index_entry *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (a[i].offset != b[i].offset || a[i].length != b[i].length || a[i].id != b[i].id || a[i].kind != b[i].kind)
            return false;
    return true;
}

static void footer_and_full_scan_agree(void)
{
    const uint32_t alignments[] = {512, 4096};
    for (size_t i = 0; i < COUNT(alignments); i++) {
        image self = image_of_nine(alignments[i]);
        spool_scan open = scan(&self);
        CHECK(open.count == 18 && open.torn_count == 0 && open.damaged_count == 0 && !open.has_footer,
              "alignment %u: count %u torn %u damaged %u", alignments[i], open.count, open.torn_count, open.damaged_count);
        image_seal(&self);
        spool_scan sealed = scan(&self), records;
        CHECK(sealed.has_footer && sealed.count == 18
              && are_same(sealed.entries, open.entries, 18), "same entries");
        memset(self.data + SEGMENT - SPOOL_HEADER_OCTETS, 0, 64);           /* no locator: the records are read */
        records = scan(&self);
        CHECK(!records.has_footer && records.count == 18 && records.damaged_count == 0 && records.torn_count == 0, "no locator");
        CHECK(spool_scan_find(&open, open.entries[7].offset) == &open.entries[7] && spool_scan_find(&open, 5000) == NULL, "find");
        spool_scan_clear(&open);
        spool_scan_clear(&sealed);
        spool_scan_clear(&records);
        free(self.data);
    }
}

static void an_empty_segment_is_empty(void)
{
    image self = image_new(512);
    spool_scan out = scan(&self);
    CHECK(out.count == 0 && out.torn_count == 0 && out.damaged_count == 0, "zeros");
    memset(self.data + 4096, 0xab, SEGMENT - 4096);
    spool_scan_clear(&out);
    out = scan(&self);
    CHECK(out.count == 0 && out.torn_count == 0 && out.damaged_count == 0, "foreign octets, as from an earlier use");
    spool_scan_clear(&out);
    free(self.data);
}

/* Whatever sectors of the last batch are missing, nobody was told 250 for it: torn, never damage, the earlier all there. */
static void last_batch_may_miss_any_sectors(void)
{
    image self = image_of_nine(512);
    uint64_t start = self.index[12].offset, end = self.end;
    uint32_t sectors = (uint32_t)((end - start) / 512);
    uint8_t *whole = malloc(end - start);
    memcpy(whole, self.data + start, end - start);
    uint32_t seed = 99;
    for (int round = 0; round < 2000; round++) {
        memcpy(self.data + start, whole, end - start);
        for (uint32_t i = 0; i < sectors; i++)
            if ((seed = seed * 1664525u + 1013904223u) >> 30 == 0)
                memset(self.data + start + i * 512, seed >> 29 & 1 ? 0 : 0xcd, 512);
        spool_scan out = scan(&self);
        CHECK(out.damaged_count == 0, "round %d: torn taken for damage", round);
        CHECK(out.count >= 12 && are_same(out.entries, self.index, 12), "round %d: earlier lost", round);
        spool_scan_clear(&out);
    }
    free(whole);
    free(self.data);
}

static void damage_in_the_middle_costs_only_what_it_hits(void)
{
    for (int hit = 0; hit < 12; hit++)
        for (int where = 0; where < 3; where++) {
            image self = image_of_nine(512);
            spool_index_entry entry = self.index[hit];
            uint64_t at = where == 0 ? entry.offset + 1 : where == 1 ? entry.offset + 13 : entry.offset + 32 + entry.length - 1;
            self.data[at] ^= 0x10;              /* magic, length, payload */
            spool_scan out = scan(&self);
            CHECK(out.count == 17 && out.damaged_count == 1 && out.torn_count == 0, "record %d octet %d: %u records, %u, %u",
                  hit, where, out.count, out.damaged_count, out.torn_count);
            CHECK(out.damaged_count == 1 && out.damaged[0].start == entry.offset, "record %d: start", hit);
            CHECK(spool_scan_find(&out, entry.offset) == NULL, "record %d", hit);
            spool_scan_clear(&out);
            free(self.data);
        }
}

static void a_whole_zeroed_batch_in_the_middle_is_damage(void)
{
    image self = image_of_nine(512);
    uint64_t start = self.index[6].offset, end = self.index[12].offset;
    memset(self.data + start, 0, end - start);
    spool_scan out = scan(&self);
    CHECK(out.count == 12 && out.damaged_count == 1 && out.damaged[0].start == start && out.damaged[0].end == end, "hole");
    spool_scan_clear(&out);
    free(self.data);
}

static void unreadable_blocks_cost_only_what_they_hold(void)
{
    image self = image_new(512);
    for (uint64_t id = 1; id <= 20; id++) {
        image_add(&self, SPOOL_BODY, id, 4064 - 80);
        image_add(&self, SPOOL_ENVELOPE, id, 16);
        image_next_batch(&self);
    }
    self.unreadable = 4096 * 10;
    spool_scan out = scan(&self);
    CHECK(out.damaged_count >= 1 && out.count >= 36, "%u records, %u holes", out.count, out.damaged_count);
    spool_scan_clear(&out);
    free(self.data);
}

/* A body may hold the image of another segment's records, or of this one's first use: another salt, no record. */
static void records_of_an_earlier_use_do_not_count(void)
{
    image self = image_of_nine(512);
    image old = image_of_nine(512);
    for (uint32_t i = 0; i < old.count; i++)            /* same places, other salt, valid in themselves */
        if (i >= 6) {
            spool_record record;
            spool_record_decode(old.data + old.index[i].offset, &record);
            record.salt = 77;
            uint8_t payload[4096];
            memcpy(payload, old.data + old.index[i].offset + 32, record.length);
            spool_record_encode(self.data + old.index[i].offset, &record, payload);
        }
    spool_scan out = scan(&self);
    CHECK(out.count == 6 && out.damaged_count == 0 && out.torn_count == 0, "%u", out.count);
    spool_scan_clear(&out);
    free(self.data);
    free(old.data);
}

int main(void)
{
    footer_and_full_scan_agree();
    an_empty_segment_is_empty();
    last_batch_may_miss_any_sectors();
    damage_in_the_middle_costs_only_what_it_hits();
    a_whole_zeroed_batch_in_the_middle_is_damage();
    unreadable_blocks_cost_only_what_they_hold();
    records_of_an_earlier_use_do_not_count();
    return check_report();
}
