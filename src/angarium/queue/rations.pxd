"""How many messages a source that is warmed up has sent to a provider today, over all workers."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef struct ration_slot:
    uint64_t key                        # 0: free
    uint64_t state                      # day << 40 | count: one word, so that a new day and its first message are one change


cdef class Rations:
    """Owns the mapping; one per daemon, made before the fork."""
    cdef ration_slot *slots
    cdef object clock                   # None: the machine's

    cdef uint32_t today(self) noexcept


cdef class Ration:
    """One source and provider. `schedule`: messages on each day from `first_day` on; behind its end the source is warm."""
    cdef Rations rations
    cdef ration_slot *slot              # NULL: the table is full, nothing is limited
    cdef readonly str name
    cdef readonly uint32_t first_day    # since 1970
    cdef readonly tuple schedule
    cdef uint32_t known_day             # that `limit` is of
    cdef int64_t limit                  # -1: none

    cdef void look_at_day(self, uint32_t day) noexcept
    cdef uint32_t take(self) noexcept   # one message: the day that it counts for; 0: it may not go
    cdef void give(self, uint32_t day) noexcept     # what was taken for that day has not gone; when it is over it makes no difference
    cdef bint spent(self) noexcept
