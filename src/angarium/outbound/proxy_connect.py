"""Connections out by a proxy that has the source's address: SOCKS5, or HAProxy told by a PROXY header (version 2).

What is returned is a connected socket on which the next octet is the SMTP server's. Until the proxy has let us in, what
goes wrong is the source's trouble, silence too; behind that what it answers, and silence, is the destination's. HAProxy
says nothing before the destination does: to be connected to is all that can be asked of it.
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

# Judged: to reach the proxy, which is ours and near, and to be let in. Not of the site's connect_timeout: a short one
# would suspend the source for all sites.
PROXY_TIMEOUT_S: Final = 10.0


class ProxyRefused(OSError):
    """The proxy cannot reach this destination; another it may."""


async def connect_by(
    loop: asyncio.AbstractEventLoop, proxy: Proxy, local: str, address: str, port: int, *, timeout_s: float
) -> socket.socket:
    """local: the address that the connection is to leave the proxy from; HAProxy is told it.
    timeout_s: for SOCKS5 to reach the destination, once it has let us in.

    Raises SourceUnusable when it lies with the proxy, OSError (TimeoutError without errno) when with the destination.
    """
    sock, dialogue = await _let_in(loop, proxy, address, port)
    try:
        if dialogue is None:
            await loop.sock_sendall(sock, proxy_header(local, address, port))
        else:
            async with asyncio.timeout(timeout_s):
                while dialogue.wanted:
                    await _go_on(loop, sock, dialogue)
    except Socks5Error as error:
        sock.close()
        if error.is_of_proxy:
            raise _unusable(proxy, f" {error}") from None
        raise ProxyRefused(f"by SOCKS5 proxy {proxy.server}: {error}") from None
    except OSError as error:
        sock.close()
        if _is_ours(error):
            raise
        raise _unusable(proxy, f": {_words(error)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def look_at_proxy(loop: asyncio.AbstractEventLoop, proxy: Proxy) -> None:
    """Whether the proxy would take us: as far as can be seen without a destination. Raises SourceUnusable, OSError."""
    sock, _ = await _let_in(loop, proxy, "192.0.2.1", 25)
    sock.close()


async def _let_in(
    loop: asyncio.AbstractEventLoop, proxy: Proxy, address: str, port: int
) -> tuple[socket.socket, Socks5 | None]:
    """Connected to the proxy, with SOCKS5 through with methods and password: what the dialogue asks next is CONNECT.

    Raises SourceUnusable; OSError when this process has no socket left.
    """
    host, _, proxy_port = proxy.server.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dialogue = Socks5(address, port, proxy.user, proxy.password) if proxy.kind == "socks5" else None
    late = ": no connection in time"
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(PROXY_TIMEOUT_S):
            await loop.sock_connect(sock, (host, int(proxy_port)))
            late = " does not answer in time"
            while dialogue is not None and not dialogue.is_let_in:
                await _go_on(loop, sock, dialogue)
    except Socks5Error as error:
        sock.close()
        raise _unusable(proxy, f" {error}") from None
    except OSError as error:
        sock.close()
        raise _unusable(proxy, late if _is_ours(error) else f": {_words(error)}") from None
    except BaseException:
        sock.close()
        raise
    return sock, dialogue


async def _go_on(loop: asyncio.AbstractEventLoop, sock: socket.socket, dialogue: Socks5) -> None:
    """One step of it: what is to be said, and as much of the answer as is there. Raises Socks5Error, OSError."""
    if out := dialogue.out():
        await loop.sock_sendall(sock, out)
    dialogue.receive(await loop.sock_recv(sock, dialogue.wanted))


def proxy_header(local: str, address: str, port: int) -> bytes:
    """PROXY version 2 for a connection from `local` (any port) to `address`:`port`, both of one family."""
    source, destination = ipaddress.ip_address(local), ipaddress.ip_address(address)
    block = source.packed + destination.packed + (0).to_bytes(2, "big") + port.to_bytes(2, "big")
    return _SIGNATURE + bytes((0x21, _PROXY_OVER_TCP[destination.version])) + len(block).to_bytes(2, "big") + block


def _is_ours(error: OSError) -> bool:
    """It is asyncio.timeout() that has ended it, not the kernel."""
    return isinstance(error, TimeoutError) and not error.errno


def _unusable(proxy: Proxy, words: str) -> SourceUnusable:
    name = "SOCKS5 proxy" if proxy.kind == "socks5" else "proxy"
    return SourceUnusable(f"cannot be used: {name} {proxy.server}{words}")


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
