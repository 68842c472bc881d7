# Writers of a spool shard as C callbacks, for measuring it: each submits its next message when the one before is durable, and the
# message is settled at once. No Python object per message. What it is not: part of a relay.
cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from angarium.model.clock cimport utc_ms
from angarium.model.octets cimport octets, octets_new, octets_ref, octets_unref
from angarium.spool.cspool cimport (
    SPOOL_ENVELOPE, spool_envelope_add_recipient, spool_envelope_begin, spool_envelope_finish, spool_op, spool_span)
from angarium.spool.shard cimport Shard

from angarium.model.errors import SpoolError


cdef struct writer:
    spool_op op
    void *load


cdef spool_span span(const char *text, uint32_t length) noexcept:
    cdef spool_span result
    result.data = <const unsigned char *>text
    result.length = length
    return result


cdef void written(spool_op *op, void *context) noexcept:
    cdef writer *self = <writer *>context
    (<SpoolLoad>self.load).written(self)


@cython.final
cdef class SpoolLoad:
    """`writers` of messages of `message_octets` octets; `messages` counts what is durable."""
    cdef Shard shard
    cdef octets *body
    cdef writer *writers
    cdef readonly uint32_t count, under_way
    cdef readonly uint64_t messages
    cdef readonly int error
    cdef bint is_over

    def __cinit__(self, Shard shard not None, uint32_t writers, uint32_t message_octets):
        self.shard = shard
        self.count = writers
        self.body = octets_new(message_octets)
        self.writers = <writer *>calloc(writers, sizeof(writer))
        if self.body == NULL or self.writers == NULL:
            raise MemoryError()
        memset(self.body.data, c'x', message_octets)
        self.body.length = message_octets

    def __dealloc__(self):
        octets_unref(self.body)
        free(self.writers)

    def start(self):
        cdef uint32_t i
        self.shard.expect(self.count)
        for i in range(self.count):
            self.writers[i].load = <void *>self
            self.submit(&self.writers[i])

    def stop(self):
        """Nothing more is submitted; wait until `under_way` is 0."""
        self.is_over = True

    cdef int submit(self, writer *one) except -1:
        cdef octets *envelope = octets_new(256)
        cdef uint64_t id = self.shard.next_id()
        cdef int error
        if envelope == NULL:
            raise MemoryError()
        error = spool_envelope_begin(&envelope, span("from@source.example", 19), span("", 0), span("source.example", 14),
                                     span("127.0.0.1", 9), span("127.0.0.1:25", 12))
        if error == 0:
            error = spool_envelope_add_recipient(&envelope, span("to@sink.example", 15), 3, span("", 0), 0)
        if error == 0:
            error = spool_envelope_finish(&envelope, id, utc_ms(), 0, self.body.length, NULL, 0)
        if error != 0:
            octets_unref(envelope)
            raise SpoolError("envelope refused")
        memset(&one.op, 0, sizeof(spool_op))
        one.op.kind = SPOOL_ENVELOPE
        one.op.id = id
        one.op.payload = envelope
        one.op.body = octets_ref(self.body)
        one.op.done = written
        one.op.context = one
        self.under_way += 1
        self.shard.submit(&one.op)
        return 0

    cdef int written(self, writer *one) noexcept:
        self.under_way -= 1
        octets_unref(one.op.payload)
        octets_unref(one.op.body)
        if one.op.error != 0:
            self.error = one.op.error
            return 0
        self.messages += 1
        self.shard.free(one.op.id, one.op.place.segment, NULL, <uint64_t>one.op.place.length + one.op.body_place.length)
        if self.is_over:
            return 0
        try:
            self.submit(one)
        except Exception:
            self.error = 12
        return 0
