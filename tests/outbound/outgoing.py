"""A queue, a spool and an outbound half with nothing in front: tests put messages in and read the journal."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import pathlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvloop

from angarium.events.journal import Journal
from angarium.mailbox.egress import MaildirEgress
from angarium.model.plan import Host, Plan, Site, Source
from angarium.outbound.dispatcher import Dispatcher
from angarium.outbound.options import OutboundOptions
from angarium.queue.injection import inject
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.scheduler import Scheduler
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.shares import Shares
from angarium.queue.wheel import Wheel
from angarium.routing.egress_rules import EgressPools
from angarium.routing.source_health import SourceHealth
from angarium.sasl.logins import Logins
from angarium.spool.shard import Shard

HOSTNAME = "relay.example.org"
MESSAGE = b"Subject: test\r\n\r\nHello\r\n"
FLAG_8BIT, FLAG_SMTPUTF8, FLAG_BODY_8BITMIME, FLAG_DOT_LINE, FLAG_NO_FINAL_CRLF = 1, 2, 4, 8, 16
BDAT = [b"PIPELINING", b"CHUNKING"]
ONE_CONNECTION = ShapingOptions(connections=1)


class TableRouter:
    """Domain -> site, nothing else."""

    def __init__(self, sites: dict[bytes, Site]) -> None:
        self.sites = sites

    def plan_now(self, domain: bytes) -> Plan | None:
        site = self.sites.get(domain) or self.sites.get(b"*")
        return None if site is None else Plan(site, float("inf"))

    async def plan(self, domain: bytes) -> Plan:
        plan = self.plan_now(domain)
        assert plan is not None, domain
        return plan


class OneSource:
    def __init__(self, source: Source) -> None:
        self.only = source

    def choose(self) -> Source:
        return self.only


class Outgoing:
    """See outgoing(); everything on one uvloop."""

    def __init__(
        self,
        directory: pathlib.Path,
        sites: dict[bytes, Site],
        *,
        shaping: Shaping | ShapingOptions,
        options: OutboundOptions,
        source: Source,
        hot_limit_octets: int,
        workers: int,
        pools: EgressPools | None = None,
        health: SourceHealth | None = None,
        logins: Logins | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.directory = directory
        self.journal_path = directory / "journal"
        self.journal_fd = os.open(self.journal_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.directory_fd = os.open(directory, os.O_RDONLY)
        self.shard = Shard(self.directory_fd, "00", 0, segment_octets=8 << 20)
        self.shard.attach(loop)
        self.wheel = Wheel(loop)
        self.shares = Shares(workers)
        self.journal = Journal(self.journal_fd, loop)
        self.scheduler = Scheduler(
            loop,
            self.wheel,
            self.journal,
            self.shares,
            router=TableRouter(sites),
            pool=pools or OneSource(source),
            shaping=shaping,
            options=QueueOptions(retry=RetryOptions(first=3600)),
            hostname=HOSTNAME,
            hot_limit_octets=hot_limit_octets,
        )
        self.dispatcher = Dispatcher(self.scheduler, options, health=health, logins=logins)
        for protocol in ("smtp", "lmtp", "lmtp+unix"):
            self.scheduler.set_egress(protocol, self.dispatcher)
        self.maildirs = MaildirEgress(self.scheduler)
        self.scheduler.set_egress("maildir", self.maildirs)

    async def send(
        self,
        recipients: list[bytes] | bytes,
        body: bytes = MESSAGE,
        *,
        flags: int = 0,
        reverse_path: bytes = b"a@x.example",
        attributes: dict[int, bytes] | None = None,
    ) -> int:
        """Puts one message into spool and queue; returns its id once it is on stable storage."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def told(error: int, message_id: int) -> None:
            assert error == 0
            done.set_result(message_id)

        if isinstance(recipients, bytes):
            recipients = [recipients]
        inject(self.scheduler, self.shard, reverse_path, recipients, body, flags, told, attributes=attributes)
        return await done

    def reload(self, shaping: Shaping | ShapingOptions) -> None:
        """Another [shaping]; all else stays."""
        queue = self.scheduler
        queue.reconfigure(router=queue.router, pool=queue.pool, shaping=shaping, options=queue.options)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What the journal says so far, of these events."""
        self.journal.flush()
        lines = [json.loads(line) for line in self.journal_path.read_text("utf-8").splitlines()]
        assert not [line for line in lines if line["event"] == "error"], lines
        return [line for line in lines if line["event"] in names]

    async def outcomes(self, count: int, timeout_s: float = 10.0) -> list[dict[str, Any]]:
        """Waits for that many outcomes in all and returns them."""
        await until(
            lambda: len(self.events("delivered", "deferred", "failed", "expired")) >= count, timeout_s
        )
        found = self.events("delivered", "deferred", "failed", "expired")
        assert len(found) == count, found
        return found

    async def close(self, deadline_s: float = 5.0) -> bool:
        in_order = await self.dispatcher.drain(deadline_s)
        await self.maildirs.drain(deadline_s)
        self.scheduler.close()
        self.wheel.close()
        self.shard.close()
        self.journal.flush()
        os.close(self.journal_fd)
        os.close(self.directory_fd)
        return in_order


@contextlib.asynccontextmanager
async def outgoing(
    directory: pathlib.Path,
    sites: dict[bytes, Site],
    *,
    shaping: Shaping | ShapingOptions | None = None,
    options: OutboundOptions | None = None,
    source: Source | None = None,
    hot_limit_octets: int = 16 << 20,
    workers: int = 1,
    pools: EgressPools | None = None,
    health: SourceHealth | None = None,
    logins: Logins | None = None,
) -> AsyncIterator[Outgoing]:
    relay = Outgoing(
        directory,
        sites,
        shaping=shaping or ShapingOptions(),
        options=options or OutboundOptions(site_pause_first_s=0.2),
        source=source or Source("default"),
        hot_limit_octets=hot_limit_octets,
        workers=workers,
        pools=pools,
        health=health,
        logins=logins,
    )
    try:
        yield relay
    finally:
        await relay.close()


def smtp_site(port: int, *more_ports: int, protocol: str = "smtp", address: str = "127.0.0.1") -> Site:
    """A site on this machine; further ports are hosts of rising preference."""
    hosts = tuple(
        Host(f"mx{i}.example.net", (address,), each, i * 10) for i, each in enumerate((port, *more_ports))
    )
    return Site(f"{protocol}://{address}:{port}", protocol, hosts)  # type: ignore[arg-type]


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Waits for a condition, not for a time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def lateness() -> AsyncIterator[Callable[[], float]]:
    """Tells how many seconds the loop has come late since: the machine's, which are no fault of what runs on it."""
    lost_s = 0.0

    async def beat() -> None:
        nonlocal lost_s
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            lost_s += max(time.monotonic() - begun - 0.02, 0.0)

    beating = asyncio.create_task(beat())
    try:
        yield lambda: lost_s
    finally:
        beating.cancel()


def run(main: Any) -> Any:
    """Runs a coroutine under the loop that production uses."""
    return uvloop.run(main)


def to_here(port: int) -> dict[bytes, Site]:
    """Every domain is at one host of this machine."""
    return {b"*": smtp_site(port)}


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test as a coroutine. None takes longer than a moment: one that hangs ends and says where."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run(asyncio.wait_for(test(*args, **kwargs), 30))

    return wrapper
