# Ids of refusals: what stands in the log, may stand in the reply, and finds the one in the other.
#
# 40 bits as eight digits and letters (Crockford's base 32, as queue ids). Each worker counts from a random start, so that
# neither a restart nor another worker gives out the same again, and nobody outside learns how many there were.
import os

cimport cython
from libc.stdint cimport uint64_t

cdef enum:
    ID_BITS = 40


@cython.final
cdef class RefusalIds:
    def __cinit__(self):
        self.last = int.from_bytes(os.urandom(5), "little")

    cdef uint64_t take(self) noexcept:
        self.last = (self.last + 1) & ((<uint64_t>1 << ID_BITS) - 1)
        if self.last == 0:
            self.last = 1
        return self.last


cdef void refusal_id_encode(uint64_t refusal_id, char *text) noexcept:
    cdef int i
    for i in range(REFUSAL_ID_OCTETS - 1, -1, -1):
        text[i] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[refusal_id & 31]
        refusal_id >>= 5
