# A body in chunks, or too large to be held whole: read from the spool and sent chunk by chunk. At most two chunks are
# held: one in the transport's buffer, one read ahead.
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EBADMSG, EIO, ENOMEM
from libc.stdint cimport uint8_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from angarium.model.octets cimport octets, octets_unref
from angarium.outbound.carrier cimport Carrier, hand
from angarium.queue.fetch cimport count_unreadable
from angarium.queue.ledger cimport shard_of
from angarium.queue.message cimport body_place, chunk_count_of, message
from angarium.smtp.client_session cimport BODY_BY_DATA, ClientSession
from angarium.spool.cspool cimport (
    SPOOL_BODY, SPOOL_ENVELOPE_DOT_LINE, SPOOL_ENVELOPE_NO_FINAL_CRLF, spool_chunk, spool_envelope_chunk,
    spool_envelope_chunk_position, spool_read_op)

from angarium.outbound import trouble

ctypedef void (*read_done)(spool_read_op *, void *) noexcept nogil


cdef void chunk_arrived(spool_read_op *op, void *context) noexcept:
    cdef Carrier self = <Carrier>context
    stream_arrived(self)
    Py_DECREF(self)


cdef int stream_begin(Carrier self, int slot) except -1:
    cdef hand *h = &self.hands[slot]
    self.stream.is_active = True
    self.stream.slot = <uint8_t>slot
    self.stream.index = 0
    self.stream.count = h.envelope.chunk_count
    self.stream.octets_left = h.envelope.message_octets
    if self.stream.op == NULL:
        self.stream.op = <spool_read_op *>malloc(sizeof(spool_read_op))
        if self.stream.op == NULL:
            return stream_failed(self, ENOMEM)
    return stream_read(self)


cdef int stream_read(Carrier self) except -1:
    cdef hand *h = &self.hands[self.stream.slot]
    cdef message *m = h.t.message
    cdef spool_chunk chunk
    cdef spool_read_op *op = self.stream.op
    if self.stream.index >= self.stream.count:
        return stream_failed(self, EBADMSG)
    memset(op, 0, sizeof(spool_read_op))
    chunk = spool_envelope_chunk(h.envelope, self.stream.index)
    if self.stream.index < chunk_count_of(m):
        op.place.segment = m.where.chunks.segments[self.stream.index]
        op.place.offset = chunk.offset
        op.place.length = chunk.length
    else:
        op.place = body_place(m)
    op.wanted.kind = SPOOL_BODY
    op.wanted.id = m.id
    op.wanted.run_offset = spool_envelope_chunk_position(h.envelope, self.stream.index)
    if op.place.segment == NULL:
        return stream_failed(self, EIO)
    op.done = <read_done><void *>chunk_arrived     # called by reap(), with the GIL
    op.context = <void *>self
    Py_INCREF(self)
    self.stream.is_reading = True
    shard_of(self.scheduler, m).read(op)
    return 0


cdef void stream_arrived(Carrier self) noexcept:
    cdef int error = self.stream.op.error
    self.stream.is_reading = False
    self.stream.chunk = self.stream.op.out
    try:
        if self.is_closed:
            self.conclude()
            return
        if error:
            stream_failed(self, error)
            return
        self.stream.index += 1
        if not self.is_queued:
            stream_send(self)
            self.advance()
    except Exception as problem:
        try:
            self.broken_inside(problem)
        except Exception:
            pass                    # the journal itself failed: nobody is left to tell


cdef int stream_send(Carrier self) except -1:
    cdef ClientSession s = self.session
    cdef int slot = self.stream.slot
    cdef hand *h = &self.hands[slot]
    cdef octets *chunk = self.stream.chunk
    self.stream.chunk = NULL
    try:
        if chunk.length > self.stream.octets_left:
            return stream_failed(self, EBADMSG)
        self.stream.octets_left -= chunk.length
        s.tell_body(chunk.data, chunk.length)
        if s.slots[slot].by == BODY_BY_DATA and h.envelope.flags & SPOOL_ENVELOPE_DOT_LINE:
            s.body_stuffed(chunk.data, chunk.length)
        else:
            self.piece = chunk.data
            self.piece_length = chunk.length
            self.piece_at = s.out.length
        if self.stream.octets_left == 0:
            s.body_end(slot, not h.envelope.flags & SPOOL_ENVELOPE_NO_FINAL_CRLF)
            self.stream.is_active = False
        self.flush()
    finally:
        octets_unref(chunk)
    if self.is_closed:              # TLS failed: what was in hand has been given back
        return 0
    self.armed_reply_count -= 1     # progress: the deadline of the next block begins
    if self.stream.is_active:
        stream_read(self)
    return 0


cdef int stream_failed(Carrier self, int error) except -1:
    # Part of the message is out and the rest is not to be had: without "." nobody takes it for the whole.
    self.stream.has_failed = not self.is_closed
    count_unreadable()
    self.end(trouble.of_spool(error))
    return 0
