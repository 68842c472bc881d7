"""One question to one name server by UDP, from a port of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_DATAGRAM_OCTETS = 65_535


class Exchange(Generic[T]):
    """Sends, and waits for the first datagram that `accept` makes something of: what that is, is `outcome`'s result.

    A fresh socket gives each query a port of its own, drawn by the kernel from all there are: with the 16-bit number
    alone answers could be forged (RFC 5452 §9.2). Connected, so that datagrams from elsewhere do not come in, and a
    server that is not there is known at once. Garbage does not end the wait, or a forger need only be first to stop
    mail.
    Whoever waits for `outcome` calls close() in the end. Raises OSError, or `outcome` gets it.
    """

    __slots__ = ("_accept", "_loop", "_socket", "outcome")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        port: int,
        query: bytes,
        accept: Callable[[bytes], T | None],
    ) -> None:
        self._loop = loop
        self._accept = accept
        self.outcome: asyncio.Future[T] = loop.create_future()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect((address, port))
            self._socket.send(query)
            loop.add_reader(self._socket.fileno(), self._readable)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Forgets the question."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        try:
            octets = self._socket.recv(_DATAGRAM_OCTETS)
            found = self._accept(octets)
        except BlockingIOError:
            return
        except Exception as error:
            self.close()
            if not self.outcome.done():
                self.outcome.set_exception(error)
            return
        if found is not None:
            self.close()
            if not self.outcome.done():
                self.outcome.set_result(found)
