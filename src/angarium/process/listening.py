"""The sockets that workers accept from: bound, listening and owned by the supervisor.

A TCP listener is one SO_REUSEPORT socket per worker, so that the kernel spreads connections without a lock
and a worker never wakes for another's. The supervisor keeps every one open: connections that queue while a
worker is being restarted wait for its successor. A unix socket knows no SO_REUSEPORT: all workers share one.

A socket that the service manager has bound (activation.py) serves the listener of its name or of its address. When
it has SO_REUSEPORT (ReusePort=yes) and the kernel lets us join it, it is the first worker's and the others get their
own; otherwise all workers share it: each wakes for a connection, one gets it. It stays open here for good, because
it could not be bound again, and its name is never removed.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterable, Mapping
from typing import Final

from angarium.inbound.socket_options import SocketOptions
from angarium.model.address import ListenAddress
from angarium.model.errors import AngariumError
from angarium.process.activation import Passed

# The kernel cuts this to net.core.somaxconn. Many clients connecting at once must not meet a full queue: a
# dropped SYN costs them a second.
BACKLOG: Final = 4096


class CannotListen(AngariumError):
    """An address cannot be listened on; the text says which and why."""


class Listening:
    """All listening sockets, by configured address and worker.

    An address with port 0 gets its port from the kernel, the same for all workers; `actual` says which.

    passed  what the service manager has bound; owned from now on.
    """

    def __init__(self, worker_count: int, passed: Iterable[Passed] = ()) -> None:
        self.worker_count = worker_count
        self._sockets: dict[ListenAddress, list[socket.socket]] = {}
        self._passed = list(passed)

    @property
    def addresses(self) -> list[ListenAddress]:
        return list(self._sockets)

    def actual(self, address: ListenAddress) -> ListenAddress:
        """The address that the socket really has: its port, or all of it when the service manager bound it."""
        for passed in self._passed:
            if passed.sock is self._sockets[address][0]:
                return passed.address
        if address.is_unix:
            return address
        return ListenAddress(address.host, self._sockets[address][0].getsockname()[1])

    def of_worker(self, number: int) -> dict[ListenAddress, socket.socket]:
        """What worker `number` accepts from."""
        return {address: sockets[number % len(sockets)] for address, sockets in self._sockets.items()}

    def is_shared(self, address: ListenAddress) -> bool:
        """Whether all workers accept from one socket."""
        return len(self._sockets[address]) == 1

    @property
    def unused(self) -> list[Passed]:
        """Sockets of the service manager that no listener serves now."""
        used = {id(sockets[0]) for sockets in self._sockets.values()}
        return [passed for passed in self._passed if id(passed.sock) not in used]

    def open(
        self, addresses: Iterable[ListenAddress], sockets: Mapping[ListenAddress, SocketOptions] | None = None
    ) -> list[ListenAddress]:
        """Listens on those that are not yet listened on; returns them. All or none: raises CannotListen.

        sockets  of those addresses that have options; a unix socket that is open gets its mode and owner once more.
        """
        opened: list[ListenAddress] = []
        for address in addresses:
            options = (sockets or {}).get(address, SocketOptions())
            is_new = address not in self._sockets
            try:
                if is_new:
                    self._sockets[address] = self._listen(address, options)
                elif address.is_unix and not self._is_passed(address):
                    _give(address.path, options)
            except OSError as error:
                self.close(opened)
                raise CannotListen(f"cannot listen on {address}: {_reason(error)}") from None
            except CannotListen:
                self.close(opened)
                raise
            if is_new:
                opened.append(address)
        return opened

    def close(self, addresses: Iterable[ListenAddress]) -> None:
        """Stops listening. A unix socket's name goes away with it, unless the service manager bound it."""
        for address in addresses:
            is_passed = self._is_passed(address)
            sockets = self._sockets.pop(address)
            for sock in sockets[1:] if is_passed else sockets:
                sock.close()
            if address.is_unix and not is_passed:
                _unlink_socket(address.path)

    def close_all(self) -> None:
        self.close(self.addresses)
        for passed in self._passed:
            passed.sock.close()
        self._passed.clear()

    def _is_passed(self, address: ListenAddress) -> bool:
        return any(passed.sock is self._sockets[address][0] for passed in self._passed)

    def _listen(self, address: ListenAddress, options: SocketOptions) -> list[socket.socket]:
        passed = self._passed_for(address, options.name)
        if passed is not None:
            return [passed.sock, *_joined(passed, self.worker_count - 1)]
        if address.is_unix:
            sock = _listen_unix(address.path, options.mode_bits)
            try:
                _give(address.path, options)
            except (OSError, CannotListen):
                sock.close()
                _unlink_socket(address.path)
                raise
            return [sock]
        return _listen_shared(address, self.worker_count)

    def _passed_for(self, address: ListenAddress, name: str) -> Passed | None:
        """By its name, when the listener asks for one; or else by its address. Raises CannotListen."""
        for passed in self.unused:
            if passed.name == name if name else passed.address == address:
                return passed
        if name:
            raise CannotListen(f'cannot listen on {address}: the service manager passed no socket "{name}"')
        return None


def listen_alone(address: ListenAddress, mode: int = 0o666) -> socket.socket:
    """One listening socket for one process, a unix socket with this mode. Raises CannotListen."""
    try:
        if address.is_unix:
            return _listen_unix(address.path, mode)
        return _listen_tcp(address, is_shared=False)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {_reason(error)}") from None


def _listen_shared(address: ListenAddress, worker_count: int) -> list[socket.socket]:
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


def _joined(passed: Passed, count: int) -> list[socket.socket]:
    """More sockets on the address of one that was passed; none when the kernel does not let us.

    It does when that one has SO_REUSEPORT and belongs to the same user, and we may bind the port.
    """
    sockets: list[socket.socket] = []
    if passed.address.is_unix or not passed.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        return sockets
    try:
        for _ in range(count):
            sockets.append(_listen_tcp(passed.address, is_shared=True, like=passed.sock))
    except OSError:
        for sock in sockets:
            sock.close()
        return []
    return sockets


def _listen_tcp(
    address: ListenAddress, *, is_shared: bool, is_probe: bool = False, like: socket.socket | None = None
) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "[::]" and "0.0.0.0" are two listeners with rules of their own, never one inheriting the other's.
            is_v6only = 1 if like is None else like.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6only)
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


def _give(path: str, options: SocketOptions) -> None:
    """Mode and owner of a unix socket's name. Raises OSError, or CannotListen for an account that does not exist."""
    user, _, group = options.owner.partition(":")
    try:
        user_id = -1 if not user else int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        group_id = -1 if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        reason = f'socket.owner: there is no such account: "{options.owner}"'
        raise CannotListen(f"cannot listen on unix:{path}: {reason}") from None
    now = os.stat(path)
    if user_id not in (-1, now.st_uid) or group_id not in (-1, now.st_gid):
        os.chown(path, user_id, group_id)
    if stat.S_IMODE(now.st_mode) != options.mode_bits:
        os.chmod(path, options.mode_bits)


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
