"""Live traces of dialogues with next hops (angarium trace --site ...): which connections are looked at.

A trace is asked for again and again by whoever reads it and ends when nobody asks any more, as those of clients do
(inbound/tracing.py). While there is none, a dial pays one comparison, and so do a command and a reply.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import Any, Final, Protocol

import msgspec

from angarium.events.dialogue import IDLE_S, TRACES_MAX, Dialogue, Event, TooManyTraces, Trace
from angarium.model.plan import RoutingTrouble
from angarium.outbound.dispatcher import Dispatcher
from angarium.queue.scheduler import Scheduler
from angarium.smtp.witness import Witness

_SLICE: Final = 200


class Target(msgspec.Struct, frozen=True):
    """Whom to look at; exactly one is given.

    site      a site's name, or the name of one of its hosts.
    domain    of recipients: the site that its mail goes to now, with all other mail for that site.
    next_hop  address or network of hosts.
    """

    site: str = ""
    domain: str = ""
    next_hop: str = ""


class Remote(Protocol):
    """A connection, as it is looked at (connection.pyx)."""

    @property
    def site_name(self) -> str: ...

    @property
    def remote(self) -> str: ...

    @property
    def host_key(self) -> tuple[str, str, int]: ...

    @property
    def observer(self) -> object | None: ...

    def watch(self, witness: Witness | None) -> None: ...


class RemoteTrace(Trace):
    """Of next hops. site_name: what `target.domain` came to."""

    def __init__(self, target: Target, site_name: str) -> None:
        super().__init__()
        self._network = ipaddress.ip_network(target.next_hop) if target.next_hop else None
        self._names = {name.lower() for name in (target.site, site_name) if name}

    def means(self, connection: Remote) -> bool:
        host, address, _ = connection.host_key
        if self._network is not None:
            try:
                return ipaddress.ip_address(address) in self._network
            except ValueError:          # a path
                return False
        return connection.site_name.lower() in self._names or host.lower() in self._names


class OutboundTracing:
    """All such traces of one worker."""

    def __init__(self, scheduler: Scheduler, dispatcher: Dispatcher, worker: int) -> None:
        self._scheduler = scheduler
        self._dispatcher = dispatcher
        self._worker = worker
        self._traces: dict[str, RemoteTrace] = {}
        self._sessions = 0

    async def pull(self, id_: str, target: Target) -> list[Event]:
        """What has happened since the last pull; the first one begins the trace. Raises TooManyTraces."""
        trace = self._traces.get(id_)
        if trace is None:
            self._end_idle()
            if len(self._traces) >= TRACES_MAX:
                raise TooManyTraces(f"{TRACES_MAX} traces are under way, and more may not be")
            site_name = await self._site_of(target.domain) if target.domain else ""
            trace = self._traces[id_] = RemoteTrace(target, site_name)
            self._dispatcher.dialer.tracing = self
            asyncio.get_running_loop().call_later(IDLE_S, self._end_idle)
            for count, connection in enumerate(self._dispatcher.connections()):
                if count % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)
                self.look_at(connection)
        return await trace.take()

    def end(self, id_: str) -> None:
        """Nobody reads it any more."""
        if self._traces.pop(id_, None) is None:
            return
        if not self._traces:
            self._dispatcher.dialer.tracing = None
        for connection in self._dispatcher.connections():
            if connection.observer is not None:
                self.look_at(connection)

    def look_at(self, connection: Remote) -> None:
        """Decides anew who looks on at a connection."""
        traces = tuple(trace for trace in self._traces.values() if trace.means(connection))
        observer = connection.observer
        if isinstance(observer, Dialogue):
            observer.traces = traces
            if not traces:
                connection.watch(None)
        elif traces:
            self._sessions += 1
            observer = Dialogue(traces, f"{self._worker}.o{self._sessions}", connection.remote, "remote")
            connection.watch(Witness(observer, False))
            observer.note("seen", connection.site_name)

    async def _site_of(self, domain: str) -> str:
        """The site of a domain; where there is none, a name that no site has."""
        try:
            plan: Any = await self._scheduler.router.plan(domain.lower().encode())
        except RoutingTrouble:
            return f"no site of {domain}"
        return str(plan.site.name)

    def _end_idle(self) -> None:
        now = time.monotonic()
        for id_ in [id_ for id_, trace in self._traces.items() if now - trace.pulled_mono_s >= IDLE_S]:
            self.end(id_)
        if self._traces:
            asyncio.get_running_loop().call_later(IDLE_S, self._end_idle)
