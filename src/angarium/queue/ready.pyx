# Ready queues: recipients that may go now, per site and egress source. What takes them out is an Egress.
# Which recipient belongs here is the scheduler's decision, how it is delivered the egress's; here is only the order,
# the pace (rate, pauses) and the number of connections.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport TURN_NS, mono_ns, utc_ms
from angarium.queue.domains cimport DomainQueue
from angarium.queue.ledger cimport Ledger
from angarium.queue.guests cimport Guests, settle_guest
from angarium.queue.message cimport (
    PLACE_BEHIND, PLACE_IN_HAND, PLACE_NOWHERE, PLACE_READY, STATE_ELSEWHERE, domain_budget, message, message_of, recipient, transaction)
from angarium.queue.order cimport Order, order_walk
from angarium.queue.overflow cimport Overflow
from angarium.queue.passage cimport Passage
from angarium.queue.shares cimport Share, pace_of, wait_of
from angarium.queue.way cimport Way, leave_gates, look_at_gates
from angarium.queue.wheel cimport wheel_node

import time

from angarium.metrics.counters import gauge
from angarium.model.units import Rate
from angarium.queue.shaping import DIALS, scope_name

cdef Counter queue_ready = gauge("angarium_queue_ready", "Recipients in ready queues now.")

cdef class Egress:
    cdef void wake(self, ReadyQueue ready) noexcept:
        pass

    cdef void shrink(self, ReadyQueue ready) noexcept:
        pass

    cdef bint forget(self, ReadyQueue ready) noexcept:
        return True

    cdef void spare(self, object gate) noexcept:
        pass

    cdef void step_back(self, ReadyQueue ready) noexcept:
        pass

    cdef void call_back(self, ReadyQueue ready) noexcept:
        pass


cdef class Appointer:
    cdef int appoint(self, ReadyQueue ready, Egress usual) except -1:
        return 0

    cdef void forgotten(self, ReadyQueue ready) noexcept:
        pass


cdef enum:
    REMARKS_KEPT = 3                    # of each ready queue: there may be a hundred thousand

cdef size_t resume_offset = 0


@cython.final
@cython.no_gc
cdef class Remark:
    pass


