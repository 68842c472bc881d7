from libc.stdint cimport uint64_t
from angarium.queue.domains cimport DomainQueue
from angarium.queue.message cimport message, recipient
from angarium.queue.planner cimport Planner


cdef class Matcher:
    """A Selection made ready to be asked. Cheapest questions first: of the domain queue, of the message, of the source it
    would leave from, and only then of the envelope, which may have to be read back."""
    cdef readonly object where          # selection.Selection
    cdef readonly bint needs_envelope   # for meets_envelope()
    cdef bint asks_domain
    cdef readonly bint asks_plan        # where mail goes, not only to whom
    cdef bint asks_site
    cdef str name, below, provider, source, pool
    cdef uint64_t id
    cdef uint64_t older_ms, younger_ms, before_utc_ms
    cdef uint64_t larger, smaller
    cdef bytes tenant, campaign
    cdef bint without_tenant
    cdef object sender, recipient       # route_key.SenderPatterns

    cdef bint meets_domain(self, DomainQueue domain) except -1
    cdef bint meets_message(self, const message *m, uint64_t now_utc_ms) noexcept
    cdef bint meets_source(self, Planner planner, DomainQueue domain, recipient *r) except -1
    # False, too, when the envelope is asked and not in memory.
    cdef bint meets_envelope(self, message *m, recipient *r) except -1
