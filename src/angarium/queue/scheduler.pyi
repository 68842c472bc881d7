"""The scheduler of a worker: where every recipient is, from its commit to its outcome (Cython callers see more, in the .pxd)."""

from asyncio import AbstractEventLoop, Task
from collections.abc import Callable
from typing import Protocol, final

from angarium.events.journal import Journal
from angarium.model.outcome import Trouble
from angarium.model.plan import Plan, Site, Source
from angarium.queue.options import QueueOptions, ShapingOptions
from angarium.queue.shares import Shares
from angarium.queue.wheel import Wheel
from angarium.spool.shard import Shard

class Router(Protocol):
    """What routing/ offers."""

    def plan_now(self, domain: bytes) -> Plan | None: ...
    async def plan(self, domain: bytes) -> Plan: ...

class Pool(Protocol):
    """What routing/egress_pool.py offers."""

    only: Source | None
    def choose(self) -> Source: ...

class Reporter(Protocol):
    """What queue/reports.py offers."""

    def report(self, scheduler: Scheduler, pointer: int) -> None: ...

class Egress:
    """Takes recipients out of ready queues; subclassed in Cython."""

@final
class ReadyQueue:
    """Recipients ready for one site by one egress source, first in first out."""

    count: int
    number: int
    site: Site
    source: Source
    site_name: bytes
    source_name: bytes
    egress: Egress
    state: object
    paused_until_mono_s: float
    last_trouble: str
    connection_limit: int
    recipient_limit: int
    messages_per_connection: int
    def pause(self, seconds: float) -> None:
        """Gives nothing out for that long; then its egress is woken."""
    def may_connect(self) -> bool:
        """Takes one of the machine's connections to the site; when False the egress is woken again by itself."""
    def connection_closed(self) -> None:
        """Gives one back."""
    def is_contended(self) -> bool:
        """Another worker asked in vain: idle connections should close."""
    def defer_all(self, trouble: Trouble) -> None:
        """One failed attempt for every recipient now in the queue, in slices."""
    def fail_all(self, trouble: Trouble) -> None:
        """The same for good."""
    @property
    def connections(self) -> int:
        """Connections of the whole machine to the site."""

@final
class DomainQueue:
    """One recipient domain, its plan, and who waits for one."""

    count: int
    unrouted: int
    domain: bytes
    plan: Plan | None
    plan_expires_mono_s: float

@final
class Scheduler:
    """One per worker. `hot_limit_octets` bounds envelopes and bodies kept in memory for their first attempt."""

    wheel: Wheel
    journal: Journal
    shares: Shares
    loop: AbstractEventLoop
    hostname: str
    hot_octets: int
    hot_limit_octets: int
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
    def inject(
        self,
        shard: Shard,
        reverse_path: bytes,
        recipients: list[bytes],
        body: bytes,
        flags: int,
        done: Callable[[int, int], object],
        id: int = 0,
    ) -> None:
        """A message of our own: done(error, id) once it is on stable storage (0) or is not (errno)."""
    def recover(self, shard: Shard, limit: int = 500) -> bool:
        """Takes over messages found in old segments; False when the scan has ended and all are taken over."""
    def reported(self, pointer: int, indexes: list[int], error: int) -> None:
        """The reporter's answer: these recipients need no report any more (0), or try again later."""
    def close(self) -> None:
        """No new look-ups, reports or timers; what is in hand may still settle."""
    def sweep(self) -> int:
        """Forgets domains and ready queues nobody needs. Call every minute or so."""
    def ready_queues(self) -> list[ReadyQueue]: ...
    def domain_queues(self) -> list[DomainQueue]: ...
    def depth(self) -> dict[str, int]:
        """messages, recipients, ready, deferred, hot_octets, domains, ready_queues: now."""
    def planned(self, domain: DomainQueue, task: Task[Plan]) -> None: ...
