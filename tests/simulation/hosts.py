"""Mail hosts of the simulated world: SMTP servers on loopback whose moods follow the hour.

A host is one site. Its mood is a function of time: what it says to a connection, a transaction, a recipient. Everything
that reaches it is noted with time and source, for ledger.py to judge.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, cast

from angarium.model.plan import Host, Site

HOUR: Final = 3600.0
GREYLISTED_S: Final = 300.0
MESSAGES_OF_CLOSING: Final = 3      # then such a host has had enough of the connection
RECIPIENTS_OF_NARROW: Final = 2     # it takes in one transaction

Window = tuple[float, float]        # UTC seconds


class Asked(NamedTuple):
    """A transaction that a host looked at: it answered MAIL with something else than "go away"."""

    utc_s: float
    source: str             # the EHLO name
    host: MailHost


class Delivery(NamedTuple):
    utc_s: float
    source: str
    sender: str
    recipient: str
    content: bytes


class MailHost:
    """windows  in which it is in its mood; else it takes everything.

    mood  "good", "greylisting", "limiting", "overloaded", "picky", "narrow", "closing", "banning": of recipients and
          transactions; "mail", "rcpt", "data", "greeting": where it refuses for now; "down": nobody listens; "silent":
          it takes connections and says nothing.
    """

    def __init__(self, name: str, mood: str = "good", windows: Sequence[Window] = ()) -> None:
        self.name = name
        self.mood = mood
        self.windows = tuple(windows)
        self.asked: list[Asked] = []
        self.tried: list[tuple[float, str]] = []        # RCPT: when, mailbox
        self.deliveries: list[Delivery] = []
        self._first_seen: dict[tuple[str, str], float] = {}
        self._server: asyncio.Server | None = None
        # Keeps the port while nobody listens.
        self._place = _socket(0)
        self.port: int = self._place.getsockname()[1]

    @property
    def site(self) -> Site:
        return Site(self.name, "smtp", (Host(self.name, ("127.0.0.1",), self.port),))

    def is_in_mood(self) -> bool:
        now = time.time()
        return any(begin <= now < end for begin, end in self.windows)

    async def live(self) -> None:
        """Serves; comes and goes when its mood is "down"."""
        await self._appear()
        if self.mood != "down":
            return
        for begin, end in self.windows:
            await asyncio.sleep(max(begin - time.time(), 0))
            if self._server is not None:
                self._server.close()
                self._server = None
            await asyncio.sleep(max(end - time.time(), 0))
            if end < float("inf"):
                await self._appear()

    async def _appear(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Session(self), sock=_socket(self.port), backlog=200)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._place.close()

    def reply_to_mail(self, finished: int) -> bytes:
        if self.mood == "closing" and finished >= MESSAGES_OF_CLOSING:
            return b"421 4.3.2 enough for one connection\r\n"
        if self.mood == "mail" and self.is_in_mood():
            return b"451 4.3.0 not now\r\n"
        return b"250 2.1.0 ok\r\n"

    def reply_to_rcpt(self, source: str, mailbox: str, accepted: int) -> bytes:
        now = time.time()
        self.tried.append((now, mailbox))
        match self.mood:
            case "greylisting":
                if now < self._first_seen.setdefault((source, mailbox), now) + GREYLISTED_S:
                    return b"451 4.7.1 greylisted, come back later\r\n"
            case "limiting" if self.is_in_mood():
                return b"451 4.7.650 rate limited\r\n"
            case "overloaded" if self.is_in_mood():
                return b"452 4.3.1 overloaded\r\n"
            case "rcpt" if self.is_in_mood():
                return b"450 4.2.1 mailbox busy\r\n"
            case "banning":
                return b"450 4.7.1 never again\r\n"
            case "picky" if is_unknown(mailbox):
                return b"550 5.1.1 no such user\r\n"
            case "narrow" if accepted >= RECIPIENTS_OF_NARROW:
                return b"452 4.5.3 too many recipients\r\n"
        return b"250 2.1.5 ok\r\n"


def is_unknown(mailbox: str) -> bool:
    """At picky hosts."""
    return mailbox.partition("@")[0].endswith("7")


def _socket(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


class _Session(asyncio.Protocol):
    """One connection at a host: as much of RFC 5321 as a relay says."""

    def __init__(self, host: MailHost) -> None:
        self._host = host
        self._octets = bytearray()
        self._is_data = False
        self._source = self._sender = ""
        self._recipients: list[str] = []
        self._finished = 0
        self._verbs: dict[bytes, Callable[[bytes], bytes]] = {
            b"EHLO": self._ehlo, b"MAIL": self._mail, b"RCPT": self._rcpt, b"DATA": self._data
        }  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._host.mood == "silent":
            return
        if self._host.mood == "greeting" and self._host.is_in_mood():
            transport.write(b"421 4.3.2 come back later\r\n")
            transport.close()
            return
        transport.write(b"220 host.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        if self._host.mood == "silent":
            return
        self._octets += data
        answers = b""
        while not self._transport.is_closing():
            end = self._octets.find(b"\r\n.\r\n" if self._is_data else b"\r\n")
            if end < 0:
                break
            if self._is_data:
                content = bytes(self._octets[: end + 2])
                del self._octets[: end + 5]
                answers += self._end_of_data(content)
            else:
                line = bytes(self._octets[:end])
                del self._octets[: end + 2]
                answers += self._command(line)
            if answers.endswith(_CLOSES):
                self._transport.write(answers)
                self._transport.close()
                return
        self._transport.write(answers)

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"QUIT":
            return b"221 2.0.0 bye\r\n"
        return self._verbs[verb](line) if verb in self._verbs else b"250 2.0.0 ok\r\n"

    def _ehlo(self, line: bytes) -> bytes:
        self._source = line[5:].decode()
        return b"250-host.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DELIVERBY\r\n250 SIZE\r\n"

    def _mail(self, line: bytes) -> bytes:
        self._sender, self._recipients = _path(line), []
        reply = self._host.reply_to_mail(self._finished)
        if not reply.startswith(b"421"):
            self._host.asked.append(Asked(time.time(), self._source, self._host))
        self._is_refused = not reply.startswith(b"2")
        return reply

    def _rcpt(self, line: bytes) -> bytes:
        if self._is_refused:
            return b"503 5.5.1 no transaction\r\n"
        mailbox = _path(line)
        reply = self._host.reply_to_rcpt(self._source, mailbox, len(self._recipients))
        if reply.startswith(b"2"):
            self._recipients.append(mailbox)
        return reply

    def _data(self, line: bytes) -> bytes:
        if not self._recipients:
            return b"554 5.5.1 no valid recipients\r\n"
        self._is_data = True
        return b"354 go\r\n"

    def _end_of_data(self, content: bytes) -> bytes:
        self._is_data = False
        self._finished += 1
        if self._host.mood == "data" and self._host.is_in_mood():
            return b"451 4.3.0 disk trouble\r\n"
        now = time.time()
        for recipient in self._recipients:
            self._host.deliveries.append(Delivery(now, self._source, self._sender, recipient, content))
        self._recipients = []
        return b"250 2.0.0 taken\r\n"


_CLOSES: Final = (b"221 2.0.0 bye\r\n", b"421 4.3.2 enough for one connection\r\n")


def _path(line: bytes) -> str:
    return line[line.index(b"<") + 1 : line.index(b">")].decode()
