"""The busiest sites of a worker: found in slices, so that a hundred thousand of them hold nobody up."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Final

from angarium.queue.facts import SiteRow, SitesPart
from angarium.queue.scheduler import Scheduler
from angarium.queue.site_counts import SiteCount, count_some

# By what sites are put in order, the most first; of equals the one with more waiting.
ORDERS: Final[dict[str, Callable[[SiteCount], float]]] = {
    "depth": lambda site: site.waiting,
    "rate": lambda site: site.rate,
    "deferral": lambda site: site.deferral,
    "connections": lambda site: site.connections,
    "last": lambda site: site.last_ms,
}
_ROW_ORDERS: Final[dict[str, Callable[[SiteRow], float]]] = {
    "depth": lambda row: row.waiting,
    "rate": lambda row: row.rate,
    "deferral": lambda row: row.deferral,
    "connections": lambda row: row.connections,
    "last": lambda row: 0.0 if row.last is None else row.last.utc_s,
}
_SLICE: Final = 500
_KEPT_S: Final = 10.0


def added_up(parts: list[SitesPart], rows: list[SiteRow], order: str, limit: int) -> SitesPart:
    """Of several workers.

    rows  of every worker, of all sites that one of them named. A site that is in several workers counts once in
          `sites` only where it is among them.
    """
    found = SitesPart([])
    for part in parts:
        found.sites += part.sites
        found.waiting += part.waiting
        found.connections += part.connections
        found.rate = round(found.rate + part.rate, 3)
    known: dict[str, SiteRow] = {}
    for row in rows:
        same = known.setdefault(row.site, row)
        if same is not row:
            found.sites -= 1
            _add(same, row)
    found.rows = heapq.nlargest(limit, known.values(), key=lambda row: (_ROW_ORDERS[order](row), row.waiting))
    return found


def _add(to: SiteRow, row: SiteRow) -> None:
    weight, more = to.rate or to.deferred + to.delivered, row.rate or row.deferred + row.delivered
    if weight + more:
        to.deferral = round((to.deferral * weight + row.deferral * more) / (weight + more), 4)
    to.rate = round(to.rate + row.rate, 3)
    for key in ("waiting", "connections", "delivered", "deferred", "failed"):
        setattr(to, key, getattr(to, key) + getattr(row, key))
    if row.last is not None and (to.last is None or row.last.utc_s > to.last.utc_s):
        to.last = row.last


class TopSites:
    """One per worker. What a look found is kept for a moment: the supervisor asks again for sites that others named."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._sites: dict[bytes, SiteCount] = {}
        self._forgetting: asyncio.TimerHandle | None = None

    async def look(self, order: str, limit: int) -> SitesPart:
        """The first `limit` by this order (a key of ORDERS), and sums over all that are live."""
        queues = self._scheduler.ready_queues()
        sites: dict[bytes, SiteCount] = {}
        now_mono_s = time.monotonic()
        for start in range(0, len(queues), _SLICE):
            count_some(queues, start, start + _SLICE, sites, now_mono_s)
            await asyncio.sleep(0)
        of_order = ORDERS[order]
        found = SitesPart([])
        best: list[tuple[float, int, bytes]] = []      # a heap: the least of them first
        for index, name in enumerate(list(sites)):
            if index % _SLICE == 0:
                await asyncio.sleep(0)
            site = sites[name]
            if not site.is_live:
                continue
            found.sites += 1
            found.waiting += site.waiting
            found.connections += site.connections
            found.rate += site.rate
            value = of_order(site)
            if len(best) < limit:
                heapq.heappush(best, (value, site.waiting, name))
            elif value >= best[0][0]:
                heapq.heappushpop(best, (value, site.waiting, name))
        found.rows = [sites[name].row() for _, _, name in sorted(best, reverse=True)]
        self._keep(sites)
        return found

    def rows_of(self, names: list[str]) -> list[SiteRow]:
        """Of these sites, as the last look found them; without those that this worker does not have."""
        keys = [name.encode("utf-8", "replace") for name in names]
        return [self._sites[key].row() for key in keys if key in self._sites]

    def _keep(self, sites: dict[bytes, SiteCount]) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._sites = sites
        self._forgetting = asyncio.get_running_loop().call_later(_KEPT_S, self._forget)

    def _forget(self) -> None:
        self._sites = {}
        self._forgetting = None
