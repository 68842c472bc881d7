"""One question to one name server by UDP, from a port of its own."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_DATAGRAM_OCTETS = 65_535

# Judged: each answer costs the loop up to 0.2 ms in this turn and those soon after, until whoever waited for it is on
# the way. More at once are no faster, and fewer ask the kernel more often.
_ANSWERS_IN_A_TURN = 8


class Arrivals:
    """Which exchanges of a resolver have an answer to be read, and few of them in one turn of the loop: a name server
    may answer hundreds of questions at once, and all else that is due would wait until they are dealt with.

    An epoll set of our own, which is one descriptor to the loop (as sockets/poll.pyx): who is left over comes with the
    next turn, in the order of arrival. Single-threaded, on one loop as long as anybody waits.
    """

    def __init__(self, at_once: int = _ANSWERS_IN_A_TURN) -> None:
        self._at_once = at_once
        self._epoll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, Exchange[Any]] = {}

    def watch(self, loop: asyncio.AbstractEventLoop, fd: int, exchange: Exchange[Any]) -> None:
        """Calls exchange.readable() in turns in which the socket has a datagram or an error. Raises OSError."""
        if self._epoll is None:
            self._epoll = select.epoll()
        self._epoll.register(fd, select.EPOLLIN)
        if not self._waiting:
            loop.add_reader(self._epoll.fileno(), self._turn)
            self._loop = loop
        self._waiting[fd] = exchange

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed: a child between fork and exec has the socket too, and kept it in the set."""
        if self._waiting.pop(fd, None) is None or self._epoll is None:
            return
        self._epoll.unregister(fd)
        if not self._waiting and self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())

    def _turn(self) -> None:
        if self._epoll is None:
            return
        for fd, _ in self._epoll.poll(0, self._at_once):
            self._waiting[fd].readable()        # which forgets nobody but itself


class Exchange(Generic[T]):
    """Sends, and waits for the first datagram that `accept` makes something of: what that is, is `outcome`'s result.

    A fresh socket gives each query a port of its own, drawn by the kernel from all there are: with the 16-bit number
    alone answers could be forged (RFC 5452 §9.2). Connected, so that datagrams from elsewhere do not come in, and a
    server that is not there is known at once. Garbage does not end the wait, or a forger need only be first to stop
    mail.
    Whoever waits for `outcome` calls close() in the end. Raises OSError, or `outcome` gets it.
    """

    __slots__ = ("_accept", "_arrivals", "_socket", "outcome")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        port: int,
        query: bytes,
        accept: Callable[[bytes], T | None],
        *,
        arrivals: Arrivals,
    ) -> None:
        self._accept = accept
        self._arrivals = arrivals
        self.outcome: asyncio.Future[T] = loop.create_future()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect((address, port))
            self._socket.send(query)
            arrivals.watch(loop, self._socket.fileno(), self)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Forgets the question."""
        if self._socket.fileno() >= 0:
            self._arrivals.forget(self._socket.fileno())
            self._socket.close()

    def readable(self) -> None:
        """Of Arrivals: a datagram or an error has come."""
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
