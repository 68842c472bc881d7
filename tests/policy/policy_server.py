"""A policy service of the tests' own: keeps what it was asked, answers what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

Question = dict[str, str]


class PolicyServer:
    """answer  of a question to the octets sent back; None: never answers; b"": closes the connection."""

    def __init__(self, answer: Callable[[Question], bytes | None]) -> None:
        self.answer = answer
        self.questions: list[Question] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            while True:
                lines = (await reader.readuntil(b"\n\n")).decode().split("\n")[:-2]
                question = dict(line.split("=", 1) for line in lines)
                self.questions.append(question)
                answer = self.answer(question)
                if answer == b"":
                    return
                if answer is not None:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


@asynccontextmanager
async def policy_server(
    answer: Callable[[Question], bytes | None], path: str | None = None
) -> AsyncIterator[tuple[PolicyServer, str]]:
    """The server and its address as the configuration spells it. path: of a unix socket."""
    self = PolicyServer(answer)
    if path is not None:
        server = await asyncio.start_unix_server(self.serve, path)
        address = f"unix:{path}"
    else:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield self, address
    finally:
        server.close()
        for writer in list(self.open):
            writer.transport.abort()
