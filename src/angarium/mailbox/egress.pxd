# The Egress of Maildirs: recipients from a ready queue into files, in a few worker threads.
from libc.stdint cimport uint32_t, uint64_t
from angarium.queue.message cimport transaction
from angarium.queue.ready cimport Egress, ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.spool.cspool cimport spool_envelope, spool_read_op


cdef class MaildirEgress(Egress):
    cdef Scheduler scheduler
    cdef object loop
    cdef object executor                # concurrent.futures.ThreadPoolExecutor
    cdef object due                     # ReadyQueues with work, each once (dict as an ordered set)
    cdef bint is_due
    cdef readonly uint32_t in_hand      # messages being delivered
    cdef bint is_draining
    cdef object drained                 # asyncio.Future while draining

    cdef void hand_out(self) noexcept
    cdef void ended(self, MessageDelivery delivery) noexcept


cdef class MessageDelivery:
    cdef MaildirEgress egress
    cdef Scheduler scheduler
    cdef ReadyQueue ready
    cdef transaction t
    cdef spool_envelope envelope
    cdef spool_read_op op
    cdef uint64_t started_ms
    cdef uint32_t chunk
    cdef uint64_t octets_left
    cdef list recipients                # indices into t.recipients, of those that are being delivered to
    cdef list forward_paths
    cdef list deliveries                # mailbox.maildir.MaildirDelivery, one for each of them
    cdef list results

    cdef int begin(self) except -1
    cdef int read_chunk(self) except -1
    cdef int drop_loops(self, bytes message_start) except -1
    cdef int work(self, object then, object function, tuple arguments) except -1
    cdef int told(self, list results) except -1
    cdef int fail_rest(self, object trouble) except -1
    cdef void chunk_arrived(self) noexcept
    cdef int over(self) except -1
    cdef int damaged(self, int error) except -1
