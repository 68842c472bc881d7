"""Where mail goes of domains that nobody had to look up yet: what was deferred before a restart and is not due.

An order that names a site, a provider, a source or a pool has to know it. So they are looked up when it is given, as
many at once as mail that is due may have under way, and for no longer than an operator waits for an answer.
"""

from __future__ import annotations

import asyncio
from typing import Final

from angarium.model.plan import RoutingTrouble
from angarium.queue.domains import DomainQueue
from angarium.queue.lookups import SLOTS
from angarium.queue.matching import Matcher
from angarium.queue.scheduler import Scheduler

LOOK_UP_S: Final = 30.0
_SLICE: Final = 200  # plans that were known at once, in one turn of the loop


async def look_up_unplanned(scheduler: Scheduler, matcher: Matcher, limit_s: float = LOOK_UP_S) -> int:
    """Gives domains that `matcher` may mean their plans, where anything depends on it; of how many none was found."""
    if not matcher.asks_plan:
        return 0
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    missed = 0
    under_way: set[asyncio.Task[bool]] = set()
    for part in range(scheduler.domain_parts):
        for number, domain in enumerate(scheduler.unplanned(part)):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            if not matcher.meets_name(domain):
                continue
            if loop.time() >= end:
                missed += 1
                continue
            try:
                if scheduler.plan_is_known(domain):
                    continue
            except RoutingTrouble:
                missed += 1
                continue
            under_way.add(asyncio.create_task(_look_up(scheduler, domain)))
            if len(under_way) >= SLOTS:
                done, under_way = await asyncio.wait(
                    under_way, timeout=max(end - loop.time(), 0), return_when=asyncio.FIRST_COMPLETED
                )
                missed += sum(not each.result() for each in done)
    if under_way:
        done, under_way = await asyncio.wait(under_way, timeout=max(end - loop.time(), 0))
        missed += sum(not each.result() for each in done) + len(under_way)
        for each in under_way:
            each.cancel()
    return missed


async def _look_up(scheduler: Scheduler, domain: DomainQueue) -> bool:
    router = scheduler.router
    try:
        plan = await router.plan(domain.route_key)
    except RoutingTrouble:
        return False
    return scheduler.router is router and scheduler.plan_found(domain, plan)  # not after a reload
