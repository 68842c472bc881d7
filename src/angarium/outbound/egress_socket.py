"""A socket with the local address of an egress source. What it is connected to is the dialer's."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from angarium.model.plan import Source

# <linux/in.h>; CPython names it from 3.12 on. Ports are then given out at connect(), per destination: without it a
# source has no more than some 28,000 connections to all the world together.
_IP_BIND_ADDRESS_NO_PORT: Final = 24


class SourceUnusable(Exception):
    """The source cannot be used, whatever the destination. `reason` is a clause that the source's name goes before."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def local_address(source: Source, address: str) -> str | None:
    """Which address of the source reaches `address`; "": the kernel chooses, None: it has none of the family."""
    if not source.address:
        return ""
    is_v6 = ":" in address
    return next((each for each in (source.address, source.address6) if each and (":" in each) == is_v6), None)


def used_part(source: Source, address: str) -> str:
    """What of the source is used to reach `address`, as routing/source_health.py knows it."""
    return source.proxy.server if source.proxy is not None else local_address(source, address) or ""


def unbound_socket(address: str) -> socket.socket:
    """Non-blocking, of the family of a numeric address of the peer; the kernel chooses ours. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def bound_socket(local: str) -> socket.socket:
    """Non-blocking, bound to a numeric address of this machine. Raises SourceUnusable, or OSError for what is nobody's
    fault (descriptors, memory)."""
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            raise SourceUnusable(f"{local} is IPv6, which this machine does not speak") from None
        raise
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(socket.getaddrinfo(local, 0, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)[0][4])
    except OSError as error:
        sock.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.EINVAL) or isinstance(error, socket.gaierror):
            raise SourceUnusable(f"{local} is not an address of this machine") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise SourceUnusable(f"{local} may not be used: {os.strerror(error.errno)}") from None
        raise
    return sock
