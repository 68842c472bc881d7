"""The sockets that workers accept from: bound, listening and owned by the supervisor.

A TCP listener is one SO_REUSEPORT socket per worker, so that the kernel spreads connections without a lock
and a worker never wakes for another's. The supervisor keeps every one open: connections that queue while a
worker is being restarted wait for its successor. A unix socket knows no SO_REUSEPORT: all workers share one.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from typing import Final

from angarium.model.address import ListenAddress
from angarium.model.errors import AngariumError

# The kernel cuts this to net.core.somaxconn. Many clients connecting at once must not meet a full queue: a
# dropped SYN costs them a second.
BACKLOG: Final = 4096


class CannotListen(AngariumError):
    """An address cannot be listened on; the text says which and why."""


class Listening:
    """All listening sockets, by configured address and worker.

    An address with port 0 gets its port from the kernel, the same for all workers; `actual` says which.
    """

    def __init__(self, worker_count: int) -> None:
        self.worker_count = worker_count
        self._sockets: dict[ListenAddress, list[socket.socket]] = {}

    @property
    def addresses(self) -> list[ListenAddress]:
        return list(self._sockets)

    def actual(self, address: ListenAddress) -> ListenAddress:
        """The address with the port it really has."""
        if address.is_unix:
            return address
        return ListenAddress(address.host, self._sockets[address][0].getsockname()[1])

    def of_worker(self, number: int) -> dict[ListenAddress, socket.socket]:
        """What worker `number` accepts from."""
        return {address: sockets[number % len(sockets)] for address, sockets in self._sockets.items()}

    def open(self, addresses: Iterable[ListenAddress]) -> list[ListenAddress]:
        """Listens on those that are not yet listened on; returns them. All or none: raises CannotListen."""
        opened: list[ListenAddress] = []
        for address in addresses:
            if address in self._sockets:
                continue
            try:
                self._sockets[address] = _listen(address, self.worker_count)
            except OSError as error:
                self.close(opened)
                raise CannotListen(f"cannot listen on {address}: {_reason(error)}") from None
            opened.append(address)
        return opened

    def close(self, addresses: Iterable[ListenAddress]) -> None:
        """Stops listening. A unix socket's name goes away with it."""
        for address in addresses:
            for sock in self._sockets.pop(address):
                sock.close()
            if address.is_unix:
                _unlink_socket(address.path)

    def close_all(self) -> None:
        self.close(self.addresses)


def listen_alone(address: ListenAddress, mode: int = 0o666) -> socket.socket:
    """One listening socket for one process, a unix socket with this mode. Raises CannotListen."""
    try:
        if address.is_unix:
            return _listen_unix(address.path, mode)
        return _listen_tcp(address, is_shared=False)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {_reason(error)}") from None


def _listen(address: ListenAddress, worker_count: int) -> list[socket.socket]:
    if address.is_unix:
        return [_listen_unix(address.path, 0o666)]
    # SO_REUSEPORT would let us join a stranger's port, another angarium of the same user say. A socket
    # without it is refused when anybody listens there; then it makes room for ours.
    first = _listen_tcp(address, is_shared=False, is_probe=True)
    port = first.getsockname()[1]
    first.close()
    there = ListenAddress(address.host, port)
    sockets: list[socket.socket] = []
    try:
        for _ in range(worker_count):
            sockets.append(_listen_tcp(there, is_shared=True))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen_tcp(address: ListenAddress, *, is_shared: bool, is_probe: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "[::]" and "0.0.0.0" are two listeners with rules of their own, never one inheriting the other's.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Set on the listener, inherited by what it accepts: replies are small and must not wait for an ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address.host, address.port))
        if not is_probe:
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _listen_unix(path: str, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                raise
            os.unlink(path)
            sock.bind(path)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _is_abandoned(path: str) -> bool:
    """A socket's name that nobody listens behind: left by a process that was killed."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _unlink_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except OSError:
        pass  # gone already, or in a directory that is no longer ours: the next start clears it


def _reason(error: OSError) -> str:
    return {
        errno.EADDRINUSE: "it is in use",
        errno.EACCES: "permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(error.errno or 0, error.strerror or str(error))
