"""Live traces of dialogues with next hops (angarium trace --site ...): which connections are looked at.

When a trace begins and ends is events/tracing.py's, what is told events/dialogue.py's. While there is none, a dial pays
one comparison, and so do a command, a reply and a body.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Protocol

import msgspec

from angarium.events.dialogue import Event
from angarium.events.tracing import TraceOf, Traces
from angarium.model.plan import RoutingTrouble
from angarium.outbound.dispatcher import Dispatcher
from angarium.queue.scheduler import Scheduler
from angarium.smtp.witness import Witness


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


class RemoteTrace(TraceOf[Remote]):
    """Of next hops. site_name: what `target.domain` came to."""

    def __init__(self, target: Target, site_name: str, data_octets: int = 0) -> None:
        super().__init__(data_octets)
        self._network = ipaddress.ip_network(target.next_hop) if target.next_hop else None
        self._names = {name.lower() for name in (target.site, site_name) if name}

    def means(self, session: Remote) -> bool:
        host, address, _ = session.host_key
        if self._network is not None:
            try:
                return ipaddress.ip_address(address) in self._network
            except ValueError:          # a path
                return False
        return session.site_name.lower() in self._names or host.lower() in self._names


class OutboundTracing(Traces[Remote]):
    """All such traces of one worker."""

    def __init__(self, scheduler: Scheduler, dispatcher: Dispatcher, worker: int) -> None:
        super().__init__("remote", f"{worker}.o")
        self._scheduler = scheduler
        self._dispatcher = dispatcher

    async def pull(self, id_: str, target: Target, data_octets: int = 0) -> list[Event]:
        """What has happened since the last pull; the first one begins the trace. Raises TooManyTraces."""
        events = await self._pull(id_)
        if events is not None:
            return events
        site_name = await self._site_of(target.domain) if target.domain else ""
        return await self._begin(id_, RemoteTrace(target, site_name, data_octets))

    def _under_way(self) -> list[Remote]:
        return list(self._dispatcher.connections())

    def _look_at_new(self, are_watched: bool) -> None:
        self._dispatcher.dialer.tracing = self if are_watched else None

    def _name_of(self, session: Remote) -> str:
        return session.remote

    def _seen_text(self, session: Remote) -> str:
        return session.site_name

    async def _site_of(self, domain: str) -> str:
        """The site of a domain; where there is none, a name that no site has."""
        try:
            plan: Any = await self._scheduler.router.plan(domain.lower().encode())
        except RoutingTrouble:
            return f"no site of {domain}"
        return str(plan.site.name)
