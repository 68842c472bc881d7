"""A client's certificate, as a value: what relay rights and SASL EXTERNAL look at."""

from __future__ import annotations

import msgspec


class PeerCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a certificate that a client showed, and proved to hold the key of.

    fingerprint   SHA-256 of its DER form, 64 hex digits, lower case.
    is_verified   signed, for use by clients, by the listener's client_ca; else anybody can have made it.
    subject       as RFC 2253 writes it, "CN=client.example,O=Example"; not for comparing unless verified.
    domains       DNS names of the subject alternative name; printable ASCII.
    mailboxes     e-mail addresses of it; likewise.
    """

    fingerprint: str
    is_verified: bool
    subject: str
    domains: tuple[str, ...] = ()
    mailboxes: tuple[str, ...] = ()
