"""A listener of one worker: accepting on a socket that the supervisor bound; pausing and draining."""

from __future__ import annotations

import asyncio
import socket

from angarium.inbound.acceptor import Acceptor
from angarium.inbound.context import InboundContext, Intake
from angarium.inbound.options import ListenerOptions
from angarium.tls.context import ServerContext

# As many as the kernel may hold while a worker restarts; net.core.somaxconn caps it.
BACKLOG = 4096


class Listener:
    """Accepts connections on an already bound socket.

    tls      what [listener.tls] compiles to; None with that table: TLS is not available now, 454.
    sock     bound, stream; owned from now on. Several workers may have sockets of one address
             (SO_REUSEPORT), or one socket inherited by all.
    Everything must be called on the intake's loop.
    """

    def __init__(
        self,
        intake: Intake,
        hostname: str,
        options: ListenerOptions,
        sock: socket.socket,
        tls: ServerContext | None = None,
    ) -> None:
        self.context = InboundContext(intake, hostname, options, tls)
        self._sock = sock
        self._acceptor = Acceptor(self.context, sock)
        self.is_accepting = False

    def start(self) -> None:
        """Begins to accept, or begins again after pause()."""
        if not self.is_accepting:
            self._sock.listen(BACKLOG)
            self._acceptor.start()
            self.is_accepting = True

    def pause(self) -> None:
        """Accepts no more; the kernel's queue goes on filling and waits for start()."""
        self._acceptor.stop()
        self.is_accepting = False

    def apply(self, hostname: str, options: ListenerOptions, tls: ServerContext | None = None) -> None:
        """A reload with the same address: open sessions follow at their next command."""
        self.context.apply(hostname, options, tls)

    def close(self) -> None:
        """Accepts no more, for good: connections that the kernel still holds are reset. Sessions live on."""
        self.pause()
        self._sock.close()


async def drain(intake: Intake, listeners: list[Listener], deadline_s: float) -> int:
    """Ends all sessions of a worker: idle ones at once, others behind the message they are in.

    Past the deadline connections are cut, but what is being committed is waited for all the same: its client
    may have gone, the message has not. Returns the number of connections cut.
    """
    loop = asyncio.get_running_loop()
    for listener in listeners:
        listener.close()
    intake.drain()
    end = loop.time() + deadline_s
    while intake.clients and loop.time() < end:
        await asyncio.sleep(0.02)
    cut = len(intake.clients)
    intake.abort_all()
    while intake.clients or intake.committing:
        await asyncio.sleep(0.005)
    return cut
