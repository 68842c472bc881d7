# Mirrors csrc/spool/*.h and nothing else.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from angarium.model.octets cimport octets


cdef extern from "spool/envelope.h" nogil:
    enum:
        SPOOL_ENVELOPE_8BIT
        SPOOL_ENVELOPE_SMTPUTF8
        SPOOL_ENVELOPE_BODY_8BITMIME
        SPOOL_ENVELOPE_DOT_LINE
        SPOOL_ENVELOPE_NO_FINAL_CRLF
        SPOOL_ENVELOPE_RET_FULL
        SPOOL_ENVELOPE_RET_HDRS
        SPOOL_ENVELOPE_IS_DSN
        SPOOL_ENVELOPE_INLINE
        SPOOL_ENVELOPE_COPY
        SPOOL_ENVELOPE_REQUIRETLS
        SPOOL_ENVELOPE_TLS_OPTIONAL
        SPOOL_ENVELOPE_BINARYMIME
        SPOOL_ATTRIBUTE_HOLD_UNTIL
        SPOOL_ATTRIBUTE_DELIVER_BY
        SPOOL_ATTRIBUTE_PRIORITY
        SPOOL_ATTRIBUTE_TENANT
        SPOOL_ATTRIBUTE_CAMPAIGN
        SPOOL_ATTRIBUTE_ROUTE
        SPOOL_ATTRIBUTE_POOL
        SPOOL_ATTRIBUTE_IDENTITY
        SPOOL_ATTRIBUTE_SOLICIT

    ctypedef struct spool_span:
        const uint8_t *data
        uint32_t length

    ctypedef struct spool_chunk:
        uint32_t segment_serial
        uint32_t offset
        uint32_t length

    ctypedef struct spool_envelope:
        uint64_t id
        uint64_t received_utc_ms
        uint64_t message_octets
        uint32_t flags
        uint32_t recipient_count
        uint32_t chunk_count
        spool_span reverse_path
        spool_span envid
        spool_span helo
        spool_span client_address
        spool_span listener
        const uint8_t *chunks
        const uint8_t *recipients
        const uint8_t *end

    ctypedef struct spool_attribute:
        spool_span text
        uint16_t key

    ctypedef struct spool_recipient:
        spool_span forward_path
        spool_span orcpt
        uint8_t notify
        uint32_t domain_offset

    int spool_envelope_begin(octets **self, spool_span reverse_path, spool_span envid, spool_span helo,
                             spool_span client_address, spool_span listener)
    int spool_envelope_add_recipient(octets **self, spool_span forward_path, uint32_t domain_offset,
                                     spool_span orcpt, uint8_t notify)
    void spool_envelope_cut(octets *self, size_t length, uint32_t recipient_count)
    bint spool_envelope_has_recipient(const octets *self, spool_span forward_path, uint8_t unless_notify, uint32_t limit)
    int spool_envelope_add_attribute(octets **self, uint16_t key, spool_span text)
    int spool_envelope_finish(octets **self, uint64_t id, uint64_t received_utc_ms, uint32_t flags,
                              uint64_t message_octets, const spool_chunk *chunks, uint32_t chunk_count)
    void spool_envelope_mark_copy(uint8_t *payload, bint has_outcome)
    void spool_envelope_set_chunk(uint8_t *payload, uint32_t index, spool_chunk chunk)
    int spool_envelope_open(const uint8_t *data, size_t length, spool_envelope *out)
    spool_chunk spool_envelope_chunk(const spool_envelope *self, uint32_t index)
    uint32_t spool_envelope_chunk_position(const spool_envelope *self, uint32_t index)
    bint spool_envelope_next_recipient(const spool_envelope *self, const uint8_t **cursor, spool_recipient *out)
    bint spool_envelope_next_attribute(const spool_envelope *self, const uint8_t **cursor, spool_attribute *out)
    bint spool_envelope_find_attribute(const spool_envelope *self, uint16_t key, spool_span *text)
    void spool_id_encode(uint64_t id, char *out)
    bint spool_id_decode(const char *text, size_t length, uint64_t *id)


cdef extern from "spool/spool.h":
    # Not nogil: the callbacks run on the loop thread and touch Python objects.
    enum:
        SPOOL_FORMAT_VERSION
        SPOOL_BODY
        SPOOL_ENVELOPE
        SPOOL_OUTCOME
        SPOOL_FREED
        SPOOL_FOOTER

    ctypedef struct spool_shard:
        pass

    ctypedef struct spool_segment:
        pass

    ctypedef struct spool_place:
        spool_segment *segment
        uint32_t offset
        uint32_t length

    ctypedef struct spool_op

    ctypedef void (*spool_done)(spool_op *op, void *context) noexcept

    ctypedef struct spool_op:
        uint8_t kind
        uint64_t id
        uint64_t aux
        bint is_copy
        octets *payload
        octets *body
        spool_segment *about
        spool_segment *previous_state
        spool_place place
        spool_place body_place
        int error
        spool_done done
        void *context

    ctypedef struct spool_identity:
        uint8_t kind
        uint64_t id
        uint32_t run_offset

    ctypedef struct spool_read_op

    ctypedef void (*spool_read_done)(spool_read_op *op, void *context) noexcept

    ctypedef struct spool_read_op:
        spool_place place
        bint wants_index
        spool_identity wanted
        octets *out
        int error
        spool_read_done done
        void *context

    ctypedef struct spool_options:
        uint64_t segment_octets
        uint32_t spare_segments
        uint32_t window_us
        uint32_t last_incarnation
        uint32_t lazy_ms

    ctypedef struct spool_error:
        int code
        char *text


