# Mirrors csrc/spool/format.h and scan.h, as far as reading needs them, and nothing else.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "spool/format.h" nogil:
    enum:
        SPOOL_HEADER_OCTETS
        SPOOL_HEADER_COPY_OFFSET
        SPOOL_HEADER_USED_OCTETS
        SPOOL_RECORD_OCTETS
        SPOOL_LOCATOR_OCTETS

    ctypedef struct spool_segment_header:
        uint32_t version
        uint8_t use
        uint8_t shard
        uint32_t salt
        uint32_t serial
        uint32_t incarnation
        uint64_t segment_octets
        uint64_t created_utc_s
        uint64_t generation

    int spool_header_decode(const uint8_t *block, spool_segment_header *out)

    ctypedef struct spool_record:
        uint32_t crc
        uint32_t salt
        uint32_t length
        uint8_t kind
        uint32_t batch_offset
        uint32_t aux
        uint64_t id

    uint64_t spool_record_size(uint64_t payload_length)
    bint spool_record_decode(const uint8_t *at, spool_record *out)
    uint32_t spool_record_crc_header(const uint8_t *at)

    ctypedef struct spool_index_entry:
        uint32_t offset
        uint32_t length
        uint64_t id
        uint32_t kind

    ctypedef struct spool_locator:
        uint32_t salt
        uint32_t footer_offset
        uint32_t footer_length

    bint spool_locator_decode(const uint8_t *at, spool_locator *out)


cdef extern from "spool/crc32c.h" nogil:
    uint32_t crc32c(uint32_t crc, const void *data, size_t length)


cdef extern from "spool/scan.h" nogil:
    ctypedef struct spool_source:
        uint64_t octets
        uint32_t salt
        int (*read)(void *context, uint64_t offset, void *out, size_t length) noexcept nogil
        void *context

    ctypedef struct spool_hole:
        uint64_t start
        uint64_t end

    ctypedef struct spool_scan:
        spool_index_entry *entries
        uint32_t count
        bint has_footer
        uint64_t last_batch
        spool_hole *damaged
        uint32_t damaged_count
        uint32_t torn_count
        uint64_t end

    int spool_scan_segment(const spool_source *source, bint (*is_stopping)(void *context) noexcept nogil, spool_scan *out)
    int spool_scan_records(const spool_source *source, bint (*is_stopping)(void *context) noexcept nogil, spool_scan *out)
    void spool_scan_clear(spool_scan *self)
    const spool_index_entry *spool_scan_find(const spool_scan *self, uint32_t offset)
