/* The octets of a segment: headers, records, footer, locator. Pure functions over memory, no files, no threads.
 * The byte tables and their meaning stand at the top of format.c and in docs/spool-format.md. */
#ifndef ANGARIUM_SPOOL_FORMAT_H
#define ANGARIUM_SPOOL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPOOL_SECTOR_OCTETS = 512,              /* batches start on a multiple of this */
    SPOOL_HEADER_OCTETS = 4096,             /* header block of a segment; records start behind it */
    SPOOL_HEADER_COPY_OFFSET = 2048,
    SPOOL_HEADER_USED_OCTETS = 128,
    SPOOL_RECORD_OCTETS = 32,               /* record header */
    SPOOL_LOCATOR_OCTETS = 64,              /* used part of a segment's last SPOOL_HEADER_OCTETS */
    SPOOL_INDEX_FIXED_OCTETS = 16,
    SPOOL_INDEX_ENTRY_OCTETS = 20,
    SPOOL_FREED_ENTRY_OCTETS = 12,
};

typedef enum spool_segment_use {
    SPOOL_SEGMENT_FREE = 0,                 /* nothing in it is needed */
    SPOOL_SEGMENT_LIVE = 1,                 /* records with this salt count */
} spool_segment_use;

typedef struct spool_segment_header {
    uint32_t version;
    uint8_t use;                            /* spool_segment_use */
    uint8_t shard;
    uint32_t salt;
    uint32_t serial;
    uint32_t incarnation;                   /* of message ids, when the header was written */
    uint64_t segment_octets;
    uint64_t created_utc_s;
    uint64_t generation;                    /* grows with every header written in the shard */
} spool_segment_header;

/* Writes both copies into a zeroed block of SPOOL_HEADER_OCTETS. */
void spool_header_encode(uint8_t *block, const spool_segment_header *header);
/* Reads the newer valid copy. 0; -EBADMSG: no valid copy; -EPROTO: valid, of another format version (out->version). */
int spool_header_decode(const uint8_t *block, spool_segment_header *out);

typedef struct spool_record {
    uint32_t crc, salt, length;
    uint8_t kind;                           /* spool_kind */
    uint32_t batch_offset;                  /* of the first record of its batch in the segment */
    uint32_t aux;                           /* BODY: offset of the run in the message; OUTCOME: serial of the home */
    uint64_t id;
} spool_record;

static inline uint64_t spool_align8(uint64_t n) { return (n + 7) & ~(uint64_t)7; }
static inline uint64_t spool_align(uint64_t n, uint32_t alignment) { return (n + alignment - 1) & ~(uint64_t)(alignment - 1); }
static inline uint64_t spool_record_size(uint64_t payload_length) { return SPOOL_RECORD_OCTETS + spool_align8(payload_length); }

/* Writes header, payload copy and padding at `at` (spool_record_size octets); the checksum is computed here. */
void spool_record_encode(uint8_t *at, const spool_record *record, const uint8_t *payload);
/* Reads 32 octets; false when the magic is wrong. Says nothing about the checksum. */
bool spool_record_decode(const uint8_t *at, spool_record *out);
/* The checksum a record must carry: first over the header ... */
uint32_t spool_record_crc_header(const uint8_t *at);
/* ... then continued with crc32c() over the payload. */

typedef struct spool_index_entry {          /* one record of a segment; the footer is an array of these */
    uint32_t offset, length;
    uint64_t id;
    uint32_t kind;
} spool_index_entry;

static inline uint64_t spool_index_octets(uint64_t count) { return SPOOL_INDEX_FIXED_OCTETS + count * SPOOL_INDEX_ENTRY_OCTETS; }
void spool_index_encode(uint8_t *at, const spool_index_entry *entries, uint32_t count);
/* Checks the payload of a footer against the segment's size; false when it cannot be true. */
bool spool_index_check(const uint8_t *payload, size_t length, uint64_t segment_octets, uint32_t *count);
spool_index_entry spool_index_at(const uint8_t *payload, uint32_t index);

typedef struct spool_locator { uint32_t salt, footer_offset, footer_length; } spool_locator;
void spool_locator_encode(uint8_t *at, const spool_locator *locator);
bool spool_locator_decode(const uint8_t *at, spool_locator *out);

#endif
