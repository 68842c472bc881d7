from libc.stdint cimport uint32_t, uint64_t
from angarium.queue.domains cimport DomainQueue
from angarium.queue.matching cimport Matcher
from angarium.queue.message cimport message, recipient
from angarium.queue.outcomes cimport Outcomes
from angarium.queue.wheel cimport wheel_node


cdef class Rule:
    """A standing.Order, or quiet hours, as a worker keeps them."""
    cdef readonly object order          # standing.Order, or None
    cdef readonly object quiet          # quiet.QuietHours, or None
    cdef Matcher matcher
    cdef int action
    cdef uint64_t until_utc_ms          # 0: no end. Of quiet hours: when they end that hold between the next two; 0: none do
    cdef uint64_t reckoned_from_ms
    cdef uint64_t reckoned_until_ms
    cdef double every_s                 # of a retry
    cdef object trouble                 # of a bounce

    cdef uint64_t holds_until(self, uint64_t now_utc_ms) except? 0xffffffffffffffff     # 0: it does not hold


cdef class Orders:
    """The rules that may concern a domain queue, the newest first."""
    cdef tuple rules
    cdef bint needs_envelope            # to be asked when a recipient is routed
    cdef bint moves                     # one of them is a reroute


cdef class Steering(Outcomes):
    cdef tuple rules                    # all, the newest first
    cdef wheel_node awaiting            # recipients whose envelope is to be read back before orders can be asked
    cdef uint32_t reads                 # of them, under way
    cdef bint is_blind                  # the envelope of the one that is being routed cannot be read

    cdef Orders orders_of(self, DomainQueue domain)
    # Into the domain queue of its tenant, if that has had limits of its own since a reload only.
    cdef int join_tenant(self, message *m, recipient *r) except -1
    cdef bint obey(self, message *m, recipient *r) except -1
    cdef int move(self, message *m, recipient *r, uint64_t now_utc_ms) except -1
    cdef DomainQueue origin_of(self, message *m, recipient *r)
    cdef bint concerns(self, Rule rule, message *m, recipient *r, DomainQueue domain, uint64_t now) except -1
    cdef DomainQueue target_of(self, DomainQueue origin, object order)
    cdef int rehome(self, recipient *r, DomainQueue target) except -1
    cdef int park(self, message *m, recipient *r, Rule rule, uint64_t until_utc_ms, uint64_t now_utc_ms) except -1
    cdef int end(self, message *m, recipient *r, Rule rule) except -1
    cdef int delete(self, message *m, recipient *r) except -1
    cdef void read_awaiting(self) noexcept
