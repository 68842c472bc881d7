# The Egress of SMTP and LMTP: gives each ready queue its pool.
from angarium.queue.ready cimport Egress, ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.sockets.poll cimport Poll


cdef class Dispatcher(Egress):
    cdef Scheduler scheduler
    cdef readonly Poll poll             # of all sockets of the worker
    cdef readonly object options
    cdef readonly object dialer
    cdef readonly object sources        # outbound.source_watch.SourceWatch
    cdef int deadline_kind
    cdef set pools
    cdef bint is_draining
    cdef object drained                 # asyncio.Future while draining

    cdef int tell_if_drained(self) except -1
