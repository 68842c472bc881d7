"""A worker's inbound half on a real loop: real shard, real scheduler that sends nothing, real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from angarium.events.journal import Journal
from angarium.inbound.context import Intake
from angarium.inbound.listener import Listener, drain
from angarium.inbound.options import ListenerOptions
from angarium.model.address import ListenAddress
from angarium.model.plan import Plan, Site, Source
from angarium.model.units import decode_unit
from angarium.queue.options import QueueOptions
from angarium.queue.ready import Egress
from angarium.queue.scheduler import Scheduler
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.shares import Shares
from angarium.queue.wheel import Wheel
from angarium.routing.egress_pool import EgressPool
from angarium.spool.contents import Contents
from angarium.spool.envelope import Envelope
from angarium.spool.shard import Shard
from angarium.tls.certificates import load
from angarium.tls.context import TicketKeys

HOSTNAME = "mx.test.example"
NOWHERE = Site(name="nowhere", protocol="smtp")


class NowhereRouter:
    """Every domain goes to a site that nobody serves: mail is admitted and stays."""

    def plan_now(self, domain: bytes) -> Plan | None:
        return Plan(site=NOWHERE, expires_mono_s=float("inf"))

    async def plan(self, domain: bytes) -> Plan:
        return Plan(site=NOWHERE, expires_mono_s=float("inf"))


class IntakeHarness:
    """One worker's intake with one listener. `folder` gets spool/ and events.json."""

    def __init__(self, folder: Path, shard: Shard, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.shard = shard
        self._events = folder / "events.json"
        self._events_fd = os.open(self._events, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.journal = Journal(self._events_fd, loop)
        # Its own ticks only: tests move time by hand, deadlines never depend on how busy the machine is.
        self.wheel = Wheel()
        self.scheduler = Scheduler(
            loop, self.wheel, self.journal, Shares(), router=NowhereRouter(),
            pool=EgressPool({Source("default", "", HOSTNAME): 1}), shaping=ShapingOptions(),
            options=QueueOptions(), hostname=HOSTNAME,
        )  # fmt: skip
        self.scheduler.set_egress("smtp", Egress())
        self.intake = Intake(shard, self.scheduler, self.journal, self.wheel, loop)
        self.tickets = TicketKeys()
        self.listeners: list[Listener] = []

    async def listen(self, receive_octets: int = 0, **options: Any) -> Listener:
        """A listener on a port of the kernel's choice; `relay_from` defaults to loopback.

        receive_octets   of the kernel's buffer for what clients send; 0: as it is.
        """
        sock = socket.socket()
        if receive_octets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_octets)
        sock.bind(("127.0.0.1", 0))
        sock.listen(100)
        sock.setblocking(False)
        options = {"relay_from": ["127.0.0.0/8"], **options}
        address = ListenAddress("127.0.0.1", sock.getsockname()[1])
        made = listener_options(address, options)
        tls = load(made.tls, self.tickets) if made.tls is not None else None
        listener = Listener(self.intake, HOSTNAME, made, sock, tls)
        listener.start()
        self.listeners.append(listener)
        return listener

    @property
    def port(self) -> int:
        return int(self.listeners[0].context.options.address.port)

    def events(self, kind: str) -> list[dict[str, Any]]:
        self.journal.flush()
        lines = self._events.read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def last_envelope(self) -> Envelope:
        """Of the message committed last, as it is on disk."""
        fd = os.open(self._events.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return max(Contents(fd, ["00"]).messages(0), key=lambda each: each.envelope.id).envelope
        finally:
            os.close(fd)

    async def until(self, condition: Any, timeout_s: float = 20.0) -> None:
        """Waits until `condition()` is true."""
        end = self.loop.time() + timeout_s
        while not condition():
            assert self.loop.time() < end, "waited in vain"
            await asyncio.sleep(0.002)

    async def close(self) -> None:
        await drain(self.intake, self.listeners, 0.0)
        self.scheduler.close()
        self.shard.close()
        self.journal.flush()
        os.close(self._events_fd)


def listener_options(address: ListenAddress, options: dict[str, Any]) -> ListenerOptions:
    """`options` as a file would have them: tables as dicts."""
    tables = {key: value for key, value in options.items() if isinstance(value, dict)}
    made = msgspec.convert({"address": str(address), **tables}, ListenerOptions, dec_hook=decode_unit)
    return msgspec.structs.replace(made, **{key: options[key] for key in options.keys() - tables.keys()})


@asynccontextmanager
async def intake_harness(folder: Path, **options: Any) -> AsyncIterator[IntakeHarness]:
    loop = asyncio.get_running_loop()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, "00", 0, segment_octets=4 << 20)
    shard.attach(loop)
    harness = IntakeHarness(folder, shard, loop)
    try:
        await harness.listen(**options)
        yield harness
    finally:
        await harness.close()
        os.close(fd)


def run(main: Any) -> None:
    """Runs a test's coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


