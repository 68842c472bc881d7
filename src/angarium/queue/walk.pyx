# An action on many messages: the index is gone through in slices of a millisecond. What can be seen without the envelope is
# seen then; only messages that may be concerned have theirs read back, where the action or a filter asks for it.
cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from angarium.model.clock cimport mono_ns, utc_ms
from angarium.queue.domains cimport DomainQueue
from angarium.queue.matching cimport Matcher
from angarium.queue.message cimport (
    OUTCOME_WAITING, PLACE_DEFERRED, RECIPIENT_MOVED, RECIPIENT_REPORT_DUE, RECIPIENT_SUSPENDED, message, recipient)
from angarium.queue.pointer_set cimport POINTER_SET_PARTS
from angarium.queue.scheduler cimport Scheduler

cdef enum:
    SLICE_NS = 1000000
    VERDICTS_MAX = 100000       # of domains kept
    READS_AT_ONCE = 64          # worth a pause between two slices

cdef enum action:
    COUNT
    COUNT_ORIGINS
    RETRY
    DELETE
    BOUNCE
    RELEASE

cdef dict ACTIONS = {"count": COUNT, "count-origins": COUNT_ORIGINS, "retry": RETRY, "delete": DELETE, "bounce": BOUNCE, "release": RELEASE}


@cython.final
cdef class Walk:
    cdef Scheduler scheduler
    cdef Matcher matcher
    cdef int action
    cdef object trouble
    cdef dict verdicts          # DomainQueue -> whether the matcher meets it
    cdef DomainQueue last       # asked for last
    cdef bint last_verdict
    cdef uint32_t part
    cdef list seen              # ids of messages that may be concerned
    cdef list out               # ids of messages of which recipients were called back from another worker
    cdef set seen_out           # of them, those counted
    cdef readonly uint64_t recipients, messages
    cdef public bint reads
    cdef public uint64_t missed_domains

    def __init__(self, Scheduler scheduler not None, Matcher matcher not None, str action, *, trouble=None):
        self.scheduler = scheduler
        self.matcher = matcher
        self.action = ACTIONS[action]
        self.trouble = trouble
        self.verdicts = {}
        self.seen = []
        self.out = []
        self.seen_out = set()
        self.last = None
        # The log names whose mail it was.
        self.reads = self.action != RELEASE and (matcher.needs_envelope or self.action in (DELETE, BOUNCE))

    def find(self):
        """The index changes under our hands, within one of its parts: all of a part is seen at once (ten million messages: some
        milliseconds), what is to be done is done in slices."""
        cdef uint64_t end = mono_ns() + SLICE_NS
        while len(self.seen) < <Py_ssize_t>(READS_AT_ONCE if self.reads else 1):
            if self.part >= POINTER_SET_PARTS:
                if not self.seen:
                    return None
                break
            self.see_part()
            if mono_ns() >= end:
                break
        if self.reads:
            ids, self.seen = self.seen, []
            return ids
        ids = []
        while self.seen and mono_ns() < end:
            id = self.seen.pop()
            if self.action == COUNT_ORIGINS and self.has_moved(id):
                ids.append(id)
            else:
                self.act(id)
        return ids

    cdef int see_part(self) except -1:
        cdef uint64_t now = utc_ms()
        cdef uint64_t slot = <uint64_t>self.part << 32
        cdef message *m = self.scheduler.index.next_from(&slot)
        while m != NULL and slot >> 32 == self.part:
            if self.may_concern(m, now):
                self.seen.append(m.id)
            m = self.scheduler.index.next_from(&slot)
        self.part += 1
        return 0

    def act(self, uint64_t id):
        cdef message *m = self.scheduler.index.find(id)
        cdef recipient *r
        cdef uint32_t i
        cdef uint64_t before = self.recipients
        # Once more: who names a message by its id may ask for its age, too, and a walk may have seen it a while ago.
        if m == NULL or self.action != RELEASE and not self.matcher.meets_message(m, utc_ms()):
            return
        self.scheduler.hold(m)
        for i in range(m.recipient_count):
            r = &m.recipients[i]
            if r.outcome == OUTCOME_WAITING:
                if self.concerns(m, r) and self.do(m, r):
                    self.recipients += 1
            elif self.action == DELETE and self.has_report(m, r) and self.concerns(m, r):
                r.flags &= <uint16_t>~RECIPIENT_REPORT_DUE
                m.report_count -= 1
                m.is_dirty = True           # or a restart would make it again
        if self.recipients != before and id not in self.seen_out:
            self.messages += 1
            if self.out and self.out[len(self.out) - 1] == id:
                self.seen_out.add(id)
        self.scheduler.release(m)

    def called_back(self):
        ids, self.out = self.out, []
        return ids

    cdef bint may_concern(self, message *m, uint64_t now) except -1:
        cdef uint32_t i
        if self.action != RELEASE and not self.matcher.meets_message(m, now):
            return False
        for i in range(m.recipient_count):
            if (m.recipients[i].outcome == OUTCOME_WAITING or self.action == DELETE and self.has_report(m, &m.recipients[i])) and (
                    self.is_suspended(&m.recipients[i]) if self.action == RELEASE
                    else self.meets_domain(<DomainQueue>m.recipients[i].domain) or self.asks_origin(&m.recipients[i])):
                return True
        return False

    cdef bint has_moved(self, uint64_t id) except -1:
        """Whether the envelope has to say where one of its recipients came from."""
        cdef message *m = self.scheduler.index.find(id)
        cdef uint32_t i
        if m != NULL:
            for i in range(m.recipient_count):
                if m.recipients[i].outcome == OUTCOME_WAITING and self.asks_origin(&m.recipients[i]):
                    return True
        return False

    cdef bint asks_origin(self, recipient *r) except -1:
        return (self.action == COUNT_ORIGINS and r.flags & RECIPIENT_MOVED != 0 and self.matcher.asks_plan
                and self.matcher.meets_name(<DomainQueue>r.domain))

    cdef bint concerns(self, message *m, recipient *r) except -1:
        cdef DomainQueue domain = <DomainQueue>r.domain
        if self.action == RELEASE:
            return self.is_suspended(r)
        if self.asks_origin(r) and m.envelope != NULL:
            domain = self.scheduler.origin_of(m, r)
        return (self.meets_domain(domain) and self.matcher.meets_source(self.scheduler, domain, r)
                and self.matcher.meets_envelope(m, r))

    cdef bint has_report(self, message *m, recipient *r) noexcept:
        return r.flags & RECIPIENT_REPORT_DUE != 0 and not m.report_in_flight

    cdef bint is_suspended(self, recipient *r) noexcept:
        return r.link.where == PLACE_DEFERRED and r.flags & RECIPIENT_SUSPENDED != 0

    cdef bint meets_domain(self, DomainQueue domain) except -1:
        if domain is self.last:
            return self.last_verdict
        known = self.verdicts.get(domain)
        if known is None:
            if len(self.verdicts) >= VERDICTS_MAX:
                self.verdicts.clear()
            known = self.verdicts[domain] = self.matcher.meets_domain(domain)
        self.last, self.last_verdict = domain, known
        return known

    cdef bint do(self, message *m, recipient *r) except -1:
        if self.action == COUNT or self.action == COUNT_ORIGINS:
            return True
        if self.action == RETRY or self.action == RELEASE:
            # Who is suspended stays so; ending that is another order.
            if r.link.where != PLACE_DEFERRED or self.action == RETRY and r.flags & RECIPIENT_SUSPENDED:
                return False
            self.scheduler.undefer(r)
            self.scheduler.route(r)
            return True
        if not self.scheduler.take_out(r):
            # A connection has it in hand, or another worker, from which it may come back yet.
            if self.scheduler.call_back(r) and (not self.out or self.out[len(self.out) - 1] != m.id):
                self.out.append(m.id)
            return False
        if self.action == BOUNCE:
            self.scheduler.conclude_later(r, None, self.trouble, True)
        else:
            self.scheduler.delete(m, r)
        return True
