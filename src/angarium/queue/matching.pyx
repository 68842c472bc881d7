# Whether a recipient is one of a Selection (selection.py). What to do with those who are is others' business.
cimport cython
from libc.stdint cimport uint64_t

from angarium.queue.domains cimport DomainQueue
from angarium.queue.log cimport envelope_recipient
from angarium.queue.message cimport message, recipient
from angarium.queue.planner cimport Planner, attribute_of
from angarium.spool.cspool cimport (
    SPOOL_ATTRIBUTE_CAMPAIGN, SPOOL_ATTRIBUTE_TENANT, spool_envelope, spool_envelope_open, spool_recipient)

from angarium.queue.shaping import normal_domain
from angarium.queue.selection import domain_key, is_site
from angarium.routing.route_key import SenderPatterns, sender_key
from angarium.spool.envelope import decode_id


cdef object patterns(str text):
    return SenderPatterns([sender_key(text)]) if text else None


@cython.final
cdef class Matcher:
    def __init__(self, where, double before_utc_s=0.0):
        cdef str domain = where.domain
        self.where = where
        self.name = self.below = None
        if domain.startswith("@"):
            self.name = domain_key(domain[1:])
            self.below = "." + self.name
        elif domain.startswith("."):
            self.below = domain_key(domain)
        elif domain:
            self.name = domain_key(domain)
        self.asks_site, self.provider, self.source, self.pool = bool(where.site), where.provider, where.source, where.pool
        self.asks_domain = bool(domain or self.asks_site or self.provider or self.pool)
        self.asks_plan = bool(self.asks_site or self.provider or self.source or self.pool)
        self.id = decode_id(where.id) if where.id else 0
        self.older_ms = <uint64_t>(where.older_than_s * 1000)
        self.younger_ms = <uint64_t>(where.younger_than_s * 1000)
        self.before_utc_ms = <uint64_t>(before_utc_s * 1000)
        self.larger, self.smaller = where.larger_than_octets, where.smaller_than_octets
        self.tenant = where.tenant.encode() or None
        self.campaign = where.campaign.encode() or None
        self.without_tenant = where.without_tenant
        self.sender, self.recipient = patterns(where.sender), patterns(where.recipient)
        self.needs_envelope = bool(where.tenant or where.campaign or where.without_tenant or where.sender or where.recipient)

    def meets_name(self, DomainQueue domain not None):
        cdef str name
        if self.name is None and self.below is None:
            return True
        name = normal_domain(domain.domain)
        return name == self.name or self.below is not None and name.endswith(self.below)

    cdef bint meets_domain(self, DomainQueue domain) except -1:
        cdef str name
        if not self.asks_domain:
            return True
        if (self.name is not None or self.below is not None) and not self.meets_name(domain):
            return False
        if self.provider and domain.provider_name != self.provider:
            return False
        # Of a domain without a plan it is all pools, and their name is none.
        if self.pool and getattr(domain.pool, "name", None) != self.pool:
            return False
        if self.asks_site:
            name = domain.site_name
            return name is not None and is_site(self.where, name)
        return True

    cdef bint meets_message(self, const message *m, uint64_t now_utc_ms) noexcept:
        cdef uint64_t age_ms = now_utc_ms - m.received_utc_ms if now_utc_ms > m.received_utc_ms else 0
        return (not (self.id and m.id != self.id)
                and not (self.before_utc_ms and m.received_utc_ms > self.before_utc_ms)
                and not (self.older_ms and age_ms < self.older_ms)
                and not (self.younger_ms and age_ms >= self.younger_ms)
                and not (self.larger and m.message_octets <= self.larger)
                and not (self.smaller and m.message_octets >= self.smaller))

    cdef bint meets_source(self, Planner planner, DomainQueue domain, recipient *r) except -1:
        return not self.source or planner.source_name_of(domain, r) == self.source

    cdef bint meets_envelope(self, message *m, recipient *r) except -1:
        cdef spool_envelope view
        cdef spool_recipient found
        if not self.needs_envelope:
            return True
        if m.envelope == NULL or spool_envelope_open(m.envelope.data, m.envelope.length, &view) != 0:
            return False
        if self.tenant is not None and attribute_of(&view, SPOOL_ATTRIBUTE_TENANT) != self.tenant:
            return False
        if self.without_tenant and attribute_of(&view, SPOOL_ATTRIBUTE_TENANT) is not None:
            return False
        if self.campaign is not None and attribute_of(&view, SPOOL_ATTRIBUTE_CAMPAIGN) != self.campaign:
            return False
        if self.sender is not None and not self.sender.matching(view.reverse_path.data[:view.reverse_path.length]):
            return False
        if self.recipient is not None:
            return envelope_recipient(m, r.index, &found) and bool(
                self.recipient.matching(found.forward_path.data[:found.forward_path.length]))
        return True