@cython.final
cdef class ReadyQueue:
    """Kept by the scheduler for as long as it runs or until it is empty and unused for a while."""

    def __cinit__(self, Ledger ledger, object site, object source, int wish=WISH_NONE, kind=None, apart=None):
        global resume_offset
        # Where `resume` lies in every object of this class: how ready_resumed() finds the owner of a due node.
        resume_offset = <size_t>&self.resume - <size_t><PyObject *>self
        self.order = Order(ledger.flows)
        memset(&self.resume, 0, sizeof(self.resume))
        self.resume.kind = <uint8_t>ledger.resume_kind
        self.ledger = ledger
        self.site = site
        self.source = source
        self.wish = <uint8_t>wish
        self.kind = kind
        self.apart = apart
        self.way = None
        self.ration = None
        self.site_name = site.name.encode("utf-8", "replace")
        self.source_name = source.name.encode("utf-8", "replace")
        self.share = ledger.hold_share(site.name)
        self.rate_share = ledger.hold_share(site.name)
        self.paused_until_mono_s = 0.0
        self.last_trouble = ""
        self.home = -1
        self.configure()

    cdef void configure(self) noexcept:
        try:
            limits = self.ledger.shaping.limits(self.site, self.source.name, self.kind)
            self.count_by(limits)
            options = limits.options
            self.connection_limit = options.connections
            self.most = options.max_ready
            self.draw_later()
            self.recipient_limit = options.recipients_per_transaction
            self.messages_per_connection = options.messages_per_connection
            self.avoids_pipelining = not options.pipelining
            self.avoids_bdat = not options.bdat
            self.retry_first_s = 0.0
            if options.retry is not None:
                self.retry_factor = options.retry.factor
                self.retry_max_s = options.retry.max
                self.retry_jitter = options.retry.jitter
                self.retry_first_s = options.retry.first
            pace_of(options.message_rate, &self.rate)
            pace_of(limits.tenant_rate, &self.tenant_rate)
            pace_of(options.connection_rate, &self.dial_rate)
            self.limits = limits
            self.place = None
            if self.ledger.adjustments is not None:
                self.adjust()
            self.is_paced = self.rate.interval_ns != 0 or self.tenant_rate.interval_ns != 0
            self.ration = self.ledger.ration_of(self) if self.site.hosts else None
            look_at_gates(self)
            self.look_at_meters()
            self.look_at_terms()
            self.is_over = self.has_too_many()
            if self.is_over:
                self.egress.shrink(self)
        except Exception as error:      # options are checked when they are read: this is a bug, and a visible one
            self.ledger.journal.log("error", where="ready queue configuration", reason=repr(error))

    cdef int adjust(self) except -1:
        """What automation says for a time: fewer connections, slower. What it does to one source, tenant or campaign: way.pyx."""
        provider = self.ledger.shaping.provider_of(self.site, self.kind)
        cdef pace capped
        factor, cap, rate_cap = self.ledger.adjustments.of(self.site.name, provider)
        if cap and cap < self.connection_limit:
            self.connection_limit = cap
        if factor > 1.0:
            self.connection_limit = max(<uint32_t>1, <uint32_t>(self.connection_limit / <double>factor))
            self.rate.interval_ns = <uint64_t>(self.rate.interval_ns * <double>factor)
            self.tenant_rate.interval_ns = <uint64_t>(self.tenant_rate.interval_ns * <double>factor)
            self.dial_rate.interval_ns = <uint64_t>(self.dial_rate.interval_ns * <double>factor)
        if rate_cap:
            pace_of(Rate(rate_cap), &capped)
            if capped.interval_ns > self.rate.interval_ns:
                self.rate = capped
        return 0

    cdef int count_by(self, object limits) except -1:
        """From now on where `limits` say; places taken so far are counted there too."""
        # What sites share is a gate (way.pyx); here are those of this one.
        cdef Share old, new = self.ledger.hold_share(self.site.name + limits.connection_scope)
        cdef uint32_t i
        old, self.share = self.share, new
        if old is not None and old is not new:
            for i in range(self.places):
                new.take_connection(<uint32_t>-1)       # they are there, whatever the limit
                if i < self.leaving:
                    old.left()
                    new.leave(0)
                else:
                    old.give_connection()
            if old.wanted_by == self.number:
                old.wanted_by = 0
        self.ledger.drop_share(old)
        old, self.dial_share = self.dial_share, self.ledger.hold_share(DIALS + scope_name(self.site, limits.dial_scope)) \
            if limits.options.connection_rate is not None else None
        self.ledger.drop_share(old)
        old, self.rate_share = self.rate_share, self.ledger.hold_share(scope_name(self.site, limits.rate_scope))
        self.ledger.drop_share(old)
        old, self.tenant_share = self.tenant_share, self.ledger.hold_share(scope_name(self.site, limits.tenant_scope)) \
            if limits.tenant_rate is not None else None
        self.ledger.drop_share(old)
        return 0

    cdef uint32_t shared_limit(self) except? 0:
        cdef uint32_t limit = self.limits.options.connections
        if self.ledger.adjustments is None or "provider " not in self.limits.connection_scope:
            return limit
        factor, cap, _ = self.ledger.adjustments.of("", self.ledger.shaping.provider_of(self.site, self.kind))
        if cap and cap < limit:
            limit = cap
        return max(<uint32_t>1, <uint32_t>(limit / <double>factor))

    cdef bint counts_alone(self) noexcept:
        return self.share.queue_count == (2 if self.rate_share is self.share else 1)

    cdef void look_at_terms(self) noexcept:
        self.is_gated = self.way is not None and self.way.is_metered
        self.has_terms = self.is_paced or self.is_gated or self.ration is not None or self.guests is not None

    cdef void receive_guests(self, Guests guests) noexcept:
        self.guests = guests
        self.look_at_terms()

    cdef void guests_came(self, uint32_t count) noexcept:
        self.count += count
        queue_ready.cell[0] += count
        self.egress.wake(self)

    cdef void guests_left(self, uint32_t count) noexcept:
        self.count -= count
        queue_ready.cell[0] -= count

    cdef void let_go(self) noexcept:
        self.is_gone = True
        self.ledger.drop_share(self.share)
        self.ledger.drop_share(self.dial_share)
        self.ledger.drop_share(self.rate_share)
        self.ledger.drop_share(self.tenant_share)
        leave_gates(self)
        self.is_gated = False

    cdef void look_at_meters(self) noexcept:
        cdef Passage passage
        self.metered_ns = max(self.rate.interval_ns, self.tenant_rate.interval_ns)
        if self.way is not None:
            for passage in self.way.passages:
                self.metered_ns = max(self.metered_ns, passage.gate.rate.interval_ns)

    cdef void remark(self, object trouble) noexcept:
        cdef Remark last
        try:
            self.last_trouble = trouble.text
            if self.replies is None:
                self.replies = []
            if self.replies:
                last = self.replies[len(self.replies) - 1]
                if last.text == trouble.text and last.code == trouble.code and last.remote == trouble.remote:
                    last.utc_ms = utc_ms()
                    last.count += 1
                    return
            last = Remark.__new__(Remark)
            last.code, last.status, last.text = trouble.code, trouble.status, trouble.text
            last.remote, last.phase = trouble.remote, trouble.phase
            last.utc_ms = utc_ms()
            last.count = 1
            self.replies.append(last)
            if len(self.replies) > REMARKS_KEPT:
                del self.replies[0]
        except Exception:
            pass                        # out of memory: it is for people only

    cdef bytes domain_in_front(self):
        cdef recipient *r = self.order.foremost()
        if r == NULL and self.guests is not None:
            return self.guests.domain_in_front()
        return (<DomainQueue>r.domain).domain if r != NULL else b""

    cdef void push(self, recipient *r) noexcept:
        # Who comes does not go before those that wait behind the queue already.
        if (self.own_count() >= self.most or self.overflow is not None and self.overflow.count) and \
                self.ledger.passing_on is not self and not self.has_company(r) and self.push_behind(r):
            return
        self.order.add(r, False)
        r.link.where = PLACE_READY
        r.link.due = self.number        # free outside the wheel: says whose list this is
        self.count += 1
        queue_ready.cell[0] += 1
        self.egress.wake(self)

    cdef recipient *pop(self) noexcept:
        """The first recipient, out of the list and nowhere; NULL when there is none."""
        cdef recipient *r = self.order.foremost()
        if r != NULL:
            self.remove(r)
        return r

    cdef void remove(self, recipient *r) noexcept:
        if r.link.where == PLACE_BEHIND:
            self.overflow.remove(r)
            return
        self.order.remove(r)
        r.link.where = PLACE_NOWHERE
        self.count -= 1
        queue_ready.cell[0] -= 1
        if self.overflow is not None:
            self.draw_later()

    # ---- who waits behind it ----

    cdef bint has_company(self, recipient *r) noexcept:
        """The recipient before it in its message has a place, and they can travel together: a few over the limit cost less than
        another transaction."""
        cdef recipient *before = r - 1
        return r.index != 0 and before.link.where == PLACE_READY and before.link.due == self.number \
            and self.own_count() < self.most + self.recipient_limit

    cdef bint push_behind(self, recipient *r) noexcept:
        """False: out of memory."""
        cdef message *m = message_of(r)
        if self.overflow is None:
            try:
                self.overflow = Overflow(self.ledger.flows, self.number)
            except MemoryError:
                return False
        self.overflow.add(r)
        if m.is_hot and m.hand_count == 0 and m.live_count == m.deferred_count:
            self.ledger.hold(m)
            self.ledger.release(m)          # what it had in memory for an attempt can go
        self.draw_later()
        return True

    cdef uint64_t waits_behind(self) noexcept:
        return self.overflow.count if self.overflow is not None else 0

    cdef void draw_later(self) noexcept:
        # In a turn of its own: who takes out many puts most of them back (a reload), or wants them all ended (a dead site).
        if self.is_draw_due or self.overflow is None or self.overflow.count == 0 or self.own_count() >= self.most or self.is_deferring:
            return
        try:
            self.ledger.loop.call_soon(self.draw)
            self.is_draw_due = True
        except Exception:
            pass                            # the loop is closing: mail stays in the spool

    def draw(self):
        """Takes in from behind whom there is room for."""
        cdef message *m
        cdef uint32_t i
        cdef uint64_t end = mono_ns() + TURN_NS
        self.is_draw_due = False
        while self.own_count() < self.most and not self.is_deferring and mono_ns() < end:
            if not self.overflow.take(self.recipient_limit):
                return
            m = self.overflow.taken.message
            self.ledger.hold(m)
            for i in range(self.overflow.taken.count):
                self.ledger.take_in(self, self.overflow.taken.recipients[i])
            self.ledger.release(m)
        self.draw_later()

    cdef bint own_may_go(self, const domain_budget *domains) noexcept:
        """Our own mail has somebody to go next, whom a budget that is used up does not rule out."""
        cdef recipient *r
        if domains == NULL or domains.left != 0:
            return self.own_count() != 0
        r = self.order.foremost()
        return r != NULL and r.domain == domains.last

    cdef bint is_beyond(self, const domain_budget *domains) noexcept:
        cdef recipient *r
        if domains.left != 0 or self.count == 0:
            return False
        r = self.order.foremost()
        if self.guests is None:
            return r == NULL or r.domain != domains.last
        return self.guests.is_turn_of_another(domains.last, r != NULL and r.domain == domains.last, self.own_count())

    cdef bint take_rights(self, transaction *into) noexcept:
        if (self.is_paced or self.is_gated) and not self.take_rates():
            return False
        if self.ration is not None:
            into.ration_day = self.ration.take()
            if into.ration_day == 0:
                self.give_rates()
                self.ledger.ration_spent(self)
                return False
        return True

    cdef bint take(self, transaction *into, uint32_t limit, domain_budget *domains) noexcept:
        cdef int taken = 0
        into.message = NULL
        into.count = 0
        into.ration_day = 0
        if self.count == 0 or self.paused_until_mono_s != 0.0:
            return False
        if not self.has_terms:
            return self.pick(into, limit, domains)
        if not self.take_rights(into):
            return False
        if self.guests is not None:
            taken = self.guests.take(into, min(limit, self.recipient_limit), domains, self.own_count(),
                                     self.own_may_go(domains))
            if taken > 0:
                if self.count == 0 and self.share.wanted_by == self.number:
                    self.share.unwant(self.number)
                return True
        if taken < 0 or not self.pick(into, limit, domains):
            self.give_pace(into)
            return False
        if self.guests is not None:
            self.guests.charge_own(into.message.message_octets)
        return True

    cdef bint pick(self, transaction *into, uint32_t limit, domain_budget *domains) noexcept:
        cdef order_walk walk
        cdef recipient *r
        cdef recipient **grown
        into.message = NULL
        into.count = 0
        if limit > self.recipient_limit:
            limit = self.recipient_limit
        # A budget that is used up goes on with its last domain: no turn then, the foremost was looked at.
        r = self.order.begin(&walk, domains == NULL or domains.left != 0)
        while r != NULL:
            if domains != NULL and r.domain != domains.last:
                if domains.left == 0:
                    if into.count == 0:
                        break
                    r = self.order.another(&walk)
                    continue
                domains.left -= 1
                domains.last = r.domain
            if into.count == into.capacity:
                grown = <recipient **>realloc(into.recipients, (into.capacity * 2 + 1) * sizeof(recipient *))
                if grown == NULL:
                    break
                into.recipients = grown
                into.capacity = into.capacity * 2 + 1
            if into.count == 0:
                self.order.went(&walk)
            self.order.remove(r)
            r.link.where = PLACE_IN_HAND
            into.recipients[into.count] = r
            into.count += 1
            if into.count == limit:
                break
            r = self.order.another(&walk)
        if into.count == 0:
            return False
        self.count -= into.count
        if self.count == 0 and self.share.wanted_by == self.number:
            self.share.unwant(self.number)      # others need not wait for it
        queue_ready.cell[0] -= into.count
        if self.overflow is not None:
            self.draw_later()
        into.message = walk.message
        walk.message.hand_count += into.count
        return True

    cdef void give_back(self, transaction *from_) noexcept:
        cdef uint32_t i
        cdef recipient *r
        cdef uint32_t given = 0
        if from_.count and from_.message.state_in_flight == STATE_ELSEWHERE:
            self.give_back_guest(from_)
            return
        for i in range(from_.count, 0, -1):
            r = from_.recipients[i - 1]
            if r.link.where == PLACE_IN_HAND:
                self.order.add(r, True)
                r.link.where = PLACE_READY
                r.link.due = self.number
                given += 1
        self.count += given
        queue_ready.cell[0] += given
        self.ledger.settle(from_)
        if given:
            self.egress.wake(self)

    cdef void give_pace(self, const transaction *of_) noexcept:
        self.give_rates()
        if of_.ration_day and self.ration is not None:
            self.ration.give(of_.ration_day)

    cdef void give_back_guest(self, transaction *from_) noexcept:
        cdef uint32_t given = self.guests.give_back(from_) if self.guests is not None else settle_guest(from_)
        self.count += given
        queue_ready.cell[0] += given
        self.ledger.settle(from_)
        if given:
            self.egress.wake(self)

    cpdef pause(self, double seconds):
        cdef double until = time.monotonic() + seconds
        if until > self.paused_until_mono_s:
            self.paused_until_mono_s = until
            self.ledger.wheel.arm(&self.resume, <uint64_t>(max(seconds, 0.0) * 1000))

    cdef void go_on(self) noexcept:
        self.paused_until_mono_s = 0.0
        if self.count:
            self.egress.wake(self)

    cdef bint take_rates(self) noexcept:
        """Of the site, of the tenant and of all gates, or of none of them. Those of which several workers may ask are taken one
        after the other, and given back when a later one says no."""
        cdef uint64_t wait_ns = 0
        if self.tenant_rate.interval_ns:
            wait_ns = self.tenant_share.message_wait(self.tenant_rate.interval_ns, self.tenant_rate.burst)
            if wait_ns:
                self.await_rate(wait_of(wait_ns, &self.tenant_rate))
                return False
        if self.rate.interval_ns:
            wait_ns = self.rate_share.take_message(self.rate.interval_ns, self.rate.burst)
            if wait_ns:
                self.await_rate(wait_of(wait_ns, &self.rate))
                return False
        if self.tenant_rate.interval_ns:
            wait_ns = self.tenant_share.take_message(self.tenant_rate.interval_ns, self.tenant_rate.burst)
            if wait_ns:                         # another worker was faster
                if self.rate.interval_ns:
                    self.rate_share.give_message(self.rate.interval_ns)
                self.await_rate(wait_ns)
                return False
        # Last, for who is turned away here stands in line, and has had its turn when it comes back.
        if self.is_gated and not self.way.take_message(self):
            self.give_site_rates()
            return False
        return True

    cdef void give_site_rates(self) noexcept:
        if self.rate.interval_ns:
            self.rate_share.give_message(self.rate.interval_ns)
        if self.tenant_rate.interval_ns:
            self.tenant_share.give_message(self.tenant_rate.interval_ns)

    cdef void give_rates(self) noexcept:
        self.give_site_rates()
        if self.is_gated:
            self.way.give_message()

    cdef void await_rate(self, uint64_t wait_ns) noexcept:
        # Not by the wheel, whose ticks of 100 ms would halve a rate of ten a second.
        cdef double wait_s = <double>wait_ns / 1e9
        self.rate_until_mono_s = self.paused_until_mono_s = time.monotonic() + wait_s
        try:
            self.ledger.loop.call_later(wait_s, self.rate_allows)
        except Exception:
            pass                                # the loop is closing: mail stays in the spool

    def rate_allows(self):
        if self.paused_until_mono_s != self.rate_until_mono_s:
            return                              # a longer pause has begun meanwhile; the wheel ends that
        self.paused_until_mono_s = 0.0
        if self.count:
            self.egress.wake(self)

    cpdef bint may_connect(self):
        cdef uint64_t wait_ns
        if self.way is not None and self.way.is_in_dial_line():
            return False                        # it is woken when its turn comes there
        if self.ration is not None and self.ration.spent():
            self.ledger.ration_spent(self)      # a connection without mail would do a new address no good
            return False
        if self.dial_rate.interval_ns:
            wait_ns = self.dial_share.message_wait(self.dial_rate.interval_ns, self.dial_rate.burst)
            if wait_ns:
                self.await_dial(wait_ns)
                return False
        if not self.share.take_connection(self.connection_limit):
            self.share.want(self.number, self.places == 0)
            if self.resume.next == NULL:
                self.ledger.wheel.arm(&self.resume, 100)
            return False
        # Behind the site's place: nobody uses up what the source may dial for a site that has none.
        if self.way is not None and not self.way.take_connection(self):
            self.share.give_connection()
            return False
        if self.dial_rate.interval_ns:
            wait_ns = self.dial_share.take_message(self.dial_rate.interval_ns, self.dial_rate.burst)
            if wait_ns:                         # another worker was faster
                self.share.give_connection()
                if self.way is not None:
                    self.way.untake_connection(self)
                self.await_dial(wait_ns)
                return False
        self.places += 1
        if self.share.wanted_by == self.number:
            self.share.wanted_by = 0
        return True

    cdef void await_dial(self, uint64_t wait_ns) noexcept:
        if self.is_dial_awaited:
            return
        try:
            self.ledger.loop.call_later(<double>wait_ns / 1e9, self.dial_allowed)
            self.is_dial_awaited = True
        except Exception:
            pass                                # the loop is closing: mail stays in the spool

    def dial_allowed(self):
        self.is_dial_awaited = False
        if self.count:
            self.egress.wake(self)

    cpdef connection_closed(self):
        self.give_place(False)

    cdef void give_place(self, bint was_leaving) noexcept:
        if self.places:
            self.places -= 1
        if was_leaving and self.leaving:
            self.leaving -= 1
            self.share.left()
        else:
            self.share.give_connection()
        if self.way is not None:
            self.way.give_connection(self, was_leaving)

    # A limit that becomes lower, by a reload or by automation, holds for connections that are there: as many end, each behind its
    # message, as there are too many, over all workers. Looked at once, and then by those that ask for more until it is met.

    cdef bint has_too_many(self) noexcept:
        return self.places != 0 and (self.share.is_over(self.connection_limit) or self.way is not None and self.way.is_over())

    cdef bint give_up_place(self) noexcept:
        cdef bint by_site
        if self.leaving >= self.places:
            return False
        by_site = self.share.leave(self.connection_limit)
        if self.way is not None and self.way.leave(by_site):
            if not by_site:
                self.share.leave(0)                     # whoever says so, it leaves them all
        elif not by_site:
            self.is_over = self.has_too_many()
            return False
        self.leaving += 1
        return True

    cpdef bint is_contended(self):
        return self.share.is_wanted()

    cpdef defer_all(self, object trouble):
        self.remark(trouble)
        if self.guests is not None:
            self.guests.refuse_all(trouble, False)
        if not self.is_deferring and self.count:
            self.is_deferring = True
            self.conclude_slice(trouble, False, self.count)

    cpdef fail_all(self, object trouble):
        self.remark(trouble)
        if self.guests is not None:
            self.guests.refuse_all(trouble, True)
        if not self.is_deferring and self.count:
            self.is_deferring = True
            self.conclude_slice(trouble, True, self.count)

    def conclude_slice(self, trouble, bint is_permanent, uint64_t remaining):
        cdef recipient *r
        cdef uint64_t end = mono_ns() + TURN_NS
        while not self.ledger.is_behind() and mono_ns() < end:
            r = self.pop() if remaining else NULL
            if r == NULL:
                self.is_deferring = False
                self.draw_later()
                return
            remaining -= 1
            self.ledger.conclude_later(r, self, trouble, is_permanent)
        self.ledger.later(self.conclude_slice, trouble, is_permanent, remaining)

    @property
    def connections(self):
        """Of the whole machine, counted where this queue's are."""
        cdef Passage passage
        for passage in self.way.passages if self.way is not None else ():
            if passage.whose == "shared":
                return passage.gate.share.machine_count
        return self.share.machine_count


cdef void ready_resumed(wheel_node *node, void *context) noexcept:
    cdef ReadyQueue ready = <ReadyQueue><PyObject *>(<char *>node - resume_offset)
    if ready.way is not None and ready.way.is_in_line():
        return
    ready.paused_until_mono_s = 0.0
    if ready.count:
        ready.egress.wake(ready)
