"""Who waits for a connection that a gate counts (passage.pyx)."""


cdef class DialLine:
    """Ready queues, each once: those that have no connection there before those that want one more, else as they came."""
    cdef object without                 # OrderedDict of ReadyQueue to None: leaves from the middle cost nothing
    cdef object others

    cdef bint is_empty(self) noexcept
    cdef bint is_before(self, bint has_some) noexcept           # somebody goes before who comes now
    cdef int stand(self, object ready, bint has_some, bint is_first) except -1
    cdef int leave(self, object ready) except -1
    cdef int lost_all(self, object ready) except -1             # of its connections: it stands behind others that have none
    cdef object foremost(self)                                  # or None
    cdef int turn(self) except -1                               # who wants one more and is first goes behind the others
