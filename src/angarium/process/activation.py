"""Sockets that the service manager has bound for us: sd_listen_fds(3).

They come as descriptors from 3 on, described by $LISTEN_PID, $LISTEN_FDS and $LISTEN_FDNAMES. Which listener takes
which is listening.py's business. Whoever is not the process meant, a child that inherited the environment say, finds
none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

import msgspec

from angarium.model.address import ListenAddress

FIRST_FD: Final = 3
# One more than anybody needs; the number comes from outside.
SOCKETS_MAX: Final = 4096


class Passed(msgspec.Struct, frozen=True):
    """One listening stream socket. name: FileDescriptorName=, or "" when none was told."""

    name: str
    address: ListenAddress
    sock: socket.socket


def passed_sockets(environment: MutableMapping[str, str] = os.environ) -> list[Passed]:
    """Takes over what was passed to this process, once: the variables are removed.

    Descriptors that are no listening stream sockets of IPv4, IPv6 or a path stay as they are, untouched.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    found = []
    for index in range(min(int(count), SOCKETS_MAX)):
        name = names[index] if index < len(names) else ""
        # What systemd calls a socket without a name, and what it calls one of a connection.
        passed = _taken(FIRST_FD + index, "" if name in ("unknown", "connection") else name)
        if passed is not None:
            found.append(passed)
    return found


def _taken(fd: int, name: str) -> Passed | None:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        address = _address(sock) if is_listening and sock.type == socket.SOCK_STREAM else None
    except OSError:
        address = None
    if address is None:
        sock.detach()
        return None
    sock.set_inheritable(False)
    sock.setblocking(False)
    if not address.is_unix:
        # As listening.py has it on its own: replies are small and must not wait for an ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Passed(name, address, sock)


def _address(sock: socket.socket) -> ListenAddress | None:
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return ListenAddress(name[0], name[1])
    is_path = sock.family == socket.AF_UNIX and isinstance(name, str) and name.startswith("/")
    return ListenAddress(path=name) if is_path else None
