# Limits of egress sources over all sites ([shaping.source.NAME] all_sites), and of tenants' connections ([shaping.tenant.NAME], at
# each site or over all); connections that sites share (`share = true`); and of those whom automation slows down (adjustments.py).
# Which of them a ready queue passes: way.pyx.
#
# Who is kept waiting by its site pauses by itself (ready.pyx); who is kept waiting by such a limit stands in line at the Gate. With
# ten thousand sites and a hundred messages a second, a timer each would be a million wake-ups a second for nothing.
cimport cython
from libc.stdint cimport uint32_t, uint64_t

from angarium.queue.dial_line cimport DialLine
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.shares cimport Shares, pace_of, wait_of
from angarium.queue.way cimport Way

import collections

from angarium.queue.shaping import DIALS

cdef enum:
    AT_ONCE = 16                    # of a line, woken by one timer
    DIAL_AGAIN_NS = 100000000       # as may_connect() of a site
    LATEST_NS = 1000000000          # a reload may take away the rate that somebody waits for
    LOOKED_AT = 256                 # in one turn of the loop, of those in line who want no connection any more

cdef double IN_LINE_S = 1e15        # ReadyQueue.paused_until_mono_s: until its turn comes


@cython.final
cdef class Gate:
    def __cinit__(self, loop, Shares shares, str scope):
        self.loop = loop
        self.shares = shares
        self.share = shares.share_of(scope)
        self.dial_share = shares.share_of(DIALS + scope)
        self.line = collections.deque()
        self.dial_line = DialLine()

    cdef int configure(self, object limits) except -1:
        self.connection_limit = ANY_NUMBER
        if limits is not None and limits.connections is not None:
            self.connection_limit = limits.connections
        pace_of(limits.message_rate if limits is not None else None, &self.rate)
        pace_of(limits.connection_rate if limits is not None else None, &self.dial_rate)
        self.serve_soon()                       # there may be more places than before
        return 0

    cdef Passage passage_of(self, object ready):
        cdef Way way = (<ReadyQueue>ready).way
        return None if way is None else way.passage_of(self)

    cdef bint is_over(self) noexcept:
        return self.connection_limit != ANY_NUMBER and self.share.is_over(self.connection_limit)

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
                self.arm(wait_of(wait_ns, &self.rate) if wait_ns else 0)
        except Exception:
            pass                    # the loop is closing: mail stays in the spool

    cdef int arm(self, uint64_t wait_ns) except -1:
        self.loop.call_later(min(wait_ns, <uint64_t>LATEST_NS) / 1e9, self.next_in_line)
        self.is_armed = True
        return 0

    def next_in_line(self):
        cdef ReadyQueue ready
        cdef Passage passage
        cdef uint64_t wait_ns
        cdef int count = AT_ONCE
        # What has gathered, among those in line: few sites take several at once, many one each.
        cdef uint32_t turns = max(<uint32_t>1, (self.rate.burst // 2 + 1) // max(<uint32_t>1, <uint32_t>len(self.line)))
        self.is_armed = False
        if self.line and self.rate.interval_ns:
            wait_ns = self.share.message_wait(self.rate.interval_ns, self.rate.burst)
            if wait_ns:                         # the timer was short of it, or another worker was faster
                self.arm(wait_of(wait_ns, &self.rate))
                return
        while count and self.line:
            ready = self.line.popleft()
            passage = self.passage_of(ready)
            if passage is None or not passage.is_in_line:       # it goes past here no more, or anew
                continue
            passage.is_in_line = False
            if ready.count:
                passage.turns = turns + 1
                count -= 1
            ready.go_on()
        if self.line and not self.is_armed:
            wait_ns = self.share.message_wait(self.rate.interval_ns, self.rate.burst) if self.rate.interval_ns else 0
            self.arm(max(wait_ns, <uint64_t>1000000))

    # Places that this worker gives back go to the next in line at once. What other workers give back nobody tells: that is looked
    # for every 100 ms, and left as a mark for them that it is wanted.

    cdef void stand_to_dial(self, object ready, Passage passage, uint64_t wait_ns, bint is_first) noexcept:
        try:
            self.dial_line.stand(ready, passage.held != 0, is_first)
            if not self.is_dial_armed:          # else next_to_dial() does so: it looks at all pools, and many sites may come
                if self.queue_count > 1:        # else the only one with idle connections here would be this one
                    (<ReadyQueue>ready).egress.spare(self)
                self.arm_dial(wait_ns)
        except Exception:
            pass                    # likewise

    cdef int arm_dial(self, uint64_t wait_ns) except -1:
        self.loop.call_later(min(wait_ns, <uint64_t>LATEST_NS) / 1e9, self.next_to_dial)
        self.is_dial_armed = True
        return 0

    cdef void serve_soon(self) noexcept:
        if self.is_serving or self.dial_line.is_empty():
            return
        try:
            self.loop.call_soon(self.serve)
            self.is_serving = True
        except Exception:
            pass                    # likewise

    def serve(self):
        cdef uint64_t wait_ns
        cdef list given = []
        self.is_serving = False
        wait_ns = self.give_turns(given)
        if given:
            # Behind the turn of the loop in which they dial. Until then who has no turn stands in line: it would take their places.
            self.loop.call_soon(self.see_turns, given)
            self.is_serving = True
        if not self.is_dial_armed and not self.dial_line.is_empty():
            self.arm_dial(wait_ns)

    def next_to_dial(self):
        cdef ReadyQueue ready
        self.is_dial_armed = False
        self.serve()
        ready = self.dial_line.foremost()
        if ready is not None and self.queue_count > 1:
            ready.egress.spare(self)

    def see_turns(self, list given):
        """Who has not dialled meanwhile, for its site rests or its window is full, lets the next one try."""
        cdef Passage passage
        self.is_serving = False
        for passage in given:
            passage.pass_turn()
        self.serve_soon()                       # for whom there was none meanwhile

    cdef uint64_t give_turns(self, list given) except? 0:
        cdef ReadyQueue ready = self.dial_line.foremost()
        cdef Passage passage
        cdef uint64_t wait_ns
        cdef uint32_t count = 0
        cdef int left = LOOKED_AT
        cdef bint wants_one
        while ready is not None:
            if left == 0:
                self.serve_soon()
                return DIAL_AGAIN_NS
            left -= 1
            wants_one = ready.count != 0 and ready.home < 0
            if wants_one and count == 0:
                count = min(<uint32_t>AT_ONCE, self.free_places())
                if count == 0:
                    self.dial_line.turn()
                    return DIAL_AGAIN_NS
                if self.dial_rate.interval_ns:
                    wait_ns = self.dial_share.message_wait(self.dial_rate.interval_ns, self.dial_rate.burst)
                    if wait_ns:
                        return wait_ns
                    count = 1                           # who takes it has the next one served
            self.dial_line.leave(ready)
            self.hastened_for = None
            passage = self.passage_of(ready)
            if passage is not None:
                passage.is_in_dial_line = False
                passage.has_dial_turn = wants_one
            if wants_one:
                if passage is not None:
                    given.append(passage)
                ready.egress.wake(ready)
                count -= 1
                if count == 0:
                    return DIAL_AGAIN_NS
            ready = self.dial_line.foremost()
        return DIAL_AGAIN_NS

    cdef uint32_t free_places(self) noexcept:
        cdef uint32_t used = self.share.count()
        if used < self.connection_limit:
            return self.connection_limit - used
        if not self.share.take_connection(self.connection_limit):
            return 0
        self.share.give_connection()                    # one was given back just now
        return 1

    cdef bint is_owed(self, uint32_t held) noexcept:
        cdef Passage passage
        if self.dial_line.without:
            return True
        if not self.dial_line.others:
            return False
        passage = self.passage_of(self.dial_line.foremost())
        return passage is not None and passage.held + 1 < held

    cdef bint must_hasten(self) noexcept:
        cdef ReadyQueue ready
        if self.dial_line.is_empty():
            return False
        ready = self.dial_line.foremost()
        if ready.way is None or not ready.way.keeps_places or self.hastened_for is ready:
            return False
        if self.free_places():                  # it waits for the rate of connections: one that ends would only use that up
            return False
        self.hastened_for = ready
        return True

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

    # Another gate refuses. Its turn here it has again when it comes back: who lost it would wait for each message at one gate and
    # then at the other, and get but a part of what the slower of them allows.
    cdef void untake_message(self) noexcept:
        if self.turns:
            self.turns += 1
        self.give_message()

    cdef void give_message(self) noexcept:
        if self.gate.rate.interval_ns:
            self.gate.share.give_message(self.gate.rate.interval_ns)

    cdef bint take_connection(self, object ready) noexcept:
        cdef uint64_t wait_ns = DIAL_AGAIN_NS
        cdef bint has_turn = self.has_dial_turn
        if self.is_in_dial_line:
            return False
        self.has_dial_turn = False
        if has_turn or not self.gate.is_serving and not self.gate.dial_line.is_before(self.held != 0):
            wait_ns = self.gate.take_connection()
        if wait_ns == 0:
            self.held += 1
            self.gate.serve_soon()              # there may be one more
            return True
        self.is_in_dial_line = True
        self.gate.stand_to_dial(ready, self, wait_ns, has_turn)
        return False

    cdef void pass_turn(self) noexcept:
        if self.has_dial_turn:
            self.has_dial_turn = False
            self.gate.serve_soon()

    cdef void leave_dial_line(self, object ready) noexcept:
        if not self.is_in_dial_line:
            return
        try:
            self.gate.dial_line.leave(ready)
            self.is_in_dial_line = False
        except Exception:
            pass                                # it has its turn, and wants none

    cdef void untake_connection(self, object ready) noexcept:
        if self.gate.dial_rate.interval_ns:
            self.gate.dial_share.give_message(self.gate.dial_rate.interval_ns)
        self.give_connection(ready, False)

    cdef bint leave(self, uint32_t limit) noexcept:
        if not self.gate.share.leave(limit):
            return False
        self.leaving += 1
        return True

    cdef void give_connection(self, object ready, bint was_leaving) noexcept:
        if self.held == 0:
            return
        self.held -= 1
        if was_leaving and self.leaving:
            self.leaving -= 1
            self.gate.share.left()
        else:
            self.gate.share.give_connection()
        if self.held == 0 and self.is_in_dial_line:
            try:
                self.gate.dial_line.lost_all(ready)
            except Exception:
                pass                            # out of memory: it keeps its place in line
        self.gate.serve_soon()

    cdef bint must_yield(self, bint had_its_turn) noexcept:
        return had_its_turn and self.gate.is_owed(self.held) or self.gate.must_hasten() or \
            self.gate.has_surplus() and self.gate.share.is_wanted()

    cdef bint others_wait(self) noexcept:
        return not self.gate.dial_line.is_empty()

    cdef int take_over(self, uint32_t places, uint32_t leaving) except -1:
        cdef uint32_t i
        for i in range(places):
            self.gate.share.take_connection(<uint32_t>-1)   # they are there, whatever the limit
        self.held += places
        for i in range(leaving):
            self.leave(0)
        return 0
