"""A connection between two workers."""
from libc.stdint cimport uint8_t
from angarium.handover.frames cimport FrameWriter, frame_reader


cdef class Link:
    """Frames in and out of a stream socket; a BufferedProtocol. Both sides are subclasses."""
    cdef readonly object loop
    cdef object journal
    cdef object transport               # None: not yet, or no more
    cdef FrameWriter out
    cdef bint is_flush_due
    cdef readonly bint is_closed
    cdef object buffer                  # bytearray
    cdef size_t held                    # octets in it

    cdef void sent(self) noexcept                       # something was written to `out`: it leaves at the end of this turn
    cdef void close(self) noexcept                      # what was written goes out; on_end() is called in a later turn
    cdef void drop(self) noexcept                       # the same, whatever of it goes out: the peer may not read
    cdef int fail(self, str reason) except -1           # the peer, or we, did wrong: the connection ends, and that is told
    cdef int fail_later(self, object error) noexcept    # the same for who must not be called back now

    # For subclasses. on_frame: raises RemoteProtocolError.
    cdef int on_frame(self, uint8_t kind, frame_reader *fields) except -1
    cdef int on_end(self) except -1                     # once
    cdef str peer(self)

    cdef int cut(self) except -1
    cdef int resize(self, size_t octets_count) except -1
    cdef int ended(self) except -1
