from angarium.queue.message cimport recipient


cdef class Troubles:
    """One object for all recipients that have the same trouble: of a site that is down there may be a million."""
    cdef dict known                     # Trouble -> itself
    cdef list pruning

    cdef int note(self, recipient *r, object trouble) except -1

cdef object trouble_of(recipient *r)    # Trouble or None
cdef void forget_trouble(recipient *r) noexcept
