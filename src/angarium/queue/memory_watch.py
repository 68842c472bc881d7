"""How much memory the queue of a worker takes: near its bound new mail is kept waiting, at it new mail is put off.

A queue that mail cannot leave grows with what comes in. What a message takes there is small and known: some 200 octets
a recipient, and its envelope and body only while a cache has room for them or a connection has them in hand. All of
that is added up here a few times a second. Delivery is not touched: it is what makes room again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from angarium.events.journal import Journal
from angarium.metrics.counters import gauge
from angarium.model.memory_limit import machine_octets
from angarium.queue.options import MemoryOptions

LOOK_S: Final = 0.25
# MAIL waits so long just below the bound: far less than clients wait for its reply (RFC 5321 §4.5.3.2.2: 5 minutes),
# and long enough that a thousand sessions bring two hundred messages a second. Judged.
SLOWEST_S: Final = 5.0
# Mail is taken again when a twentieth has gone.
_OPEN_AGAIN_PERCENT: Final = 95

octets_gauge = gauge("angarium_queue_memory_octets", "Memory that the queue takes, about: messages, bodies, sites.")
limit_gauge = gauge("angarium_queue_memory_limit_octets", "How much it may take; above it new mail is answered 452.")
full_gauge = gauge("angarium_queue_full", "1 in a worker whose queue takes all the memory that it may.")


class Queue(Protocol):
    """What the Scheduler is."""

    hot_limit_octets: int

    def memory_octets(self) -> int: ...


class MemoryWatch:
    """One per worker, on its loop, from apply() to stop().

    tell  called with the seconds that MAIL is to be kept waiting (0: not at all), and whether it is refused; only when
          one of the two is another than before.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        queue: Queue,
        tell: Callable[[float, bool], None],
        *,
        workers: int,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._queue = queue
        self._tell = tell
        self._workers = workers
        self._options = MemoryOptions()
        self._handle: asyncio.TimerHandle | None = None
        self._wait_s = 0.0
        self._is_full = False
        self.limit_octets = 0

    def apply(self, options: MemoryOptions) -> None:
        """At the start, before any mail comes in, and at each reload."""
        self._options = options
        self._queue.hot_limit_octets = options.bodies
        self.limit_octets = options.limit or max(machine_octets() // 2 // self._workers, options.bodies * 2)
        limit_gauge.set(self.limit_octets)
        self.look()
        if self._handle is None:
            self._handle = self._loop.call_later(LOOK_S, self._go_on)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def look(self) -> None:
        """Judges, and tells when something has changed."""
        used = self._queue.memory_octets()
        octets_gauge.set(used)
        percent = 100.0 * used / self.limit_octets
        is_full = percent >= (_OPEN_AGAIN_PERCENT if self._is_full else 100)
        wait_s = 0.0
        if self._options.slow_from_percent <= percent and self._options.slow_from_percent < 100:
            span = 100 - self._options.slow_from_percent
            wait_s = SLOWEST_S * min((percent - self._options.slow_from_percent) / span, 1.0)
        self._log(used, wait_s > 0 or is_full, is_full)
        if (wait_s, is_full) != (self._wait_s, self._is_full):
            self._wait_s, self._is_full = wait_s, is_full
            full_gauge.set(int(is_full))
            self._tell(wait_s, is_full)

    def _go_on(self) -> None:
        self._handle = self._loop.call_later(LOOK_S, self._go_on)
        self.look()

    def _log(self, used: int, is_high: bool, is_full: bool) -> None:
        was_high = self._wait_s > 0 or self._is_full
        facts = {"octets": used, "limit_octets": self.limit_octets}
        if is_full and not self._is_full:
            self._journal.log("queue-full", **facts)
        elif is_high and not was_high:
            self._journal.log("queue-high", **facts)
        elif was_high and not is_high:
            self._journal.log("queue-normal", **facts)
