# Limits of egress sources over all sites ([shaping.source.NAME] all_sites), and of tenants' connections ([shaping.tenant.NAME], at
# each site or over all); and of tenants and campaigns whom automation slows down (adjustments.py). Which of them a ready queue
# passes: way.pyx.
#
# Who is kept waiting by its site pauses by itself (ready.pyx); who is kept waiting by such a limit stands in line at the Gate. With ten thousand sites and a hundred messages a second, a timer each would be a million wake-ups a second for nothing.
cimport cython
from libc.stdint cimport uint32_t, uint64_t

from angarium.queue.ready cimport ReadyQueue
from angarium.queue.shares cimport Shares, pace_of, wait_of
from angarium.queue.way cimport Way

import collections

from angarium.queue.shaping import DIALS

cdef enum:
    AT_ONCE = 16                    # of a line, woken by one timer
    DIAL_AGAIN_NS = 100000000       # as may_connect() of a site

cdef double IN_LINE_S = 1e15        # ReadyQueue.paused_until_mono_s: until its turn comes


@cython.final
cdef class Gate:
    def __cinit__(self, loop, Shares shares, str scope):
        self.loop = loop
        self.shares = shares
        self.share = shares.share_of(scope)
        self.dial_share = shares.share_of(DIALS + scope)
        self.line = collections.deque()
        self.dial_line = collections.deque()

    cdef int configure(self, object limits) except -1:
        self.connection_limit = ANY_NUMBER
        if limits is not None and limits.connections is not None:
            self.connection_limit = limits.connections
        pace_of(limits.message_rate if limits is not None else None, &self.rate)
        pace_of(limits.connection_rate if limits is not None else None, &self.dial_rate)
        return 0

    cdef Passage passage_of(self, object ready):
        cdef Way way = (<ReadyQueue>ready).way
        return None if way is None else way.passage_of(self)

    cdef bint is_overdrawn(self) noexcept:
        return self.share.own != 0 and self.connection_limit != ANY_NUMBER and self.share.machine_count > self.connection_limit

    cdef bint has_surplus(self) noexcept:
        return self.connection_limit != ANY_NUMBER and self.share.own > self.connection_limit // self.shares.worker_count

    cdef void stand(self, object ready, uint64_t wait_ns, bint is_first) noexcept:
        try:
            if is_first:
                self.line.appendleft(ready)
            else:
                self.line.append(ready)
            if not self.is_armed:
                # Who has had its turn, and not all of the rate, stands there only so that others get theirs.
                self.loop.call_later(wait_of(wait_ns, &self.rate) / 1e9 if wait_ns else 0.0, self.next_in_line)
                self.is_armed = True
        except Exception:
            pass                    # the loop is closing: mail stays in the spool

    def next_in_line(self):
        cdef ReadyQueue ready
        cdef Passage passage
        cdef uint64_t wait_ns
        cdef int count = AT_ONCE
        # What has gathered, among those in line: few sites take several at once, many one each.
        cdef uint32_t turns = max(<uint32_t>1, (self.rate.burst // 2 + 1) // max(<uint32_t>1, <uint32_t>len(self.line)))
        self.is_armed = False
        while count and self.line:
            ready = self.line.popleft()
            passage = self.passage_of(ready)
            if passage is None:                 # it goes past here no more
                continue
            passage.is_in_line = False
            if ready.count:
                passage.turns = turns + 1
                count -= 1
            ready.go_on()
        if self.line and not self.is_armed:
            wait_ns = self.share.message_wait(self.rate.interval_ns, self.rate.burst) if self.rate.interval_ns else 0
            self.loop.call_later(max(wait_ns, <uint64_t>1000000) / 1e9, self.next_in_line)
            self.is_armed = True

    cdef void stand_to_dial(self, object ready, uint64_t wait_ns) noexcept:
        try:
            self.dial_line.append(ready)
            if not self.is_dial_armed:          # else next_to_dial() does so: it looks at all pools, and many sites may come
                (<ReadyQueue>ready).egress.spare(self)
                self.loop.call_later(wait_ns / 1e9, self.next_to_dial)
                self.is_dial_armed = True
        except Exception:
            pass                    # likewise

    def next_to_dial(self):
        cdef ReadyQueue ready
        cdef Passage passage
        cdef int count = AT_ONCE
        self.is_dial_armed = False
        while count and self.dial_line:
            ready = self.dial_line.popleft()
            passage = self.passage_of(ready)
            if passage is not None:
                passage.is_in_dial_line = False
                passage.has_dial_turn = ready.count != 0
            if ready.count:
                ready.egress.wake(ready)
                count -= 1
        if self.dial_line and not self.is_dial_armed:
            ready = self.dial_line[0]
            ready.egress.spare(self)
            self.loop.call_later(DIAL_AGAIN_NS / 1e9, self.next_to_dial)
            self.is_dial_armed = True

    cdef uint64_t take_connection(self) noexcept:
        cdef uint64_t wait_ns
        if not self.share.take_connection(self.connection_limit):
            return DIAL_AGAIN_NS
        if self.dial_rate.interval_ns:
            wait_ns = self.dial_share.take_message(self.dial_rate.interval_ns, self.dial_rate.burst)
            if wait_ns:
                self.share.give_connection()
                return wait_ns
        return 0


@cython.final
cdef class Passage:
    def __cinit__(self, Gate gate):
        self.gate = gate

    cdef bint take_message(self, object ready) noexcept:
        cdef Gate gate = self.gate
        cdef uint64_t wait_ns = 0
        cdef bint has_turn = self.turns > 1     # 1: it has had its turn, and lets others have theirs
        if self.is_in_line:
            return False
        if has_turn or self.turns == 0 and not gate.line:
            if gate.rate.interval_ns:
                wait_ns = gate.share.take_message(gate.rate.interval_ns, gate.rate.burst)
            if wait_ns == 0:
                if has_turn:
                    self.turns -= 1
                return True
        self.turns = 0
        self.is_in_line = True
        (<ReadyQueue>ready).paused_until_mono_s = IN_LINE_S
        gate.stand(ready, wait_ns, has_turn)    # the rate was used up in its turn: it comes first then
        return False

    cdef void give_message(self) noexcept:
        if self.gate.rate.interval_ns:
            self.gate.share.give_message(self.gate.rate.interval_ns)

    cdef bint take_connection(self, object ready) noexcept:
        cdef uint64_t wait_ns = DIAL_AGAIN_NS
        if self.is_in_dial_line:
            return False
        if not self.gate.dial_line or self.has_dial_turn:
            wait_ns = self.gate.take_connection()
        self.has_dial_turn = False
        if wait_ns == 0:
            self.held += 1
            return True
        self.is_in_dial_line = True
        self.gate.stand_to_dial(ready, wait_ns)
        return False

    cdef void untake_connection(self) noexcept:
        self.give_connection()
        if self.gate.dial_rate.interval_ns:
            self.gate.dial_share.give_message(self.gate.dial_rate.interval_ns)

    cdef void give_connection(self) noexcept:
        if self.held:
            self.held -= 1
            self.gate.share.give_connection()

    cdef bint must_yield(self, bint had_its_turn) noexcept:
        return had_its_turn and self.gate.dial_line or self.gate.has_surplus() and self.gate.share.is_wanted() or \
            self.gate.is_overdrawn()

    cdef bint others_wait(self) noexcept:
        return bool(self.gate.dial_line)

    cdef int take_over(self, uint32_t places) except -1:
        cdef uint32_t i
        for i in range(places):
            self.gate.share.take_connection(<uint32_t>-1)   # they are there, whatever the limit
        self.held += places
        return 0
