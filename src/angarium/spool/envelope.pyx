# Envelope and state octets as Python values, for admin commands, DSNs, tools and tests. Never on the path of a message:
# the hot path reads spool_envelope and spool_recipient_state in place.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from angarium.model.octets cimport octets, octets_new, octets_unref
from angarium.spool.cspool cimport (
    spool_attribute, spool_chunk, spool_envelope, spool_envelope_add_attribute, spool_envelope_add_recipient, spool_envelope_begin,
    spool_envelope_chunk, spool_envelope_finish, spool_envelope_next_attribute, spool_envelope_next_recipient, spool_envelope_open,
    spool_id_decode, spool_id_encode, spool_recipient, spool_span,
)
from angarium.spool.cstate cimport (
    spool_recipient_state, spool_state, spool_state_append, spool_state_begin, spool_state_next, spool_state_open,
)

import enum
import os

import msgspec

from angarium.model.errors import SpoolCorrupt


class Flag(enum.IntFlag):
    EIGHT_BIT = 1
    SMTPUTF8 = 2
    BODY_8BITMIME = 4
    DOT_LINE = 8
    NO_FINAL_CRLF = 16
    RET_FULL = 32
    RET_HDRS = 64
    IS_DSN = 128
    INLINE = 256
    COPY = 512                  # written by a compaction: an older one may be there
    COPY_FIRST = 1024           # and an outcome goes with it
    REQUIRETLS = 2048
    TLS_OPTIONAL = 4096
    BINARYMIME = 8192


class Attribute(enum.IntEnum):
    HOLD_UNTIL = 1
    DELIVER_BY = 2
    PRIORITY = 3
    TENANT = 4
    CAMPAIGN = 5
    ROUTE = 6
    POOL = 7
    IDENTITY = 8
    SOLICIT = 9


class Status(enum.IntEnum):
    WAITING = 0
    DELIVERED = 1
    FAILED = 2
    EXPIRED = 3


class Chunk(msgspec.Struct, frozen=True):
    segment_serial: int
    offset: int
    length: int


class Recipient(msgspec.Struct, frozen=True):
    forward_path: bytes
    orcpt: bytes = b""
    notify: int = 0
    domain_offset: int = 0


class RecipientState(msgspec.Struct, frozen=True):
    status: Status = Status.WAITING
    attempts: int = 0
    next_attempt_utc_s: int = 0
    reply_code: int = 0
    enhanced: tuple[int, int, int] = (0, 0, 0)
    reply_text: bytes = b""
    remote_host: bytes = b""
    flags: int = 0


cdef spool_span span_of(bytes text) noexcept:
    cdef spool_span span
    span.data = <const uint8_t *>PyBytes_AS_STRING(text)
    span.length = <uint32_t>PyBytes_GET_SIZE(text)
    return span


cdef bytes text_of(spool_span span):
    return PyBytes_FromStringAndSize(<const char *>span.data, span.length)


cdef int check(int error) except -1:
    if error != 0:
        raise MemoryError() if error == -12 else ValueError(f"refused: {os.strerror(-error)}")
    return 0


