# Which gates a ready queue passes, and how all of them are asked at once. What one gate counts and who stands in line there:
# passage.pyx. A queue that passes none has no Way, and pays a comparison a message.
cimport cython
from libc.stdint cimport uint64_t

from angarium.queue.passage cimport Gate, Passage
from angarium.queue.ready cimport ReadyQueue

from angarium.queue.adjustments import restraints_of
from angarium.queue.shaping import shared_scope, tenant_gate_scope
from angarium.queue.shaping_options import AllSites


cdef enum:
    MISSED = 3                  # judged: who asks at random finds two places free at once more often than that

cdef double KEEP_S = 1.0        # judged: longer than most messages take, which is what it waits for


@cython.final
cdef class Way:
    def __cinit__(self, list passages not None):
        cdef Passage passage
        self.passages = passages
        for passage in passages:
            self.is_metered = self.is_metered or passage.gate.rate.interval_ns != 0

    cdef Passage passage_of(self, Gate gate):
        cdef Passage passage
        for passage in self.passages:
            if passage.gate is gate:
                return passage
        return None

    cdef bint take_message(self, object ready) noexcept:
        cdef Passage passage
        cdef int i, count = 0
        for passage in self.passages:
            if not passage.take_message(ready):
                for i in range(count):
                    (<Passage>self.passages[i]).untake_message()
                return False
            count += 1
        return True

    cdef void give_message(self) noexcept:
        cdef Passage passage
        for passage in self.passages:
            passage.give_message()

    # Two gates that others keep busy are hardly ever free at once: who waits at one would lose its turn at the other, and find that
    # taken when it comes back, for ever. Who has no connection and has missed a few times keeps the place that it found, while at the
    # gate where it waits, now in front, one ends behind its message. Gates are asked in the same order by all, so that no two wait for
    # each other.

    cdef bint take_connection(self, object ready) noexcept:
        cdef Passage passage
        cdef int i, count = 0
        self.keeps_places = False
        for passage in self.passages:
            if passage.is_kept:
                passage.is_kept = False
            elif not passage.take_connection(ready):
                self.missed += 1
                try:
                    if count and self.missed > MISSED and (<ReadyQueue>ready).places == 0:
                        passage.gate.dial_line.stand(ready, False, True)    # where it has been in front before
                        self.keep(ready, count)
                        return False
                except Exception:
                    pass                    # the loop is closing
                for i in range(count):
                    (<Passage>self.passages[i]).untake_connection(ready)
                return False
            count += 1
        self.missed = 0
        return True

    cdef int keep(self, object ready, int count) except -1:
        cdef int i
        self.times_kept += 1
        (<ReadyQueue>ready).ledger.loop.call_later(KEEP_S, self.kept_long_enough, ready, self.times_kept)
        for i in range(count):
            (<Passage>self.passages[i]).is_kept = True
        self.keeps_places = True
        return 0

    def kept_long_enough(self, ready, times_kept):
        if times_kept == self.times_kept and (<ReadyQueue>ready).way is self:       # else they were used, and are kept anew
            self.let_go(ready)

    cdef void let_go(self, object ready) noexcept:
        cdef Passage passage
        self.keeps_places = False
        for passage in self.passages:
            if passage.is_kept:
                passage.is_kept = False
                passage.untake_connection(ready)

    cdef void untake_connection(self, object ready) noexcept:
        cdef Passage passage
        for passage in self.passages:
            passage.untake_connection(ready)

    cdef void give_connection(self, object ready, bint was_leaving) noexcept:
        cdef Passage passage
        for passage in self.passages:
            passage.give_connection(ready, was_leaving)

    cdef bint leave(self, bint by_site) noexcept:
        cdef Passage passage
        cdef bint is_leaving = by_site
        cdef int i, count = 0               # gates before the first that says so
        for passage in self.passages:
            if passage.leave(0 if is_leaving else passage.gate.connection_limit):
                is_leaving = True
            elif not is_leaving:
                count += 1
        for i in range(count if is_leaving else 0):
            (<Passage>self.passages[i]).leave(0)
        return is_leaving

    cdef bint is_over(self) noexcept:
        cdef Passage passage
        for passage in self.passages:
            if passage.gate.is_over():
                return True
        return False

    cdef bint is_in_line(self) noexcept:
        cdef Passage passage
        for passage in self.passages:
            if passage.is_in_line:
                return True
        return False

    cdef bint must_yield(self, bint had_its_turn) noexcept:
        cdef Passage passage
        for passage in self.passages:
            if passage.must_yield(had_its_turn):
                return True
        return False

    cdef bint others_wait(self) noexcept:
        cdef Passage passage
        for passage in self.passages:
            if passage.others_wait():
                return True
        return False

    cdef bint is_in_dial_line(self) noexcept:
        cdef Passage passage
        for passage in self.passages:
            if passage.is_in_dial_line:
                return True
        return False

    cdef void leave_dial_lines(self, object ready) noexcept:
        cdef Passage passage
        for passage in self.passages:
            passage.leave_dial_line(ready)
        if self.keeps_places:
            self.let_go(ready)

    cdef bint has_surplus(self) noexcept:
        cdef Passage passage
        for passage in self.passages:
            if passage.gate.has_surplus():
                return True
        return False


