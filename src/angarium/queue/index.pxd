from libc.stdint cimport uint64_t
from angarium.queue.message cimport message
from angarium.queue.pointer_set cimport pointer_set


cdef class MessageIndex:
    """All messages of a worker by id: 10 to 12.5 octets each (csrc/queue/pointer_set.h)."""
    cdef pointer_set set

    cdef int add(self, message *m) except -1
    cdef message *find(self, uint64_t id) noexcept
    cdef void remove(self, message *m) noexcept
    # The message at or behind *cursor (0: the first), which moves behind it; NULL: end. The upper 32 bits are the part's number.
    cdef message *next_from(self, uint64_t *cursor) noexcept
