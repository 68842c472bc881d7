# The queue's inner interface; see ledger.pxd. No code of its own: the Scheduler overrides everything.
from libc.stdint cimport uint64_t

from angarium.model.octets cimport octets
from angarium.queue.message cimport message, recipient, transaction
from angarium.queue.shares cimport Share


cdef class Ledger:
    cdef Share hold_share(self, str name):
        return None

    cdef void drop_share(self, Share share) noexcept:
        pass

    cdef void settle(self, transaction *t) noexcept:
        pass

    cdef void hold(self, message *m) noexcept:
        pass

    cdef void release(self, message *m) noexcept:
        pass

    cdef void release_guest(self, message *m) noexcept:
        pass

    cdef void heat(self, message *m, octets *envelope, octets *body) noexcept:
        pass

    cdef void conclude_later(self, recipient *r, object ready, object trouble, bint is_permanent) noexcept:
        pass

    cdef void take_in(self, object ready, recipient *r) noexcept:
        pass

    cdef bint is_behind(self) noexcept:
        return False

    cdef int later(self, callback, trouble, bint is_permanent, uint64_t remaining) except -1:
        return 0

    cdef object hold_gate(self, str scope):
        return None

    cdef void drop_gate(self, object gate) noexcept:
        pass

    cdef object ration_of(self, object ready):
        return None

    cdef void ration_spent(self, object ready) noexcept:
        pass
