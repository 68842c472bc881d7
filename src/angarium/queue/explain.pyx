# What the queue knows of why something waits, as values (facts.py). Nothing here changes anything: no place is taken, no
# message given out, no queue made. What it means, in words: outbound/reasons.py.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from angarium.model.clock cimport mono_ms, utc_ms
from angarium.queue.domains cimport DomainQueue, tenant_route
from angarium.queue.inspect cimport place_of
from angarium.queue.log cimport envelope_recipient
from angarium.queue.message cimport (OUTCOME_WAITING, PLACE_BEHIND, PLACE_DEFERRED, PLACE_READY, message, recipient)
from angarium.queue.passage cimport ANY_NUMBER, Gate, Passage
from angarium.queue.ready cimport ReadyQueue, Remark
from angarium.queue.scheduler cimport Scheduler
from angarium.queue.shares cimport Share, Shares, pace, pace_of
from angarium.queue.troubles cimport trouble_of
from angarium.spool.cspool cimport (SPOOL_ENVELOPE_REQUIRETLS, SPOOL_ENVELOPE_TLS_OPTIONAL, spool_attribute, spool_envelope,
                                    spool_envelope_next_attribute, spool_envelope_open, spool_recipient)

import time

from angarium.queue.adjustments import EVERYBODY, apart_text, left_to_all, restraints_of
from angarium.queue.facts import Allowed, MessageFacts, QueueFacts, RecipientFacts, Reply
from angarium.queue.inspect import OUTCOMES, SHOWN_ATTRIBUTES, id_text
from angarium.queue.shaping import DIALS, kind_text, scope_name, shared_scope, tenant_gate_scope


cdef double wait_s(Share share, pace *rate) noexcept:
    if share is None or rate.interval_ns == 0:
        return 0.0
    return <double>share.message_wait(rate.interval_ns, rate.burst) / 1e9


cdef object used_at(Gate gate):
    """What of its limits is used."""
    return Allowed(gate.share.machine_count, gate.connection_limit if gate.connection_limit < ANY_NUMBER else 0,
                   wait_s(gate.share, &gate.rate), wait_s(gate.dial_share, &gate.dial_rate))


cdef object used_under(Scheduler scheduler, str scope, object limits):
    """The same of a gate that this worker may not have; None: there are no such limits."""
    cdef Gate gate = scheduler.gates.get(scope)
    cdef pace rate, dial_rate
    if limits is None:
        return None
    if gate is not None:        # which knows what this worker counts, had the table no room
        return used_at(gate)
    pace_of(limits.message_rate, &rate)
    pace_of(limits.connection_rate, &dial_rate)
    return Allowed(scheduler.shares.share_of(scope).machine_count, limits.connections or 0,
                   wait_s(scheduler.shares.share_of(scope), &rate),
                   wait_s(scheduler.shares.share_of(DIALS + scope), &dial_rate))


def queue_facts(ReadyQueue ready not None):
    """A ready queue as it is now, without its connections."""
    cdef Remark remark
    cdef Passage passage
    cdef object used
    now_mono_s = time.monotonic()
    facts = QueueFacts(site=ready.site.name, source=ready.source.name)
    facts.kind = kind_text(ready.kind)
    facts.apart = apart_text(ready.apart)
    facts.wish = ready.wish
    facts.waiting = ready.own_count()
    facts.behind = ready.waits_behind()
    facts.max_ready = ready.most
    facts.home = ready.home
    facts.handed = ready.handed
    facts.guests = ready.guests.waiting if ready.guests is not None else 0
    facts.connections, facts.connections_limit = ready.connections, ready.connection_limit
    facts.message_rate_wait_s = wait_s(ready.rate_share, &ready.rate)
    facts.tenant_rate_wait_s = wait_s(ready.tenant_share, &ready.tenant_rate)
    facts.connection_rate_wait_s = wait_s(ready.dial_share, &ready.dial_rate)
    facts.is_deferring = ready.is_deferring
    facts.restrained = []
    for passage in ready.way.passages if ready.way is not None else ():
        facts.is_in_dial_line = facts.is_in_dial_line or passage.is_in_dial_line
        used = used_at(passage.gate)
        if passage.whose == "automation":
            facts.is_in_restrained_line = facts.is_in_restrained_line or passage.is_in_line
            used.whose = passage.for_whom
            facts.restrained.append(used)
        elif passage.whose == "tenant":
            facts.tenant_used = used
        elif passage.whose == "shared":
            facts.connections_limit = used.connections_limit
        else:
            facts.is_in_line, facts.source_used = passage.is_in_line, used
    if ready.ration is not None:
        facts.sent_today = ready.ration.count()
        facts.today_limit = ready.ration.limit_today()
    if ready.paused_until_mono_s and not facts.is_in_line and not facts.is_in_restrained_line:
        facts.paused_s = max(ready.paused_until_mono_s - now_mono_s, 0.0)
        facts.is_paced = ready.paused_until_mono_s == ready.rate_until_mono_s
    facts.delivered, facts.deferred, facts.failed = ready.delivered_count, ready.deferred_count, ready.failed_count
    if ready.delivered_ms:
        facts.delivered_s = (mono_ms() - ready.delivered_ms) / 1000.0
    facts.replies = []
    for remark in ready.replies or ():
        facts.replies.append(Reply(remark.utc_ms / 1000.0, remark.text, remark.code, "%d.%d.%d" % remark.status,
                                   remark.remote, remark.phase, remark.count))
    return facts


