from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.queue.guests cimport Guests
from angarium.queue.ledger cimport Ledger
from angarium.queue.message cimport domain_budget, recipient, transaction
from angarium.queue.order cimport Order
from angarium.queue.overflow cimport Overflow
from angarium.queue.rations cimport Ration
from angarium.queue.shares cimport Share, pace
from angarium.queue.way cimport Way
from angarium.queue.wheel cimport wheel_node

cdef enum tls_wish:                     # what a message itself says about TLS (RFC 8689): model.plan.TlsWish
    WISH_NONE = 0
    WISH_REQUIRED                       # MAIL ... REQUIRETLS
    WISH_OPTIONAL                       # TLS-Required: No


cdef class Egress:
    """Whoever takes recipients out of a ready queue: subclassed in outbound/ (SMTP, LMTP) and mailbox/ (Maildir)."""
    cdef void wake(self, ReadyQueue ready) noexcept     # there is work, or the ready queue may go on after a pause
    cdef void shrink(self, ReadyQueue ready) noexcept   # is_over: idle connections end now, busy ones ask
    cdef bint forget(self, ReadyQueue ready) noexcept   # the queue is empty and goes: give up `state`; False: not yet
    cdef void spare(self, object gate) noexcept         # close idle connections counted at the Gate: others wait for places
    # Another egress serves the queue from now on: `state` is given up, nothing new is begun, what is in hand ends.
    cdef void step_back(self, ReadyQueue ready) noexcept
    # What another worker has of the queue and has not begun comes back, and none of it goes there again for a moment.
    cdef void call_back(self, ReadyQueue ready) noexcept


cdef class Appointer:
    """Says which worker serves a ready queue, where not each may: handover/. There is none where there is one worker."""
    # `ready` is new, or its limits may have changed. `usual` serves it unless another worker is to.
    cdef int appoint(self, ReadyQueue ready, Egress usual) except -1
    cdef void forgotten(self, ReadyQueue ready) noexcept


cdef class Remark:
    """A trouble that attempts ended in (model.outcome.Trouble, field by field: one that is kept would count as some
    recipient's), with when that was last and how often in a row."""
    cdef uint32_t code
    cdef object status
    cdef object text
    cdef object remote
    cdef object phase
    cdef uint64_t utc_ms
    cdef uint64_t count


