# Homes of ready queues. A site, or a source over all sites, or a tenant, that may have fewer connections than there are workers is
# served by one of them, its home: else they would fight for the few, and open and close them in turn. Everybody finds the home for
# himself (rendezvous.py), by the name under which the connections are counted, so that all that is counted together has one home.
#
# Asked when a ready queue is made, when its limits may have changed, and when a worker has come or gone; never for a message.
cimport cython
from libc.stdint cimport uint64_t

from angarium.handover.outlet cimport HandOver
from angarium.queue.passage cimport Passage
from angarium.queue.ready cimport Appointer, Egress, ReadyQueue
from angarium.queue.scheduler cimport Scheduler

from angarium.handover.rendezvous import home_of

cdef double LOOK_S = 0.1            # between looks at who lives
cdef enum:
    SLICE = 200                     # ready queues placed in one turn of the loop


@cython.final
cdef class Homes(Appointer):
    def __init__(self, Scheduler scheduler not None, HandOver handover not None, int number, int count):
        self.scheduler = scheduler
        self.handover = handover
        self.number = number
        self.count = <uint64_t>count
        self.limited = {}
        self.to_place = []
        self.living = scheduler.shares.living_now()
        self.timer = scheduler.loop.call_later(LOOK_S, self.look)

    cdef str scope_of(self, ReadyQueue ready):
        """The name by which its home is found; None: any worker may serve it."""
        if ready.site.protocol == "maildir":
            return None                 # it leaves this machine by no connection
        cdef bint is_few = ready.connection_limit < self.count
        cdef Passage passage
        for passage in ready.way.passages if ready.way is not None else ():
            if passage.gate.connection_limit >= self.count:
                continue
            # With few at the site anyway a tenant's mail goes where other mail for it does; but what is counted over all sites does not.
            if passage.whose == "source" or passage.whose == "shared" or passage.whose == "tenant" and (not is_few or self.is_over_sites(ready)):
                return passage.gate.share.name
        return ready.share.name if is_few else None

    cdef bint is_over_sites(self, ReadyQueue ready) except -1:
        return ready.limits.tenant_scope.startswith("\0")

    cdef int home_now(self, str scope) except? -1:
        cdef int home
        # Ourselves too, though we may not have said yet that we serve: somebody has to.
        home = home_of(scope, self.living | <uint64_t>1 << self.number)
        return -1 if home == self.number else home

    cdef int appoint(self, ReadyQueue ready, Egress usual) except -1:
        cdef str scope = self.scope_of(ready)
        cdef int home = -1
        if scope is None:
            self.limited.pop(ready.number, None)
        else:
            self.limited[ready.number] = ready
            home = self.home_now(scope)
        if home >= 0 and home == ready.home:
            self.handover.planned_anew(ready)
            return 0
        return self.place(ready, usual, home)

    cdef int place(self, ReadyQueue ready, Egress usual, int home) except -1:
        cdef Egress before = ready.egress
        if home == ready.home:
            return 0
        ready.home = home
        if home >= 0 and ready.guests is not None:
            ready.guests.send_back(None, False)
        before.step_back(ready)
        ready.egress = usual if home < 0 else self.handover
        if ready.count:
            ready.egress.wake(ready)
        return 0

    cdef void forgotten(self, ReadyQueue ready) noexcept:
        try:
            self.limited.pop(ready.number, None)
        except Exception:
            pass

    def look(self):
        cdef uint64_t living = self.scheduler.shares.living_now()
        self.timer = self.scheduler.loop.call_later(LOOK_S, self.look)
        if living != self.living:
            self.living = living
            if not self.to_place:
                self.scheduler.loop.call_soon(self.place_slice)
            self.to_place = list(self.limited.values())

    def place_slice(self):
        cdef ReadyQueue ready
        cdef int budget = SLICE
        while self.to_place and budget:
            ready = self.to_place.pop()
            budget -= 1
            if ready.is_gone or ready.number not in self.limited:
                continue
            scope = self.scope_of(ready)
            if scope is not None:
                self.place(ready, self.scheduler.egresses[ready.site.protocol], self.home_now(scope))
        if self.to_place:
            self.scheduler.loop.call_soon(self.place_slice)

    def close(self):
        """Homes stay as they are."""
        self.timer.cancel()
        self.to_place = []

    @property
    def limited_count(self):
        return len(self.limited)
