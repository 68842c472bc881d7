# From a recipient's domain to the ready queue it belongs in: plans (asked of routing/), the table of domains, and the ready
# queues themselves. When a recipient comes here and what becomes of it is the Scheduler's, which is made of this and its own half.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport strlen

from angarium.model.clock cimport TURN_NS, mono_ms, mono_ns
from angarium.queue.domains cimport DomainQueue, DomainTable, tenant_route
from angarium.queue.flows cimport Flow, Flows
from angarium.queue.ledger cimport Ledger
from angarium.queue.lists cimport list_append, list_remove
from angarium.queue.message cimport (PLACE_BEHIND, PLACE_NOWHERE, PLACE_READY, PLACE_UNROUTED, RECIPIENT_MOVED, RECIPIENT_SOURCE_SHIFT, flow_of,
                                     message_of, recipient)
from angarium.queue.passage cimport Gate
from angarium.queue.pointer_set cimport POINTER_SET_PARTS
from angarium.queue.ready cimport WISH_NONE, WISH_OPTIONAL, WISH_REQUIRED, Egress, ReadyQueue
from angarium.queue.troubles cimport Troubles
from angarium.queue.shares cimport Share
from angarium.spool.cspool cimport (
    SPOOL_ATTRIBUTE_CAMPAIGN, SPOOL_ATTRIBUTE_POOL, SPOOL_ATTRIBUTE_ROUTE, SPOOL_ATTRIBUTE_TENANT, SPOOL_ENVELOPE_REQUIRETLS, SPOOL_ENVELOPE_TLS_OPTIONAL, spool_envelope,
    spool_envelope_find_attribute, spool_span)

import asyncio
import collections
import functools

from angarium.model.outcome import Trouble
from angarium.model.plan import RoutingTrouble
from angarium.queue.lookups import Lookups
from angarium.queue.shaping import Shaping
from angarium.resolver.domain_name import to_a_labels

cdef enum:
    SLICE = 500                 # recipients, domains or queues handled in one turn of the loop by work that may be long
    LOOKUPS_A_TURN = 16         # begun in one turn of the loop. Judged: each costs it up to 0.2 ms in turns soon after, and mail whose plan is
                                # known waits for the end of each; they are as fast by tens as by hundreds
    OWN_WISH = SPOOL_ENVELOPE_REQUIRETLS | SPOOL_ENVELOPE_TLS_OPTIONAL
    DOMAINS_KEPT = 100000       # more than these are forgotten when nobody waits, however good their plan


cdef bytes attribute_of(const spool_envelope *view, uint16_t key):
    cdef spool_span text
    return text.data[:text.length] if spool_envelope_find_attribute(view, key, &text) else None


cdef bytes a_labels(bytes domain):
    if domain.isascii():
        return domain
    try:
        return to_a_labels(domain).encode("ascii")
    except ValueError:
        return domain


