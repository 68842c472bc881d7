"""Who waits behind a ready queue that is full (max_ready)."""
from libc.stdint cimport uint32_t, uint64_t
from angarium.queue.message cimport recipient, transaction
from angarium.queue.order cimport Order


cdef class Overflow:
    """Borrows recipients, as the ready queue does. They count as deferred in their messages: nobody is about to try them."""
    cdef Order order
    cdef readonly uint64_t count
    cdef transaction taken              # by take(); its recipients are in no list

    cdef void add(self, recipient *r) noexcept              # r is in no list
    cdef void remove(self, recipient *r) noexcept
    # The recipients of the message whose turn it is, at most `limit`, into `taken`, whose message is not held. False: nobody waits.
    cdef bint take(self, uint32_t limit) noexcept
