"""The two ends of a client's connection beyond its address: its port, and which address and port of ours it came to.

Found when somebody asks, so that a session about which nobody does keeps none of it.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final

import msgspec

from angarium.inbound.claims import Introduction

# What a balancer's header has said (proxied.pyx): destination, IPv4 mapped; ports of client and destination.
PROXIED: Final = struct.Struct("!16sHH")


class Ends(msgspec.Struct, frozen=True):
    """client_port, server_port  0: not known, or a unix socket's.    server_address  "" likewise."""

    client_port: int = 0
    server_address: str = ""
    server_port: int = 0


def ends_of(fd: int, proxied: bytes | None, introduced: Introduction | None) -> Ends:
    """fd          of the connection, or -1.
    proxied     PROXIED, where a balancer has said whose connection it is.
    introduced  for whom a listed peer speaks on it: what it has said goes first, and its port is not the client's.
    """
    ends = _of_socket(fd) if proxied is None else _of_header(proxied)
    if introduced is None:
        return ends
    if introduced.has_address or introduced.port:
        ends = msgspec.structs.replace(ends, client_port=introduced.port)
    if introduced.destination is not None:
        ends = msgspec.structs.replace(ends, server_address=str(introduced.destination))
    return msgspec.structs.replace(ends, server_port=introduced.destination_port or ends.server_port)


def _of_header(proxied: bytes) -> Ends:
    destination, client_port, server_port = PROXIED.unpack(proxied)
    return Ends(client_port, _plain(destination), server_port)


def _of_socket(fd: int) -> Ends:
    """Nothing of one that is closed, by either side."""
    try:
        sock = socket.socket(fileno=fd)
    except (OSError, ValueError):       # -1 is no OSError
        return Ends()
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return Ends()
        own = sock.getsockname()
        return Ends(sock.getpeername()[1], _plain(socket.inet_pton(sock.family, own[0].partition("%")[0])), own[1])
    except OSError:
        return Ends()
    finally:
        sock.detach()


def _plain(packed: bytes) -> str:
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)