cdef class Planner(Ledger):
    """Knows domains and ready queues. A base of the Scheduler, in a file of its own."""

    def __cinit__(self):
        self.troubles = Troubles()
        self.domains = DomainTable()
        self.flows = Flows()
        self.ready = {}
        self.ready_numbers = {}
        self.shares_held = {}
        self.gates = {}
        self.ration_for = None
        self.egresses = {}
        self.lookups = Lookups()
        self.unplanned_lock = asyncio.Lock()
        self.to_reroute = collections.deque()
        self.swept_in_use = None
        self.plan_tasks = set()
        self.waited = {}
        self.changed = {}
        self.change_walk = None

    def plan_anew(self, *, router, pool, shaping):
        """New routing and limits, at once: plans are made anew, and recipients in ready queues are routed again."""
        self.router = router
        self.waited = {}                    # for what another router has begun
        self.plan_or_wait = getattr(router, "plan_or_wait", None)
        self.route_of_sender = getattr(router, "route_of_sender", None)
        self.pool = pool
        self.egress_part_of = getattr(pool, "part_of", None)
        self.pool_for = getattr(pool, "pool_for", None)
        self.asks_messages = getattr(pool, "asks_messages", False)
        self.is_simple = self.pool_for is None or pool.is_simple
        self.ration_for = getattr(pool, "ration_for", None)
        before = self.tenants or frozenset()
        self.shaping = shaping if isinstance(shaping, Shaping) else Shaping(shaping)
        self.tenants = self.shaping.tenants
        if self.tenants is not None and not self.tenants <= before and len(self.flows) > 1:
            # Whose it is, is asked of all mail when it is routed: of what is ready now, of the rest at its next attempt.
            self.has_late_tenants = True
            self.orders_generation += 1
        self.generation += 1
        self.route_ready_again()

    cdef int route_ready_again(self) except -1:
        cdef bint is_under_way = bool(self.to_reroute)
        self.to_reroute = collections.deque(self.ready.values())
        self.left_to_reroute = -1
        if not is_under_way:
            self.reroute()
        return 0

    cdef int reroute_too(self, ReadyQueue ready) except -1:
        cdef bint is_under_way = bool(self.to_reroute)
        # Who was routed in the first half of one that is under way went by the old plan: that one is gone through again.
        cdef bint is_begun = is_under_way and self.left_to_reroute >= 0 and self.to_reroute[0] is ready
        if self.to_reroute.count(ready) <= <int>is_begun:
            self.to_reroute.append(ready)
        if not is_under_way:
            self.left_to_reroute = -1
            self.reroute()
        return 0

    def policy_changed(self, bytes domain not None, rule):
        """A domain (A-labels, lower case) asks something else of TLS (model.plan.StsRule, or None) than its plans may say: they are
        made anew, and whoever waits in a ready queue for its site is routed again. In slices, one walk for all meanwhile."""
        self.changed[domain] = rule
        if self.change_walk is None and not self.is_closing:
            self.change_walk = self.walk_of_changes()
            self.loop.call_soon(self.walk_on)

    def walk_on(self):
        try:
            if not self.is_closing and next(self.change_walk, None) is not None:
                self.loop.call_soon(self.walk_on)
                return
        except Exception as error:
            self.journal.log("error", where="a changed policy", reason=repr(error))
        self.change_walk = None

    def walk_of_changes(self):
        """Gives something after each slice."""
        cdef DomainQueue domain
        cdef ReadyQueue ready
        cdef int budget = SLICE
        cdef dict changed, rules
        while self.changed:
            changed, self.changed = self.changed, {}
            rules = {}                          # site name -> what domains of it ask for now
            for number in range(POINTER_SET_PARTS):
                for domain in self.domains.of_part(number):
                    budget -= 1
                    name = a_labels(domain.domain)
                    if name not in changed or domain.site_name is None or "/" in domain.site_name:
                        continue                # it goes where an operator says: no domain is asked there
                    rule = changed[name]
                    rules.setdefault(domain.site_name, []).append(rule)
                    if domain.plan is not None and domain.plan.site.sts != rule:
                        domain.plan_expires_mono_s = 0.0
                if budget <= 0:
                    budget = SLICE
                    yield True
            for ready in list(self.ready.values()) if rules else ():
                budget -= 1
                if (ready.count or ready.handed or ready.waits_behind()) and any(rule != ready.site.sts for rule in rules.get(ready.site.name, ())):
                    self.reroute_too(ready)
                    budget -= SLICE             # it may have begun with as many
                if budget <= 0:
                    budget = SLICE
                    yield True

    def reroute(self):
        """Queue by queue: its new limits, then everybody in it now, and behind it, is routed again."""
        cdef recipient *r
        cdef ReadyQueue ready
        cdef int budget = SLICE
        while self.to_reroute:
            ready = self.to_reroute[0]
            if self.left_to_reroute < 0:
                ready.configure()
                if self.appointer is not None:
                    self.appointer.appoint(ready, self.egresses[ready.site.protocol])
                ready.order.set_aside()
                self.left_to_reroute = <int64_t>ready.count
                if ready.overflow is not None:
                    ready.overflow.order.set_aside()
                    self.left_to_reroute += <int64_t>ready.overflow.count
                budget -= 1
            while self.left_to_reroute > 0 and budget > 0:
                r = ready.order.next_aside()
                if r == NULL and ready.overflow is not None:
                    r = ready.overflow.order.next_aside()
                self.left_to_reroute = self.left_to_reroute - 1 if r != NULL else 0
                if r != NULL:
                    self.passing_on = ready if r.link.where == PLACE_READY else None
                    ready.remove(r)
                    self.route(r)
                    self.passing_on = None
                budget -= 1
            if self.left_to_reroute > 0 or budget <= 0:
                if self.left_to_reroute == 0:
                    self.to_reroute.popleft()
                    self.left_to_reroute = -1
                self.loop.call_soon(self.reroute)
                return
            self.to_reroute.popleft()
            self.left_to_reroute = -1

    def set_appointer(self, Appointer appointer):
        """Who says which worker serves a ready queue; before the first one is made."""
        self.appointer = appointer

    def set_egress(self, str protocol, Egress egress):
        """Who serves ready queues whose site speaks `protocol` (model.plan.Site.protocol)."""
        self.egresses[protocol] = egress

    cdef Share hold_share(self, str name):
        cdef Share share = self.shares_held.get(name)
        if share is None:
            share = self.shares_held[name] = self.shares.share_of(name)
        share.queue_count += 1
        return share

    cdef void drop_share(self, Share share) noexcept:
        if share is None:
            return
        share.queue_count -= 1
        if share.queue_count == 0:
            self.shares_held.pop(share.name, None)

    # ---- from domain to ready queue ----

    cdef bytes route_of(self, const spool_envelope *view):
        """The route and tenant of a message whose recipients queue apart from others of their domain; None: it has neither."""
        cdef bytes tenant = self.tenant_of(view) if self.tenants is not None else None
        if tenant is not None:
            return tenant_route(tenant, self.next_hop_of(view))
        return self.next_hop_of(view)

    cdef bytes tenant_of(self, const spool_envelope *view):
        """None where no limits look at the message's."""
        cdef spool_span text
        cdef bytes tenant
        if view.end == view.chunks or not spool_envelope_find_attribute(view, SPOOL_ATTRIBUTE_TENANT, &text):
            return None
        tenant = text.data[:text.length]
        return tenant if tenant in self.tenants else None

    cdef bytes next_hop_of(self, const spool_envelope *view):
        """What the key says besides of domain and tenant (routing/route_key.py); None: nothing."""
        cdef spool_span text
        cdef bytes route = None
        if view.end != view.chunks and spool_envelope_find_attribute(view, SPOOL_ATTRIBUTE_ROUTE, &text):
            route = b">" + text.data[:text.length]
        elif self.route_of_sender is not None:
            route = self.route_of_sender(view.reverse_path.data[:view.reverse_path.length])
        if self.asks_messages or view.end != view.chunks and spool_envelope_find_attribute(view, SPOOL_ATTRIBUTE_POOL, &text):
            return self.with_egress_part(view, route)
        return route

    cdef bytes with_egress_part(self, const spool_envelope *view, bytes route):
        """The same, and in front of it what says by which pool the message leaves (routing/route_key.py)."""
        cdef bytes part
        if self.egress_part_of is None:
            return route
        part = self.egress_part_of(view.reverse_path.data[:view.reverse_path.length],
                                   attribute_of(view, SPOOL_ATTRIBUTE_POOL), attribute_of(view, SPOOL_ATTRIBUTE_TENANT),
                                   attribute_of(view, SPOOL_ATTRIBUTE_CAMPAIGN))
        if part is None:
            return route
        return part if route is None else part + b"\0" + route

    cdef bint plan_is_usable(self, DomainQueue domain) noexcept:
        if domain.plan is None or domain.generation != self.generation:
            return False
        return domain.plan_expires_mono_s > mono_ms() / 1000.0

    cdef void route(self, recipient *r) noexcept:
        cdef DomainQueue domain = <DomainQueue>r.domain
        cdef ReadyQueue ready = None
        cdef uint32_t number
        cdef bint is_new
        try:
            if domain.generation != self.generation and not domain.is_resolving:
                self.take_plan_now(domain)
            if domain.orders_generation != self.orders_generation or domain.orders is not None or r.flags & RECIPIENT_MOVED:
                if not self.steer(r):
                    return
                if <void *>domain != r.domain:
                    domain = <DomainQueue>r.domain
                    if domain.generation != self.generation and not domain.is_resolving:
                        self.take_plan_now(domain)
                if self.sets_apart and self.plan_is_usable(domain):
                    ready = self.ready_queue(domain, r)
                    ready.push(r)
                    return
            if domain.only is not None and not message_of(r).flags & OWN_WISH and self.plan_is_usable(domain):
                ready = domain.only
            elif self.plan_is_usable(domain):
                ready = self.ready_queue(domain, r)
            if ready is not None:
                ready.push(r)
                return
            number = flow_of(message_of(r))
            # A plan that is over: the domain had mail before, and stands in a line apart from those that nobody has seen yet.
            is_new = self.lookups.add(domain, self.flows.tenant_of(number),
                                      (number, message_of(r).priority > 0, domain.plan is not None))
            domain.is_resolving = True
            list_append(&domain.head, &r.link)
            r.link.where = PLACE_UNROUTED
            domain.unrouted += 1
            if is_new:
                self.start_resolving()
        except Exception as error:      # a bug in routing must not lose the recipient: it waits and is tried again
            self.journal.log("error", where="route", domain=domain.domain, reason=repr(error))
            self.conclude_later(r, None, Trouble(0, (4, 3, 5), f"routing failed: {error}", phase="route"), False)

    cdef void take_in(self, object ready, recipient *r) noexcept:
        cdef DomainQueue domain = <DomainQueue>r.domain
        # A plan that is over is no reason to ask again: the look-up would make all who wait behind leave for the domain's line, or,
        # while there is no DNS, be deferred. It goes where those go that were before it. Who may not do so is routed by reroute().
        cdef bint is_new = domain.generation != self.generation or \
            self.left_to_reroute >= 0 and bool(self.to_reroute) and self.to_reroute[0] is ready
        self.passing_on = ready
        if is_new or self.plan_is_usable(domain):
            self.route(r)
        else:
            (<ReadyQueue>ready).push(r)
        self.passing_on = None

    cdef int take_plan_now(self, DomainQueue domain) except -1:
        try:
            self.take_plan(domain, self.router.plan_now(domain.route_key))
        except RoutingTrouble:
            self.take_plan(domain, None)        # told by who asks for a plan that may take its time

    @property
    def domain_parts(self):
        return POINTER_SET_PARTS

    def unplanned(self, uint32_t part):
        cdef DomainQueue domain
        return [domain for domain in self.domains.of_part(part) if domain.way[1] is None and not domain.is_resolving]

    def plan_is_known(self, DomainQueue domain not None):
        # Meanwhile it may have been looked up for mail.
        if domain.way[1] is None and not domain.is_resolving:
            self.take_plan(domain, self.router.plan_now(domain.route_key))
        return domain.way[1] is not None

    def plan_found(self, DomainQueue domain not None, plan):
        if domain.way[1] is None and not domain.is_resolving and not self.is_closing:
            self.take_plan(domain, plan)
        return domain.way[1] is not None

    cdef tuple way_of(self, tuple last, object pool, object site_name, object provider_name, object kind):
        if last is not None and last[0] is pool and last[1] == site_name and last[2] == provider_name and last[3] == kind:
            return last
        return pool, site_name, provider_name, kind

    cdef int take_plan(self, DomainQueue domain, object plan) except -1:
        """Raises RoutingTrouble when there is no such pool."""
        cdef object pool = self.pool
        if plan is None:
            domain.way = self.last_without_plan = self.way_of(
                self.last_without_plan, pool, domain.way[1], domain.way[2], domain.way[3])
            domain.plan = domain.only = None
            domain.plan_expires_mono_s = 0.0
            return 0
        if domain.plan is not None and plan.site.sts is not None and plan.site.sts != domain.plan.site.sts:
            self.policy_changed(a_labels(domain.domain), plan.site.sts)     # mail may wait that was routed by the old one
        kind = self.shaping.kind_of(plan.site, domain.domain, domain.tenant)
        provider_name = self.shaping.provider_of(plan.site, kind)
        if not self.is_simple or self.pool_for is not None and strlen(domain.key) != <size_t>len(domain.key):
            pool = self.pool_for(domain.route_key, plan.site, provider_name)
        elif self.pool_for is not None:
            pool = pool.default         # what has a name that orders ask for
        domain.way = self.last_way = self.way_of(self.last_way, pool, plan.site.name, provider_name, kind)
        domain.plan = plan
        domain.only = None
        domain.generation = self.generation
        domain.plan_expires_mono_s = plan.expires_mono_s
        if self.orders_generation:
            domain.orders_generation = 0        # what they say of sites is to be asked again
        if pool.only is not None:
            domain.only = self.ready_queue_of(plan.site, pool.only, WISH_NONE, kind, None)
            if self.swept_in_use is not None:
                self.swept_in_use.add(domain.only)
        return 0

    cdef ReadyQueue ready_queue(self, DomainQueue domain, recipient *r):
        cdef uint32_t flags = message_of(r).flags
        cdef int wish = (WISH_NONE if not flags & OWN_WISH else
                         WISH_REQUIRED if flags & SPOOL_ENVELOPE_REQUIRETLS else WISH_OPTIONAL)
        apart = self.apart_of(flow_of(message_of(r))) if self.sets_apart else None
        return self.ready_queue_of(domain.plan.site, self.source_for(domain, r), wish, domain.way[3], apart)

    cdef object apart_of(self, uint32_t number):
        cdef Flow flow
        if number == 0 or self.adjustments is None:
            return None
        flow = self.flows.flows[number]
        if flow.apart_generation != self.apart_generation:
            flow.apart = self.adjustments.apart_of(flow.tenant, flow.campaign)
            flow.apart_generation = self.apart_generation
        return flow.apart

    cdef bint steer(self, recipient *r) noexcept:
        return True

    cdef str source_name_of(self, DomainQueue domain, recipient *r):
        # Of a domain queue that r was moved away from, as if it were there still.
        if (r.link.where == PLACE_READY or r.link.where == PLACE_BEHIND) and r.domain == <void *>domain:
            return (<ReadyQueue>self.ready_numbers[r.link.due]).source.name
        if domain.pool is None or not self.plan_is_usable(domain):
            return None
        source = self.source_for(domain, r)
        return source.name

    cdef object source_for(self, DomainQueue domain, recipient *r):
        # By the message, not by the recipient: recipients of one message that go to one site go together. And from the same
        # source at each attempt, which is what greylisting waits for, until something that lies with the source comes up.
        cdef uint64_t mixed = (message_of(r).id + (r.flags >> RECIPIENT_SOURCE_SHIFT)) * <uint64_t>0x9E3779B97F4A7C15ULL
        source = domain.pool.only
        if source is None:
            source = domain.pool.choose(<double>(mixed >> 11) / <double>(1ULL << 53))
            if self.adjustments is not None and self.adjustments.lists_sources:
                source = self.not_listed(domain, source)
        return source

    cdef object not_listed(self, DomainQueue domain, object source):
        """Another source of the pool, where the one chosen is on the list of who gets the mail; it itself when all are."""
        cdef str site = domain.plan.site.name
        if not self.adjustments.is_listed(site, domain.provider_name, source.name):
            return source
        sources = domain.pool.sources
        first = sources.index(source) if source in sources else 0
        for i in range(1, len(sources)):
            other = sources[(first + i) % len(sources)]
            if not self.adjustments.is_listed(site, domain.provider_name, other.name) and domain.pool.can_use(other):
                return other
        return source

    cdef ReadyQueue ready_queue_of(self, object site, object source, int wish, object kind, object apart):
        # A route may ask something else of TLS for some domains of a site: another queue, so that connections differ. And of
        # two domains with the same exchangers DNS may vouch for one, or one may have published a policy: that must neither
        # let through nor hold up mail for the other.
        cdef tuple key = (site.name, source.name, wish, site.claims, kind, apart)
        cdef ReadyQueue ready = self.ready.get(key)
        if ready is None:
            ready = ReadyQueue.__new__(ReadyQueue, self, site, source, wish, kind, apart)
            ready.key = key
            ready.egress = self.egresses[site.protocol]
            self.ready[key] = ready
            self.ready_count += 1
            ready.number = ready.order.number = self.ready_count
            self.ready_numbers[ready.number] = ready
            if self.appointer is not None:
                self.appointer.appoint(ready, ready.egress)
        else:
            ready.site = site           # same name, perhaps newer addresses
            ready.source = source       # and perhaps another address or proxy
        return ready

    cdef object hold_gate(self, str scope):
        cdef Gate gate = self.gates.get(scope)
        if gate is None:
            gate = self.gates[scope] = Gate(self.loop, self.shares, scope)
        gate.queue_count += 1
        return gate

    cdef void drop_gate(self, object gate) noexcept:
        (<Gate>gate).queue_count -= 1
        if (<Gate>gate).queue_count == 0:
            self.gates.pop((<Gate>gate).share.name, None)

    cdef object ration_of(self, object ready):
        if self.ration_for is None:
            return None
        return self.ration_for(ready.source.name, self.shaping.provider_of(ready.site, ready.kind))

    cdef void ration_spent(self, object ready) noexcept:
        try:
            text = f"source {ready.source.name} is warmed up, and has sent its {ready.ration.limit_today()} messages of today"
            provider = self.shaping.provider_of(ready.site, ready.kind)
            if provider:
                text += f" to {provider}"
            self.loop.call_soon(self.leave_source, ready, Trouble(0, (4, 4, 5), text, phase="route", is_of_source=True))
        except Exception as error:
            self.journal.log("error", where="warm-up", reason=repr(error))

    def leave_source(self, ReadyQueue ready, trouble, bint is_down=False):
        """The source of a ready queue cannot be used now: whoever waits in it takes another of its pool, or, where there is
        none, is deferred with the trouble. In slices."""
        if ready.guests is not None:
            ready.guests.send_back(trouble, is_down)
        if not ready.is_deferring and ready.count:
            ready.is_deferring = True
            ready.remark(trouble)
            self.leave_slice(ready, trouble, False, ready.count)

    def leave_slice(self, ReadyQueue ready, trouble, bint is_permanent, uint64_t remaining):
        cdef recipient *r
        cdef DomainQueue domain
        cdef ReadyQueue other
        cdef uint64_t end = mono_ns() + TURN_NS
        while not self.is_behind() and mono_ns() < end:
            r = ready.pop() if remaining else NULL
            if r == NULL:
                ready.is_deferring = False
                ready.draw_later()
                return
            remaining -= 1
            domain = <DomainQueue>r.domain
            if not self.plan_is_usable(domain):
                self.route(r)
                continue
            try:
                other = self.ready_queue(domain, r)
            except Exception as error:      # r stands in no list now: it must not be lost
                self.journal.log("error", where="route", domain=domain.domain, reason=repr(error))
                other = ready
            if other is ready:
                self.conclude_later(r, ready, trouble, is_permanent)
            else:
                other.push(r)
        self.later(functools.partial(self.leave_slice, ready), trouble, is_permanent, remaining)

    cdef void start_resolving(self) noexcept:
        cdef DomainQueue domain
        try:
            while not self.is_closing and self.begun_in_turn < LOOKUPS_A_TURN:
                domain = self.lookups.next()
                if domain is None and not self.lookups.is_cut_short:
                    return
                if self.begun_in_turn == 0:
                    self.loop.call_soon(self.resolve_more)
                self.begun_in_turn += 1
                if domain is None:
                    return
                if self.plan_or_wait is None:
                    task = self.loop.create_task(self.router.plan(domain.route_key))
                else:
                    task = self.loop.create_task(self.plan_or_wait(domain.route_key, self.waited.pop(domain, None)))
                self.plan_tasks.add(task)
                task.add_done_callback(functools.partial(self.planned, domain, self.generation))
        except Exception as error:
            self.journal.log("error", where="resolving", reason=repr(error))

    def resolve_more(self):
        """The next turn of the loop."""
        self.begun_in_turn = 0
        self.start_resolving()

    def planned(self, DomainQueue domain, uint32_t generation, task):
        """A look-up has ended: on with everybody who waited for it."""
        self.plan_tasks.discard(task)
        if generation == self.generation and not task.cancelled() and task.exception() is None \
                and asyncio.isfuture(task.result()):
            self.lookups.park(domain)           # a policy is fetched: nobody else waits for that, whatever its server does
            task.result().add_done_callback(functools.partial(self.policy_came, domain, generation))
            self.start_resolving()
            return
        self.lookups.ended(domain)
        trouble = None
        is_permanent = False
        if task.cancelled():
            return
        error = task.exception()
        if generation != self.generation:
            # Asked of a router that a reload has replaced: asked again of the new one.
            domain.plan = None
            domain.only = None
        elif error is None:
            try:
                self.take_plan(domain, task.result())
            except Exception as problem:
                error = problem
        if generation == self.generation and error is not None:
            domain.plan = None
            domain.only = None
            if isinstance(error, RoutingTrouble):
                is_permanent = error.is_permanent
                trouble = Trouble(0, error.status, error.text, phase="route")
            else:
                self.journal.log("error", where="router", domain=domain.domain, reason=repr(error))
                trouble = Trouble(0, (4, 3, 5), f"routing failed: {error}", phase="route")
        domain.is_resolving = False
        self.pass_on(domain, trouble, is_permanent, domain.unrouted)
        self.start_resolving()

    def policy_came(self, DomainQueue domain, uint32_t generation, task):
        """Or will not: its domain stands in line again. A reload has another router, who knows nothing of that wait."""
        if self.is_closing:
            return
        if generation == self.generation:
            self.waited[domain] = task
        self.lookups.back(domain)
        self.start_resolving()

    def pass_on(self, DomainQueue domain, trouble, bint is_permanent, uint64_t remaining):
        cdef recipient *r
        cdef uint64_t end = mono_ns() + TURN_NS
        while not self.is_behind() and mono_ns() < end:
            if remaining == 0 or domain.unrouted == 0:
                return
            r = <recipient *>domain.head.next
            list_remove(&r.link)
            domain.unrouted -= 1
            remaining -= 1
            r.link.where = PLACE_NOWHERE
            if trouble is None:
                self.route(r)
            else:
                self.conclude_later(r, None, trouble, is_permanent)
        self.later(functools.partial(self.pass_on, domain), trouble, is_permanent, remaining)

    # ---- forgetting ----

    def sweep(self):
        """Forgets domains, plans, ready queues and troubles that nobody needs, in slices; returns how many in the first. Called
        every minute or so."""
        if self.swept_in_use is not None or self.is_closing:
            return 0
        if self.has_late_tenants and len(self.flows) == 1:      # no mail is anybody's now
            self.has_late_tenants = False
            self.orders_generation += 1
        self.swept_in_use = set()
        self.parts_swept = 0
        self.ready_to_sweep = list(self.ready.values())
        return self.sweep_slice()

    def sweep_slice(self):
        cdef int forgotten = 0, budget = SLICE
        if self.is_closing:
            return 0
        # Domains first: then it is known which ready queues they point to. One part of the table is never left half-way.
        while self.parts_swept < POINTER_SET_PARTS and budget > 0:
            forgotten += self.sweep_part(self.parts_swept, &budget)
            self.parts_swept += 1
        while budget > 0 and self.ready_to_sweep:
            forgotten += self.sweep_ready(self.ready_to_sweep.pop())
            budget -= 1
        if budget > 0 and not self.troubles.prune():
            self.swept_in_use = None
            return forgotten
        self.loop.call_soon(self.sweep_slice)
        return forgotten

    cdef int sweep_part(self, uint32_t number, int *budget) except -1:
        cdef DomainQueue domain
        cdef int forgotten = 0
        cdef double now = mono_ms() / 1000.0
        cdef bint are_many = len(self.domains) > DOMAINS_KEPT
        for domain in self.domains.of_part(number):
            budget[0] -= 1
            if domain.is_resolving:
                continue
            if domain.plan is not None and (domain.generation != self.generation or domain.plan_expires_mono_s <= now):
                domain.plan = None              # it would be made anew, and keeps a ready queue in memory
                domain.only = None
            if domain.count == 0 and (domain.plan is None or are_many):
                self.domains.remove(domain)
                forgotten += 1
            elif domain.only is not None:
                self.swept_in_use.add(domain.only)
        return forgotten

    cdef bint sweep_ready(self, ReadyQueue ready) except -1:
        if ready.count or ready.waits_behind() or ready.places or ready.handed or ready.resume.next != NULL or ready.is_deferring \
                or ready in self.swept_in_use or ready in self.to_reroute or not ready.egress.forget(ready):
            return False
        self.ready.pop(ready.key, None)
        if self.appointer is not None:
            self.appointer.forgotten(ready)
        ready.let_go()
        self.ready_numbers.pop(ready.number, None)
        return True

    def ready_queues(self):
        return list(self.ready.values())

    def domain_queues(self):
        return [domain for number in range(POINTER_SET_PARTS) for domain in self.domains.of_part(number)]

    cdef uint64_t ready_recipients(self):
        cdef ReadyQueue ready
        cdef uint64_t sum_ = 0
        for ready in self.ready.values():
            sum_ += ready.count
        return sum_

    cdef uint64_t overflow_recipients(self):
        cdef ReadyQueue ready
        cdef uint64_t sum_ = 0
        for ready in self.ready.values():
            sum_ += ready.waits_behind()
        return sum_
