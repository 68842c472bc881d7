from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from angarium.queue.domains cimport DomainQueue, DomainTable
from angarium.queue.ledger cimport Ledger
from angarium.queue.message cimport recipient
from angarium.queue.ready cimport Appointer, ReadyQueue
from angarium.queue.troubles cimport Troubles
from angarium.spool.cspool cimport spool_envelope


cdef bytes attribute_of(const spool_envelope *view, uint16_t key)


cdef class Planner(Ledger):
    """Which ready queue a recipient belongs in: domains, plans, ready queues."""
    cdef readonly object router
    cdef object plan_or_wait            # of the router, or None: its plans wait for nobody but DNS
    cdef object route_of_sender         # callable, or None: no route looks at senders
    cdef object tenants                 # frozenset, or None: no limits look at tenants
    cdef readonly object pool
    cdef tuple last_way                 # DomainQueue.way that was given last, and of a domain without a plan: most have the same
    cdef tuple last_without_plan
    cdef object egress_part_of          # callable, or None: messages say nothing of their pool that would count
    cdef object pool_for                # callable, or None: all mail leaves by `pool`
    cdef bint asks_messages             # egress_part_of is asked for messages without attributes, too
    cdef bint is_simple                 # one source, and nothing to choose it by
    cdef readonly Troubles troubles
    cdef readonly DomainTable domains
    cdef dict ready                     # (site name, source name, wish, site.claims, kind, apart) -> ReadyQueue
    cdef dict gates                     # name under which it counts -> Gate, while a ready queue passes there
    cdef object ration_for              # callable, or None: no source is warmed up
    cdef dict ready_numbers             # ReadyQueue.number -> ReadyQueue
    cdef uint32_t ready_count           # numbers given out so far
    cdef dict egresses                  # protocol -> Egress
    cdef Appointer appointer            # None: this worker serves all of them
    cdef object lookups                 # lookups.Lookups, of DomainQueue
    cdef readonly object unplanned_lock # asyncio.Lock: of look-ups for orders (unplanned.py)
    cdef int begun_in_turn              # look-ups, and searches for one cut short, in this turn of the loop; not 0: another turn is asked for
    cdef dict waited                    # DomainQueue -> the task that it has waited for, until it is looked up again
    cdef dict changed                   # domain -> what it asks of TLS now (StsRule, or None), to be looked for
    cdef object change_walk             # iterator that looks for them; None: none is under way
    cdef object to_reroute              # deque of ReadyQueue, after new routing has come
    cdef int64_t left_to_reroute        # recipients of the first one; -1: not begun
    cdef uint32_t parts_swept           # of the table of domains
    cdef list ready_to_sweep
    cdef set swept_in_use               # ready queues that domains looked at point to; None: no sweep is under way
    cdef set plan_tasks
    cdef uint32_t generation            # of the configuration
    cdef uint32_t orders_generation     # of the standing orders; 0: there never were any
    cdef bint has_late_tenants          # a reload has brought limits of tenants, and mail may be queued as nobody's that is theirs
    cdef bint sets_apart                # automation does something to the mail of some tenant or campaign,
    cdef uint32_t apart_generation      # and whose that is has changed so often
    cdef bint is_closing

    cdef bytes route_of(self, const spool_envelope *view)
    # Standing orders: False when r does not go on from here (it is suspended or over). r.domain may be another afterwards.
    cdef bint steer(self, recipient *r) noexcept
    # Everybody in ready queues is routed again, in slices.
    cdef int route_ready_again(self) except -1
    # The egress source that r leaves from or would leave from; None: not known now.
    cdef str source_name_of(self, DomainQueue domain, recipient *r)
    cdef bytes next_hop_of(self, const spool_envelope *view)
    cdef bytes tenant_of(self, const spool_envelope *view)
    cdef bytes with_egress_part(self, const spool_envelope *view, bytes route)
    # Puts r (in no list) where it belongs: its ready queue, or in line for its domain's plan.
    cdef void route(self, recipient *r) noexcept
    cdef bint plan_is_usable(self, DomainQueue domain) noexcept
    cdef tuple way_of(self, tuple last, object pool, object site_name, object provider_name, object kind)
    cdef int take_plan(self, DomainQueue domain, object plan) except -1
    cdef int reroute_too(self, ReadyQueue ready) except -1
    cdef int take_plan_now(self, DomainQueue domain) except -1
    cdef ReadyQueue ready_queue(self, DomainQueue domain, recipient *r)
    cdef ReadyQueue ready_queue_of(self, object site, object source, int wish, object kind, object apart)
    cdef object apart_of(self, uint32_t flow)           # adjustments.Apart, or None; asked while it sets apart
    cdef object not_listed(self, DomainQueue domain, object source)
    cdef object source_for(self, DomainQueue domain, recipient *r)
    cdef void start_resolving(self) noexcept
    cdef int sweep_part(self, uint32_t number, int *budget) except -1
    cdef bint sweep_ready(self, ReadyQueue ready) except -1
    cdef uint64_t ready_recipients(self)
    cdef uint64_t overflow_recipients(self)         # behind ready queues that are full
