"""What a listener offers under TLS, compiled; and the keys of session tickets."""

from typing import final

from typing_extensions import Buffer

@final
class TicketKeys:
    """The keys that session tickets are sealed with, in memory that processes forked later share.

    Made with one key. One process rotates; the key before the last rotation still opens tickets.
    """

    def __init__(self) -> None: ...
    def rotate(self) -> None:
        """A new key from the system's random source seals from now on, in all processes."""

@final
class ServerContext:
    """Certificates by name, versions, ciphers (csrc/tls/context.h says which). add(), then seal(), then only read.

    tickets   None: no session tickets.
    client_ca_digest   SHA-256 of what ask_certificate() was given; empty when certificates are not asked for.
    """

    client_ca_digest: bytes
    def __init__(self, *, is_tls13_only: bool = False, tickets: TicketKeys | None = None) -> None: ...
    def add(self, cert: Buffer, key: Buffer) -> None:
        """A certificate with its chain, and its key, both PEM text.

        The first of each kind of key is for clients that name no host that any certificate has.
        Raises TlsMaterialError for "cert" or "key"; then the context is of no use.
        """
    def seal(self) -> None:
        """Call once behind the last add()."""
    def ask_certificate(self, ca: Buffer) -> None:
        """Clients are asked for a certificate and need not have one. `ca`: PEM text, may be empty.

        Raises TlsMaterialError for "client_ca".
        """
    def expires_utc_s(self, index: int) -> int:
        """The end of the certificate that was added as number `index`. Raises IndexError."""
