from libc.stdint cimport uint8_t
from angarium.events.journal cimport Journal


cdef class Refusals:
    """The last refusals of a worker, as the log has them, and how many there were for each reason. Owns the ring."""
    cdef uint8_t *ring
    cdef size_t at                      # where the next line goes
    cdef bint is_full                   # the ring has been gone round
    cdef dict counters                  # word -> Counter; one for all words that are unknown

    cdef void count(self, bytes word) noexcept
    cdef void keep(self, Journal journal) noexcept
    cdef void put(self, const uint8_t *data, size_t length) noexcept
    cdef bytes text(self)
