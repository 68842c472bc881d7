# Mirrors csrc/spool/state.h and nothing else.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.spool.cspool cimport spool_span

cdef extern from "spool/state.h" nogil:
    enum:
        SPOOL_STATUS_WAITING
        SPOOL_STATUS_DELIVERED
        SPOOL_STATUS_FAILED
        SPOOL_STATUS_EXPIRED
        SPOOL_STATE_DELAY_REPORTED
        SPOOL_STATE_DSN_DONE

    ctypedef struct spool_recipient_state:
        uint8_t status
        uint8_t flags
        uint16_t attempts
        uint64_t next_attempt_utc_s
        uint16_t reply_code
        uint8_t enhanced_class
        uint16_t enhanced_subject
        uint16_t enhanced_detail
        spool_span reply_text
        spool_span remote_host

    ctypedef struct spool_state:
        uint32_t recipient_count
        const uint8_t *entries

    int spool_state_begin(octets **self)
    int spool_state_append(octets **self, const spool_recipient_state *recipient)
    int spool_state_open(const uint8_t *data, size_t length, spool_state *out)
    bint spool_state_next(const spool_state *self, const uint8_t **cursor, spool_recipient_state *out)
