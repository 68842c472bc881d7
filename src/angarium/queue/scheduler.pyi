"""The scheduler of a worker: where every recipient is, from its commit to its outcome (Cython callers see more, in the .pxd)."""

from asyncio import AbstractEventLoop, Task
from typing import Protocol, final

from angarium.events.journal import Journal
from angarium.model.plan import Plan, Source
from angarium.queue.ledger import Ledger
from angarium.queue.options import QueueOptions, ShapingOptions
from angarium.queue.ready import Egress, ReadyQueue
from angarium.queue.shares import Shares
from angarium.queue.wheel import Wheel

class Router(Protocol):
    """What routing/ offers."""

    def plan_now(self, domain: bytes) -> Plan | None: ...
    async def plan(self, domain: bytes) -> Plan: ...

class Pool(Protocol):
    """What routing/egress_pool.py offers."""

    only: Source | None
    def choose(self, chance: float | None = None) -> Source: ...

class Reporter(Protocol):
    """What queue/reports.py offers."""

    def report(self, scheduler: Scheduler, pointer: int) -> None: ...

@final
class DomainQueue:
    """One recipient domain, its plan, and who waits for one."""

    count: int
    unrouted: int
    domain: bytes
    plan: Plan | None
    plan_expires_mono_s: float

@final
class Scheduler(Ledger):
    """One per worker. `hot_limit_octets` bounds envelopes and bodies kept in memory for their first attempt."""

    router: Router
    pool: Pool
    options: QueueOptions
    hostname: str
    hot_octets: int
    hot_limit_octets: int
    states_in_flight: int
    reporter: Reporter | None
    def __init__(
        self,
        loop: AbstractEventLoop,
        wheel: Wheel,
        journal: Journal,
        shares: Shares,
        *,
        router: Router,
        pool: Pool,
        shaping: ShapingOptions,
        options: QueueOptions,
        hostname: str,
        hot_limit_octets: int = ...,
    ) -> None: ...
    def reconfigure(self, *, router: Router, pool: Pool, shaping: ShapingOptions, options: QueueOptions) -> None:
        """New routing and limits, at once: what is ready or unrouted is routed again, in slices."""
    def set_egress(self, protocol: str, egress: Egress) -> None:
        """Who serves ready queues whose site speaks `protocol`."""
    def reported(self, pointer: int, indexes: list[int] | None, error: int) -> None:
        """The reporter's answer: these recipients (None: all) need no report any more (0), or try again later."""
    def close(self) -> None:
        """No new look-ups, reports or timers; what is in hand may still settle."""
    def sweep(self) -> int:
        """Forgets domains and ready queues nobody needs. Call every minute or so."""
    def ready_queues(self) -> list[ReadyQueue]: ...
    def domain_queues(self) -> list[DomainQueue]: ...
    def depth(self) -> dict[str, int]:
        """messages, recipients, ready, deferred, hot_octets, domains, ready_queues: now."""
    def planned(self, domain: DomainQueue, generation: int, task: Task[Plan]) -> None: ...
