"""A next hop in a thread of its own: takes SMTP or LMTP, remembers every octet, and answers as it is told.

    with NextHop(faults={"RCPT": lambda line: b"450 4.2.0 later" if b"slow" in line else None}) as hop:
        hop.port, hop.deliveries, hop.wait_for_count(3)

Written apart from the package and from its sink: it is the other side of the agreement. It speaks PIPELINING,
CHUNKING in any number of chunks, 8BITMIME, SMTPUTF8, SIZE and DSN as far as `extensions` says.

A fault is looked up by verb ("greeting", "EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "CHUNK", "END",
"RSET", "QUIT"): bytes are the reply (without CRLF; 421 also closes), CLOSE ends the connection, SILENCE answers nothing
any more, a list is used up one by one, a function gets the line (for "END" the RCPT line in LMTP, else b"") and gives
one of these.
"BDAT" is when that command has come, "CHUNK" in the middle of its octets; of a chunk with a fault the rest is read, and
nothing more said.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from relay_process import wait_for

CLOSE = "close"
SILENCE = "silence"
EXTENSIONS = (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES", b"CHUNKING")

Fault = bytes | str | None
Faults = Fault | list[Fault] | list[bytes] | list[bytes | str] | Callable[[bytes], Fault]


@dataclasses.dataclass(frozen=True)
class Delivery:
    """One message taken. mail and rcpts: whole command lines; message: octets, un-stuffed."""

    connection: int
    mail: bytes
    rcpts: tuple[bytes, ...]
    message: bytes
    by: str
    at_mono_s: float

    @property
    def to(self) -> list[str]:
        """Forward-paths without brackets and parameters."""
        return [line.partition(b"<")[2].rpartition(b">")[0].decode() for line in self.rcpts]

    @property
    def content(self) -> bytes:
        """The message behind our trace field."""
        return without_trace(self.message)


def without_trace(message: bytes) -> bytes:
    """The message behind its first field, which must be one whole Received field."""
    assert message.startswith(b"Received: "), message[:200]
    end = 0
    while True:
        end = message.index(b"\r\n", end) + 2
        if message[end : end + 1] not in (b" ", b"\t"):
            return message[end:]


def is_open(writer: asyncio.StreamWriter) -> bool:
    """Whether the other side has not ended it. By TCP; a unix socket is open until we know better."""
    sock = writer.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return sock is not None
    try:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01")  # TCP_ESTABLISHED
    except OSError:  # we have closed it
        return False


class NextHop:
    """A context manager. address: where to listen (port 0: any). Lists only ever grow.

    hellos  (client's address, EHLO or LHLO line) in their order.
    open_now, peak  connections; the peak is of those that the other side had not ended by then, as the kernel has it:
                    of the end of one this hop may hear behind the beginning of the next.
    take  gets each delivery, in this hop's thread and before its 250, instead of the list `deliveries`.
    """

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        path: str = "",
        is_lmtp: bool = False,
        extensions: tuple[bytes, ...] | None = EXTENSIONS,
        faults: Mapping[str, Faults] | None = None,
        hostname: str = "hop.example",
        take: Callable[[Delivery], None] | None = None,
    ) -> None:
        self.address = address
        self.port = port
        self.path = path
        self.is_lmtp = is_lmtp
        self.extensions = extensions
        self.faults = dict(faults or {})
        self.hostname = hostname.encode()
        self.deliveries: list[Delivery] = []
        self.take = take or self.deliveries.append
        self.commands: list[bytes] = []
        self.hellos: list[tuple[str, bytes]] = []
        self.connections = 0
        self.open_now = 0
        self.peak = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._listening = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="next-hop", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """As a route's next_hop."""
        scheme = "lmtp" if self.is_lmtp else "smtp"
        return f"lmtp+unix:{self.path}" if self.path else f"{scheme}://{self.address}:{self.port}"

    @property
    def route(self) -> str:
        """A route table that sends everything here."""
        return f'[[route]]\ndomain = "*"\nnext_hop = "{self.url}"\n'

    def wait_for_count(self, count: int, patience_s: float = 20.0) -> list[Delivery]:
        """All deliveries, once there are `count`; more is an error."""
        wait_for(lambda: len(self.deliveries) >= count, f"{count} deliveries", patience_s)
        assert len(self.deliveries) == count
        return self.deliveries

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        try:
            if self.path:
                server = await asyncio.start_unix_server(self._connection, self.path, limit=1 << 22)
            else:
                server = await asyncio.start_server(
                    self._connection, self.address, self.port, limit=1 << 22, backlog=1000
                )
                self.port = server.sockets[0].getsockname()[1]
        except OSError as error:
            self._error = error
            return
        finally:
            self._listening.set()
        await self._over.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        self._writers.add(writer)
        self.peak = max(self.peak, sum(map(is_open, self._writers)))
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, _OverError):
                await _Dialogue(self, self.connections, reader, writer).run()
        finally:
            self.open_now -= 1
            self._writers.discard(writer)
            writer.close()

    def fault(self, verb: str, line: bytes) -> Fault:
        """What to do instead of the usual reply; None: the usual reply."""
        fault = self.faults.get(verb)
        if callable(fault):
            return fault(line)
        if isinstance(fault, list):
            return fault.pop(0) if fault else None
        return fault


