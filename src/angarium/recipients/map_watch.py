"""A worker's maps: opened off the loop, and opened anew when their files change.

A new file is read whole beside the old one, by a thread, and takes its place between two events of the loop; the old
one's memory is given back by a thread, too. What is looked into on the disk is read into the page cache first. A file
that cannot be used changes nothing and is reported, once per change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import lmdb

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.recipients.maps import Map, MapSource, OpenMap, Stamp, open_map, read_ahead

LOOK_S: Final = 5.0

opened_total = counter("angarium_maps_opened_total", "Maps opened, at start or because their file changed.")
refused_total = counter("angarium_maps_refused_total", "Maps that could not be opened; those before stay.")


class MapWatch:
    """Lives on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._maps: dict[tuple[MapSource, bool], OpenMap] = {}
        self._stamps: dict[tuple[MapSource, bool], Stamp] = {}
        self._lock = asyncio.Lock()         # of looking: a reload and the timer may come together
        self._looking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def map_of(self, source: MapSource, *, folds_case: bool = True) -> OpenMap:
        """The map, open after the next look(); the same one for all who ask for it."""
        key = (source, folds_case or source.kind != "file")     # the others' keys are as they were written
        if key not in self._maps:
            self._maps[key] = OpenMap(source, folds_case=key[1])
        return self._maps[key]

    def keep_only(self, maps: Iterable[OpenMap]) -> None:
        """Closes all others."""
        kept = {id(each) for each in maps}
        for key, each in list(self._maps.items()):
            if id(each) not in kept:
                del self._maps[key]
                self._stamps.pop(key, None)
                if each.map is not None:
                    self._discard(each.map)
                    each.map = None

    def start(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._begin_look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        for each in self._maps.values():
            if each.map is not None:
                each.map.close()
                each.map = None

    async def look(self) -> None:
        """Opens what is not open yet, and what has changed on disk."""
        async with self._lock:
            for key, each in list(self._maps.items()):
                # Stamp first: what changes while it is being read is read again.
                now = await self._loop.run_in_executor(None, each.source.stamp)
                if key in self._stamps and self._stamps[key] == now:
                    continue
                await self._open(each)
                if key in self._maps:
                    self._stamps[key] = now

    async def _open(self, each: OpenMap) -> None:
        source = each.source
        try:
            if source.kind != "file":
                await self._loop.run_in_executor(None, read_ahead, source)
            if source.kind == "lmdb":
                # Not twice in one process (its locks are the process's), and it takes no longer than a few system
                # calls.
                before, each.map = each.map, None
                if before is not None:
                    before.close()
                each.map = open_map(source, folds_case=each.folds_case)
            else:
                new = await self._loop.run_in_executor(None, lambda: open_map(source, folds_case=each.folds_case))
                before, each.map = each.map, new
                if before is not None:
                    self._discard(before)
        except (OSError, ValueError, lmdb.Error) as error:
            refused_total.add(1)
            each.reason = str(error)
            self._journal.log("map-refused", map=str(source), reason=str(error))
            return
        opened_total.add(1)
        self._journal.log("map-opened", map=str(source))

    def _discard(self, map_: Map) -> None:
        self._loop.run_in_executor(None, map_.close)

    def _begin_look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self.look())
        self._timer = self._loop.call_later(LOOK_S, self._begin_look)
