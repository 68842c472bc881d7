from libc.stdint cimport uint64_t


cdef enum:
    REFUSAL_ID_OCTETS = 8

cdef class RefusalIds:
    """Gives out ids of refusals: 40 bits, counted on from a random start; never 0."""
    cdef uint64_t last

    cdef uint64_t take(self) noexcept


cdef void refusal_id_encode(uint64_t refusal_id, char *text) noexcept   # REFUSAL_ID_OCTETS characters
