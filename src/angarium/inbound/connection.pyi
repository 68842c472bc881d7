"""One inbound connection."""

from typing import final

from angarium.inbound.client import Client

@final
class InboundConnection(Client):
    """Made for a socket that was accepted (acceptor.pyi)."""

    def close_if_idle(self) -> bool:
        """421 and an end when no transaction is open; tells whether it was so."""
    def abort(self) -> None:
        """Cuts the connection without a word."""
