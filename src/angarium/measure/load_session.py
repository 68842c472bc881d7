"""One session of a load generator: its life as one generator, and the protocol that drives it.

The generator yields what it wants next (an exchange, a pause, a connection) and is resumed with what came
of it. That reads like a coroutine and costs no task or future per command.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from angarium.measure.load import Load

CONNECT_TROUBLES_MAXIMUM = 5  # in a row, then the session gives up
RECONNECT_S = 0.2  # times the number of troubles so far


class Lost(Exception):
    """The connection is gone or of no more use; the text says why."""


class ConnectionEnded(Lost):
    """As Lost, but the message that was under way has been counted already."""


class Want(enum.Enum):
    """Wishes of the generator that are neither an exchange nor a pause."""

    CONNECTION = enum.auto()
    HANG_UP = enum.auto()


# (octets to send, number of replies to wait for) | seconds to pause | a Want
Step = tuple[bytes, int] | float | Want
# Complete replies, lines joined by LF, without line endings.
Life = Generator[Step, list[bytes], None]


class Session(asyncio.Protocol):
    """Sends message after message, over one connection or over one each."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._order = load.order
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._life = self._live()
        self._extensions: frozenset[str] = frozenset()
        self._wanted = 0  # replies still to come
        self._waiting_since = 0.0  # loop time; meaningful while replies are wanted
        self._replies: list[bytes] = []
        self._lines: list[bytes] = []  # of a reply whose last line has not come yet
        self._unread = b""

    def start(self) -> None:
        """Begins the session's life. Once."""
        self._resume(lambda: next(self._life))

    def wake(self) -> None:
        """Ends a pause now."""
        if self._timer is not None:
            self._timer.cancel()
            self._paused()

    def expire(self, limit: float) -> None:
        """Gives the connection up when it has waited for replies since before `limit` (loop time)."""
        if self._wanted and self._waiting_since < limit:
            self._drop("no reply in time")

    def abort(self) -> None:
        """Ends at once, without QUIT."""
        if self._timer is not None:
            self._timer.cancel()
        self._life.close()
        self._wanted = 0
        if self._transport is not None:
            self._transport.abort()

    # --- the protocol

    def could_not_connect(self, why: str) -> None:
        self._resume(lambda: self._life.throw(Lost(why)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._unread, self._lines, self._replies = b"", [], []
        self._load.tally.connections += 1
        self._resume(lambda: self._life.send([]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._wanted:
            self._wanted = 0
            why = f"{exc or 'connection closed'}"
            self._resume(lambda: self._life.throw(Lost(why)))

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if not self._wanted:
            # Words nobody asked for, such as a 421 to an idle connection: it is of no more use.
            self._drop("")
        elif self._collect():
            self._resume(lambda: self._life.send(self._take_replies()))

    def _collect(self) -> bool:
        """Moves replies from _unread to _replies until no more are wanted; whether that is so now."""
        data, position = self._unread, 0
        while self._wanted and (end := data.find(b"\n", position)) >= 0:
            line = data[position:end].rstrip(b"\r")
            position = end + 1
            if not line[:3].isdigit():
                self._unread = b""
                self._drop(f"no reply but {printable(line)}")
                return False
            if line[3:4] == b"-":
                self._lines.append(line)
                continue
            if self._lines:
                line = b"\n".join([*self._lines, line])
                self._lines = []
            self._replies.append(line)
            self._wanted -= 1
            self._waiting_since = self._loop.time()
        # What is behind the last wanted reply answers what was sent along with it and is asked for next.
        self._unread = data[position:]
        return not self._wanted

    def _take_replies(self) -> list[bytes]:
        replies, self._replies = self._replies, []
        return replies

    def _drop(self, why: str) -> None:
        """Cuts the connection; whoever waits for a reply hears why."""
        transport, self._transport = self._transport, None
        self._unread, self._lines, self._replies = b"", [], []
        if transport is not None:
            transport.set_protocol(asyncio.Protocol())  # its connection_lost is no news any more
            transport.abort()
        if self._wanted:
            self._wanted = 0
            self._resume(lambda: self._life.throw(Lost(why)))

    def _paused(self) -> None:
        self._timer = None
        self._resume(lambda: self._life.send([]))

    def _resume(self, go_on: Callable[[], Step]) -> None:
        """Lets the generator run until it wants something that takes time."""
        try:
            step = go_on()
            while True:
                if isinstance(step, tuple):
                    octets, wanted = step
                    if self._transport is None:
                        step = self._life.throw(Lost("connection closed"))
                        continue
                    self._wanted = wanted
                    self._waiting_since = self._loop.time()
                    if octets:
                        self._transport.write(octets)
                    if not self._unread or not self._collect():
                        return
                    step = self._life.send(self._take_replies())
                    continue
                if isinstance(step, float):
                    self._timer = self._loop.call_later(step, self._paused)
                    return
                if step is Want.CONNECTION:
                    self._load.dial(self)
                    return
                self._drop("")
                step = self._life.send([])
        except StopIteration:
            self._load.ended(self)

    # --- the dialogue

    def _live(self) -> Life:
        load, order = self._load, self._order
        while number := load.take_number():
            if order.rate:
                wait_s = load.due_mono_s(number) - time.monotonic()
                if wait_s > 0:
                    yield wait_s
                    if load.is_stopping:
                        break
                else:
                    load.count_lateness(-wait_s)
            if self._transport is None:
                is_ready = yield from self._connect()
                if not is_ready:
                    load.failed("no connection")
                    return
            try:
                yield from self._send(number)
                if order.is_connection_per_message:
                    yield from self._quit()
            except Lost as trouble:
                if not isinstance(trouble, ConnectionEnded):
                    load.failed(f"lost: {trouble}")
                yield Want.HANG_UP
        if self._transport is not None:
            yield from self._quit()

    def _connect(self) -> Generator[Step, list[bytes], bool]:
        """A greeted and introduced connection, or False after too many troubles in a row."""
        load = self._load
        for trouble_count in range(1, CONNECT_TROUBLES_MAXIMUM + 1):
            begun = time.monotonic()
            try:
                yield Want.CONNECTION
                (greeting,) = yield b"", 1
                if not greeting.startswith(b"220"):
                    raise Lost(f"greeting: {printable(greeting)}")
                verb = "LHLO" if self._order.protocol == "lmtp" else "EHLO"
                (answer,) = yield f"{verb} {self._order.helo}\r\n".encode(), 1
                if not answer.startswith(b"250"):
                    raise Lost(f"{verb}: {printable(answer)}")
            except Lost as trouble:
                yield Want.HANG_UP
                load.connect_trouble(str(trouble))
                if load.is_stopping or trouble_count == CONNECT_TROUBLES_MAXIMUM:
                    break
                yield RECONNECT_S * trouble_count
                continue
            self._extensions = frozenset(
                line[4:].split()[0].decode("latin-1").upper()
                for line in answer.split(b"\n")[1:]
                if line[4:].split()
            )
            load.connecting.add(time.monotonic() - begun)
            return True
        return False

    def _quit(self) -> Life:
        with contextlib.suppress(Lost):  # closing is all that is wanted
            yield b"QUIT\r\n", 1
        yield Want.HANG_UP

    def _send(self, number: int) -> Life:
        """One transaction. Lost when the connection is, or the server says 421."""
        load, order = self._load, self._order
        forward_paths = load.paths_of(number)
        message = load.compose(number, forward_paths)
        mail = f"MAIL FROM:<{order.reverse_path.replace('{n}', str(number))}>\r\n".encode()
        rcpts = [f"RCPT TO:<{path}>\r\n".encode() for path in forward_paths]
        is_bdat = order.data == "bdat" and "CHUNKING" in self._extensions
        data = b"BDAT %d LAST\r\n" % len(message) + message if is_bdat else b"DATA\r\n"
        begun = time.monotonic()

        if order.is_pipelined and "PIPELINING" in self._extensions:
            # What the data gets is asked for below: in LMTP the number of replies depends on the RCPTs.
            replies = yield mail + b"".join(rcpts) + data, 1 + len(rcpts)
            accepted = self._accepted(replies)
            answers = yield b"", max(accepted, 1) if is_bdat and order.protocol == "lmtp" else 1
        else:
            replies = yield mail, 1
            if replies[0].startswith(b"2"):
                for rcpt in rcpts:
                    replies += yield rcpt, 1
            accepted = self._accepted(replies)
            if not accepted:
                yield b"RSET\r\n", 1
                load.failed("")
                return
            answers = yield data, accepted if is_bdat and order.protocol == "lmtp" else 1
        if not is_bdat:
            if not answers[0].startswith(b"3"):
                if accepted:
                    load.failed(f"data: {printable(answers[0])}")
                else:
                    load.failed("")
                _raise_421(answers)
                yield b"RSET\r\n", 1
                return
            # Without a recipient only the end of data: after a 354 nothing else brings the session back
            # (RFC 2920 §3.1).
            body = message if accepted else b""
            answers = yield body + b".\r\n", max(accepted, 1) if order.protocol == "lmtp" else 1
        refused = [answer for answer in answers if not answer.startswith(b"2")]
        if not accepted:
            load.failed("")
        elif len(refused) == len(answers):
            load.failed(f"end of data: {printable(refused[0])}")
        else:
            if refused:
                load.refused(f"end of data: {printable(refused[0])}", len(refused))
            load.sent(number, time.monotonic() - begun, len(message), accepted - len(refused))
        _raise_421(answers)

    def _accepted(self, replies: list[bytes]) -> int:
        """Recipients that got a 2xx, from the replies to MAIL and RCPTs. Refusals are noted; a 421 is Lost.
        """
        accepted = 0
        for index, reply in enumerate(replies):
            if reply.startswith(b"2"):
                accepted += index > 0
            elif reply.startswith(b"421"):
                raise Lost(printable(reply))
            elif index == 0:
                self._load.refused(f"mail: {printable(reply)}", 0)
                return 0
            else:
                self._load.refused(f"rcpt: {printable(reply)}", 1)
        return accepted


def _raise_421(answers: list[bytes]) -> None:
    """The message has been counted; the connection is over all the same (RFC 5321 §3.8)."""
    if answers[-1].startswith(b"421"):
        raise ConnectionEnded(printable(answers[-1]))


def printable(octets: bytes, most: int = 100) -> str:
    """A reply for people: the last line, control octets replaced."""
    text = octets.rpartition(b"\n")[2][:most].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
