"""TLS towards other hosts: whom we trust and what we show, and one connection."""

from typing import Literal, final

from typing_extensions import Buffer

from angarium.model.tlsa import TlsaRecord

def is_usable(record: TlsaRecord) -> bool:
    """Whether it can say something about the certificate of a mail server (RFC 7672 §3.1, csrc/tls/dane.h)."""

@final
class ClientContext:
    """trust(), perhaps show(), then only read. Keeps at most 512 sessions for resumption, one a host.

    profile     "strict": the handshake fails unless the certificate is verified for the host's name (RFC 6125). "dane": unless
                it matches a TLSA record. "any": any is taken, and the verdict is known all the same.
    kept_count  sessions kept now.
    """

    kept_count: int
    def __init__(self, profile: Literal["any", "strict", "dane"]) -> None: ...
    def trust(self, ca: Buffer) -> None:
        """Authorities in PEM; empty: the system's. Raises TlsMaterialError for "cert"."""
    def show(self, cert: Buffer, key: Buffer) -> None:
        """Our certificate with its chain, and its key, both PEM. Raises TlsMaterialError for "cert" or "key"."""

@final
class ClientTls:
    """One connection of ours under TLS; its ClientHello is ready to be sent.

    name         of the host: A-labels, or a numeric address; with records, the TLSA base domain.
    key          what its session is kept under; another one for other records or names.
    records      usable TLSA records, for a context of profile "dane" and no other.
    more_names   that the certificate may bear in place of `name`, with usage 2 (RFC 7672 §3.2.2).
    is_verified  the certificate is the host's, from an authority that the context trusts, or by a record. False before the
                 handshake is over.
    has_own_certificate  of ours, for a server that asks for one.
    distrust     why the certificate of a handshake that came about is not verified; "": it is, or none came about.
    failure      why it failed, in OpenSSL's words; "" while nothing has.
    Raises ValueError for what is no host's name.
    """

    context: ClientContext
    is_established: bool
    is_resumed: bool
    is_verified: bool
    has_own_certificate: bool
    version: str
    cipher: str
    distrust: str
    failure: str
    def __init__(
        self,
        context: ClientContext,
        name: str,
        key: str,
        records: tuple[TlsaRecord, ...] = (),
        more_names: tuple[str, ...] = (),
    ) -> None: ...
    def channel_binding(self, kind: str) -> bytes | None:
        """What binds an authentication to this connection: "tls-exporter" (RFC 9266) or "tls-server-end-point" (RFC 5929 §4).

        None when there is no such thing here: TLS 1.2 without RFC 7627 for the first, a resumed session for the second.
        """
    def open_octets(self, data: Buffer) -> bytes:
        """Takes octets from the server; returns what they say. Raises RemoteProtocolError. Tests and tools only."""
    def seal_octets(self, plain: Buffer) -> bytes:
        """What is to be sent: octets of the handshake, then `plain` once it is over."""