class Envelope(msgspec.Struct, frozen=True):
    id: int
    received_utc_ms: int
    message_octets: int
    flags: Flag
    reverse_path: bytes
    envid: bytes
    helo: bytes
    client_address: bytes
    listener: bytes
    recipients: tuple[Recipient, ...]
    chunks: tuple[Chunk, ...]
    attributes: tuple[tuple[int, bytes], ...] = ()

    @staticmethod
    def parse(data):
        cdef spool_envelope view
        cdef spool_recipient recipient
        cdef spool_attribute attribute
        cdef spool_chunk chunk
        cdef const uint8_t *cursor
        cdef bytes held = bytes(data)
        if spool_envelope_open(<const uint8_t *>PyBytes_AS_STRING(held), PyBytes_GET_SIZE(held), &view) != 0:
            raise SpoolCorrupt("these octets are no envelope")
        recipients = []
        cursor = view.recipients
        while spool_envelope_next_recipient(&view, &cursor, &recipient):
            recipients.append(Recipient(text_of(recipient.forward_path), text_of(recipient.orcpt), recipient.notify,
                                        recipient.domain_offset))
        attributes = []
        cursor = view.end
        while spool_envelope_next_attribute(&view, &cursor, &attribute):
            attributes.append((attribute.key, text_of(attribute.text)))
        chunks = []
        for i in range(view.chunk_count):
            chunk = spool_envelope_chunk(&view, i)
            chunks.append(Chunk(chunk.segment_serial, chunk.offset, chunk.length))
        return Envelope(view.id, view.received_utc_ms, view.message_octets, Flag(view.flags), text_of(view.reverse_path),
                        text_of(view.envid), text_of(view.helo), text_of(view.client_address), text_of(view.listener),
                        tuple(recipients), tuple(chunks), tuple(attributes))

    def build(self):
        cdef octets *data = octets_new(512)
        cdef spool_chunk *chunks = NULL
        cdef uint32_t count = 0
        cdef bint is_inline = Flag.INLINE in self.flags
        if data == NULL:
            raise MemoryError()
        try:
            chunks = <spool_chunk *>calloc(len(self.chunks) + 1, sizeof(spool_chunk))
            if chunks == NULL:
                raise MemoryError()
            check(spool_envelope_begin(&data, span_of(self.reverse_path), span_of(self.envid), span_of(self.helo),
                                       span_of(self.client_address), span_of(self.listener)))
            for recipient in self.recipients:
                check(spool_envelope_add_recipient(&data, span_of(recipient.forward_path), recipient.domain_offset,
                                                   span_of(recipient.orcpt), recipient.notify))
            for key, text in self.attributes:
                check(spool_envelope_add_attribute(&data, key, span_of(text)))
            if not is_inline:
                for chunk in self.chunks:
                    chunks[count].segment_serial = chunk.segment_serial
                    chunks[count].offset = chunk.offset
                    chunks[count].length = chunk.length
                    count += 1
            check(spool_envelope_finish(&data, self.id, self.received_utc_ms, self.flags, self.message_octets,
                                        NULL if is_inline else chunks, count))
            return PyBytes_FromStringAndSize(<char *>data.data, data.length)
        finally:
            free(chunks)
            octets_unref(data)


def build_state(recipients):
    cdef octets *data = octets_new(64)
    cdef spool_recipient_state entry
    if data == NULL:
        raise MemoryError()
    try:
        check(spool_state_begin(&data))
        for recipient in recipients:
            memset(&entry, 0, sizeof(entry))
            entry.status = recipient.status
            entry.flags = recipient.flags
            entry.attempts = recipient.attempts
            entry.next_attempt_utc_s = recipient.next_attempt_utc_s
            entry.reply_code = recipient.reply_code
            entry.enhanced_class, entry.enhanced_subject, entry.enhanced_detail = recipient.enhanced
            entry.reply_text = span_of(recipient.reply_text)
            entry.remote_host = span_of(recipient.remote_host)
            check(spool_state_append(&data, &entry))
        return PyBytes_FromStringAndSize(<char *>data.data, data.length)
    finally:
        octets_unref(data)


def parse_state(data):
    cdef spool_state view
    cdef spool_recipient_state entry
    cdef const uint8_t *cursor
    cdef bytes held = bytes(data)
    if spool_state_open(<const uint8_t *>PyBytes_AS_STRING(held), PyBytes_GET_SIZE(held), &view) != 0:
        raise SpoolCorrupt("these octets are no recipient state")
    recipients = []
    cursor = view.entries
    while spool_state_next(&view, &cursor, &entry):
        recipients.append(RecipientState(
            Status(entry.status), entry.attempts, entry.next_attempt_utc_s, entry.reply_code,
            (entry.enhanced_class, entry.enhanced_subject, entry.enhanced_detail), text_of(entry.reply_text),
            text_of(entry.remote_host), entry.flags))
    return tuple(recipients)


def encode_id(uint64_t message_id):
    cdef char[13] text
    spool_id_encode(message_id, text)
    return PyBytes_FromStringAndSize(text, 13).decode("ascii")


def decode_id(str text):
    cdef uint64_t message_id
    cdef bytes held = text.encode("utf-8", "replace")
    if not spool_id_decode(PyBytes_AS_STRING(held), PyBytes_GET_SIZE(held), &message_id):
        raise ValueError(f"{text!r} is no queue id")
    return message_id
