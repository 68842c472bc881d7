# Limits of egress sources ([source.NAME] connections, connection_rate, rate, per_site; warm-up plans). Ready queues of sources
# that have none of it have no Passage, and pay a comparison a message.
#
# Who is kept waiting by its own pair of source and site pauses by itself (ready.pyx); who is kept waiting by the source as a
# whole stands in line at the Gate. With ten thousand sites and a hundred messages a second, a timer each would be a million
# wake-ups a second for nothing.
cimport cython
from libc.stdint cimport uint32_t, uint64_t

from angarium.queue.ready cimport ReadyQueue
from angarium.queue.shares cimport Share, Shares

import collections

cdef enum:
    AT_ONCE = 16                    # of a line, woken by one timer
    DIAL_AGAIN_NS = 100000000       # as may_connect() of a site

cdef double IN_LINE_S = 1e15        # ReadyQueue.paused_until_mono_s: until its turn comes


@cython.final
cdef class Allowance:
    def __cinit__(self, Shares shares, str name):
        self.shares = shares
        self.name = name
        self.share = shares.share(name)
        self.dial_share = None

    cdef int configure(self, object limits) except -1:
        self.connection_limit = limits.connections if limits is not None else 0
        self.rate_interval_ns, self.rate_burst = 0, 1
        self.dial_interval_ns, self.dial_burst = 0, 1
        if limits is not None and limits.rate:
            self.rate_interval_ns = <uint64_t>(1e9 / limits.rate)
            self.rate_burst = max(1, <uint32_t>(limits.rate / 10))
        if limits is not None and limits.connection_rate:
            self.dial_interval_ns = <uint64_t>(1e9 / limits.connection_rate)
            self.dial_burst = max(1, <uint32_t>(limits.connection_rate / 10))
            if self.dial_share is None:
                self.dial_share = self.shares.share(self.name + "\0dials")
        return 0

    cdef uint64_t message_wait(self) noexcept:
        return self.share.message_wait(self.rate_interval_ns, self.rate_burst) if self.rate_interval_ns else 0

    cdef void take_message(self) noexcept:
        if self.rate_interval_ns:
            self.share.take_message(self.rate_interval_ns, self.rate_burst)

    cdef uint64_t take_connection(self) noexcept:
        cdef uint64_t wait_ns
        # 65535 is what the table counts to: without a limit the place is taken all the same, for who looks.
        if not self.share.take_connection(self.connection_limit or 65535):
            return DIAL_AGAIN_NS
        if self.dial_interval_ns:
            wait_ns = self.dial_share.take_message(self.dial_interval_ns, self.dial_burst)
            if wait_ns:
                self.share.give_connection()
                return wait_ns
        return 0

    cdef void give_connection(self) noexcept:
        self.share.give_connection()

    cdef bint must_yield(self) noexcept:
        return self.connection_limit != 0 and self.share.is_wanted() and \
            self.share.own > self.connection_limit // self.shares.worker_count


