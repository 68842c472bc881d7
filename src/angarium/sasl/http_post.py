"""One POST and its answer, on a connection of its own: for endpoints that the operator has named. No redirect is
followed, and what is too much is not read."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import h11

ANSWER_OCTETS: Final = 64 << 10     # judged: sixteen times what a token with many claims needs


class HttpTrouble(Exception):
    """No answer; says why, in words of ours."""


class HttpPlace:
    """url   http:// or https://, checked by whoever takes it from the configuration."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.is_tls else 80)
        self.authority = parts.netloc
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def post(
    place: HttpPlace,
    content: bytes,
    media_type: str,
    *,
    tls: ssl.SSLContext | None = None,
    headers: Sequence[tuple[str, str]] = (),
    most: int = ANSWER_OCTETS,
) -> tuple[int, bytes]:
    """The status and the content of the answer, whatever the status.

    tls   None: the system's authorities.  most  octets of the answer that are read.
    Deadlines are the caller's: to cancel it closes the connection.
    Raises OSError and HttpTrouble.
    """
    context = (tls if tls is not None else True) if place.is_tls else None
    reader, writer = await asyncio.open_connection(place.host, place.port, ssl=context)
    try:
        connection = h11.Connection(h11.CLIENT)
        head = [
            ("Host", place.authority),
            ("Content-Type", media_type),
            ("Content-Length", str(len(content))),
            ("Accept", "application/json"),
            ("Connection", "close"),
            *headers,
        ]
        octets = connection.send(h11.Request(method="POST", target=place.target, headers=head)) or b""
        octets += connection.send(h11.Data(data=content)) or b""
        writer.write(octets + (connection.send(h11.EndOfMessage()) or b""))
        return await _answer(connection, reader, most)
    except h11.RemoteProtocolError:
        raise HttpTrouble("what answers does not speak HTTP") from None
    finally:
        with contextlib.suppress(OSError):
            writer.transport.abort()


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader, most: int) -> tuple[int, bytes]:
    status, content = 0, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(ANSWER_OCTETS))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > most:
                raise HttpTrouble(f"an answer of more than {most >> 10} KiB")
        elif isinstance(event, h11.EndOfMessage):
            return status, content
        elif isinstance(event, h11.ConnectionClosed):
            raise HttpTrouble("no answer")
