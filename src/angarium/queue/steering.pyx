# Standing orders (standing.py) and quiet hours (quiet.py): asked of each recipient that is routed, which is when it comes,
# when it is due again, when its domain has a plan, and, for all that are ready, when an order is new.
#
# What an order says of the domain queue is asked once and kept there, so that mail no order is about pays a comparison. Who
# is suspended waits in the wheel, where it costs no more than deferred mail: until the order ends, or its message is too old.
# Orders that ask something of the envelope have it read back, a few at a time.
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from angarium.model.clock cimport utc_ms
from angarium.queue.domains cimport DomainQueue, tenant_route
from angarium.queue.fetch cimport fetch_envelope
from angarium.queue.lists cimport list_append, list_init, list_remove
from angarium.queue.log cimport log_outcome
from angarium.queue.matching cimport Matcher
from angarium.queue.message cimport (
    MESSAGE_HAS_TERMS, OUTCOME_FAILED, PLACE_AWAITING, PLACE_IN_HAND, PLACE_NOWHERE, RECIPIENT_MOVED, RECIPIENT_SUSPENDED,
    flow_of, message, message_of, recipient)
from angarium.queue.outcomes cimport Outcomes
from angarium.queue.terms cimport message_terms, terms_of
from angarium.spool.cspool cimport spool_envelope, spool_envelope_open

import functools

from angarium.model.outcome import Trouble
from angarium.queue.standing import status_numbers
from angarium.routing.route_key import moved

cdef enum action:
    QUIET
    SUSPEND
    RESUME
    BOUNCE
    DELETE
    REROUTE
    RETRY                       # asked when an attempt has ended in a deferral, and never else

cdef enum:
    READS_AT_ONCE = 64
    RETURN_MS = 1000            # a suspension that ends with its order's last tick is not asked a tick too early

cdef dict ACTIONS = {"suspend": SUSPEND, "resume": RESUME, "bounce": BOUNCE, "delete": DELETE, "reroute": REROUTE,
                     "retry": RETRY}
cdef uint64_t FOREVER = <uint64_t>-1


@cython.final
cdef class Rule:
    def __init__(self, order=None, quiet=None):
        self.order, self.quiet = order, quiet
        if quiet is not None:
            self.matcher = Matcher(quiet.where)
            self.action = QUIET
            return
        # What was there when the order was given, or all.
        self.matcher = Matcher(order.where, 0.0 if order.meets_later else order.made_utc_s)
        self.action = ACTIONS[order.action]
        self.until_utc_ms = <uint64_t>(order.until_utc_s * 1000)
        self.every_s = order.every_s
        if self.action == BOUNCE:
            self.trouble = bounce_trouble(order.reason, order.code, order.status)

    cdef uint64_t holds_until(self, uint64_t now_utc_ms) except? 0xffffffffffffffff:
        if self.action == QUIET:
            if not self.reckoned_from_ms <= now_utc_ms < self.reckoned_until_ms:    # a calendar is not asked for each recipient
                self.until_utc_ms = <uint64_t>(self.quiet.ends(now_utc_ms / 1000.0) * 1000)
                self.reckoned_from_ms = now_utc_ms
                self.reckoned_until_ms = self.until_utc_ms or <uint64_t>(self.quiet.begins(now_utc_ms / 1000.0) * 1000)
            return self.until_utc_ms
        if self.until_utc_ms == 0:
            return FOREVER - 1
        return self.until_utc_ms if now_utc_ms < self.until_utc_ms else 0


cdef set actions_of(set rules):
    """Of orders and quiet hours, without those that are asked when an attempt has ended."""
    return {getattr(each, "action", "quiet") for each in rules} - {"retry"}


def bounce_trouble(str reason, int code, str status):
    """Why an order of the operator ends a recipient."""
    return Trouble(code, status_numbers(status), reason or "Returned by order of the postmaster", phase="order")


@cython.final
cdef class Orders:
    pass


# Of all domains that no order is about, while each recipient is asked whose it is: the mail of somebody is kept apart, or has limits of
# its own since a reload.
cdef Orders NOBODYS = Orders.__new__(Orders)
NOBODYS.rules = ()


