"""Taking in messages of other workers as the home worker of their site."""
from libc.stdint cimport uint8_t, uint32_t
from angarium.handover.frames cimport frame_reader
from angarium.handover.link cimport Link
from angarium.queue.guests cimport Answers, Lodger, guest
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.spool.foreign cimport ForeignShard


cdef class Desk(Answers):
    """Says what became of guests, on the link that they came by."""
    cdef HomeLink link

    cdef int name(self, uint8_t kind, guest *g) except -1


cdef class HomeLink(Link):
    cdef Reception reception
    cdef Desk desk
    cdef int worker                     # -1: it has not said which one it is
    cdef dict lodgers                   # channel -> Lodger
    cdef dict lodgings                  # channel -> Lodging, as it was told last
    cdef dict heeded                    # likewise, the one by which its ready queue was found
    cdef uint32_t guest_count
    cdef bint has_told_of_declining     # since it was last of one mind with us

    cdef int settle(self, uint32_t channel, Lodger lodger) except -1
    cdef int open_channel(self, frame_reader *fields) except -1
    cdef int take_in(self, frame_reader *fields) except -1
    cdef guest *read_guest(self, Lodger lodger, frame_reader *fields, uint32_t slot, uint32_t generation) except NULL
    cdef int read_segments(self, guest *g, ForeignShard shard, frame_reader *fields) except -1
    cdef int read_recipients(self, guest *g, Lodger lodger, frame_reader *fields) except -1
    cdef int decline(self, uint32_t channel, uint32_t slot, uint32_t generation) except -1
    cdef ReadyQueue queue_of(self, object lodging)


cdef class Reception:
    """Everybody who hands messages to this worker."""
    cdef Scheduler scheduler
    cdef object loop
    cdef object open_shard              # callable(number): a ForeignShard; raises SpoolError
    cdef dict shards                    # number -> ForeignShard
    cdef set links
    cdef bint is_draining
    cdef readonly str configuration     # who plans by another one is not served

    cdef ForeignShard shard_of(self, uint8_t number)
