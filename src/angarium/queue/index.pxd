from libc.stdint cimport uint64_t
from angarium.queue.message cimport message


cdef class MessageIndex:
    """All messages of a worker by id: open addressing, 8 octets a slot, at most two thirds full."""
    cdef message **slots
    cdef readonly uint64_t capacity     # a power of two
    cdef readonly uint64_t count

    cdef int add(self, message *m) except -1
    cdef message *find(self, uint64_t id) noexcept
    cdef void remove(self, message *m) noexcept
    cdef int grow(self) except -1
    cdef message *next_from(self, uint64_t *slot) noexcept     # the message at or behind *slot, which moves behind it; NULL: end