class _OverError(Exception):
    """This connection is over."""


class _Dialogue:
    def __init__(
        self, hop: NextHop, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.hop = hop
        self.number = number
        self.reader = reader
        self.writer = writer
        self.mail = b""
        self.rcpts: list[bytes] = []
        self.chunks: list[bytes] = []

    async def run(self) -> None:
        await self.say("greeting", b"", b"220 " + self.hop.hostname + b" ready")
        while True:
            line = (await self.reader.readuntil(b"\r\n"))[:-2]
            self.hop.commands.append(line)
            await self.command(line[:4].upper().decode("latin-1"), line)

    async def say(self, verb: str, line: bytes, usual: bytes) -> bool:
        """Answers; True with a good reply."""
        fault = self.hop.fault(verb, line)
        if fault == CLOSE:
            raise _OverError
        if fault == SILENCE:
            await self.reader.read(-1)
            raise _OverError
        reply = fault if isinstance(fault, bytes) else usual
        self.writer.write(reply + b"\r\n")
        await self.writer.drain()
        if reply.startswith(b"421"):
            raise _OverError
        return reply[:1] in b"23"

    async def command(self, verb: str, line: bytes) -> None:
        match verb:
            case "EHLO" | "LHLO":
                peer = self.writer.get_extra_info("peername")
                self.hop.hellos.append((peer[0] if isinstance(peer, tuple) else "", line))
                if self.hop.extensions is None:
                    await self.say(verb, line, b"500 5.5.1 unknown")
                    return
                names = [self.hop.hostname, *self.hop.extensions]
                lines = [b"250-" + name for name in names[:-1]] + [b"250 " + names[-1]]
                await self.say(verb, line, b"\r\n".join(lines))
            case "MAIL":
                self.forget()
                if await self.say(verb, line, b"250 2.1.0 ok"):
                    self.mail = line
            case "RCPT":
                usual = b"250 2.1.5 ok" if self.mail else b"503 5.5.1 no MAIL"
                if await self.say(verb, line, usual) and self.mail:
                    self.rcpts.append(line)
            case "DATA":
                usual = b"354 go" if self.rcpts else b"503 5.5.1 no RCPT"
                if await self.say(verb, line, usual) and self.rcpts:
                    await self.end(await self.data(), "DATA")
            case "BDAT":
                words = line.split()
                size = int(words[1])
                is_struck = await self.strike("BDAT", line)
                chunk = await self.reader.readexactly(size // 2)
                is_struck = is_struck or await self.strike("CHUNK", line)
                self.chunks.append(chunk + await self.reader.readexactly(size - len(chunk)))
                if is_struck:
                    return
                if not self.rcpts:
                    self.writer.write(b"503 5.5.1 no RCPT\r\n")
                elif len(words) == 3:
                    await self.end(b"".join(self.chunks), "BDAT")
                else:
                    self.writer.write(b"250 2.0.0 more\r\n")
            case "QUIT":
                await self.say(verb, line, b"221 2.0.0 bye")
                raise _OverError
            case "RSET":
                self.forget()
                await self.say(verb, line, b"250 2.0.0 ok")
            case _:
                await self.say(verb, line, b"250 2.0.0 ok")

    async def data(self) -> bytes:
        """Line by line: slow, and obviously right."""
        lines = []
        while (line := await self.reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    async def end(self, message: bytes, by: str) -> None:
        taken = []
        for rcpt in self.rcpts if self.hop.is_lmtp else [b""]:
            # Remembered before the reply: whoever hears 250 can rely on it.
            delivery = Delivery(self.number, self.mail, tuple(self.rcpts), message, by, time.monotonic())
            if self.hop.is_lmtp:
                if await self.say("END", rcpt, b"250 2.0.0 taken"):
                    taken.append(rcpt)
            else:
                fault = self.hop.fault("END", rcpt)
                if fault is None or (isinstance(fault, bytes) and fault[:1] == b"2"):
                    self.hop.take(delivery)
                    self.writer.write((fault if isinstance(fault, bytes) else b"250 2.0.0 taken") + b"\r\n")
                    await self.writer.drain()
                else:
                    await self.refuse(fault)
        if taken:
            self.hop.take(
                Delivery(self.number, self.mail, tuple(taken), message, by, time.monotonic())
            )
        self.forget()

    async def strike(self, verb: str, line: bytes) -> bool:
        """Where there is nothing to say but a fault; False: there is none."""
        fault = self.hop.fault(verb, line)
        if fault is not None:
            await self.refuse(fault)
        return fault is not None

    async def refuse(self, fault: bytes | str) -> None:
        if fault == SILENCE:
            await self.reader.read(-1)
        if isinstance(fault, str):
            raise _OverError
        self.writer.write(fault + b"\r\n")
        await self.writer.drain()
        if fault.startswith(b"421"):
            raise _OverError

    def forget(self) -> None:
        self.mail, self.rcpts, self.chunks = b"", [], []
