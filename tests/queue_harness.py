"""A worker's queue with a real spool, a real outbound half and a next hop played by the test; nothing before it."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import uvloop

from angarium.events.journal import Journal
from angarium.mailbox.egress import MaildirEgress
from angarium.metrics import counters
from angarium.model.plan import Host, Plan, RoutingTrouble, Site, Source
from angarium.outbound.dispatcher import Dispatcher
from angarium.outbound.options import OutboundOptions
from angarium.queue import inspect
from angarium.queue.injection import inject
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.recovery import recover
from angarium.queue.reports import Reporter
from angarium.queue.scheduler import Scheduler
from angarium.queue.selection import Selection
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.shares import Shares
from angarium.queue.standing import Order
from angarium.queue.wheel import Wheel
from angarium.routing.egress_pool import EgressPool
from angarium.routing.egress_rules import EgressPools
from angarium.routing.source_health import SourceHealth
from angarium.spool.shard import Shard

MESSAGE = b"From: a@x.example\r\nSubject: test\r\nMessage-ID: <1@x.example>\r\n\r\nHello\r\n"


def run(test: Callable[[pathlib.Path], Any], directory: pathlib.Path) -> None:
    """Runs one async test on a uvloop."""
    uvloop.run(asyncio.wait_for(test(directory), 60))


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    end = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < end, "condition not met in time"
        await asyncio.sleep(0.005)


class NextHop:
    """An SMTP server whose replies the test sets: `rcpt` maps a mailbox to a reply, anything else is taken."""

    def __init__(self) -> None:
        self.rcpt: dict[str, str] = {}
        self.end_of_data = "250 2.0.0 taken"
        self.messages: list[tuple[str, list[str], bytes]] = []
        self.mails: list[str] = []
        self.transactions = 0
        self.sessions = 0
        self.is_held = False
        self.extensions = ["PIPELINING", "8BITMIME", "SIZE"]
        self._released = asyncio.Event()

    async def start(self) -> Site:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]
        return Site(f"smtp://127.0.0.1:{self.port}", "smtp", (Host("127.0.0.1", ("127.0.0.1",), self.port),))

    def stop(self) -> None:
        self._server.close()

    def release(self) -> None:
        """Ends is_held: messages that wait for their reply get it."""
        self.is_held = False
        self._released.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        sender, recipients = "", []
        writer.write(b"220 hop.example ESMTP\r\n")
        try:
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    lines = "".join(f"250-{keyword}\r\n" for keyword in self.extensions)
                    writer.write(f"250-hop.example\r\n{lines}250 HELP\r\n".encode())
                elif verb == b"MAIL":
                    self.mails.append(line.decode().strip())
                    sender, recipients = line.decode().split("<")[1].split(">")[0], []
                    self.transactions += 1
                    writer.write(b"250 2.1.0 ok\r\n")
                elif verb == b"RCPT":
                    mailbox = line.decode().split("<")[1].split(">")[0]
                    reply = self.rcpt.get(mailbox, "250 2.1.5 ok")
                    if reply.startswith("2"):
                        recipients.append(mailbox)
                    writer.write(reply.encode() + b"\r\n")
                elif verb == b"DATA":
                    if not recipients:
                        writer.write(b"554 5.5.1 no recipients\r\n")
                        continue
                    writer.write(b"354 go\r\n")
                    data = await reader.readuntil(b"\r\n.\r\n")
                    if self.is_held:
                        await self._released.wait()
                    if self.end_of_data.startswith("2"):
                        self.messages.append((sender, recipients, data[:-3]))
                    writer.write(self.end_of_data.encode() + b"\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                else:
                    writer.write(b"250 ok\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        writer.close()

    def recipients(self) -> list[str]:
        return sorted(mailbox for _, mailboxes, _ in self.messages for mailbox in mailboxes)


class Router:
    """Domain to site or trouble; a coroutine domain waits until let through."""

    def __init__(self, default: Site) -> None:
        self.default = default
        self.by_domain: dict[bytes, Site | RoutingTrouble] = {}
        self.slow: set[bytes] = set()
        self.asked: list[bytes] = []
        self.go_on = asyncio.Event()
        self.route_of_sender: Callable[[bytes], bytes | None] | None = None
        self.plans_end_mono_s = float("inf")

    def plan_now(self, domain: bytes) -> Plan | None:
        if domain in self.slow:
            return None
        found = self.by_domain.get(domain, self.default)
        return None if isinstance(found, RoutingTrouble) else Plan(found, self.plans_end_mono_s)

    async def plan(self, domain: bytes) -> Plan:
        self.asked.append(domain)
        if domain in self.slow:
            await self.go_on.wait()
        found = self.by_domain.get(domain, self.default)
        if isinstance(found, RoutingTrouble):
            raise found
        return Plan(found, self.plans_end_mono_s)


class Queue:
    """One worker's queue over `directory`; close() it, and open another over the same directory for a restart.

    number  of the worker, whose shard has it too. shares: whose limits hold besides; of one worker unless given.
    health  of the pool's sources, where it is looked at.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        default: Site,
        *,
        options: QueueOptions | None = None,
        shaping: ShapingOptions | Shaping | None = None,
        pool: EgressPool | EgressPools | None = None,
        hot_limit_octets: int = 1 << 20,
        segment_octets: int = 4 << 20,
        outbound: OutboundOptions | None = None,
        router: Any = None,
        shares: Shares | None = None,
        number: int = 0,
        health: SourceHealth | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        directory.mkdir(exist_ok=True)
        # What the queue of an earlier test in this process still held when it closed.
        counters.forget_gauges(0)
        self.log_path = directory / (f"log-{number}" if number else "log")
        self._log_fd = os.open(self.log_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._directory_fd = os.open(directory, os.O_RDONLY)
        self.shard = Shard(self._directory_fd, f"{number:02x}", number, segment_octets=segment_octets)
        self.shard.attach(loop)
        self.wheel = Wheel(loop)
        self.journal = Journal(self._log_fd)
        self.router = router or Router(default)
        self.scheduler = Scheduler(
            loop,
            self.wheel,
            self.journal,
            shares or Shares(1),
            router=self.router,
            pool=pool or EgressPool({Source("default", "", "relay.example"): 1}),
            shaping=shaping or ShapingOptions(),
            options=options or QueueOptions(retry=RetryOptions(first=600, max=3600, jitter=0.1)),
            hostname="relay.example",
            hot_limit_octets=hot_limit_octets,
        )
        self.reporter = Reporter("relay.example", self.journal)
        self.scheduler.reporter = self.reporter
        self.dispatcher = Dispatcher(self.scheduler, outbound, health=health)
        self.maildirs = MaildirEgress(self.scheduler)
        for protocol in ("smtp", "lmtp", "lmtp+unix"):
            self.scheduler.set_egress(protocol, self.dispatcher)
        self.scheduler.set_egress("maildir", self.maildirs)

    async def send(
        self,
        *recipients: str,
        sender: str = "a@x.example",
        body: bytes = MESSAGE,
        flags: int = 0,
        notify: int = 0,
        attributes: dict[int, bytes] | None = None,
    ) -> int:
        """One message into spool and queue; its id once it is on stable storage."""
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        inject(
            self.scheduler,
            self.shard,
            sender.encode(),
            [each.encode() for each in recipients],
            body,
            flags,
            lambda error, id: stored.set_result(id) if not error else stored.set_exception(OSError(error)),
            notify=notify,
            attributes=attributes,
        )
        return await stored

    def events(self, *names: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        assert not [line for line in lines if line["event"] == "error"], lines
        return [line for line in lines if line["event"] in names]

    @property
    def depth(self) -> dict[str, int]:
        return self.scheduler.depth()

    @property
    def is_empty(self) -> bool:
        return self.depth["messages"] == 0

    async def recover(self) -> None:
        while recover(self.scheduler, self.shard) >= 0:
            await asyncio.sleep(0.002)

    async def close(self) -> None:
        await self.dispatcher.drain(5.0)
        await self.maildirs.drain(5.0)
        self.scheduler.close()
        await self.reporter.drain()
        self.shutdown()

    def shutdown(self) -> None:
        """What close() does when nothing is under way any more."""
        self.shard.close()
        os.close(self._log_fd)
        os.close(self._directory_fd)


def order(action: Any, where: Selection, **options: Any) -> Order:
    """Made now, called as what it does."""
    return Order(**{"name": action, "action": action, "where": where, "made_utc_s": time.time(), **options})


def suspended(queue: Queue) -> int:
    """Messages of which a recipient is."""
    return sum("suspended" in each["places"] for each in listed(queue))


def listed(queue: Queue) -> list[dict[str, Any]]:
    """All messages, as `queue list` has them."""
    cursor, found = 0, []
    while cursor >= 0:
        cursor, more = inspect.list_slice(queue.scheduler, cursor, 1000, None)
        found += more
    return found
