"""A client under TLS whose octets the test can hold, cut and change: an SSLObject between two memory buffers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from inbound.smtp_peer import SmtpPeer
from tls.authority import client_context

NAME = "mx.test.example"


class TlsPeer:
    """One connection. say() seals and sends; reply() reads and opens. Every wait has a limit.

    send   how sealed octets leave: replaced by tests that cut or change them.
    """

    def __init__(self, plain: SmtpPeer, context: ssl.SSLContext | None = None, *, name: str | None = NAME,
                 session: ssl.SSLSession | None = None) -> None:  # fmt: skip
        self.plain = plain
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or client_context()
        if name is None:
            context.check_hostname = False
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)
        self.send: Callable[[bytes], None] = plain.say
        self._opened = b""

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None = None, *, name: str | None = NAME) -> TlsPeer:
        """Implicit TLS: the handshake is done, the greeting not read."""
        peer = cls(await SmtpPeer.connect(port), context, name=name)
        await peer.handshake()
        return peer

    @classmethod
    async def started(
        cls,
        port: int,
        context: ssl.SSLContext | None = None,
        *,
        name: str | None = NAME,
        session: ssl.SSLSession | None = None,
    ) -> TlsPeer:
        """STARTTLS is done and EHLO answered."""
        plain = await SmtpPeer.greeted(port)
        assert (await plain.ask(b"STARTTLS\r\n")).startswith("220 2.0.0")
        peer = cls(plain, context, name=name, session=session)
        await peer.handshake()
        assert (await peer.ask(b"EHLO client.example\r\n")).startswith("250 ")
        return peer

    async def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                await self._feed()
                continue
            except ssl.SSLError:
                self._flush()  # our alert
                raise
            self._flush()
            return

    def seal(self, octets: bytes) -> bytes:
        """Records that carry `octets`."""
        self.tls.write(octets)
        return self.outgoing.read()

    def say(self, octets: bytes) -> None:
        self.send(self.seal(octets))

    async def reply(self) -> str:
        """The last line of the next reply; "" at a close_notify. Without one, ssl.SSLEOFError."""
        while True:
            line, found, rest = self._opened.partition(b"\r\n")
            if found:
                self._opened = rest
                if line[3:4] != b"-":
                    return line.decode("ascii")
            elif not await self._more():
                return ""

    async def replies(self, count: int) -> list[str]:
        return [await self.reply() for _ in range(count)]

    async def ask(self, octets: bytes) -> str:
        self.say(octets)
        return await self.reply()

    async def open_data(self) -> None:
        self.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
        assert [reply[:3] for reply in await self.replies(3)] == ["250", "250", "354"]

    async def _more(self) -> bool:
        while True:
            try:
                opened = self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self._feed()  # the end of the connection without close_notify is an SSLEOFError then
                continue
            except ssl.SSLZeroReturnError:
                return False
            self._flush()
            self._opened += opened
            return bool(opened)

    async def _feed(self) -> None:
        octets = await asyncio.wait_for(self.plain.reader.read(65536), 20)
        if octets:
            self.incoming.write(octets)
        else:
            self.incoming.write_eof()

    def _flush(self) -> None:
        octets = self.outgoing.read()
        if octets:
            self.send(octets)