cdef list gates_of(ReadyQueue ready):
    """(whose limits they are, for whom automation sets them, the name under which they are counted, AllSites) of each gate that
    it has to pass."""
    cdef list found = []
    limits, adjustments = ready.limits, ready.ledger.adjustments
    if not ready.site.hosts:
        return found                        # it leaves this machine by no network
    if limits.all_sites is not None:
        found.append(("source", "", shared_scope("source", ready.source.name), limits.all_sites))
    if limits.tenant_places is not None:
        found.append(("tenant", "", tenant_gate_scope(ready.site, limits), limits.tenant_places))
    if limits.connection_scope.startswith("\0"):
        # Over sites: at each of them as many may be, and one site's measure of automation is not the others'.
        found.append(("shared", "", limits.connection_scope, AllSites(connections=ready.shared_limit())))
    if adjustments is not None:
        provider = ready.ledger.shaping.provider_of(ready.site, ready.kind)
        for scope, allowed, for_whom in restraints_of(adjustments, ready.apart, ready.site, limits,
                                                       provider=provider, source=ready.source.name):
            found.append(("automation", for_whom, scope, allowed))
    return found


cdef int look_at_gates(object of_) except -1:
    cdef ReadyQueue ready = of_
    cdef Passage passage
    cdef Gate gate
    cdef dict known = {}
    cdef list passages = []
    if ready.way is not None:
        ready.way.let_go(ready)
        known = {(<Passage>each).gate: each for each in ready.way.passages}
    for whose, for_whom, scope, limits in gates_of(ready):
        gate = ready.ledger.hold_gate(scope)
        gate.configure(limits)              # with the first of its queues the whole gate goes by what a reload has brought
        passage = known.pop(gate, None)
        if passage is not None:
            ready.ledger.drop_gate(gate)    # which it holds already
        else:
            passage = Passage(gate)
            passage.take_over(ready.places, ready.leaving)
        passage.whose, passage.for_whom = whose, for_whom
        passages.append(passage)
    ready.way = Way(passages) if passages else None
    for passage in known.values():
        leave_gate(ready, passage)
    return 0


cdef void leave_gates(object of_) noexcept:
    cdef ReadyQueue ready = of_
    cdef Passage passage
    cdef Way way = ready.way
    ready.way = None
    if way is not None:
        way.let_go(ready)
        for passage in way.passages:
            leave_gate(ready, passage)


cdef void leave_gate(ReadyQueue ready, Passage passage) noexcept:
    cdef bint stood_in_line = passage.is_in_dial_line
    passage.leave_dial_line(ready)
    passage.pass_turn()
    while passage.held:
        passage.give_connection(ready, passage.leaving != 0)
    ready.ledger.drop_gate(passage.gate)
    if passage.is_in_line:
        passage.is_in_line = False
        if ready.count:                     # in a turn of its own: it is being configured
            ready.ledger.wheel.arm(&ready.resume, 0)
        else:
            ready.paused_until_mono_s = 0.0
    elif stood_in_line and ready.count:
        ready.egress.wake(ready)
