"""Two hosts of a test's own, with as many addresses as it wants: network namespaces, joined by a cable.

    with cable() as (ours, world):              # skips the test where namespaces are not permitted
        ours.add("192.0.2.1", "2001:db8:1::1")  # an address, and the other host's route to it
        world.add("198.51.100.1")
        with world.entered(), NextHop(address="198.51.100.1", port=25) as hop: ...

What a thread makes within entered() is of that host: sockets, threads, processes. So everything that tests have
can be put there as it is. Addresses come from what is reserved for documentation (RFC 5737, RFC 3849).

A namespace has no name that could be taken or left over: it lives as long as a descriptor of this process, or a
process in it. spawn() and PREFIX see to it that such a process does not outlive this one, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop.programs import program, run

# In front of a command: it is killed when the thread that began it is gone.
PREFIX = ("setpriv", "--pdeathsig", "KILL")

_CLONE_NEWNET = 0x40000000      # <sched.h>; CPython has setns() and unshare() from 3.12 on
_DEVICE = "cable0"
_OURS = Path("/proc/thread-self/ns/net")


class Host:
    """One of the two; made by cable()."""

    def __init__(self) -> None:
        ours = os.open(_OURS, os.O_RDONLY)
        try:
            _call("unshare", _CLONE_NEWNET)
            try:
                self.descriptor = os.open(_OURS, os.O_RDONLY)
            finally:
                _call("setns", ours, _CLONE_NEWNET)
        finally:
            os.close(ours)
        self.other = self

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread makes meanwhile is made there."""
        before = os.open(_OURS, os.O_RDONLY)
        try:
            _call("setns", self.descriptor, _CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", before, _CLONE_NEWNET)
        finally:
            os.close(before)

    def ip(self, *words: str) -> None:
        """ip(8) there."""
        with self.entered():
            run("ip", *words)

    def add(self, *addresses: str) -> None:
        """Gives it addresses, which the other one can reach from now on."""
        for address in addresses:
            self.ip("address", "add", _prefix(address), "dev", _DEVICE, *(["nodad"] if ":" in address else []))
            self.other.restore(address)

    def remove(self, address: str) -> None:
        """Takes it away again."""
        self.other.forget(address)
        self.ip("address", "del", _prefix(address), "dev", _DEVICE)

    def forget(self, address: str) -> None:
        """Has no way to that address of the other one any more."""
        self.ip("route", "del", _prefix(address))

    def refuse(self, address: str, kind: str) -> None:
        """Has a route that says so instead: "unreachable", "blackhole" or "prohibit"."""
        self.ip("route", "replace", kind, _prefix(address))

    def restore(self, address: str) -> None:
        self.ip("route", "replace", _prefix(address), "dev", _DEVICE)

    def spawn(self, *words: str) -> subprocess.Popen[str]:
        """A process there, its output read by the caller."""
        with self.entered():
            return subprocess.Popen([*PREFIX, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def cable() -> Iterator[tuple[Host, Host]]:
    """Two hosts without addresses but 127.0.0.1 and ::1, and a cable between them."""
    program("ip")
    program(PREFIX[0])
    with contextlib.ExitStack() as stack:
        try:
            hosts = Host(), Host()
        except PermissionError:
            pytest.skip("network namespaces need root (CAP_SYS_ADMIN), which this is not")
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOSPC):
                raise
            pytest.skip(f"the kernel makes no network namespace: {error.strerror}")
        for host in hosts:
            stack.callback(os.close, host.descriptor)
        ours, world = hosts
        ours.other, world.other = world, ours
        _plug(ours, world)
        yield hosts


def _plug(one: Host, other: Host) -> None:
    with one.entered():
        done = subprocess.run(
            ["ip", "link", "add", _DEVICE, "type", "veth", "peer", "name", _DEVICE,
             "netns", f"/proc/{os.getpid()}/fd/{other.descriptor}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"ip makes no cable between network namespaces: {done.stderr.strip()}")
    for host in (one, other):
        host.ip("link", "set", "lo", "up")
        host.ip("link", "set", _DEVICE, "up")


def _prefix(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
