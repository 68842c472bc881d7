"""Where mail goes of domains that nobody had to look up yet: what was deferred before a restart and is not due.

An order that names a site, a provider, a source or a pool has to know it. So they are looked up when it is given: a few
at once, beside those of mail that is due, for one order after the other, and for no longer than an operator waits.
"""

from __future__ import annotations

import asyncio
from typing import Final

from angarium.model.plan import RoutingTrouble
from angarium.queue.domains import DomainQueue
from angarium.queue.matching import Matcher
from angarium.queue.scheduler import Scheduler

LOOK_UP_S: Final = 30.0
AT_ONCE: Final = 64
_SLICE: Final = 200  # plans that were known at once, in one turn of the loop


async def look_up_unplanned(scheduler: Scheduler, matcher: Matcher, limit_s: float = LOOK_UP_S) -> int:
    """Gives domains that `matcher` may mean their plans, where anything depends on it; of how many none was found."""
    if not matcher.asks_plan:
        return 0
    end = asyncio.get_running_loop().time() + limit_s
    look_up = _LookUp(scheduler, end)
    async with scheduler.unplanned_lock:
        try:
            for part in range(scheduler.domain_parts):
                for number, domain in enumerate(scheduler.unplanned(part)):
                    if number % _SLICE == 0:
                        await asyncio.sleep(0)
                    if matcher.meets_name(domain):
                        await look_up.begin(domain)
            return await look_up.end()
        finally:
            look_up.cancel()


class _LookUp:
    """Those of one order."""

    def __init__(self, scheduler: Scheduler, end_s: float) -> None:
        self._scheduler = scheduler
        self._end_s = end_s
        self._under_way: set[asyncio.Task[bool]] = set()
        self._missed = 0

    async def begin(self, domain: DomainQueue) -> None:
        """Waits for a place among those under way."""
        if self._left_s() == 0:
            self._missed += 1
            return
        try:
            if self._scheduler.plan_is_known(domain):
                return
        except RoutingTrouble:
            self._missed += 1
            return
        if len(self._under_way) >= AT_ONCE:
            await self._wait(asyncio.FIRST_COMPLETED)
        if len(self._under_way) < AT_ONCE:
            self._under_way.add(asyncio.create_task(_plan(self._scheduler, domain)))
        else:
            self._missed += 1

    async def end(self) -> int:
        """Of how many nothing was found."""
        if self._under_way:
            await self._wait(asyncio.ALL_COMPLETED)
        return self._missed + len(self._under_way)

    def cancel(self) -> None:
        for each in self._under_way:
            each.cancel()

    async def _wait(self, until: str) -> None:
        done, self._under_way = await asyncio.wait(self._under_way, timeout=self._left_s(), return_when=until)
        self._missed += sum(not each.result() for each in done)

    def _left_s(self) -> float:
        return max(self._end_s - asyncio.get_running_loop().time(), 0.0)


async def _plan(scheduler: Scheduler, domain: DomainQueue) -> bool:
    router = scheduler.router
    try:
        plan = await router.plan(domain.route_key)
    except RoutingTrouble:
        return False
    except Exception as error:  # a bug in routing must not end an order half-way
        scheduler.journal.log("error", where="look-up for an order", reason=repr(error))
        return False
    return scheduler.router is router and scheduler.plan_found(domain, plan)  # not after a reload
