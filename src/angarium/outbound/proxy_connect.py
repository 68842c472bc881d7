"""Connections out by a proxy that has the source's address: SOCKS5, or HAProxy told by a PROXY header (version 2).

What is returned is a connected socket on which the next octet is the SMTP server's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from typing import Final

from angarium.model.plan import Proxy
from angarium.outbound.egress_socket import SourceUnusable
from angarium.outbound.socks5 import Socks5, Socks5Error

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"     # proxy-protocol.txt §2.2
_PROXY_OVER_TCP: Final = {4: 0x11, 6: 0x21}

PROXY_TIMEOUT_S: Final = 10.0       # judged: to reach the proxy, which is ours and near


class ProxyRefused(OSError):
    """The proxy cannot reach this destination; another it may."""


async def connect_by(
    loop: asyncio.AbstractEventLoop, proxy: Proxy, local: str, address: str, port: int
) -> socket.socket:
    """local: the address that the connection is to leave the proxy from; HAProxy is told it.

    Raises SourceUnusable when it lies with the proxy, OSError when with the destination.
    """
    sock = await proxy_socket(loop, proxy)
    try:
        if proxy.kind == "haproxy":
            await loop.sock_sendall(sock, proxy_header(local, address, port))
        else:
            await _by_socks(loop, sock, proxy, address, port)
    except Socks5Error as error:
        sock.close()
        if error.is_of_proxy:
            raise SourceUnusable(f"cannot be used: SOCKS5 proxy {proxy.server} {error}") from None
        raise ProxyRefused(f"by SOCKS5 proxy {proxy.server}: {error}") from None
    except OSError as error:
        sock.close()
        raise SourceUnusable(f"cannot be used: proxy {proxy.server}: {_words(error)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def look_at_proxy(loop: asyncio.AbstractEventLoop, proxy: Proxy) -> None:
    """Whether the proxy would take us: as far as can be seen without a destination. Raises SourceUnusable."""
    sock = await proxy_socket(loop, proxy)
    try:
        if proxy.kind == "socks5":
            dialogue = Socks5("192.0.2.1", 25, proxy.user, proxy.password)
            async with asyncio.timeout(PROXY_TIMEOUT_S):
                while not dialogue.is_let_in:
                    await loop.sock_sendall(sock, dialogue.out())
                    dialogue.receive(await loop.sock_recv(sock, dialogue.wanted))
    except (Socks5Error, OSError) as error:
        words = _words(error) if isinstance(error, OSError) else str(error)
        raise SourceUnusable(f"cannot be used: SOCKS5 proxy {proxy.server} {words}") from None
    finally:
        sock.close()


async def proxy_socket(loop: asyncio.AbstractEventLoop, proxy: Proxy) -> socket.socket:
    """Connected to the proxy. Raises SourceUnusable."""
    host, _, port = proxy.server.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(PROXY_TIMEOUT_S):
            await loop.sock_connect(sock, (host, int(port)))
    except OSError as error:
        sock.close()
        raise SourceUnusable(f"cannot be used: proxy {proxy.server}: {_words(error)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def proxy_header(local: str, address: str, port: int) -> bytes:
    """PROXY version 2 for a connection from `local` (any port) to `address`:`port`, both of one family."""
    source, destination = ipaddress.ip_address(local), ipaddress.ip_address(address)
    block = source.packed + destination.packed + (0).to_bytes(2, "big") + port.to_bytes(2, "big")
    return _SIGNATURE + bytes((0x21, _PROXY_OVER_TCP[destination.version])) + len(block).to_bytes(2, "big") + block


async def _by_socks(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, proxy: Proxy, address: str, port: int
) -> None:
    dialogue = Socks5(address, port, proxy.user, proxy.password)
    while True:
        if out := dialogue.out():
            await loop.sock_sendall(sock, out)
        if not dialogue.wanted:
            return
        dialogue.receive(await loop.sock_recv(sock, dialogue.wanted))


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError) and not error.errno:
        return "no connection in time"
    return os.strerror(error.errno) if error.errno else str(error)
