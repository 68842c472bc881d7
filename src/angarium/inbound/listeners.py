"""All listeners of one worker: its own by the configuration, and those of silent workers for which it stands in."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from angarium.inbound.context import InboundContext, Intake
from angarium.inbound.listener import Listener, drain
from angarium.inbound.options import ListenerOptions
from angarium.model.address import ListenAddress
from angarium.tls.context import ServerContext
from angarium.tls.watch import CertificateWatch

BoundSocket = tuple[ListenAddress, socket.socket]
_Wanted = dict[ListenAddress, ListenerOptions]


class Listeners:
    """On the intake's loop, from the first apply() to drain().

    certificates  stopped by close().
    """

    def __init__(self, intake: Intake, hostname: str, certificates: CertificateWatch) -> None:
        self._intake = intake
        self._hostname = hostname
        self._certificates = certificates
        self._wanted: _Wanted = {}
        self._own: dict[ListenAddress, Listener] = {}
        self._of_others: dict[int, dict[ListenAddress, Listener]] = {}  # of silent workers, by their number
        self._is_draining = False

    def contexts(self) -> list[InboundContext]:
        return [listener.context for listener in self._own.values()]

    async def apply(self, options: Sequence[ListenerOptions], sockets: Sequence[BoundSocket]) -> None:
        """Accepts on the sockets for which there are options, and on no others; takes over the sockets."""
        wanted = {each.address: each for each in options}
        for address in set(self._own) - set(wanted):
            self._own.pop(address).close()
            self._certificates.forget(address)
        for address, sock in sockets:
            if address not in wanted:
                continue            # forked in the middle of a reload that opens it: the reload's own message follows
            await self._apply_one(address, wanted[address], sock)
        for listeners in self._of_others.values():
            for address in list(listeners):
                if address in wanted:
                    listeners[address].apply(self._hostname, wanted[address], self._tls_of(address))
                else:
                    listeners.pop(address).close()
        self._wanted = wanted

    async def _apply_one(self, address: ListenAddress, options: ListenerOptions, sock: socket.socket) -> None:
        tls = await self._certificates.load(address, options.tls)
        if self._is_draining:
            sock.close()            # those that there are have been closed
        elif address in self._own:
            # The same socket once more: a reload sends all of them, so that it needs no memory of who has which.
            sock.close()
            listener = self._own[address]
            if tls is None and options.tls is not None:
                tls = listener.context.tls      # broken since the supervisor looked: what there is goes on
            listener.apply(self._hostname, options, tls)
        else:
            self._own[address] = Listener(self._intake, self._hostname, options, sock, tls)
            self._own[address].start()
        if address in self._own:
            self._certificates.hold(address, self._own[address].context)

    def stand_in(self, number: int, sockets: Sequence[BoundSocket]) -> None:
        """Accepts for worker `number` too (process/deputies.py), unless we drain; takes over the sockets."""
        self.stand_down(number)
        listeners = self._of_others.setdefault(number, {})
        for address, sock in sockets:
            if self._is_draining or address not in self._wanted:
                sock.close()        # a reload is closing it
                continue
            options = self._wanted[address]
            listeners[address] = Listener(self._intake, self._hostname, options, sock, self._tls_of(address))
            listeners[address].start()

    def stand_down(self, number: int) -> None:
        for listener in self._of_others.pop(number, {}).values():
            listener.close()

    async def drain(self, deadline_s: float) -> None:
        """Ends all sessions of the worker (listener.drain()), and opens nothing more."""
        self._is_draining = True
        for number in list(self._of_others):
            self.stand_down(number)
        await drain(self._intake, list(self._own.values()), deadline_s)

    def close(self) -> None:
        self._certificates.stop()

    def _tls_of(self, address: ListenAddress) -> ServerContext | None:
        """Of our own listener there: a silent worker's sockets have the same addresses."""
        listener = self._own.get(address)
        return listener.context.tls if listener is not None else None
