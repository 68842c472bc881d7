from angarium.model.octets cimport octets
from angarium.queue.message cimport message, recipient
from angarium.queue.steering cimport Steering
from angarium.queue.terms cimport message_terms
from angarium.spool.cspool cimport spool_op
from angarium.spool.shard cimport Shard


cdef class Scheduler(Steering):
    cdef readonly object options
    cdef public object suppressed       # callable(tenant, forward_path): why it must not be tried, or None; or None
    cdef public object verp             # callable(id, reverse_path, forward_path, tenant): another reverse-path, or None; or None
    cdef readonly str hostname

    # Takes over a message whose ENVELOPE op has just been committed with error 0. Takes its own references to
    # op.payload and op.body.
    cdef int admit(self, Shard shard, spool_op *op) except -1
    cdef void admit_recipient(self, message *m, recipient *r) noexcept
    cdef int suppress(self, message *m, octets *envelope) except -1
    cdef void expanded(self, message *m, recipient *r) noexcept
    cdef void admit_on_terms(self, message *m, octets *envelope) noexcept
    cdef void watch_deadline(self, message *m, const message_terms *terms) noexcept
