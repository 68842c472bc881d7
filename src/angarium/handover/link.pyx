# A connection between two workers: frames cut out of what is read, and those of one turn of the loop written together.
# What they mean: outlet.pyx (who hands over), reception.pyx (who takes in).
from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memmove

from angarium.handover.frames cimport FRAME_HEAD, FRAME_OCTETS_MAX, FrameWriter, frame_reader

from angarium.model.errors import RemoteProtocolError

cdef enum:
    BUFFER_OCTETS = 1 << 16     # grows for a longer frame


cdef class Link:
    def __cinit__(self, loop, journal, *others):
        self.loop = loop
        self.journal = journal
        self.out = FrameWriter()
        self.buffer = bytearray(BUFFER_OCTETS)

    # ---------------------------------------------------------------- what the transport calls

    def connection_made(self, transport):
        self.transport = transport
        self.sent()

    def get_buffer(self, Py_ssize_t hint):
        return memoryview(self.buffer)[self.held:]

    def buffer_updated(self, Py_ssize_t length):
        self.held += <size_t>length
        try:
            self.cut()
        except RemoteProtocolError as error:
            self.fail(str(error))
        except Exception as error:
            self.fail(f"internal error: {error!r}")

    def eof_received(self):
        return False

    def connection_lost(self, error):
        self.transport = None
        self.ended()

    def pause_writing(self):
        pass                            # what is under way is bounded by REFERENCES_MAX

    def resume_writing(self):
        pass

    # ---------------------------------------------------------------- in

    cdef int cut(self) except -1:
        cdef const uint8_t *data = <const uint8_t *>PyByteArray_AS_STRING(self.buffer)
        cdef size_t at = 0, length
        cdef frame_reader fields
        cdef uint8_t kind
        while not self.is_closed and self.held - at >= FRAME_HEAD:
            length = data[at] | <uint32_t>data[at + 1] << 8 | <uint32_t>data[at + 2] << 16 | <size_t>data[at + 3] << 24
            if length == 0 or length > FRAME_OCTETS_MAX:
                raise RemoteProtocolError(f"a frame of {length} octets")
            if self.held - at - FRAME_HEAD < length:
                break
            kind = data[at + FRAME_HEAD]
            fields.at = data + at + FRAME_HEAD + 1
            fields.end = data + at + FRAME_HEAD + length
            fields.is_short = False
            self.on_frame(kind, &fields)
            if fields.is_short or fields.at != fields.end:
                raise RemoteProtocolError(f"a frame of kind {kind} has too few or too many fields")
            at += FRAME_HEAD + length
        self.held -= at
        if at and self.held:
            memmove(<void *>data, data + at, self.held)
        if self.held >= FRAME_HEAD and not self.is_closed:
            length = data[0] | <uint32_t>data[1] << 8 | <uint32_t>data[2] << 16 | <size_t>data[3] << 24
            if 0 < length <= FRAME_OCTETS_MAX and FRAME_HEAD + length > <size_t>len(self.buffer):
                self.resize(FRAME_HEAD + length)
        elif self.held == 0 and len(self.buffer) > BUFFER_OCTETS:
            self.resize(BUFFER_OCTETS)
        return 0

    cdef int resize(self, size_t octets_count) except -1:
        """A new one: the transport still has a view of the old one."""
        cdef object grown = bytearray(octets_count)
        grown[:self.held] = memoryview(self.buffer)[:self.held]
        self.buffer = grown
        return 0

    # ---------------------------------------------------------------- out

    cdef void sent(self) noexcept:
        if self.is_flush_due or self.transport is None:
            return
        try:
            self.loop.call_soon(self.flush)
            self.is_flush_due = True
        except Exception:
            pass                        # the loop is closing

    def flush(self):
        self.is_flush_due = False
        if self.transport is not None and self.out.begun_at:
            self.transport.write(self.out.take())

    # ---------------------------------------------------------------- the end

    cdef void close(self) noexcept:
        try:
            if self.transport is not None and not self.is_closed:
                self.flush()
                self.transport.close()
            self.is_closed = True
        except Exception:
            self.is_closed = True

    cdef void drop(self) noexcept:
        self.is_closed = True
        try:
            if self.transport is not None:
                self.transport.abort()
        except Exception:
            pass                        # the loop is closing

    cdef int fail(self, str reason) except -1:
        if self.is_closed:
            return 0
        self.is_closed = True
        self.journal.log("handover-broken", peer=self.peer(), reason=reason)
        if self.transport is not None:
            self.transport.abort()
        return 0

    cdef int fail_later(self, object error) noexcept:
        try:
            self.loop.call_soon(self.failed, f"internal error: {error!r}")
        except Exception:
            pass                        # the loop is closing
        return 0

    def failed(self, reason):
        self.fail(reason)

    cdef int ended(self) except -1:
        self.is_closed = True
        return self.on_end()

    # ---------------------------------------------------------------- for subclasses

    cdef int on_frame(self, uint8_t kind, frame_reader *fields) except -1:
        return 0

    cdef int on_end(self) except -1:
        return 0

    cdef str peer(self):
        return ""
