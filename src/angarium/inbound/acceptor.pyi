"""Taking connections from a listening socket."""

import socket
from typing import final

from angarium.inbound.context import InboundContext

@final
class Acceptor:
    """Connections of one listening socket become sessions of the listener `context`. The socket stays its owner's, who
    stops this first. When descriptors are out, it says so in the log and tries again a second later.
    """

    def __init__(self, context: InboundContext, sock: socket.socket) -> None: ...
    def start(self) -> None:
        """OSError: it cannot be watched."""
    def stop(self) -> None:
        """Harmless when it was not started."""

def adopt(context: InboundContext, sock: socket.socket) -> None:
    """A session over a connected socket, which is owned from now on. A socket without an IP address is loopback's."""
