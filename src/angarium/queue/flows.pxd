"""Whose mail it is: tenant and campaign of a message as one number."""
from libc.stdint cimport uint32_t, uint64_t
from angarium.queue.fair cimport fair_flow
from angarium.spool.cspool cimport spool_envelope


cdef class Flow:
    cdef fair_flow value
    cdef readonly bytes tenant
    cdef readonly bytes campaign        # b"": none
    cdef bytes key                      # in Flows.numbers
    cdef uint64_t held                  # messages
    cdef object apart                   # adjustments.Apart, or None: whom automation keeps its mail apart with,
    cdef uint32_t apart_generation      # as Planner.apart_generation was then
    cdef uint32_t tallies[3]            # attempts that were delivered, deferred and failed since they were taken last,
    cdef bint is_tallied                # while Outcomes counts them


cdef class Flows:
    """All flows of the mail in a worker's queue. Number 0 is that of mail without a tenant or campaign."""
    cdef dict numbers                   # tenant, NUL, campaign -> number
    cdef list flows                     # Flow by number; None: free
    cdef list free_numbers
    cdef dict weights                   # tenant -> weight, where it is not 1
    cdef uint64_t secret[2]

    cdef uint32_t hold(self, const spool_envelope *view) except? 0xffffffff     # one message more
    cdef void drop(self, uint32_t number) noexcept                              # and one less
    cdef const fair_flow *value_of(self, uint32_t number) noexcept              # valid until the number is free
    cdef bytes tenant_of(self, uint32_t number)
    cdef Flow add(self, bytes tenant, bytes campaign, bytes key)
