#include "spool/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "spool/crc32c.h"
#include "spool/spool.h"

enum {
    WINDOW_OCTETS = 256 << 10,
    /* Octets that may be read, or checked in vain, in segment lengths. The salt keeps foreign octets from looking like records;
     * this keeps a crafted segment from costing quadratic time. An honest scan reads each octet little more than once. */
    EFFORT_LIMIT = 10,
};

typedef struct window {
    const spool_source *source;
    uint8_t *data;
    uint64_t start, end;                    /* of what data holds */
    uint64_t effort;                        /* octets read, and octets checked in vain */
    bool (*is_stopping)(void *context);
} window;

/* Reads; what cannot be read is zeros, 4096 octets at a time: invalid like any other damage. */
static void read_or_zero(const spool_source *source, uint64_t offset, uint8_t *out, size_t length)
{
    if (source->read(source->context, offset, out, length) == 0)
        return;
    for (size_t done = 0; done < length;) {
        size_t part = 4096 - (offset + done) % 4096;
        if (part > length - done)
            part = length - done;
        if (source->read(source->context, offset + done, out + done, part) != 0)
            memset(out + done, 0, part);
        done += part;
    }
}

/* `length` (<= 4096) octets at offset, inside the segment. */
static const uint8_t *look(window *self, uint64_t offset, size_t length)
{
    if (offset < self->start || offset + length > self->end) {
        self->start = offset & ~(uint64_t)4095;
        self->end = self->start + WINDOW_OCTETS;
        if (self->end > self->source->octets)
            self->end = self->source->octets;
        read_or_zero(self->source, self->start, self->data, self->end - self->start);
        self->effort += self->end - self->start;
    }
    return self->data + (offset - self->start);
}

static bool looks_like_record(window *self, uint64_t offset, spool_record *out)
{
    return offset + SPOOL_RECORD_OCTETS <= self->source->octets
        && spool_record_decode(look(self, offset, SPOOL_RECORD_OCTETS), out) && out->salt == self->source->salt;
}

/* VALID as format.c says. */
static bool is_valid(window *self, uint64_t offset, spool_record *out)
{
    if (!looks_like_record(self, offset, out) || out->kind < SPOOL_BODY || out->kind > SPOOL_FOOTER
        || out->batch_offset > offset || out->batch_offset < SPOOL_HEADER_OCTETS
        || offset + spool_record_size(out->length) > self->source->octets
        || self->effort > EFFORT_LIMIT * (self->source->octets + WINDOW_OCTETS))
        return false;
    uint32_t crc = spool_record_crc_header(look(self, offset, SPOOL_RECORD_OCTETS));
    uint64_t at = offset + SPOOL_RECORD_OCTETS, end = at + out->length;
    while (at < end) {
        size_t part = end - at < 4096 ? end - at : 4096;
        const uint8_t *data = look(self, at, part);
        uint64_t ready = self->end - at;            /* all that the window holds in one go */
        part = ready < end - at ? ready : end - at;
        crc = crc32c(crc, data, part);
        at += part;
    }
    if (crc == out->crc)
        return true;
    self->effort += out->length;
    return false;
}

static int add_entry(spool_scan *out, uint64_t offset, const spool_record *record)
{
    if (out->count == out->capacity) {
        uint32_t capacity = out->capacity == 0 ? 256 : out->capacity * 2;
        spool_index_entry *entries = realloc(out->entries, capacity * sizeof *entries);
        if (entries == NULL)
            return ENOMEM;
        out->entries = entries;
        out->capacity = capacity;
    }
    out->entries[out->count++] = (spool_index_entry){(uint32_t)offset, record->length, record->id, record->kind};
    return 0;
}

static int add_hole(spool_scan *out, uint64_t start, uint64_t end)
{
    if (out->damaged_count == out->damaged_capacity) {
        uint32_t capacity = out->damaged_capacity == 0 ? 8 : out->damaged_capacity * 2;
        spool_hole *damaged = realloc(out->damaged, capacity * sizeof *damaged);
        if (damaged == NULL)
            return ENOMEM;
        out->damaged = damaged;
        out->damaged_capacity = capacity;
    }
    out->damaged[out->damaged_count++] = (spool_hole){start, end};
    return 0;
}

static bool are_zeros(window *self, uint64_t start, uint64_t end)
{
    const uint8_t *data = look(self, start, end - start);
    for (uint64_t i = 0; i < end - start; i++)
        if (data[i] != 0)
            return false;
    return true;
}

/* The next valid record at or behind `at`, or the segment's length. *traces_end: where the last record would end of whose header,
 * of this use of the file, something is there; not touched when nothing is. */
static uint64_t search(window *self, uint64_t at, spool_record *record, uint64_t *traces_end)
{
    for (; at + SPOOL_RECORD_OCTETS <= self->source->octets; at += 8) {
        if (at % WINDOW_OCTETS == 0 && self->is_stopping != NULL && self->is_stopping(self->source->context))
            break;
        if (!looks_like_record(self, at, record))
            continue;
        if (is_valid(self, at, record))
            return at;
        *traces_end = at + spool_record_size(record->length);
        if (*traces_end > self->source->octets)
            *traces_end = self->source->octets;
    }
    return self->source->octets;
}