cdef class ReadyQueue:
    """Recipients ready for one site by one egress source, which want the same of TLS and are of one kind (shaping.py), in the
    order of csrc/queue/fair.h."""
    cdef Order order                    # who waits, and who goes next
    cdef wheel_node resume              # in the wheel while paused or while another worker has all places
    cdef readonly uint64_t count
    cdef readonly uint64_t most         # max_ready: who comes when so many of our own are there waits behind it
    cdef Overflow overflow              # who does, with the queue's number too; None: nobody ever did
    cdef bint is_draw_due
    cdef readonly uint32_t number       # recipient.link.due of who is in it
    cdef readonly object site           # model.plan.Site
    cdef readonly object source         # model.plan.Source
    cdef readonly Way way                        # past limits that hold besides; None: there are none
    cdef readonly Ration ration         # of the source towards the provider; None: not warmed up, or warm
    cdef readonly uint8_t wish          # tls_wish of all who are in it
    cdef object key                     # in Planner.ready
    cdef readonly bytes site_name       # for the journal
    cdef readonly bytes source_name
    cdef public Egress egress
    cdef public object state            # egress's own per-queue state (pool)
    cdef readonly double paused_until_mono_s
    cdef double rate_until_mono_s       # end of the pause that the rate asked for last
    cdef readonly str last_trouble
    cdef list replies                   # of Remark, the newest last: what was heard or met last; None: nothing yet
    cdef readonly uint64_t delivered_count
    cdef readonly uint64_t deferred_count       # attempts
    cdef readonly uint64_t failed_count         # and expired
    cdef uint64_t delivered_ms          # mono; when one was delivered last, 0: never
    cdef uint64_t seen_count            # for queue/top.pyx: outcomes when it looked last
    cdef uint64_t seen_deferred_count
    cdef double seen_mono_s             # when that was; 0: never
    cdef double recent                  # outcomes of the last minute, about
    cdef double recent_deferred
    cdef double recent_s                # and of how much of it
    cdef readonly object kind           # shaping.Kind, or None
    cdef readonly object apart          # adjustments.Apart: whose mail automation keeps here; None: nobody's
    cdef readonly object limits         # shaping.Limits in force
    cdef Share share                    # where connections are counted
    cdef uint32_t places                # of them, taken for this queue
    cdef uint32_t leaving               # of those: connections that are to end, for there are too many
    cdef bint is_over                   # there were, when it was configured, at its site or a gate: some are to end
    cdef Share dial_share               # where connections begun are counted
    cdef Share rate_share               # where messages are
    cdef Share tenant_share             # and the tenant's besides
    cdef Ledger ledger
    cdef bint is_paced                  # one of the two next has an interval
    cdef bint has_terms                 # take() has to look at more than who is next: rates, gates, a ration, guests
    cdef bint is_gated                  # one of its gates has a rate of messages
    cdef readonly Guests guests         # mail of other workers, whose home this one is; None: there is none
    cdef readonly int home              # the worker that serves this queue; -1: this one does
    cdef readonly uint32_t handed       # recipients that it has
    cdef bint is_gone                   # let_go() was called
    cdef uint64_t metered_ns            # the longest interval of all rates that hold, those of gates too; 0: there is none
    cdef pace rate
    cdef pace tenant_rate
    cdef pace dial_rate
    cdef bint is_dial_awaited
    cdef readonly uint32_t connection_limit
    cdef readonly uint32_t recipient_limit
    cdef readonly uint32_t messages_per_connection
    cdef bint avoids_pipelining
    cdef bint avoids_bdat
    cdef double retry_first_s           # of its own; 0: as for all mail
    cdef double retry_factor
    cdef double retry_max_s
    cdef double retry_jitter
    cdef bint is_deferring
    cdef uint32_t delivered_tally       # of attempts since Outcomes.take_tallies() asked last, while it counts them
    cdef uint32_t deferred_tally
    cdef uint32_t failed_tally
    cdef bint is_tallied
    cdef object place                   # notices.Place, made when it is asked for
    cdef bint is_waking

    cdef void remark(self, object trouble) noexcept             # an attempt ended in it, or nobody could be reached
    cdef void push(self, recipient *r) noexcept                             # behind the others, or behind the queue when it is full
    cdef bint has_company(self, recipient *r) noexcept
    cdef bint push_behind(self, recipient *r) noexcept
    cdef inline uint64_t own_count(self) noexcept:             # `count` without guests
        return self.count - (self.guests.waiting if self.guests is not None else 0)
    cdef bint own_may_go(self, const domain_budget *domains) noexcept
    cdef bytes domain_in_front(self)                            # of the recipient that goes next; b"": there is none
    cdef recipient *pop(self) noexcept
    cdef void remove(self, recipient *r) noexcept                           # r is in this queue, or behind it
    cdef uint64_t waits_behind(self) noexcept                               # recipients
    cdef void draw_later(self) noexcept                                     # there may be room for some of them
    # The next message's recipients, as many as the domains allow (NULL: of any); False: empty, paused, or a domain too many.
    cdef bint take(self, transaction *into, uint32_t limit, domain_budget *domains) noexcept
    # The same whatever rates, pauses and guests say: for who hands them to another worker, which asks for itself.
    cdef bint pick(self, transaction *into, uint32_t limit, domain_budget *domains) noexcept
    cdef bint take_rights(self, transaction *into) noexcept                 # what else one message asks for; False: it waits
    cdef void look_at_terms(self) noexcept
    cdef void receive_guests(self, Guests guests) noexcept                  # None: no more
    cdef void guests_came(self, uint32_t count) noexcept                    # recipients of guests wait, or do no more
    cdef void guests_left(self, uint32_t count) noexcept
    cdef bint is_beyond(self, const domain_budget *domains) noexcept        # its next recipient is of a domain too many
    cdef void give_back_guest(self, transaction *from_) noexcept
    cdef void give_back(self, transaction *from_) noexcept                 # untried: to the head of the queue, no attempt counted
    cdef void give_pace(self, const transaction *of_) noexcept             # the peer has not looked at it: it may count for another
    cpdef pause(self, double seconds)                                       # nothing is taken until then; wakes egress after it
    # Connections of the whole machine to the site (shared memory). may_connect() takes one of the site's places: give it
    # back with connection_closed(). When it says no, the egress is woken again by itself while there is work.
    cpdef bint may_connect(self)
    cpdef connection_closed(self)
    cdef bint give_up_place(self) noexcept      # a connection of ours is to end, and give_place(True) then: there are too many
    cdef void give_place(self, bint was_leaving) noexcept
    cdef bint has_too_many(self) noexcept
    cpdef bint is_contended(self)       # another process wants places of this site: close idle connections now
    cpdef defer_all(self, object trouble)   # every recipient now in the queue: one failed attempt each (no host reachable)
    cpdef fail_all(self, object trouble)
    cdef void configure(self) noexcept
    cdef int adjust(self) except -1
    cdef int count_by(self, object limits) except -1
    cdef uint32_t shared_limit(self) except? 0                              # of connections, where sites share them
    cdef bint counts_alone(self) noexcept                                   # no other ready queue's connections do, or soon may
    cdef void let_go(self) noexcept                                         # it is forgotten: nothing is counted for it
    cdef bint take_rates(self) noexcept                                     # one message; False: it waits for it
    cdef void give_rates(self) noexcept                                     # what was taken last, unused
    cdef void give_site_rates(self) noexcept
    cdef void await_rate(self, uint64_t wait_ns) noexcept
    cdef void await_dial(self, uint64_t wait_ns) noexcept
    cdef void look_at_meters(self) noexcept
    cdef void go_on(self) noexcept      # its turn has come at the gate of its source


# The wheel's callback for ReadyQueue.resume.
cdef void ready_resumed(wheel_node *node, void *context) noexcept
