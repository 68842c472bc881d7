"""One inbound connection under TLS, as those see it who decide about its client."""

from typing import final

from typing_extensions import Buffer

from angarium.tls.context import ServerContext
from angarium.tls.peer_certificate import PeerCertificate

@final
class TlsSession:
    """Made by connections only; `client.tls` is None in clear. What follows holds once the handshake is over.

    fingerprint   SHA-256 of the client's certificate, 32 octets; None when it showed none.
    is_resumed    by a session ticket, without a full handshake.
    is_verified   the CA of the listener's client_ca has signed it.
    """

    context: ServerContext
    is_resumed: bool
    is_verified: bool
    fingerprint: bytes | None
    def __init__(self, context: ServerContext) -> None: ...
    @property
    def version(self) -> str:
        """"TLSv1.2" or "TLSv1.3"."""
    @property
    def cipher(self) -> str:
        """The IANA name, such as "TLS_AES_128_GCM_SHA256"."""
    @property
    def cipher_name(self) -> str:
        """As OpenSSL spells it, such as "ECDHE-RSA-AES128-GCM-SHA256"."""
    @property
    def cipher_bits(self) -> int:
        """Of its key."""
    def peer_key_fingerprint(self) -> bytes | None:
        """SHA-256 of the public key in the client's certificate (SubjectPublicKeyInfo, DER); None when it showed none."""
    def peer_common_name(self) -> bytes:
        """Of the certificate's subject, the last one; b"" when there is none. UTF-8 with anything in it but NUL."""
    def peer_issuer_name(self) -> bytes:
        """Likewise of its issuer: the commonName, or else the organizationName."""
    def peer_certificate(self) -> PeerCertificate | None:
        """The client's certificate; None when it showed none."""
    def channel_binding(self, kind: str) -> bytes | None:
        """What binds an authentication to this connection.

        kind  "tls-exporter" (RFC 9266) or "tls-server-end-point" (RFC 5929 §4).
        None when there is no such thing here: TLS 1.2 without RFC 7627 for the first, a resumed session for the second.
        """
    def open_octets(self, data: Buffer) -> bytes:
        """Takes octets from the client, all of them; returns what they say. Tests and tools only.

        Raises RemoteProtocolError when the connection has failed; an alert may be in seal_octets(b"").
        """
    def seal_octets(self, plain: Buffer) -> bytes:
        """What is to be sent: octets of the handshake, then `plain` once it is over."""
