"""A report by HTTPS (RFC 8460 §5.4): one POST. Where and when is said by who calls."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from typing import Final
from urllib.parse import urlsplit

import h11

from angarium.resolver.answer import Kind, Resolver
from angarium.tls.report_text import MEDIA_TYPE

POST_S: Final = 30.0
_ANSWER_OCTETS: Final = 64 << 10
_ADDRESSES_MOST: Final = 3


class PostFailed(Exception):
    """Why, in words of ours; is_permanent: the place does not want it."""

    def __init__(self, reason: str, *, is_permanent: bool = False) -> None:
        super().__init__(reason)
        self.is_permanent = is_permanent


def lax_context() -> ssl.SSLContext:
    """§3: errors of the certificate MAY be ignored; the report may be about them."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def post(
    url: str, content: bytes, resolver: Resolver, tls: ssl.SSLContext, *, allow_private: bool = False
) -> None:
    """Done when it is taken (2xx). Redirects are not followed.

    Whoever publishes the URL chooses where we connect to: never into networks that are not public, unless
    allow_private. Raises PostFailed.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        async with asyncio.timeout(POST_S):
            trouble = "no address"
            for address in await _addresses(host, resolver, allow_private=allow_private):
                try:
                    reader, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=host)
                except OSError as error:
                    trouble = f"[{address}]:{port}: {error.strerror or type(error).__name__}"
                    continue
                try:
                    await _send(parts.netloc, target, content, reader, writer)
                    return
                except (OSError, h11.ProtocolError) as error:
                    trouble = f"[{address}]:{port}: {type(error).__name__}"
                finally:
                    with contextlib.suppress(OSError):
                        writer.transport.abort()
            raise PostFailed(trouble)
    except TimeoutError:
        raise PostFailed(f"not done within {POST_S:.0f} s") from None


async def _addresses(host: str, resolver: Resolver, *, allow_private: bool) -> list[str]:
    found: tuple[str, ...]
    try:
        found = (str(ipaddress.ip_address(host)),)
    except ValueError:
        answer = await resolver.addresses(host.lower())
        if answer.kind is not Kind.FOUND:
            raise PostFailed(answer.detail) from None
        found = answer.records
    usable = [each for each in found if allow_private or ipaddress.ip_address(each).is_global]
    if not usable:
        raise PostFailed(f"{found[0]} is in no public network", is_permanent=True)
    return usable[:_ADDRESSES_MOST]


async def _send(
    authority: str, target: str, content: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    connection = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", authority), ("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(content))),
        ("User-Agent", "angarium"), ("Connection", "close"),
    ]  # fmt: skip
    head = connection.send(h11.Request(method="POST", target=target, headers=headers))
    data = connection.send(h11.Data(data=content))
    writer.write((head or b"") + (data or b"") + (connection.send(h11.EndOfMessage()) or b""))
    received = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            octets = await reader.read(_ANSWER_OCTETS)
            received += len(octets)
            if received > _ANSWER_OCTETS:
                raise PostFailed("an answer of more than 64 KiB")
            connection.receive_data(octets)
        elif isinstance(event, h11.Response):
            code = event.status_code
            if 200 <= code < 300:
                return
            # What a client has done wrong it will do wrong again; 408 and 429 are about now.
            raise PostFailed(f"HTTP status {code}", is_permanent=400 <= code < 500 and code not in (408, 429))
        elif isinstance(event, h11.ConnectionClosed):
            raise PostFailed("no answer")