cdef class Steering(Outcomes):
    def __cinit__(self):
        self.rules = ()
        list_init(&self.awaiting)

    def set_rules(self, orders, quiet=()):
        cdef Rule rule
        old = {rule.order if rule.order is not None else rule.quiet for rule in self.rules}
        made = sorted(orders, key=lambda each: each.made_utc_s, reverse=True)
        self.rules = (*(Rule(order=each) for each in made), *(Rule(quiet=each) for each in quiet))
        new = {rule.order if rule.order is not None else rule.quiet for rule in self.rules}
        if old == new:
            return False
        self.orders_generation += 1
        self.hastens = any([rule.action == RETRY for rule in self.rules])
        # A resume lets go as the end of a suspension does, and its end holds back as a suspension does.
        gone, come = actions_of(old - new), actions_of(new - old)
        if come or "resume" in gone:
            self.route_ready_again()
        return bool(gone) or any(each.action == "resume" for each in orders)

    def set_adjustments(self, adjustments):
        """What automation changes in limits and the choice of sources: an Adjustments, or None."""
        cdef object before = self.adjustments.apart if self.adjustments is not None else frozenset()
        cdef object apart = adjustments.apart if adjustments is not None else frozenset()
        self.adjustments = adjustments
        if apart != before:
            # Recipients of all domains are asked whose they are, or of none any more.
            self.sets_apart = bool(apart)
            self.apart_generation += 1
            self.orders_generation += 1
        self.route_ready_again()

    def ask_ready_again(self):
        self.route_ready_again()

    cdef Orders orders_of(self, DomainQueue domain):
        """Those that may concern a domain queue, or None."""
        cdef Rule rule
        cdef Orders orders
        if domain.orders_generation != self.orders_generation:
            rules = tuple([rule for rule in self.rules if rule.matcher.meets_domain(domain)])
            if not rules:
                domain.orders = NOBODYS if self.sets_apart or self.has_late_tenants else None
            else:
                orders = Orders.__new__(Orders)
                orders.rules = rules
                orders.needs_envelope = any([rule.action != RETRY and rule.matcher.needs_envelope or rule.action in (BOUNCE, DELETE)
                                             for rule in rules])
                orders.moves = any([rule.action == REROUTE for rule in rules])
                domain.orders = orders
            domain.orders_generation = self.orders_generation
        return domain.orders

    cdef bint steer(self, recipient *r) noexcept:
        cdef message *m = message_of(r)
        cdef Orders orders
        try:
            if self.has_late_tenants:
                self.join_tenant(m, r)
            orders = self.orders_of(<DomainQueue>r.domain)
            if (orders is None or not orders.rules) and not r.flags & RECIPIENT_MOVED:
                return True
            # Of a held message only the envelope says how old it is: see park().
            if m.envelope == NULL and not self.is_blind and (r.flags & RECIPIENT_MOVED or orders.needs_envelope
                                                             or m.flags & MESSAGE_HAS_TERMS):
                r.link.where = PLACE_AWAITING
                list_append(&self.awaiting, &r.link)
                self.read_awaiting()
                return False
            return self.obey(m, r)
        except Exception as error:          # a bug in orders must not hold up mail
            self.journal.log("error", where="orders", reason=repr(error))
            return r.link.where == PLACE_NOWHERE

    cdef bint obey(self, message *m, recipient *r) except -1:
        """The first that says so wins, of the newest on; ends go before suspensions."""
        cdef uint64_t now = utc_ms()
        cdef uint64_t until, parked_until = 0
        cdef bint is_resumed = False
        cdef Orders orders
        cdef Rule rule, parked = None
        self.move(m, r, now)
        orders = self.orders_of(<DomainQueue>r.domain)
        if orders is None:
            return True
        for rule in orders.rules:
            if rule.action == REROUTE or rule.action == RETRY or rule.action == SUSPEND and is_resumed:
                continue
            until = rule.holds_until(now)
            if until == 0 or not self.concerns(rule, m, r, <DomainQueue>r.domain, now):
                continue
            if rule.action == RESUME:
                is_resumed = True
            elif rule.action == BOUNCE or rule.action == DELETE:
                self.end(m, r, rule)
                return False
            elif until > parked_until:
                parked, parked_until = rule, until
        if parked is None:
            return True
        self.park(m, r, parked, parked_until, now)
        return False

    cdef bint concerns(self, Rule rule, message *m, recipient *r, DomainQueue domain, uint64_t now) except -1:
        return rule.matcher.meets_message(m, now) and rule.matcher.meets_source(self, domain, r) and \
            rule.matcher.meets_envelope(m, r)

    cdef double hasten(self, message *m, recipient *r, double least_s, double delay_s) except -1.0:
        cdef uint64_t now = utc_ms()
        cdef Orders orders = self.orders_of(<DomainQueue>r.domain)
        cdef Rule rule
        if orders is None:
            return delay_s
        for rule in orders.rules:
            if rule.action == RETRY and rule.holds_until(now) and self.concerns(rule, m, r, <DomainQueue>r.domain, now):
                delay_s = min(delay_s, max(rule.every_s, least_s))
        return delay_s

    # ---- re-routing ----

    cdef int move(self, message *m, recipient *r, uint64_t now) except -1:
        """Into the domain queue that orders say, or back where it came from. What a reroute asks of site and source is asked of
        where it came from: else it would be undone by being obeyed."""
        cdef DomainQueue origin = <DomainQueue>r.domain
        cdef DomainQueue target
        cdef Orders orders
        cdef Rule rule
        if r.flags & RECIPIENT_MOVED:
            if m.envelope == NULL:
                return 0
            origin = self.origin_of(m, r)
        orders = self.orders_of(origin)
        target = origin
        if orders is not None and orders.moves:
            for rule in orders.rules:
                if rule.action == REROUTE and rule.holds_until(now) and self.concerns(rule, m, r, origin, now):
                    target = self.target_of(origin, rule.order)
                    break
        self.rehome(r, target)
        if target is origin:
            r.flags &= <uint16_t>~RECIPIENT_MOVED
        else:
            r.flags |= RECIPIENT_MOVED
        return 0

    cdef DomainQueue target_of(self, DomainQueue origin, object order):
        cdef bytes name = origin.domain
        cdef bytes route = moved(origin.route, next_hop=order.next_hop, pool=order.pool)
        if origin.tenant:
            route = tenant_route(origin.tenant, route)
        return self.domains.find_or_add(<const uint8_t *><const char *>name, len(name), route)

    cdef DomainQueue origin_of(self, message *m, recipient *r):
        cdef spool_envelope view
        cdef bytes name = (<DomainQueue>r.domain).domain
        spool_envelope_open(m.envelope.data, m.envelope.length, &view)      # as in make_message()
        return self.domains.find_or_add(<const uint8_t *><const char *>name, len(name), self.route_of(&view))

    cdef int rehome(self, recipient *r, DomainQueue target) except -1:
        """r is in no list."""
        if r.domain != <void *>target:
            (<DomainQueue>r.domain).count -= 1
            target.count += 1
            r.domain = <void *>target
        return 0

    cdef int join_tenant(self, message *m, recipient *r) except -1:
        cdef DomainQueue domain = <DomainQueue>r.domain
        cdef uint32_t number = flow_of(m)
        cdef bytes tenant, name
        # Where a reroute has it, it comes from the tenant's when it is asked of: origin_of().
        if number == 0 or self.tenants is None or r.flags & RECIPIENT_MOVED:
            return 0
        tenant = self.flows.tenant_of(number)
        if not tenant or tenant not in self.tenants or domain.tenant:
            return 0
        name = domain.domain
        return self.rehome(r, self.domains.find_or_add(<const uint8_t *><const char *>name, len(name),
                                                       tenant_route(tenant, domain.route or None)))

    # ---- suspending, ending ----

    cdef int park(self, message *m, recipient *r, Rule rule, uint64_t until, uint64_t now) except -1:
        cdef uint64_t expires = m.received_utc_ms
        cdef message_terms terms
        if m.flags & MESSAGE_HAS_TERMS and terms_of(m, &terms):     # as in conclude()
            expires = max(expires, terms.hold_until_utc_s * 1000)
        expires += <uint64_t>(self.max_age_s * 1000)
        if now >= expires:
            text = f"suspended by order {rule.order.name}" if rule.order is not None else "waits for the end of quiet hours"
            self.conclude_later(r, None, Trouble(0, (4, 4, 7), text, phase="order"), False)
            return 0
        r.flags |= RECIPIENT_SUSPENDED
        self.defer(r, min(until, expires) - now + (RETURN_MS if until > expires else 0))
        self.hold(m)
        self.release(m)             # what it had in memory for an attempt can go
        return 0

    cdef int end(self, message *m, recipient *r, Rule rule) except -1:
        if rule.action == BOUNCE:
            self.conclude_later(r, None, rule.trouble, True)
            return 0
        self.hold(m)
        self.delete(m, r)
        self.release(m)
        return 0

    cdef int delete(self, message *m, recipient *r) except -1:
        """Without a report. r is in no list, the message held."""
        log_outcome(self.journal, b"deleted", m, r, None, None, NULL, 0, 0, 0, 0, 0, NULL, 0, 0, NULL, NULL,
                    NULL, NULL, NULL)
        r.outcome = OUTCOME_FAILED
        self.detach(r)
        m.is_dirty = True
        return 0

    # ---- reading envelopes back ----

    cdef void read_awaiting(self) noexcept:
        cdef recipient *r
        cdef message *m
        while self.reads < READS_AT_ONCE and self.awaiting.next != &self.awaiting and not self.is_closing:
            r = <recipient *>self.awaiting.next
            m = message_of(r)
            list_remove(&r.link)
            r.link.where = PLACE_IN_HAND
            self.hold(m)
            self.reads += 1
            try:
                fetch_envelope(self, m, functools.partial(self.envelope_read, <size_t>r))
            except Exception as error:
                self.journal.log("error", where="read back", reason=repr(error))
                self.reads -= 1
                r.link.where = PLACE_NOWHERE
                self.defer(r, 1000)
                self.release(m)
                return

    def envelope_read(self, size_t pointer, int error):
        cdef recipient *r = <recipient *>pointer
        cdef message *m = message_of(r)
        self.reads -= 1
        r.link.where = PLACE_NOWHERE
        self.is_blind = error != 0
        self.route(r)
        self.is_blind = False
        # Ours and the reader's are the only holds: nobody else needs what was read, and it may be one of millions.
        if m.hand_count == 2 and self.hot_octets > self.hot_limit_octets:
            self.cool(m)
        self.release(m)
        self.read_awaiting()
