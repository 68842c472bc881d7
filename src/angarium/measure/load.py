"""The client side of measuring: sessions that send made messages as fast as they may, and what came of it.

Deliberately not made of the package's own client session: it measures any MTA, ours included. One process,
one loop; the dialogue of a session is in load_session.py.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from email.utils import formatdate
from typing import Literal

import msgspec

from angarium.measure.endpoint import Endpoint
from angarium.measure.histogram import Histogram
from angarium.measure.load_session import Session
from angarium.measure.sizes import Sizes

SWEEP_S = 0.5
LATE_S = 0.01
KEPT_BODIES = 1000
_LINE = b"Neither snow nor rain nor heat nor gloom of night stays these couriers. \r\n"


class Order(msgspec.Struct, frozen=True):
    """What to send. Of `messages` and `duration_s` the first that is reached ends it; 0 means no such limit.

    rate            messages per second over all sessions; 0: as fast as it goes.
    forward_path    templates: {n} is the message's number from 1, {r} the recipient's within the message.
    forward_paths   instead of it: taken in turn, from the first again when they are used up.
    data            "data", or "bdat" with one chunk per message where the server offers CHUNKING.
    """

    server: Endpoint
    sizes: Sizes
    sessions: int = 10
    messages: int = 0
    duration_s: float = 0.0
    rate: float = 0.0
    recipients: int = 1
    reverse_path: str = "from@source.example"
    forward_path: str = "to@sink.example"
    forward_paths: tuple[str, ...] = ()
    helo: str = "source.example"
    protocol: Literal["smtp", "lmtp"] = "smtp"
    data: Literal["data", "bdat"] = "data"
    is_pipelined: bool = False
    is_connection_per_message: bool = False
    timeout_s: float = 60.0
    seed: int = 0


class Tally(msgspec.Struct):
    """What came of it so far. A message counts once: sent (at least one recipient accepted) or failed."""

    sent: int = 0
    failed: int = 0
    octets: int = 0
    accepted_recipients: int = 0
    refused_recipients: int = 0
    connections: int = 0
    connect_troubles: int = 0
    late: int = 0  # started over 10 ms after a rate's schedule
    failures: Counter[str] = msgspec.field(default_factory=Counter)  # "mail: 451 4.3.0 ..." -> how often


class Load:
    """Runs an order; `tally` and the histograms may be looked at meanwhile.

    latency        of each message sent, from its MAIL to the reply to its data.
    connecting     from the connect call to the end of the EHLO reply.
    since_due      with a rate: from the moment the schedule wanted the message, so that a server that
                   stalls does not make the load generator forget the messages it could not even start.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.tally = Tally()
        self.latency = Histogram()
        self.connecting = Histogram()
        self.since_due = Histogram()
        self.elapsed_s = 0.0
        self._chance = random.Random(order.seed)
        self._bodies: dict[int, bytes] = {}
        self._numbers = 0
        self._started = 0.0
        self._date = formatdate(localtime=True)
        self._run_name = f"{self._chance.getrandbits(40):010x}" if order.seed else f"{time.time_ns():x}"
        self._sessions: set[Session] = set()
        self._over: asyncio.Event = asyncio.Event()
        self.is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Sends everything; returns when the last session has ended. May be cancelled, and then stops at
        once.
        """
        order = self.order
        loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        for _ in range(min(order.sessions, order.messages) if order.messages else order.sessions):
            self._sessions.add(Session(self))
        ending = loop.call_later(order.duration_s, self.stop) if order.duration_s else None
        sweep = loop.create_task(self._sweep())
        try:
            for session in list(self._sessions):
                session.start()
            await self._over.wait()
        finally:
            self.elapsed_s = time.monotonic() - self._started
            sweep.cancel()
            if ending is not None:
                ending.cancel()
            for session in list(self._sessions):
                session.abort()
            for task in list(self._tasks):
                task.cancel()

    def stop(self) -> None:
        """No further message is begun; those under way are finished."""
        self.is_stopping = True
        for session in list(self._sessions):
            session.wake()

    def report(self) -> dict[str, object]:
        """The figures, ready for JSON. Latencies in milliseconds."""
        t = self.tally
        elapsed_s = self.elapsed_s or (time.monotonic() - self._started)
        found: dict[str, object] = {
            "server": str(self.order.server),
            "seconds": round(elapsed_s, 3),
            "sent": t.sent,
            "failed": t.failed,
            "unsent": max(self.order.messages - t.sent - t.failed, 0),
            "messages_per_s": round(t.sent / elapsed_s, 1) if elapsed_s else 0.0,
            "octets": t.octets,
            "octets_per_s": round(t.octets / elapsed_s) if elapsed_s else 0,
            "accepted_recipients": t.accepted_recipients,
            "refused_recipients": t.refused_recipients,
            "connections": t.connections,
            "connect_troubles": t.connect_troubles,
            "sessions": self.order.sessions,
            "latency_ms": self.latency.summary_ms(),
            "connecting_ms": self.connecting.summary_ms(),
            "failures": dict(t.failures.most_common(20)),
        }
        if self.order.rate:
            found["late"] = t.late
            found["latency_since_due_ms"] = self.since_due.summary_ms()
        return found

    # --- for sessions

    def take_number(self) -> int:
        """The next message's number, or 0 when there is none to begin."""
        if self.is_stopping or (self.order.messages and self._numbers >= self.order.messages):
            return 0
        self._numbers += 1
        return self._numbers

    def due_mono_s(self, number: int) -> float:
        """When the schedule wants message `number` (time.monotonic); the past without a rate."""
        return self._started + (number - 1) / self.order.rate if self.order.rate else 0.0

    def count_lateness(self, late_s: float) -> None:
        """A message begins so long after its time."""
        self.tally.late += late_s > LATE_S

    def sent(self, number: int, latency_s: float, octets: int, recipients: int) -> None:
        """Message `number` has got its 250, for so many recipients."""
        self.tally.sent += 1
        self.tally.octets += octets
        self.tally.accepted_recipients += recipients
        self.latency.add(latency_s)
        if self.order.rate:
            # Timers fire up to a millisecond early: a message is never counted as faster than it was.
            self.since_due.add(max(time.monotonic() - self.due_mono_s(number), latency_s))

    def failed(self, why: str) -> None:
        """One message did not go through; an empty `why`: the refusals noted before say it all."""
        self.tally.failed += 1
        if why:
            self.tally.failures[why] += 1

    def refused(self, why: str, recipients: int) -> None:
        """The server refused MAIL (0 recipients) or so many recipients; the message may go on."""
        self.tally.refused_recipients += recipients
        self.tally.failures[why] += 1

    def connect_trouble(self, why: str) -> None:
        self.tally.connect_troubles += 1
        self.tally.failures[f"connecting: {why}"] += 1

    def paths_of(self, number: int) -> list[str]:
        """The forward-paths of a message, which has a number from 1."""
        order = self.order
        if order.forward_paths:
            first = (number - 1) * order.recipients
            return [order.forward_paths[(first + r) % len(order.forward_paths)] for r in range(order.recipients)]
        return [
            order.forward_path.replace("{n}", str(number)).replace("{r}", str(r + 1)) for r in range(order.recipients)
        ]

    def compose(self, number: int, forward_paths: list[str]) -> bytes:
        """Message `number` without dot-stuffing (it needs none): header section and filler, ending in CRLF.
        """
        size = self.order.sizes.draw(self._chance)
        header = (
            f"From: <{self.order.reverse_path.replace('{n}', str(number))}>\r\nTo: <{forward_paths[0]}>\r\n"
            f"Date: {self._date}\r\nMessage-ID: <{number}.{self._run_name}@{self.order.helo}>\r\n"
            f"Subject: blast {number}\r\n\r\n"
        ).encode()
        missing = size - len(header)
        body = self._bodies.get(missing)
        if body is None:
            body = self._bodies[missing] = _filler(missing)
            if len(self._bodies) > KEPT_BODIES:  # a wide range of sizes: do not keep them all
                self._bodies.pop(next(iter(self._bodies)))
        return header + body

    def ended(self, session: Session) -> None:
        """A session has nothing more to do."""
        self._sessions.discard(session)
        if not self._sessions:
            self._over.set()

    def dial(self, session: Session) -> None:
        """Connects the session; it hears connection_made() or could_not_connect()."""
        task = asyncio.get_running_loop().create_task(self._dial(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        server = self.order.server
        try:
            async with asyncio.timeout(self.order.timeout_s):
                if server.path:
                    await loop.create_unix_connection(lambda: session, server.path)
                else:
                    await loop.create_connection(lambda: session, server.host, server.port)
        except (OSError, TimeoutError) as trouble:
            session.could_not_connect(str(trouble) or type(trouble).__name__)

    async def _sweep(self) -> None:
        """Ends sessions that have waited too long for a reply."""
        while True:
            await asyncio.sleep(SWEEP_S)
            limit = asyncio.get_running_loop().time() - self.order.timeout_s
            for session in list(self._sessions):
                session.expire(limit)


def _filler(octets: int) -> bytes:
    """Lines of text, `octets` altogether with the CRLF at the end; no line starts with a dot."""
    octets = max(octets, 2)
    return (_LINE * (octets // len(_LINE) + 1))[: octets - 2].replace(b"\r", b" ").replace(
        b" \n", b"\r\n"
    ) + b"\r\n"
