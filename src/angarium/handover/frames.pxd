"""What workers say to each other about references, octet by octet. See frames.pyx for the layout."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum frame_kind:
    # the owner's
    FRAME_HELLO = 1
    FRAME_OPEN
    FRAME_REFERENCE
    FRAME_WITHDRAW
    FRAME_CLOSE
    # the home worker's
    FRAME_DELIVERED = 16
    FRAME_REFUSED
    FRAME_OVER
    FRAME_SOURCE_DOWN
    FRAME_NOT_HERE

cdef enum:
    FRAME_OCTETS_MAX = 1 << 20          # kind and fields; a reference to a body of a gigabyte has some 16 KiB
    FRAME_HEAD = 4
    HELLO_MAGIC = 0x48474e41            # "ANGH"
    HELLO_VERSION = 1
    REFERENCES_MAX = 1024               # out on one link at a time
    WINDOW = 32                         # of them of one ready queue: enough to keep a connection busy, and few to come back
    WINDOW_LEAST = 2                    # while half of REFERENCES_MAX are out: one under way, and one for when it is over
    CHANNELS_MAX = 1 << 20
    RECIPIENTS_MAX = 1000               # of one reference
    NO_SEGMENT = 0xffff
    SEGMENT_OCTETS_MAX = 1 << 30        # of the spool's format
    DELIVERED_HAS_DSN = 1               # flags of DELIVERED
    DELIVERED_IS_TRACED = 2


cdef struct frame_reader:               # over the fields of one frame, which belong to who read it
    const uint8_t *at
    const uint8_t *end
    bint is_short                       # something was asked for that is not there; what was given then is 0


cdef inline const uint8_t *read_octets(frame_reader *self, size_t length) noexcept:
    """NULL when there are fewer."""
    cdef const uint8_t *found = self.at
    if <size_t>(self.end - self.at) < length:
        self.is_short = True
        self.at = self.end
        return NULL
    self.at += length
    return found


cdef inline uint64_t read_number(frame_reader *self, int octets_count) noexcept:
    """Little-endian."""
    cdef const uint8_t *found = read_octets(self, <size_t>octets_count)
    cdef uint64_t value = 0
    cdef int i
    if found != NULL:
        for i in range(octets_count - 1, -1, -1):
            value = value << 8 | found[i]
    return value


cdef inline uint8_t read8(frame_reader *self) noexcept:
    return <uint8_t>read_number(self, 1)


cdef inline uint16_t read16(frame_reader *self) noexcept:
    return <uint16_t>read_number(self, 2)


cdef inline uint32_t read32(frame_reader *self) noexcept:
    return <uint32_t>read_number(self, 4)


cdef inline uint64_t read64(frame_reader *self) noexcept:
    return read_number(self, 8)


cdef bytes read_text(frame_reader *self)        # behind its length, 2 octets
cdef bytes read_rest(frame_reader *self)


cdef class FrameWriter:
    """Frames that wait to be sent, one behind the other. Owns its memory."""
    cdef uint8_t *data
    cdef size_t length
    cdef size_t capacity
    cdef size_t begun_at                        # of the frame that is being written

    cdef int begin(self, uint8_t kind) except -1
    cdef int number(self, uint64_t value, int octets_count) except -1
    cdef int octets(self, const uint8_t *data, size_t length) except -1
    cdef int text(self, const uint8_t *data, size_t length) except -1       # and its length; cut off at 65535
    cdef int end(self) except -1                # raises LocalProtocolError when it is too long, and forgets it
    cdef void forget(self) noexcept             # the frame that is being written
    cdef bytes take(self)                       # all that is whole
