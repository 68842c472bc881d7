"""Egress sources that cannot be used: told once, tried again now and then, told when they are back.

One per worker: each finds out by itself, which costs it one bind(). Who is told moves the mail (dispatcher.pyx); the
memory of it that choices are made by is routing/source_health.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from angarium.events.journal import Journal
from angarium.metrics.counters import counter, gauge
from angarium.model.outcome import Trouble
from angarium.model.plan import Source
from angarium.outbound import trouble
from angarium.outbound.egress_socket import SourceUnusable, bound_socket
from angarium.outbound.options import OutboundOptions
from angarium.outbound.proxy_connect import look_at_proxy
from angarium.routing.source_health import SourceHealth, Suspension, places

suspended = gauge("angarium_sources_suspended", "Addresses of egress sources that this worker cannot use now.")
suspensions = counter(
    "angarium_source_suspensions_total", "Times an address of an egress source turned out not to be usable."
)


_Place = tuple[str, str]        # name of a source and its address, or its proxy's (source_health.places())
_AT_ONCE_S: Final = 0.0


class Told(Protocol):
    """Who has mail for sources."""

    def source_down(self, name: str, trouble: Trouble) -> None:
        """Nothing of the source can be used."""

    def source_up(self, name: str) -> None:
        """Something of it can be used again."""


class _Look:
    """The next look at a place that is suspended, or the one that is under way."""

    def __init__(self, source: Source, timer: asyncio.TimerHandle) -> None:
        self.source = source
        self.timer = timer


class SourceWatch:
    """On the loop of its worker; close() last.

    look   tries a source at one of its addresses; raises SourceUnusable when it cannot be used still.
    clock  UTC seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        health: SourceHealth,
        options: OutboundOptions,
        told: Told,
        *,
        look: Callable[[Source, str], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.health = health
        self._loop = loop
        self._journal = journal
        self._options = options
        self._told = told
        self._look_at = look or look_at
        self._clock = clock
        self._pending: dict[_Place, _Look] = {}
        self._looks: set[asyncio.Task[None]] = set()
        self._configured: dict[_Place, Source] | None = None    # by the last reload; None: there was none
        self._is_closed = False

    def suspend(self, source: Source, address: str, reason: str) -> None:
        """The source cannot be used at this address. Logged once, until it is back."""
        if (source.name, address) in self.health or self._is_closed or self._is_outdated(source, address):
            return
        suspension = Suspension(reason, self._clock())
        is_down = self.health.suspend(source, address, suspension)
        suspensions.add(1)
        suspended.set(len(self.health.addresses))
        self._journal.log("source-suspended", source=source.name, address=address, reason=reason)
        self._look_later(source, address, suspension)
        if is_down:
            self._told.source_down(source.name, trouble.of_source(source.name, reason).trouble)

    def heard(self, source: Source, said: Trouble) -> None:
        """Another worker, which sends for some of our sites, can use nothing of the source: neither can we, then."""
        reason = said.text.removeprefix(f"source {source.name} ")
        for _, address in places(source):
            self.suspend(source, address, reason)

    def keep(self, sources: Iterable[Source]) -> None:
        """A reload: what is no address of these any more is forgotten; where the way out by it is another one now, a
        proxy with another password say, that is tried at once."""
        kept = list(sources)
        configured = {place: source for source in kept for place in places(source)}
        self._configured = configured
        for place, look in list(self._pending.items()):
            source = configured.get(place)
            if source is not None and source.proxy == look.source.proxy:
                continue
            look.timer.cancel()
            del self._pending[place]
            if source is not None:
                self.health.addresses[place].tries = 0
                self._look_in(_AT_ONCE_S, source, place[1])
        ups = self.health.keep(kept)
        suspended.set(len(self.health.addresses))
        for name in ups:
            self._told.source_up(name)

    def shown(self) -> list[dict[str, Any]]:
        """What is suspended now, for people."""
        return [
            {"source": name, "address": address, **msgspec.structs.asdict(each)}
            for (name, address), each in self.health.addresses.items()
        ]

    def close(self) -> None:
        self._is_closed = True
        for look in self._pending.values():
            look.timer.cancel()
        self._pending.clear()
        for task in self._looks:
            task.cancel()

    def _is_outdated(self, source: Source, address: str) -> bool:
        """A dial that was begun before a reload: of the source as it is now nothing is known by it."""
        if self._configured is None:
            return False
        now = self._configured.get((source.name, address))
        return now is None or now.proxy != source.proxy

    def _look_later(self, source: Source, address: str, suspension: Suspension) -> None:
        delay_s = min(self._options.source_retry_first_s * 2.0**suspension.tries, self._options.source_retry_max_s)
        self._look_in(delay_s, source, address)

    def _look_in(self, delay_s: float, source: Source, address: str) -> None:
        place = source.name, address
        self._pending[place] = _Look(source, self._loop.call_later(delay_s, self._begin_look, place))

    def _begin_look(self, place: _Place) -> None:
        task = self._loop.create_task(self._look(place, self._pending[place]))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _look(self, place: _Place, look: _Look) -> None:
        source, address = look.source, place[1]
        try:
            await self._look_at(source, address)
            reason = ""
        except SourceUnusable as unusable:
            reason = unusable.reason
        except OSError as error:        # out of descriptors, say: not known
            reason = str(error)
        if self._is_closed or self._pending.get(place) is not look:
            return                      # a reload has taken it away meanwhile, or has it looked at another way
        suspension = self.health.addresses[place]
        if reason:
            suspension.tries = min(suspension.tries + 1, 30)
            suspension.reason = reason
            self._look_later(source, address, suspension)
            return
        del self._pending[place]
        self.health.resume(*place)
        suspended.set(len(self.health.addresses))
        after_s = round(self._clock() - suspension.since_utc_s, 3)
        self._journal.log("source-resumed", source=source.name, address=address, seconds=after_s)
        self._told.source_up(source.name)


async def look_at(source: Source, address: str) -> None:
    """Raises SourceUnusable, OSError."""
    if source.proxy is not None:
        await look_at_proxy(asyncio.get_running_loop(), source.proxy)
        return
    bound_socket(address).close()