def used_now(Scheduler scheduler not None, site, source, kind, *, bytes tenant=b"", bytes campaign=b""):
    """QueueFacts of mail for which there may be no ready queue in this worker: what of its limits is used over all workers."""
    cdef pace rate
    cdef Shares shares = scheduler.shares
    limits = scheduler.shaping.limits(site, source.name, kind)
    facts = QueueFacts(site=site.name, source=source.name)
    facts.kind = kind_text(kind)
    left = None
    if scheduler.adjustments is not None:
        left = left_to_all(scheduler.adjustments, site, scheduler.shaping.provider_of(site, kind), limits.options)
    facts.connections_limit = left.connections if left is not None and left.connections else limits.options.connections
    facts.connections = shares.share_of(scope_name(site, limits.connection_scope)).machine_count
    pace_of(left.message_rate if left is not None and left.message_rate else limits.options.message_rate, &rate)
    facts.message_rate_wait_s = wait_s(shares.share_of(scope_name(site, limits.rate_scope)), &rate)
    pace_of(limits.tenant_rate, &rate)
    facts.tenant_rate_wait_s = wait_s(shares.share_of(scope_name(site, limits.tenant_scope)), &rate)
    pace_of(left.connection_rate if left is not None and left.connection_rate else limits.options.connection_rate, &rate)
    facts.connection_rate_wait_s = wait_s(shares.share_of(DIALS + scope_name(site, limits.dial_scope)), &rate)
    if left is not None:
        facts.left = Allowed(facts.connections, left.connections or 0, facts.message_rate_wait_s, facts.connection_rate_wait_s,
                             EVERYBODY, left.message_rate or 0.0, left.connection_rate or 0.0)
    if not site.hosts:
        return facts            # it leaves this machine by no network
    facts.source_used = used_under(scheduler, shared_scope("source", source.name), limits.all_sites)
    facts.tenant_used = used_under(scheduler, tenant_gate_scope(site, limits), limits.tenant_places)
    if scheduler.adjustments is not None:
        apart = scheduler.adjustments.apart_of(tenant, campaign)
        facts.apart = apart_text(apart)
        facts.restrained = []
        for scope, allowed, whose in restraints_of(scheduler.adjustments, apart, site, limits,
                                                   provider=scheduler.shaping.provider_of(site, kind), source=source.name):
            used = used_under(scheduler, scope, allowed)
            used.whose, used.rate, used.connection_rate = whose, allowed.message_rate or 0.0, allowed.connection_rate or 0.0
            facts.restrained.append(used)
    ration = None
    if scheduler.ration_for is not None:
        ration = scheduler.ration_for(source.name, scheduler.shaping.provider_of(site, kind))
    if ration is not None:
        facts.sent_today = ration.count()
        facts.today_limit = ration.limit_today()
    return facts


def find_queue(Scheduler scheduler not None, site, str source, int wish, kind, *, bytes tenant=b"", bytes campaign=b""):
    """The ready queue for this, if there is one."""
    apart = scheduler.adjustments.apart_of(tenant, campaign) if scheduler.sets_apart else None
    return scheduler.ready.get((site.name, source, wish, site.claims, kind, apart))


def queue_of(Scheduler scheduler not None, uint64_t number):
    """The ready queue with this number (RecipientFacts.queue_number), or None: it has gone meanwhile."""
    return scheduler.ready_numbers.get(number)


def route_key(bytes key not None):
    """Of the key of a domain queue: what the router knows it by. Tenants of [shaping] are nothing to it."""
    return DomainQueue.__new__(DomainQueue, key).route_key


