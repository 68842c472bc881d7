"""Fetching an MTA-STS policy over HTTPS (RFC 8461 §3.3). Knows nothing of caching (sts_policies.py)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final

import h11

from angarium.resolver.answer import Kind, Resolver

HTTPS_PORT: Final = 443
# §3.3 suggests both: they are there so that no server can hold up or fill anything.
FETCH_S: Final = 15.0
POLICY_OCTETS: Final = 64 << 10
_ADDRESSES_MAXIMUM: Final = 4
_ADDRESS_S: Final = 5.0


class StsUnavailable(Exception):
    """No policy could be had; says why, in words of ours and printable."""


async def fetch_policy(domain: str, resolver: Resolver, tls: ssl.SSLContext, port: int = HTTPS_PORT) -> bytes:
    """The policy file of a domain, at most POLICY_OCTETS, within FETCH_S.

    tls  verifies names and chains: the certificate must be for mta-sts.DOMAIN.
    Redirects are not followed, caches not believed (§3.3). Raises StsUnavailable.
    """
    host = f"mta-sts.{domain}"
    try:
        async with asyncio.timeout(FETCH_S):
            answer = await resolver.addresses(host)
            if answer.kind is not Kind.FOUND:
                raise StsUnavailable(answer.detail)
            trouble = ""
            for address in answer.records[:_ADDRESSES_MAXIMUM]:
                try:
                    async with asyncio.timeout(_ADDRESS_S):
                        reader, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=host)
                except TimeoutError:
                    trouble = f"[{address}]:{port} does not answer"
                    continue
                except (OSError, ssl.SSLError) as error:
                    trouble = f"[{address}]:{port}: {_words(error)}"
                    continue
                try:
                    return await _get(host, reader, writer)
                except (OSError, h11.ProtocolError) as error:
                    raise StsUnavailable(f"[{address}]:{port}: {_words(error)}") from None
                finally:
                    with contextlib.suppress(OSError):
                        writer.transport.abort()
            raise StsUnavailable(trouble)
    except TimeoutError:
        raise StsUnavailable(f"{host}: not done within {FETCH_S:.0f} s") from None


async def _get(host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", host), ("Accept", "text/plain"), ("Connection", "close")]
    request = connection.send(h11.Request(method="GET", target="/.well-known/mta-sts.txt", headers=headers))
    writer.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
    content = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(POLICY_OCTETS))
        elif isinstance(event, h11.Response):
            _check(event)
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > POLICY_OCTETS:
                raise StsUnavailable(f"{host}: a policy of more than {POLICY_OCTETS >> 10} KiB")
        elif isinstance(event, h11.EndOfMessage):
            return content
        elif isinstance(event, h11.ConnectionClosed):
            raise StsUnavailable(f"{host}: no answer")


def _check(response: h11.Response) -> None:
    if response.status_code != 200:
        raise StsUnavailable(f"HTTP status {response.status_code}")
    kinds = [value for name, value in response.headers if name == b"content-type"]
    if not kinds or kinds[0].partition(b";")[0].strip().lower() != b"text/plain":
        # §3.2: where people may put files on a server, this is what tells theirs from the administrator's.
        raise StsUnavailable("it is not text/plain")


def _words(error: Exception) -> str:
    """What a peer's certificate or status line says does not go into a log as it is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}".encode("ascii", "replace").decode()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
