"""Live traces of dialogues with clients (angarium trace --client): who is looked at. When a trace begins and ends is
events/tracing.py's, what is told events/dialogue.py's."""

from __future__ import annotations

import ipaddress
from typing import Any, Protocol

from angarium.events.dialogue import Event
from angarium.events.tracing import TraceOf, Traces
from angarium.inbound.networks import NetworkList
from angarium.inbound.options import Network
from angarium.smtp.witness import Witness


class Client(Protocol):
    """A connection, as it is looked at (client.pyx)."""

    @property
    def host(self) -> str: ...

    @property
    def observer(self) -> object | None: ...

    def is_in(self, networks: NetworkList) -> bool: ...

    def watch(self, witness: Witness | None) -> None: ...


class ClientTrace(TraceOf[Client]):
    """Of clients in a network."""

    def __init__(self, network: Network, data_octets: int) -> None:
        super().__init__(data_octets)
        self._networks = NetworkList([network])

    def means(self, session: Client) -> bool:
        return session.is_in(self._networks)


class Tracing(Traces[Client]):
    """All traces of one worker's clients."""

    def __init__(self, intake: Any, worker: int) -> None:
        super().__init__("client", f"{worker}.")
        self._intake = intake

    async def pull(self, id_: str, network: str, data_octets: int = 0) -> list[Event]:
        """What has happened since the last pull; the first one begins the trace. Raises TooManyTraces."""
        events = await self._pull(id_)
        if events is not None:
            return events
        return await self._begin(id_, ClientTrace(ipaddress.ip_network(network), data_octets))

    def _under_way(self) -> list[Client]:
        return list(self._intake.clients)

    def _look_at_new(self, are_watched: bool) -> None:
        self._intake.tracing = self if are_watched else None

    def _name_of(self, session: Client) -> str:
        return session.host