static void add_torn(spool_scan *out, uint64_t start, uint64_t end)
{
    out->torn_count++;
    if (end > out->torn_end)
        out->torn_end = end;
    if (out->torn_start == 0 || start < out->torn_start)
        out->torn_start = start;
}

/* Holes were noted as they were met; only the end of the scan tells which had been durable. */
static void sort_holes(spool_scan *out)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < out->damaged_count; i++) {
        if (out->damaged[i].start < out->last_batch)
            out->damaged[kept++] = out->damaged[i];
        else
            add_torn(out, out->damaged[i].start, out->damaged[i].end);
    }
    out->damaged_count = kept;
}

static int scan_window(window *self, spool_scan *out)
{
    uint64_t at = SPOOL_HEADER_OCTETS, octets = self->source->octets;
    spool_record record;
    while (at + SPOOL_RECORD_OCTETS <= octets) {
        if (self->is_stopping != NULL && self->is_stopping(self->source->context))
            return ECANCELED;
        if (!is_valid(self, at, &record)) {
            /* A batch ends here, or something is wrong. */
            uint64_t boundary = spool_align(at, SPOOL_SECTOR_OCTETS), start = at;
            if (boundary != at && boundary <= octets && are_zeros(self, at, boundary))
                start = boundary;
            uint64_t traces_end = 0;
            uint64_t found = search(self, start, &record, &traces_end);
            if (found >= octets) {
                if (traces_end != 0)
                    add_torn(out, start, traces_end);
                break;
            }
            /* With 4096-octet alignment batches leave whole sectors of zeros between them. */
            bool is_gap = record.batch_offset == found && found - start < 4096 && found % 4096 == 0
                       && are_zeros(self, start, found);
            if (found != start && !is_gap && add_hole(out, start, found) != 0)
                return ENOMEM;
            at = found;
        }
        if (record.batch_offset > out->last_batch)
            out->last_batch = record.batch_offset;
        if (record.kind != SPOOL_FOOTER && add_entry(out, at, &record) != 0)
            return ENOMEM;
        at += spool_record_size(record.length);
        out->end = at;
    }
    sort_holes(out);
    return 0;
}

int spool_scan_records(const spool_source *source, bool (*is_stopping)(void *context), spool_scan *out)
{
    window self = {.source = source, .data = malloc(source->octets < WINDOW_OCTETS ? source->octets + 1 : WINDOW_OCTETS), .is_stopping = is_stopping};
    *out = (spool_scan){.end = SPOOL_HEADER_OCTETS};
    if (self.data == NULL)
        return ENOMEM;
    int error = scan_window(&self, out);
    free(self.data);
    return error;
}

/* 0, or EBADMSG when there is no footer to trust. */
static int scan_footer(const spool_source *source, spool_scan *out)
{
    uint8_t locator_octets[SPOOL_LOCATOR_OCTETS], header[SPOOL_RECORD_OCTETS];
    spool_locator locator;
    spool_record record;
    *out = (spool_scan){0};
    if (source->octets < 2 * SPOOL_HEADER_OCTETS
        || source->read(source->context, source->octets - SPOOL_HEADER_OCTETS, locator_octets, sizeof locator_octets) != 0
        || !spool_locator_decode(locator_octets, &locator) || locator.salt != source->salt
        || locator.footer_offset < SPOOL_HEADER_OCTETS
        || locator.footer_offset + spool_record_size(locator.footer_length) > source->octets
        || source->read(source->context, locator.footer_offset, header, sizeof header) != 0
        || !spool_record_decode(header, &record) || record.salt != source->salt || record.kind != SPOOL_FOOTER
        || record.length != locator.footer_length)
        return EBADMSG;

    uint8_t *payload = malloc(record.length + 1);
    if (payload == NULL)
        return ENOMEM;
    uint32_t count = 0;
    int error = 0;
    if (source->read(source->context, locator.footer_offset + SPOOL_RECORD_OCTETS, payload, record.length) != 0
        || crc32c(spool_record_crc_header(header), payload, record.length) != record.crc
        || !spool_index_check(payload, record.length, source->octets, &count))
        error = EBADMSG;
    if (error == 0) {
        out->entries = malloc((count + 1) * sizeof *out->entries);
        error = out->entries == NULL ? ENOMEM : 0;
    }
    if (error == 0) {
        for (uint32_t i = 0; i < count; i++)
            out->entries[i] = spool_index_at(payload, i);
        out->count = out->capacity = count;
        out->has_footer = true;
        out->end = locator.footer_offset;
    }
    free(payload);
    return error;
}

int spool_scan_segment(const spool_source *source, bool (*is_stopping)(void *context), spool_scan *out)
{
    int error = scan_footer(source, out);
    return error == EBADMSG ? spool_scan_records(source, is_stopping, out) : error;
}

void spool_scan_clear(spool_scan *self)
{
    free(self->entries);
    free(self->damaged);
    *self = (spool_scan){0};
}

const spool_index_entry *spool_scan_find(const spool_scan *self, uint32_t offset)
{
    uint32_t low = 0, high = self->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (self->entries[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < self->count && self->entries[low].offset == offset ? &self->entries[low] : NULL;
}
