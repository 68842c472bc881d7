"""A client of Python's ssl and our server session, wired back to back."""

from __future__ import annotations

import ssl

from angarium.tls.context import ServerContext
from angarium.tls.session import TlsSession


class Pair:
    """Both ends after the handshake."""

    def __init__(self, server: ServerContext, client: ssl.SSLContext, name: str = "mx.test.example") -> None:
        self.server = TlsSession(server)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        is_done = False
        while not is_done:
            try:
                self.client.do_handshake()
                is_done = True
            except ssl.SSLWantReadError:
                pass
            self.server.open_octets(self.outgoing.read())
            self.incoming.write(self.server.seal_octets(b""))
