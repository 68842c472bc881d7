"""on_outcome: tells the operator's hook what became of recipients, off the way that mail takes.

Best effort: outcomes wait in a bounded backlog and are lost when it is full or the worker ends; the event log has them
all.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from angarium.metrics.counters import counter
from angarium.policy.arguments import Outcome
from angarium.policy.hooks import BoundHook

dropped_total = counter("angarium_policy_outcomes_dropped_total", "Outcomes lost: on_outcome was too far behind.")

AT_ONCE: Final = 16  # hooks that wait, for a server that is told
SLICE_S: Final = 0.005  # of the loop, before others have their turn


class OutcomeTeller:
    """put() as each outcome is known, when has_room(); close() last.

    backlog  what a former teller has not told yet.
    """

    def __init__(
        self, hook: BoundHook, capacity: int, loop: asyncio.AbstractEventLoop, backlog: Iterable[Outcome] = ()
    ) -> None:
        self._hook = hook
        self._capacity = capacity
        self._loop = loop
        self._backlog = deque(backlog)
        self._waiting: set[asyncio.Task[object]] = set()
        self._is_due = False
        if self._backlog:
            self._wake()

    def has_room(self) -> bool:
        """False: one more is dropped, and has been counted."""
        if len(self._backlog) < self._capacity:
            return True
        dropped_total.add(1)
        return False

    def put(self, outcome: Outcome) -> None:
        self._backlog.append(outcome)
        self._wake()

    def take_backlog(self) -> list[Outcome]:
        """What was not told yet; the hooks that wait go on."""
        left = list(self._backlog)
        self._backlog.clear()
        return left

    def is_idle(self) -> bool:
        return not self._backlog and not self._waiting

    async def drain(self, deadline_s: float) -> None:
        end = self._loop.time() + deadline_s
        while not self.is_idle() and self._loop.time() < end:
            await asyncio.sleep(0.005)

    def close(self) -> None:
        self._backlog.clear()
        for task in self._waiting:
            task.cancel()

    def _wake(self) -> None:
        if not self._is_due and len(self._waiting) < AT_ONCE:
            self._is_due = True
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._is_due = False
        end = time.monotonic() + SLICE_S
        while self._backlog and len(self._waiting) < AT_ONCE:
            answer = self._hook(self._backlog.popleft())
            if asyncio.iscoroutine(answer):
                task: asyncio.Task[object] = self._loop.create_task(answer)
                self._waiting.add(task)
                task.add_done_callback(self._told)
            if time.monotonic() >= end:
                break
        if self._backlog:
            self._wake()

    def _told(self, task: asyncio.Task[object]) -> None:
        self._waiting.discard(task)
        self._wake()
