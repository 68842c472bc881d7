"""Handing messages over to the home worker of their site: the owner's side."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.handover.frames cimport frame_reader
from angarium.handover.link cimport Link
from angarium.queue.message cimport transaction
from angarium.queue.ready cimport Egress, ReadyQueue
from angarium.queue.scheduler cimport Scheduler

cdef enum slot_state:
    SLOT_FREE = 0
    SLOT_FETCHING                       # the envelope is being read back: outcomes are logged and told with it
    SLOT_OUT

cdef struct slot:                       # a reference that is out
    transaction t                       # a recipient that was told of is NULL in it
    void *outlet                        # Outlet, a counted reference
    uint32_t generation
    uint32_t count                      # recipients handed over
    uint32_t told
    uint64_t begun_ms                   # mono
    uint64_t elapsed_ms                 # of its attempts, the longest
    uint32_t turn                       # Outlet.turn when it went out
    uint8_t state


cdef class Room:
    """How many references of a ready queue may be out. What is out is in line at the home, and nothing goes before it: of a site that
    takes 150 ms for a message WINDOW of them would keep one that must not wait waiting for five seconds."""
    cdef readonly uint32_t count
    cdef uint64_t lessened_ms           # mono

    cpdef void waited(self, uint64_t begun_ms, uint64_t elapsed_ms, uint64_t now_ms) noexcept


cdef class Outlet:
    """One ready queue on its way to its home worker. ReadyQueue.state while HandOver is its egress."""
    cdef HandOver handover
    cdef readonly ReadyQueue ready
    cdef readonly int worker            # the home
    cdef OwnerLink link                 # on which it is known; None: on none
    cdef uint32_t channel
    cdef object site                    # as it was told last
    cdef object source
    cdef object planned_by
    cdef uint32_t generation            # of the configuration that its queue was gone through for last
    cdef readonly uint32_t out          # references
    cdef Room room
    cdef uint32_t turn                  # references that went out in an earlier one are routed anew when they come back
    cdef double paused_until_s          # mono
    cdef double called_back_until_s     # mono
    cdef bint is_due
    cdef bint is_waiting                # in HandOver's line for a free slot
    cdef bint is_retired                # another egress serves the queue: what comes back goes there

    cdef void wake(self) noexcept
    cdef void recall(self) noexcept     # what has not begun comes back, and is routed anew
    cdef void call_back(self) noexcept  # and nothing follows for CALLED_BACK_S
    cdef void retire(self) noexcept
    cdef int leave_link(self) except -1
    cdef int tell_of_itself(self, OwnerLink link) except -1


cdef class OwnerLink(Link):
    cdef HandOver handover
    cdef readonly int worker
    cdef slot *slots                    # REFERENCES_MAX
    cdef uint32_t *free_slots           # a stack of their numbers
    cdef uint32_t free_count
    cdef dict outlets                   # channel -> Outlet
    cdef uint32_t last_channel
    cdef object waiting                 # deque of Outlet, for a free slot

    cdef slot *reserve(self) noexcept
    cdef void free_slot(self, slot *s) noexcept
    cdef uint32_t window(self) noexcept
    cdef void wake_waiting(self) noexcept
    cdef int begin(self, slot *s) except -1
    cdef int send(self, slot *s) except -1
    cdef int put_reference(self, slot *s) except -1
    cdef slot *named(self, frame_reader *fields) except NULL
    cdef int on_delivered(self, frame_reader *fields) except -1
    cdef int on_refused(self, frame_reader *fields) except -1
    cdef int finish(self, slot *s) except -1
    cdef int cannot_go(self, slot *s, object error) except -1


cdef class HandOver(Egress):
    """The egress of ready queues that another worker serves."""
    cdef Scheduler scheduler
    cdef object loop
    cdef object connect                 # callable(worker): a connected, non-blocking socket; raises OSError
    cdef readonly int number            # of this worker
    cdef readonly str configuration     # what is planned by now, see work_by()
    cdef object on_source_down          # callable(Source, Trouble): the home cannot use it at all; or None
    cdef dict links                     # worker -> OwnerLink
    cdef dict dials                     # worker -> task
    cdef dict failures                  # worker -> dials that failed in a row
    cdef dict dial_after_s              # worker -> mono; after a dial that failed
    cdef set all_outlets
    cdef bint is_draining
    cdef readonly uint32_t first_room

    cdef OwnerLink link_to(self, int worker)
    cdef void planned_anew(self, ReadyQueue ready) noexcept     # its limits, or routes, are others now
