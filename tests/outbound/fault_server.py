"""An SMTP or LMTP server that misbehaves on demand, and remembers what it was sent.

A fault is what to do when a command comes: bytes are the reply; CLOSE drops the connection, SILENCE never
answers, RESET drops it with RST, GARBLE answers under TLS and sends what is no record of
it in the same segment. Verbs: "greeting", "EHLO", "HELO", "LHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "BDAT" (the
command has come), "CHUNK" (half of its octets have come), "END" (end of data and BDAT LAST), "RSET", "QUIT", "AUTH". A
list of faults is used up one by one; None in it means: behave. With a reply in mid-chunk the rest of the chunk is read,
and not answered again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

from angarium.sasl.exchange import Exchange
from angarium.sasl.scram import make_keys
from angarium.sasl.steps import Accepted, Challenge, CheckCertificate, CheckPassword, CheckToken, FetchScramKeys

CLOSE = "close"
GARBLE = "garble"
RESET = "reset"
SILENCE = "silence"

Fault = bytes | str | None
Faults = Fault | list[Fault] | Callable[[bytes], Fault]


@dataclasses.dataclass
class Received:
    connection: int
    mail: bytes
    rcpts: list[bytes]
    message: bytes
    by: str
    tls: str = ""


def open_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclasses.dataclass
class FaultServer:
    """`extensions` None: HELO only. `writes` is what came in each read, per connection.

    tls              STARTTLS is offered with it, or, with begins_with_tls, the connection begins with a handshake.
    tls_extensions   offered under TLS instead of `extensions`.
    hellos           version of TLS ("" in clear) at each EHLO. resumed: sessions that were.
    shown            clients' certificates.
    may_greet        set: cleared, no greeting is said, so that all there is waits until it is set again.
    mechanisms       offered by AUTH. accounts: who may come in, with password or token; with
                     knows_certificates whoever shows one of an authority that `tls` trusts. logins: who did, and how.
    """

    faults: dict[str, Faults] = dataclasses.field(default_factory=dict)
    extensions: list[bytes] | None = dataclasses.field(default_factory=lambda: [b"PIPELINING", b"8BITMIME"])
    is_lmtp: bool = False
    tls: ssl.SSLContext | None = None
    tls_extensions: list[bytes] | None = None
    begins_with_tls: bool = False
    hellos: list[str] = dataclasses.field(default_factory=list)
    resumed: int = 0
    shown: list[bytes] = dataclasses.field(default_factory=list)
    mechanisms: list[str] = dataclasses.field(default_factory=list)
    accounts: dict[str, str] = dataclasses.field(default_factory=dict)
    logins: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    knows_certificates: bool = True
    handshake_failures: list[str] = dataclasses.field(default_factory=list)
    address: str = "127.0.0.1"
    port: int = 0
    received: list[Received] = dataclasses.field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    peak: int = 0                   # of open_now
    commands: list[bytes] = dataclasses.field(default_factory=list)
    reads: list[list[bytes]] = dataclasses.field(default_factory=list)
    quits: int = 0
    struck: int = 0                 # faults that were given
    peers: list[str] = dataclasses.field(default_factory=list)      # addresses, of each connection
    may_greet: asyncio.Event = dataclasses.field(default_factory=open_event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        self.peak = max(self.peak, self.open_now)
        self.reads.append([])
        self.peers.append(str((writer.get_extra_info("peername") or ("",))[0]))
        try:
            await Dialogue(self, self.connections, reader, writer).run()
        except ssl.SSLError as error:
            self.handshake_failures.append(error.reason or str(error))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_now -= 1
            writer.close()

    def fault_of(self, verb: str, line: bytes) -> Fault:
        fault = self.faults.get(verb)
        if callable(fault):
            return fault(line)
        if isinstance(fault, list):
            return fault.pop(0) if fault else None
        return fault


class Gone(Exception):
    pass


class Dialogue:
    def __init__(
        self, server: FaultServer, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.number = number
        self.reader = reader
        self.writer = writer
        self.buffer = b""
        self.mail = b""
        self.rcpts: list[bytes] = []

    async def run(self) -> None:
        with contextlib.suppress(Gone):
            await self.server.may_greet.wait()
            await self.say("greeting", b"", b"220 fault.example ESMTP\r\n")
            while True:
                line = await self.line()
                self.server.commands.append(line)
                await self.command(line)

    def tls_version(self) -> str:
        found: ssl.SSLObject | None = self.writer.get_extra_info("ssl_object")
        return "" if found is None else found.version() or ""

    async def starttls(self, line: bytes) -> None:
        assert self.server.tls is not None
        if await self.say("STARTTLS", line, b"220 2.0.0 go\r\n"):
            self.buffer = b""
            await self.writer.start_tls(self.server.tls)
            session: ssl.SSLObject = self.writer.get_extra_info("ssl_object")
            self.server.resumed += bool(session.session_reused)
            if shown := session.getpeercert(binary_form=True):
                self.server.shown.append(shown)

    async def more(self) -> None:
        data = await self.reader.read(1 << 20)
        if not data:
            raise Gone
        self.server.reads[self.number - 1].append(data)
        self.buffer += data

    async def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            await self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    async def say(self, verb: str, line: bytes, reply: bytes) -> bool:
        """Answers; True when with the good reply."""
        fault = self.server.fault_of(verb, line)
        if fault is None:
            self.writer.write(reply)
            await self.writer.drain()
            return True
        self.server.struck += 1
        if fault == SILENCE:
            while await self.reader.read(1 << 20):
                pass
            raise Gone
        if fault == RESET:
            connection = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
            raise Gone
        if fault == GARBLE:
            connection = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            self.writer.write(reply)
            await self.writer.drain()
            await asyncio.sleep(0)              # it is in the kernel, which waits for more
            os.write(connection.fileno(), b"\x17\x03\x03\x00\x20" + b"no record of ours, 32 octets long")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            await self.reader.read()
            raise Gone
        if fault == CLOSE:
            raise Gone
        assert isinstance(fault, bytes)
        self.writer.write(fault)
        await self.writer.drain()
        if fault.startswith(b"421"):
            raise Gone
        return fault[:1] in b"23"

    async def command(self, line: bytes) -> None:
        verb = line[:4].upper().decode("ascii", "replace")
        if verb in ("EHLO", "LHLO"):
            if self.server.extensions is None:
                await self.say(verb, line, b"500 unknown\r\n")
                return
            extensions = self.server.extensions
            self.server.hellos.append(self.tls_version())
            if self.tls_version():
                extensions = self.server.tls_extensions or extensions
            elif self.server.tls is not None:
                extensions = [*extensions, b"STARTTLS"]
            if self.server.mechanisms:
                extensions = [*extensions, b"AUTH " + " ".join(self.server.mechanisms).encode()]
            await self.say(
                verb,
                line,
                b"250-fault.example\r\n"
                + b"".join(b"250-%b\r\n" % each for each in extensions)
                + b"250 HELP\r\n",
            )
        elif verb == "STAR" and self.server.tls is not None and not self.tls_version():
            await self.starttls(line)
        elif verb == "HELO":
            await self.say(verb, line, b"250 fault.example\r\n")
        elif verb == "AUTH":
            await self.auth(line)
        elif verb == "MAIL":
            self.mail, self.rcpts = line, []
            if not await self.say(verb, line, b"250 2.1.0 ok\r\n"):
                self.mail = b""
        elif verb == "RCPT":
            if not self.mail:
                self.writer.write(b"503 5.5.1 no MAIL\r\n")
            elif await self.say(verb, line, b"250 2.1.5 ok\r\n"):
                self.rcpts.append(line)
        elif verb == "DATA":
            if not self.rcpts:
                self.writer.write(b"554 5.5.1 no valid recipients\r\n")
            elif await self.say(verb, line, b"354 go\r\n"):
                await self.data()
        elif verb == "BDAT":
            await self.chunk(line)
        elif verb == "RSET":
            self.mail, self.rcpts = b"", []
            await self.say(verb, line, b"250 2.0.0 ok\r\n")
        elif verb == "QUIT":
            self.server.quits += 1
            await self.say(verb, line, b"221 2.0.0 bye\r\n")
            raise Gone
        else:
            self.writer.write(b"500 5.5.1 unknown\r\n")

    async def auth(self, line: bytes) -> None:
        """With the mechanisms that we have for clients."""
        _, mechanism, *initial = line.decode().split()
        if self.server.fault_of("AUTH", line) is not None:
            await self.say("AUTH", line, b"")
            return
        if mechanism not in self.server.mechanisms:
            self.writer.write(b"504 5.5.4 unknown\r\n")
            return
        exchange = Exchange(mechanism, self, offers_plus="SCRAM-SHA-256-PLUS" in self.server.mechanisms)
        step = exchange.start(None if not initial else b"" if initial == ["="] else base64.b64decode(initial[0]))
        while True:
            if isinstance(step, Challenge):
                self.writer.write(b"334 " + base64.b64encode(step.octets) + b"\r\n")
                response = await self.line()
                if response == b"*":
                    self.writer.write(b"501 5.7.0 cancelled\r\n")
                    return
                step = exchange.respond(base64.b64decode(response))
            elif isinstance(step, CheckPassword):
                is_good = self.server.accounts.get(step.identity) == step.password
                step = exchange.answer(step.identity if is_good else None)
            elif isinstance(step, CheckToken):
                found = [name for name, token in self.server.accounts.items() if token == step.token]
                step = exchange.answer(found[0] if found else None)
            elif isinstance(step, CheckCertificate):
                step = exchange.answer(step.identity if self.server.knows_certificates else None)
            elif isinstance(step, FetchScramKeys):
                password = self.server.accounts.get(step.identity, "")
                step = exchange.answer(make_keys(password, b"salt" * 4, 4096))
            else:
                break
        if isinstance(step, Accepted):
            self.server.logins.append((mechanism, step.identity))
            self.writer.write(b"235 2.7.0 ok\r\n")
        else:
            self.writer.write(b"535 5.7.8 no\r\n")

    def channel_binding(self, kind: str) -> bytes | None:
        return None

    def peer_certificate_identity(self) -> str | None:
        found: ssl.SSLObject | None = self.writer.get_extra_info("ssl_object")
        shown = None if found is None else found.getpeercert()
        names: Any = () if not shown else shown.get("subjectAltName", ())
        return next((str(name) for kind, name in names if kind in ("email", "DNS")), None)

    async def data(self) -> None:
        while not (self.buffer.startswith(b".\r\n") or b"\r\n.\r\n" in self.buffer):
            await self.more()
        if self.buffer.startswith(b".\r\n"):
            message, self.buffer = b"", self.buffer[3:]
        else:
            message, _, self.buffer = self.buffer.partition(b"\r\n.\r\n")
            message += b"\r\n"
        if message.startswith(b"."):
            message = message[1:]
        await self.end(message.replace(b"\r\n.", b"\r\n"), "DATA")

    async def chunk(self, line: bytes) -> None:
        size = int(line.split()[1])
        is_good = await self.say("BDAT", line, b"")
        while len(self.buffer) < size // 2:
            await self.more()
        is_good = is_good and await self.say("CHUNK", line, b"")
        while len(self.buffer) < size:
            await self.more()
        message, self.buffer = self.buffer[:size], self.buffer[size:]
        if not is_good:
            return
        if not self.rcpts:
            self.writer.write(b"503 5.5.1 no valid recipients\r\n")
            return
        await self.end(message, "BDAT")

    async def end(self, message: bytes, by: str) -> None:
        accepted = Received(self.number, self.mail, self.rcpts, message, by, self.tls_version())
        is_taken = False
        for rcpt in self.rcpts if self.server.is_lmtp else self.rcpts[:1]:
            is_taken |= await self.say("END", rcpt, b"250 2.0.0 queued\r\n")
        if is_taken:
            self.server.received.append(accepted)
        self.mail, self.rcpts = b"", []


@contextlib.asynccontextmanager
async def fault_server(*, path: str = "", **settings: object) -> AsyncIterator[FaultServer]:
    """A FaultServer on a port of its own, or on a unix socket at `path`."""
    state = FaultServer(**settings)  # type: ignore[arg-type]
    if path:
        server = await asyncio.start_unix_server(state.serve, path, limit=1 << 20)
    else:
        tls = state.tls if state.begins_with_tls else None
        server = await asyncio.start_server(state.serve, state.address, state.port, limit=1 << 20, ssl=tls)
        state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
