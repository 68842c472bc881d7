from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.queue.pointer_set cimport pointer_set
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.wheel cimport wheel_node


cdef class DomainQueue:
    """One recipient domain (and route): its plan (site) and, while there is none, the recipients that wait for it."""
    cdef wheel_node head
    cdef readonly uint32_t count        # all live recipients of the domain, wherever they are
    cdef readonly uint32_t unrouted
    # Domain in lower case; behind a NUL its route (routing/route_key.py), when it has one. In front of the route stand "@", its
    # tenant and a NUL when limits look at that (tenant_route()).
    cdef readonly bytes key
    cdef readonly object plan
    cdef readonly float plan_expires_mono_s     # there may be a hundred thousand domains, and this is about seconds
    cdef uint32_t generation            # of the configuration the plan was made with
    cdef ReadyQueue only                # the usual case: one source
    # (pool, site_name, provider_name, kind), shared with other domains that go the same way. The pool
    # (routing.egress_pool.EgressPool) is of the same generation as the plan; the rest (kind: shaping.Kind of its mail, or None) is
    # of the last plan, for who asks after that, when the plan with its addresses may have been forgotten.
    cdef tuple way
    cdef object orders                  # steering.Orders that may concern it, or None
    cdef uint32_t orders_generation     # of the orders it was looked up in
    cdef bint is_resolving

    cdef bint is_of(self, bytes domain) noexcept    # whatever its route

# What find_or_add() takes for a message of a tenant whose limits are its own; route: None for none.
cdef bytes tenant_route(bytes tenant, bytes route)


cdef class DomainTable:
    """All domain queues of a worker by key. Owns a reference to each."""
    cdef pointer_set set
    cdef uint64_t key[2]                # of the hash: names come from strangers
    cdef DomainQueue last               # asked for last

    # route: None for all but the few whose message says where to, or whose sender has routes of its own.
    cdef DomainQueue find_or_add(self, const uint8_t *name, size_t length, bytes route)
    cdef DomainQueue find(self, bytes key)          # as a DomainQueue has it; None: there is none
    cdef void remove(self, DomainQueue domain) noexcept
    # Those of one part (0..POINTER_SET_PARTS - 1): some thousandths of all.
    cdef list of_part(self, uint32_t number)
