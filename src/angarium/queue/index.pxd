from libc.stdint cimport uint64_t
from angarium.queue.message cimport message

cdef enum:
    INDEX_TABLES = 256

cdef struct index_table:
    message **slots
    uint64_t capacity                   # a power of two
    uint64_t count


cdef class MessageIndex:
    """All messages of a worker by id: open addressing, 8 octets a slot, at most three quarters full."""
    cdef index_table tables[INDEX_TABLES]
    cdef readonly uint64_t count

    cdef index_table *table(self, uint64_t id) noexcept
    cdef int add(self, message *m) except -1
    cdef message *find(self, uint64_t id) noexcept
    cdef void remove(self, message *m) noexcept
    cdef int grow(self, index_table *table) except -1
    # The message at or behind *cursor (0: the first), which moves behind it; NULL: end.
    cdef message *next_from(self, uint64_t *cursor) noexcept
