# Is a client in one of these networks? Asked once per connection; lists are an operator's, so they are short.
cimport cython
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy


@cython.final
cdef class NetworkList:
    def __cinit__(self, networks):
        cdef size_t i
        cdef bytes packed
        self.networks = <network *>malloc(max(1, len(networks)) * sizeof(network))
        if self.networks == NULL:
            raise MemoryError
        for i, each in enumerate(networks):
            packed = each.network_address.packed
            self.networks[i].bits = each.prefixlen
            if each.version == 4:
                packed = bytes(10) + b"\xff\xff" + packed
                self.networks[i].bits += 96
            memcpy(self.networks[i].address, <const char *>packed, 16)
        self.count = len(networks)

    def __dealloc__(self):
        free(self.networks)

    cdef bint has(self, const uint8_t *address) noexcept:
        cdef size_t i
        cdef uint8_t whole, rest
        for i in range(self.count):
            whole = self.networks[i].bits >> 3
            rest = self.networks[i].bits & 7
            if memcmp(address, self.networks[i].address, whole) != 0:
                continue
            if rest == 0 or (address[whole] ^ self.networks[i].address[whole]) >> (8 - rest) == 0:
                return True
        return False
