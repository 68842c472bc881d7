"""The scheduler of a worker: where every recipient is, from its commit to its outcome (Cython callers see more, in the .pxd)."""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import final

from angarium.events.journal import Journal
from angarium.queue.options import QueueOptions
from angarium.queue.planner import Pool, Router
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.shares import Shares
from angarium.queue.steering import Steering
from angarium.queue.wheel import Wheel

@final
class Scheduler(Steering):
    """One per worker. `hot_limit_octets` bounds envelopes and bodies kept in memory for their first attempt."""

    options: QueueOptions
    hostname: str
    suppressed: Callable[[bytes, bytes], str | None] | None
    """Asked of each new recipient, (tenant, forward-path): in words why it must fail untried, or None."""
    verp: Callable[[int, bytes, bytes, bytes], bytes | None] | None
    """Asked before MAIL, (id, reverse-path, forward-path, tenant): the reverse-path to say instead, or None. While it is set
    a transaction over SMTP has one recipient."""
    def __init__(
        self,
        loop: AbstractEventLoop,
        wheel: Wheel,
        journal: Journal,
        shares: Shares,
        *,
        router: Router,
        pool: Pool,
        shaping: Shaping | ShapingOptions,
        options: QueueOptions,
        hostname: str,
        hot_limit_octets: int = ...,
    ) -> None: ...
    def reconfigure(
        self, *, router: Router, pool: Pool, shaping: Shaping | ShapingOptions, options: QueueOptions
    ) -> None:
        """New routing and limits, at once: what is ready or unrouted is routed again, in slices."""
    def close(self) -> None:
        """No new look-ups, reports or timers; what is in hand may still settle."""
    def memory_octets(self) -> int:
        """Memory that messages, their envelopes and bodies, domains and ready queues take, about."""
    def depth(self) -> dict[str, int]:
        """messages, recipients, ready, behind (full ready queues), deferred, hot_octets, domains, ready_queues: now."""
