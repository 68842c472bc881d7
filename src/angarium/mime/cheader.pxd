# Mirrors csrc/mime/header.h and nothing else.
from libc.stdint cimport uint8_t


cdef extern from "mime/header.h" nogil:
    ctypedef enum mime_header_end:
        MIME_HEADER_OPEN
        MIME_HEADER_BLANK
        MIME_HEADER_BODY

    ctypedef enum mime_field_kind:
        MIME_FIELD_OTHER
        MIME_FIELD_DATE
        MIME_FIELD_MESSAGE_ID
        MIME_FIELD_FROM
        MIME_FIELD_SENDER
        MIME_FIELD_ADDRESSES

    ctypedef struct mime_field:
        size_t start
        size_t value
        size_t end
        uint8_t kind

    ctypedef struct mime_mailbox:
        size_t start
        size_t end
        bint has_domain

    mime_header_end mime_header_find_end(const uint8_t *data, size_t length, size_t *end)
    bint mime_field_next(const uint8_t *data, size_t length, size_t *at, mime_field *out)
    bint mime_field_find(const uint8_t *data, size_t length, size_t *at, mime_field *out)
    bint mime_mailboxes_are_clear(const uint8_t *data, size_t length)
    bint mime_field_is(const uint8_t *data, const mime_field *field, const uint8_t *name, size_t length)
    bint mime_mailbox_next(const uint8_t *data, size_t length, size_t *at, mime_mailbox *out)
    size_t mime_header_complete(const uint8_t *data, size_t length, const uint8_t *domain, size_t domain_length,
                                bint without_sender, uint8_t *out)
