"""Which worker serves a ready queue."""
from libc.stdint cimport uint64_t
from angarium.handover.outlet cimport HandOver
from angarium.queue.ready cimport Appointer, Egress, ReadyQueue
from angarium.queue.scheduler cimport Scheduler


cdef class Homes(Appointer):
    cdef Scheduler scheduler
    cdef HandOver handover
    cdef readonly int number            # of this worker
    cdef uint64_t count                 # of all
    cdef dict limited                   # number of ready queue -> ReadyQueue, of those that have a home
    cdef uint64_t living                # workers, as the homes were chosen by
    cdef list to_place                  # of `limited`, since other workers live
    cdef object timer

    cdef str scope_of(self, ReadyQueue ready)
    cdef bint is_over_sites(self, ReadyQueue ready) except -1   # its tenant has one count for all of them
    cdef int place(self, ReadyQueue ready, Egress usual, int home) except -1
    cdef int home_now(self, str scope) except? -1