@cython.final
cdef class Gate:
    def __cinit__(self, loop, Shares shares, str name):
        self.loop = loop
        self.allowance = Allowance(shares, f"source {name}")
        self.line = collections.deque()
        self.dial_line = collections.deque()

    cdef void stand(self, object ready, uint64_t wait_ns) noexcept:
        try:
            self.line.append(ready)
            if not self.is_armed:
                # Half a burst gathers meanwhile, as in ReadyQueue.await_rate().
                wait_ns += self.allowance.rate_burst // 2 * self.allowance.rate_interval_ns
                self.loop.call_later(wait_ns / 1e9, self.next_in_line)
                self.is_armed = True
        except Exception:
            pass                    # the loop is closing: mail stays in the spool

    def next_in_line(self):
        cdef ReadyQueue ready
        cdef uint32_t count = min(<uint32_t>AT_ONCE, self.allowance.rate_burst // 2 + 1)
        self.is_armed = False
        self.turns_out = 0              # who has not used its turn by now has no connection, or no mail any more
        while count and self.line:
            ready = self.line.popleft()
            ready.passage.is_in_line = False
            if ready.count:
                ready.passage.has_turn = True
                self.turns_out += 1
                count -= 1
            ready.go_on()
        if self.line and not self.is_armed:
            self.loop.call_later(max(self.allowance.message_wait(), <uint64_t>1000000) / 1e9, self.next_in_line)
            self.is_armed = True

    cdef void stand_to_dial(self, object ready, uint64_t wait_ns) noexcept:
        try:
            self.dial_line.append(ready)
            (<ReadyQueue>ready).egress.spare((<ReadyQueue>ready).source)
            if not self.is_dial_armed:
                self.loop.call_later(wait_ns / 1e9, self.next_to_dial)
                self.is_dial_armed = True
        except Exception:
            pass                    # likewise

    def next_to_dial(self):
        cdef ReadyQueue ready
        cdef int count = AT_ONCE
        self.is_dial_armed = False
        while count and self.dial_line:
            ready = self.dial_line.popleft()
            ready.passage.is_in_dial_line = False
            ready.passage.has_dial_turn = ready.count != 0
            if ready.count:
                ready.egress.wake(ready)
                count -= 1
        if self.dial_line and not self.is_dial_armed:
            ready = self.dial_line[0]
            ready.egress.spare(ready.source)
            self.loop.call_later(DIAL_AGAIN_NS / 1e9, self.next_to_dial)
            self.is_dial_armed = True


@cython.final
cdef class Passage:
    def __cinit__(self, Gate gate, Allowance pair, Ration ration):
        self.gate = gate
        self.pair = pair
        self.ration = ration

    cdef uint64_t message_wait(self, object ready) noexcept:
        cdef uint64_t wait_ns
        cdef bint had_turn
        if self.is_in_line:
            return 1
        wait_ns = self.gate.allowance.message_wait()
        had_turn = self.has_turn
        self.has_turn = False
        if had_turn and self.gate.turns_out:
            self.gate.turns_out -= 1
        # One message a turn, and nobody goes before those who stand in line or have a turn.
        if wait_ns or not had_turn and (self.gate.turns_out or self.gate.line):
            self.is_in_line = True
            (<ReadyQueue>ready).paused_until_mono_s = IN_LINE_S
            self.gate.stand(ready, wait_ns)
            if had_turn:
                self.gate.line.rotate(1)        # the rate was used up before its message: it comes first then
            return 1
        wait_ns = self.pair.message_wait()
        if wait_ns:
            (<ReadyQueue>ready).await_rate(wait_ns + self.pair.rate_burst // 2 * self.pair.rate_interval_ns)
        return wait_ns

    cdef void take_message(self) noexcept:
        self.gate.allowance.take_message()
        self.pair.take_message()

    cdef bint take_connection(self, object ready) noexcept:
        cdef uint64_t wait_ns = DIAL_AGAIN_NS
        if self.is_in_dial_line:
            return False
        if not self.gate.dial_line or self.has_dial_turn:
            wait_ns = self.pair.take_connection()
            if wait_ns == 0:
                wait_ns = self.gate.allowance.take_connection()
                if wait_ns:
                    self.pair.give_connection()
        self.has_dial_turn = False
        if wait_ns == 0:
            self.held += 1
            return True
        self.is_in_dial_line = True
        self.gate.stand_to_dial(ready, wait_ns)
        return False

    cdef void give_connection(self) noexcept:
        if self.held:               # what was dialled before a reload brought limits was not counted
            self.held -= 1
            self.pair.give_connection()
            self.gate.allowance.give_connection()

    cdef bint must_yield(self, bint had_its_turn) noexcept:
        return had_its_turn and self.gate.dial_line or self.gate.allowance.must_yield() or self.pair.must_yield()

    cdef bint others_wait(self) noexcept:
        return bool(self.gate.dial_line)
