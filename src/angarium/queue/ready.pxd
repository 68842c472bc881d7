from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.queue.ledger cimport Ledger
from angarium.queue.message cimport recipient, transaction
from angarium.queue.shares cimport Share
from angarium.queue.wheel cimport wheel_node

cdef enum tls_wish:                     # what a message itself says about TLS (RFC 8689): model.plan.TlsWish
    WISH_NONE = 0
    WISH_REQUIRED                       # MAIL ... REQUIRETLS
    WISH_OPTIONAL                       # TLS-Required: No


cdef class Egress:
    """Whoever takes recipients out of a ready queue: subclassed in outbound/ (SMTP, LMTP) and mailbox/ (Maildir)."""
    cdef void wake(self, ReadyQueue ready) noexcept     # there is work, or the ready queue may go on after a pause
    cdef bint forget(self, ReadyQueue ready) noexcept   # the queue is empty and goes: give up `state`; False: not yet


cdef enum:
    PRIORITY_LEAST = -9
    PRIORITY_LEVELS = 19

cdef struct ready_levels:               # who has a priority other than 0
    uint32_t waiting                    # bit i: lists[i] is not empty
    wheel_node lists[PRIORITY_LEVELS]   # by priority - PRIORITY_LEAST


cdef class ReadyQueue:
    """Recipients ready for one site by one egress source, which want the same of TLS: by falling priority, first in first out
    in each."""
    cdef wheel_node head                # list of recipient.link: priority 0
    cdef ready_levels *levels           # NULL until the first other priority comes
    cdef wheel_node resume              # in the wheel while paused or while another worker has all places
    cdef readonly uint64_t count
    cdef readonly uint32_t number       # recipient.link.due of who is in it
    cdef readonly object site           # model.plan.Site
    cdef readonly object source         # model.plan.Source
    cdef readonly uint8_t wish          # tls_wish of all who are in it
    cdef object key                     # in Planner.ready
    cdef readonly bytes site_name       # for the journal
    cdef readonly bytes source_name
    cdef public Egress egress
    cdef public object state            # egress's own per-queue state (pool)
    cdef readonly double paused_until_mono_s
    cdef double rate_until_mono_s       # end of the pause that the rate asked for last
    cdef readonly str last_trouble
    cdef Share share
    cdef Ledger ledger
    cdef uint64_t rate_interval_ns      # 0: no limit
    cdef uint32_t rate_burst
    cdef readonly uint32_t connection_limit
    cdef readonly uint32_t recipient_limit
    cdef readonly uint32_t messages_per_connection
    cdef bint is_deferring
    cdef bint is_waking

    cdef void push(self, recipient *r) noexcept
    cdef wheel_node *list_for(self, recipient *r) noexcept      # where r goes
    cdef recipient *first(self) noexcept                        # of a queue that is not empty
    cdef recipient *pop(self) noexcept
    cdef void leave_level(self, recipient *r) noexcept
    cdef void remove(self, recipient *r) noexcept                           # r is in this queue
    # The next message's recipients, of no more domains than that; False: empty or paused.
    cdef bint take(self, transaction *into, uint32_t limit, uint32_t domain_limit) noexcept
    cdef void give_back(self, transaction *from_) noexcept                 # untried: to the head of the queue, no attempt counted
    cpdef pause(self, double seconds)                                       # nothing is taken until then; wakes egress after it
    # Connections of the whole machine to the site (shared memory). may_connect() takes one of the site's places: give it
    # back with connection_closed(). When it says no, the egress is woken again by itself while there is work.
    cpdef bint may_connect(self)
    cpdef connection_closed(self)
    cpdef bint is_contended(self)       # another process wants places of this site: close idle connections now
    cpdef defer_all(self, object trouble)   # every recipient now in the queue: one failed attempt each (no host reachable)
    cpdef fail_all(self, object trouble)
    cdef void configure(self) noexcept
    cdef void await_rate(self, uint64_t wait_ns) noexcept


# The wheel's callback for ReadyQueue.resume.
cdef void ready_resumed(wheel_node *node, void *context) noexcept
