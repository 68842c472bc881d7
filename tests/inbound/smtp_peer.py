"""A client of the tests' own: says exactly the octets it is told and reads replies."""

from __future__ import annotations

import asyncio


class SmtpPeer:
    """One connection; every wait has a limit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> SmtpPeer:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def greeted(cls, port: int, hello: bytes = b"EHLO client.example\r\n") -> SmtpPeer:
        """Connected, greeting read, EHLO answered."""
        peer = await cls.connect(port)
        assert (await peer.reply()).startswith("220 ")
        assert (await peer.ask(hello)).startswith("250 ")
        return peer

    def say(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def reply(self) -> str:
        """The last line of the next reply; "" at the end of the connection."""
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 20)
            if line[3:4] != b"-":
                return line.decode("ascii").removesuffix("\r\n")

    async def replies(self, count: int) -> list[str]:
        return [await self.reply() for _ in range(count)]

    async def ask(self, octets: bytes) -> str:
        self.say(octets)
        return await self.reply()

    async def open_data(self, recipients: int = 1) -> None:
        """MAIL, RCPT and DATA in one group, all accepted."""
        rcpt = b"".join(b"RCPT TO:<b%d@y.example>\r\n" % index for index in range(recipients))
        self.say(b"MAIL FROM:<a@x.example>\r\n" + rcpt + b"DATA\r\n")
        replies = await self.replies(recipients + 2)
        assert [reply[:3] for reply in replies] == ["250"] * (recipients + 1) + ["354"]

    async def rest(self) -> bytes:
        """All until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 20)

    def cut(self) -> None:
        """Ends the connection as if the client had died."""
        self.writer.transport.abort()
