"""Standing orders and quiet hours of one worker: hands them to the queue, and does what they leave for later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from angarium.events.journal import Journal
from angarium.queue import orders as walks
from angarium.queue.adjustments import Adjustment, Adjustments
from angarium.queue.quiet import QuietHours
from angarium.queue.scheduler import Scheduler
from angarium.queue.standing import Order

_LOOK_AT_LEAST_S: Final = 3600.0       # a clock that was set is noticed then


class OrderWatch:
    """On the worker's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal, scheduler: Scheduler) -> None:
        self._loop = loop
        self._journal = journal
        self._scheduler = scheduler
        self._orders: tuple[Order, ...] = ()
        self._adjustments: tuple[Adjustment, ...] = ()
        self._quiet: tuple[QuietHours, ...] = ()
        self._releasing: asyncio.Task[None] | None = None
        self._is_release_due = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def orders(self) -> tuple[Order, ...]:
        return self._orders

    def set_orders(self, orders: Sequence[Order], adjustments: Sequence[Adjustment] = ()) -> None:
        self._orders = tuple(orders)
        if tuple(adjustments) != self._adjustments:
            self._adjustments = tuple(adjustments)
            self._scheduler.set_adjustments(Adjustments(adjustments) if adjustments else None)
        self._obey()

    def set_quiet(self, quiet: Sequence[QuietHours]) -> None:
        self._quiet = tuple(quiet)
        self._obey()
        self._await_begin()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._releasing is not None:
            self._releasing.cancel()

    def _obey(self) -> None:
        if self._scheduler.set_rules(self._orders, self._quiet):
            self._is_release_due = True
            if self._releasing is None:
                self._releasing = self._loop.create_task(self._release())

    async def _release(self) -> None:
        """Again, when orders have changed meanwhile: part of the queue was asked those of before."""
        try:
            while self._is_release_due:
                self._is_release_due = False
                await walks.release(self._scheduler)
        except Exception as error:
            self._journal.log("error", where="orders", reason=repr(error))
        finally:
            self._releasing = None

    def _await_begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._quiet:
            now = time.time()
            begins = min(each.begins(now) for each in self._quiet)
            delay_s = min(begins - now, _LOOK_AT_LEAST_S)
            self._timer = self._loop.call_later(max(delay_s, 0.1), self._begun)

    def _begun(self) -> None:
        self._scheduler.ask_ready_again()
        self._await_begin()