def tenant_of(bytes key not None):
    """Of the key of a domain queue: the tenant whose limits are its own, or b""."""
    return DomainQueue.__new__(DomainQueue, key).tenant


def domain_key(Scheduler scheduler not None, bytes domain, *, bytes reverse_path=b"", bytes tenant=None, bytes campaign=None,
               bytes pool=None):
    """The key of the domain queue that a message like this would have: as Planner.route_of() makes it."""
    cdef bytes route = None, part = None, key
    if scheduler.route_of_sender is not None:
        route = scheduler.route_of_sender(reverse_path)
    if scheduler.egress_part_of is not None and (scheduler.asks_messages or pool is not None):
        part = scheduler.egress_part_of(reverse_path, pool, tenant, campaign)
    if part is not None:
        route = part if route is None else part + b"\0" + route
    if tenant is not None and scheduler.tenants is not None and tenant in scheduler.tenants:
        route = tenant_route(tenant, route)
    key = domain.lower()
    return key if route is None else key + b"\0" + route


def domain_state(Scheduler scheduler not None, bytes key):
    """(recipients waiting, of them without a plan yet, whether one is being looked up), or None: nobody knows this key."""
    cdef DomainQueue found = scheduler.domains.find(key)
    return None if found is None else (found.count, found.unrouted, found.is_resolving)


def message_facts(Scheduler scheduler not None, uint64_t id, int most, bytes domain=None):
    """A message whose envelope is in memory (inspect.read_back()), or None; with its first `most` recipients that are not
    over, of `domain` only where one is given."""
    cdef message *m = scheduler.index.find(id)
    cdef spool_envelope view
    cdef spool_attribute attribute
    cdef const uint8_t *cursor
    cdef uint32_t i
    cdef recipient *r
    if m == NULL:
        return None
    facts = MessageFacts(id=id_text(id), sender="", received_utc_s=m.received_utc_ms / 1000.0, octets=m.message_octets,
                         waiting=m.live_count, wish=0, recipients=[])
    if m.flags & (SPOOL_ENVELOPE_REQUIRETLS | SPOOL_ENVELOPE_TLS_OPTIONAL):
        facts.wish = 1 if m.flags & SPOOL_ENVELOPE_REQUIRETLS else 2
    facts.attributes = {}
    if m.envelope != NULL and spool_envelope_open(m.envelope.data, m.envelope.length, &view) == 0:
        facts.sender = view.reverse_path.data[:view.reverse_path.length].decode("utf-8", "replace")
        cursor = view.end
        while spool_envelope_next_attribute(&view, &cursor, &attribute):
            if attribute.key in SHOWN_ATTRIBUTES:
                text = attribute.text.data[:attribute.text.length].decode("utf-8", "replace")
                facts.attributes.setdefault(SHOWN_ATTRIBUTES[attribute.key], text)
    for i in range(m.recipient_count):
        r = &m.recipients[i]
        if r.outcome != OUTCOME_WAITING or domain is not None and not (<DomainQueue>r.domain).is_of(domain):
            continue
        if len(facts.recipients) >= most:
            facts.more += 1
            continue
        facts.recipients.append(recipient_facts(scheduler, m, r))
    return facts


cdef object recipient_facts(Scheduler scheduler, message *m, recipient *r):
    cdef spool_recipient found
    cdef DomainQueue domain = <DomainQueue>r.domain
    name = domain.domain.decode("utf-8", "replace")
    facts = RecipientFacts(to=name, domain=name, key=domain.key, place=place_of(r), outcome=OUTCOMES[r.outcome],
                           attempts=r.link.tally, is_resolving=domain.is_resolving)
    if envelope_recipient(m, r.index, &found):
        facts.to = found.forward_path.data[:found.forward_path.length].decode("utf-8", "replace")
    if r.link.where == PLACE_DEFERRED:
        facts.next_attempt_utc_s = (utc_ms() + scheduler.wheel.remaining_ms(&r.link)) / 1000.0
    elif r.link.where == PLACE_READY or r.link.where == PLACE_BEHIND:
        facts.queue_number = r.link.due
        ready = scheduler.ready_numbers.get(r.link.due)
        facts.source = ready.source.name if ready is not None else ""
    if not facts.source and domain.plan is not None and domain.pool is not None:
        facts.source = scheduler.source_for(domain, r).name
    trouble = trouble_of(r)
    if trouble is not None:
        facts.last = Reply(0.0, trouble.text, trouble.code, "%d.%d.%d" % trouble.status, trouble.remote, trouble.phase)
    return facts
