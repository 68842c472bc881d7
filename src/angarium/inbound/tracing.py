"""Live traces of dialogues with clients (angarium trace): who is looked at. What is told of it: events/dialogue.py.

A trace is asked for again and again by whoever reads it (pull) and ends by itself when nobody asks any more.
Between two pulls a worker keeps so much and drops the rest, and says how much that was: neither a flood nor a
slow reader costs more.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import Any, Protocol

from angarium.events.dialogue import IDLE_S, TRACES_MAX, Dialogue, Event, TooManyTraces, Trace
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


class ClientTrace(Trace):
    """Of clients in a network."""

    def __init__(self, network: Network, wants_data: bool) -> None:
        super().__init__(wants_data)
        self.networks = NetworkList([network])


class Tracing:
    """All traces of one worker."""

    def __init__(self, intake: Any, worker: int) -> None:
        self._intake = intake
        self._worker = worker
        self._traces: dict[str, ClientTrace] = {}
        self._sessions = 0

    async def pull(self, id_: str, network: str, wants_data: bool) -> list[Event]:
        """What has happened since the last pull; the first one begins the trace. Raises TooManyTraces."""
        trace = self._traces.get(id_)
        if trace is None:
            self._end_idle()
            if len(self._traces) >= TRACES_MAX:
                raise TooManyTraces(f"{TRACES_MAX} traces are under way, and more may not be")
            trace = self._traces[id_] = ClientTrace(ipaddress.ip_network(network), wants_data)
            self._intake.tracing = self
            asyncio.get_running_loop().call_later(IDLE_S, self._end_idle)
            await self._look_at_all()
        return await trace.take()

    def end(self, id_: str) -> None:
        """Sessions that were looked at for it are forgotten at the next look."""
        if self._traces.pop(id_, None) is not None:
            if not self._traces:
                self._intake.tracing = None
            for client in list(self._intake.clients):
                if client.observer is not None:
                    self.look_at(client)

    def look_at(self, client: Client) -> None:
        """It is known anew who the client is."""
        traces = tuple(trace for trace in self._traces.values() if client.is_in(trace.networks))
        observer = client.observer
        if isinstance(observer, Dialogue):
            if not traces:
                client.watch(None)
            elif observer.traces != traces or observer.host != client.host:
                observer.traces, observer.host = traces, client.host
                client.watch(Witness(observer, observer.wants_data))
        elif traces:
            self._sessions += 1
            observer = Dialogue(traces, f"{self._worker}.{self._sessions}", client.host)
            client.watch(Witness(observer, observer.wants_data))
            observer.note("seen")

    async def _look_at_all(self) -> None:
        for count, client in enumerate(list(self._intake.clients)):
            if count % 200 == 199:
                await asyncio.sleep(0)
            self.look_at(client)

    def _end_idle(self) -> None:
        now = time.monotonic()
        for id_ in [id_ for id_, trace in self._traces.items() if now - trace.pulled_mono_s >= IDLE_S]:
            self.end(id_)
        if self._traces:
            asyncio.get_running_loop().call_later(IDLE_S, self._end_idle)
