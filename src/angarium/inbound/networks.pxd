from libc.stdint cimport uint8_t


cdef struct network:
    uint8_t address[16]             # IPv4 as ::ffff:a.b.c.d
    uint8_t bits


cdef class NetworkList:
    """Networks of the configuration, as clients are compared with them."""
    cdef network *networks
    cdef size_t count

    cdef bint has(self, const uint8_t *address) noexcept    # 16 octets, IPv4 mapped
