# Frames between two workers, on a local stream socket. Numbers are little-endian; a text is its length (2) and its octets.
#
#   off size
#     0   4  length of what follows, 1 to FRAME_OCTETS_MAX
#     4   1  kind
#     5   .  fields; all of them, and nothing behind them
#
# The owner of messages says                         The home worker answers
#   HELLO      4 magic, 1 version, 1 worker            DELIVERED    4 slot, 4 generation, 4 place, 1 flags, 2 code, 8 elapsed_ms,
#   OPEN       4 channel, msgpack of Lodging                        texts: reply, remote, TLS version, cipher, policy, whose policy
#   REFERENCE  see put_reference() in outlet.pyx       REFUSED      4 slot, 4 generation, 4 place, 1 is_permanent, 8 elapsed_ms,
#   WITHDRAW   4 channel                                            msgpack of Trouble
#   CLOSE      4 channel                               OVER         4 slot, 4 generation
#                                                      SOURCE_DOWN  4 channel, 1 is_down (0: its ration of today is spent,
#                                                                   or it reaches no host of the site), msgpack of Trouble
#                                                      NOT_HERE     4 channel
#
# A channel stands for a ready queue, a slot for a reference that is out. Both are the owner's names; a generation tells what had the
# slot before from what has it now. What does not fit this ends the connection, and nothing else.
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from angarium.model.errors import LocalProtocolError

cdef enum:
    KEPT_OCTETS = 1 << 16       # of memory when nothing waits


cdef bytes read_text(frame_reader *self):
    cdef size_t length = read16(self)
    cdef const uint8_t *found = read_octets(self, length)
    return b"" if found == NULL else PyBytes_FromStringAndSize(<const char *>found, <Py_ssize_t>length)


cdef bytes read_rest(frame_reader *self):
    cdef size_t length = <size_t>(self.end - self.at)
    return PyBytes_FromStringAndSize(<const char *>read_octets(self, length), <Py_ssize_t>length)


@cython.final
cdef class FrameWriter:
    def __dealloc__(self):
        free(self.data)

    cdef int octets(self, const uint8_t *data, size_t length) except -1:
        cdef size_t wanted = self.length + length
        cdef uint8_t *grown
        if wanted > self.capacity:
            wanted = max(wanted, 2 * self.capacity, <size_t>1024)
            grown = <uint8_t *>realloc(self.data, wanted)
            if grown == NULL:
                raise MemoryError()
            self.data = grown
            self.capacity = wanted
        if length:
            memcpy(self.data + self.length, data, length)
            self.length += length
        return 0

    cdef int number(self, uint64_t value, int octets_count) except -1:
        cdef uint8_t[8] coded
        cdef int i
        for i in range(octets_count):
            coded[i] = <uint8_t>(value >> 8 * i & 0xff)
        return self.octets(coded, <size_t>octets_count)

    cdef int text(self, const uint8_t *data, size_t length) except -1:
        length = min(length, <size_t>0xffff)
        self.number(length, 2)
        return self.octets(data, length)

    cdef int begin(self, uint8_t kind) except -1:
        self.forget()                       # one that was left half-way: a frame begins behind the last whole one
        self.number(0, FRAME_HEAD)
        return self.number(kind, 1)

    cdef int end(self) except -1:
        cdef size_t length = self.length - self.begun_at - FRAME_HEAD
        cdef int i
        if length > FRAME_OCTETS_MAX:
            self.forget()
            raise LocalProtocolError(f"a frame of {length} octets is too long to be handed over")
        for i in range(FRAME_HEAD):
            self.data[self.begun_at + i] = <uint8_t>(length >> 8 * i & 0xff)
        self.begun_at = self.length
        return 0

    cdef void forget(self) noexcept:
        self.length = self.begun_at

    cdef bytes take(self):
        cdef bytes taken = PyBytes_FromStringAndSize(<char *>self.data, <Py_ssize_t>self.begun_at)
        self.length = self.begun_at = 0
        if self.capacity > KEPT_OCTETS:
            free(self.data)
            self.data = NULL
            self.capacity = 0
        return taken