cdef extern from "spool/spool.h" nogil:
    int spool_shard_open(int dirfd, const char *name, uint8_t number, const spool_options *options,
                         spool_shard **out, spool_error *error)
    void spool_shard_stop(spool_shard *self)
    void spool_shard_close(spool_shard *self)
    uint64_t spool_shard_next_id(spool_shard *self)
    int spool_shard_event_fd(const spool_shard *self)
    void spool_shard_submit(spool_shard *self, spool_op *op)
    void spool_shard_free(spool_shard *self, uint64_t id, spool_segment *home, spool_segment *state,
                          uint64_t octets_count)
    void spool_shard_kick(spool_shard *self, uint64_t now_mono_ms)
    uint64_t spool_shard_kick_due_ms(const spool_shard *self, uint64_t now_mono_ms)
    void spool_shard_hurry(spool_shard *self)
    void spool_shard_expect(spool_shard *self, uint32_t active_transactions)
    void spool_shard_read(spool_shard *self, spool_read_op *op)
    void spool_segment_release(spool_shard *self, spool_segment *segment, uint64_t octets_count)
    uint32_t spool_segment_serial(const spool_segment *segment)
    spool_segment *spool_shard_segment(spool_shard *self, uint32_t serial)
    bint spool_segment_is_sealed(const spool_segment *segment)

    uint32_t spool_shard_haste(const spool_shard *self)
    spool_segment *spool_shard_victim(spool_shard *self, uint64_t now_mono_ms, bint is_resting)
    bint spool_segment_frees_others(const spool_segment *segment, uint32_t offset)
    bint spool_segment_has_live(const spool_segment *segment)
    void spool_shard_free_again(spool_shard *self, uint64_t id, uint32_t home_serial, spool_segment *victim)
    int64_t spool_shard_repeats_under_way(const spool_segment *victim)
    void spool_shard_victim_done(spool_shard *self, spool_segment *victim, bint is_moved, uint64_t again_mono_ms)

    ctypedef struct spool_segment_face:
        uint32_t serial
        uint32_t slot
        uint32_t salt
        uint64_t octets

    void spool_segment_describe(const spool_segment *segment, spool_segment_face *out)
    int spool_shard_open_foreign(int dirfd, const char *name, uint8_t number, spool_shard **out, spool_error *error)
    spool_segment *spool_shard_hold_foreign(spool_shard *self, const spool_segment_face *face)
    void spool_shard_drop_foreign(spool_shard *self, spool_segment *segment)

    ctypedef struct spool_recovered:
        uint64_t id
        octets *envelope
        octets *state
        spool_place place
        spool_segment *state_segment

    int spool_shard_recover_next(spool_shard *self, spool_recovered *out)

    ctypedef struct spool_statistics:
        uint64_t commits
        uint64_t records
        uint64_t octets_written
        uint64_t sync_errors
        uint64_t write_errors
        uint64_t recovered_messages
        uint64_t torn_records
        uint64_t damaged_records
        uint64_t damaged_octets
        uint32_t unread_segments
        uint64_t live_octets
        uint64_t segment_octets
        uint64_t compactions
        uint32_t segments
        uint32_t free_segments
        uint32_t sealed_segments
        uint32_t excess_segments
        uint64_t held_us
        uint32_t commit_us_last
        uint32_t commit_us_max
        bint is_full
        bint is_scan_broken

    void spool_shard_statistics(spool_shard *self, spool_statistics *out)
    bint spool_shard_has_room(const spool_shard *self)
    ctypedef enum spool_notice_kind:
        SPOOL_NOTICE_TROUBLE
        SPOOL_NOTICE_TORN
        SPOOL_NOTICE_DAMAGED
        SPOOL_NOTICE_UNREAD
    ctypedef struct spool_notice_place:
        spool_notice_kind kind
        uint32_t serial
        uint64_t offset
        uint64_t octets
    ctypedef struct spool_notice:
        spool_notice_place at
        char text[256]
    bint spool_shard_next_notice(spool_shard *self, spool_notice *out)


cdef extern from "spool/spool.h":
    # Runs callbacks that touch Python objects: never called without the GIL.
    bint spool_shard_reap(spool_shard *self, unsigned limit)
