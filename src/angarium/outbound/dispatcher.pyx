# The Egress of SMTP and LMTP: gives each ready queue its pool and ends them all at shutdown.
cimport cython
from angarium.outbound.connection cimport Connection, deadline_node
from angarium.model.clock cimport mono_ms
from angarium.outbound.pool cimport Pool
from angarium.queue.passage cimport Gate
from angarium.queue.ready cimport Egress, ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.queue.wheel cimport wheel_node
from angarium.sockets.poll cimport Poll

import asyncio

from angarium.outbound.dialer import Dialer
from angarium.outbound.options import OutboundOptions
from angarium.outbound.source_watch import SourceWatch
from angarium.queue.shaping import kind_text
from angarium.routing.source_health import SourceHealth


cdef void deadline_over(wheel_node *node, void *context) noexcept:
    cdef Connection connection = <Connection>(<deadline_node *>node).connection
    connection.expired()


@cython.final
cdef class Dispatcher(Egress):

    def __init__(self, Scheduler scheduler not None, options=None, *, health=None, logins=None):
        self.poll = Poll(scheduler.loop)
        self.scheduler = scheduler
        self.options = OutboundOptions() if options is None else options
        self.sources = SourceWatch(scheduler.loop, scheduler.journal, SourceHealth() if health is None else health,
                                   self.options, self)
        self.dialer = Dialer(scheduler.loop, self.options, scheduler.journal, self.sources, logins)
        self.deadline_kind = scheduler.wheel.register(deadline_over, NULL)
        self.pools = set()

    cdef void wake(self, ReadyQueue ready) noexcept:
        cdef Pool pool
        if ready.state is not None:
            (<Pool>ready.state).wake()
            return
        if self.is_draining:
            return
        try:
            pool = Pool(ready, self.dialer, self.options, self.deadline_kind, self.pool_emptied, self.poll)
            ready.state = pool
            self.pools.add(pool)
            pool.wake()
        except Exception as error:
            self.scheduler.journal.log("error", where="dispatcher", site=ready.site.name, reason=repr(error))

    cdef void shrink(self, ReadyQueue ready) noexcept:
        if ready.state is not None:
            (<Pool>ready.state).shrink()

    cdef bint forget(self, ReadyQueue ready) noexcept:
        cdef Pool pool = ready.state
        if pool is None:
            return True
        if not pool.may_be_forgotten():
            return False
        self.pools.discard(pool)
        ready.state = None
        return True

    cdef void step_back(self, ReadyQueue ready) noexcept:
        cdef Pool pool = ready.state
        ready.state = None
        if pool is not None:
            pool.drain()                # it stays in `pools` until what it has in hand is over

    cdef void spare(self, object gate) noexcept:
        cdef Pool pool
        try:
            for pool in self.pools:
                if pool.idle_count and (<Gate>gate).passage_of(pool.ready) is not None:
                    pool.spare()
        except Exception as error:
            self.scheduler.journal.log("error", where="dispatcher", reason=repr(error))

    def source_down(self, str name, trouble):
        """For the SourceWatch: whoever waits for this source takes another of its pool."""
        cdef Pool pool
        for pool in list(self.pools):
            if pool.ready.source.name == name and not pool.is_draining:     # else another serves its queue
                pool.source_down(trouble)

    def source_up(self, str name):
        cdef Pool pool
        for pool in list(self.pools):
            if pool.ready.source.name == name:
                pool.source_up()

    def pool_emptied(self, Pool pool):
        self.pools.discard(pool)
        self.tell_if_drained()

    cdef int tell_if_drained(self) except -1:
        if self.drained is not None and not self.pools and not self.drained.done():
            self.drained.set_result(None)
        return 0

    async def drain(self, deadline_s):
        cdef Pool pool
        self.is_draining = True
        self.sources.close()
        self.drained = self.scheduler.loop.create_future()
        for pool in list(self.pools):
            pool.drain()
        self.tell_if_drained()
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.shield(self.drained)
            return True
        except TimeoutError:
            for pool in list(self.pools):
                pool.abort()
            await asyncio.sleep(0)          # cancelled dials end in the next turn of the loop
            return False

    def connections(self):
        """All that are open, of a moment."""
        cdef Pool pool
        cdef list found = []
        for pool in self.pools:
            found += pool.connections
        return found

    def by_source(self):
        """Source name to connections open and recipients waiting."""
        cdef Pool pool
        cdef dict found = {}
        for pool in self.pools:
            figures = found.setdefault(pool.ready.source.name, {"connections": 0, "waiting": 0})
            figures["connections"] += len(pool.connections)
            figures["waiting"] += pool.ready.count + pool.ready.waits_behind()
        return found

    def add_connections(self, ReadyQueue ready not None, facts):
        """Fills in what QueueFacts say of the connections of a ready queue."""
        cdef Pool pool
        if not isinstance(ready.state, Pool):
            return
        pool = ready.state
        facts.busy = pool.busy_count
        facts.idle = pool.idle_count
        facts.dialling = len(pool.dials)
        facts.window = pool.window
        facts.is_narrowed = pool.has_had_trouble()
        facts.retry_dial_s = max(pool.dial_after_s - mono_ms() / 1000.0, 0.0)
        facts.average_ms = round(pool.average_ms, 1)
        facts.tls = pool.policy.name
        facts.encrypted = pool.encrypted_count()

    def status(self):
        cdef Pool pool
        return [
            {
                "site": pool.ready.site.name, "source": pool.ready.source.name, "kind": kind_text(pool.ready.kind), "waiting": pool.ready.count + pool.ready.waits_behind(),
                "busy": pool.busy_count, "idle": pool.idle_count, "dialling": len(pool.dials),
                "tls": pool.policy.name, "encrypted": pool.encrypted_count(),
                "window": int(pool.window), "average_ms": round(pool.average_ms, 1),
            }
            for pool in self.pools
        ]
