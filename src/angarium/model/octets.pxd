# Mirrors csrc/octets/octets.h and nothing else.
from libc.stdint cimport uint8_t, uint32_t

cdef extern from "octets/octets.h" nogil:
    ctypedef struct octets:
        uint32_t references
        size_t length
        size_t capacity
        uint8_t *data

    octets *octets_new(size_t capacity)
    octets *octets_copy(const uint8_t *data, size_t length)
    octets *octets_ref(octets *self)
    void octets_unref(octets *self)
    int octets_reserve(octets **self, size_t more)
    int octets_append(octets **self, const uint8_t *data, size_t length)
    long octets_live_count()
