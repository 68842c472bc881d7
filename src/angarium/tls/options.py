"""What the operator may set about TLS on a listener: [listener.tls]."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from angarium.model.units import Duration

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class CertificateOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One certificate: absolute paths of PEM files.

    cert  the certificate, and behind it those that lead to the root.
    key   its private key, without a passphrase.
    """

    cert: str
    key: str

    def __post_init__(self) -> None:
        require_path("cert", self.cert)
        require_path("key", self.key)


class ServerTlsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS of one listener; without the table there is none.

    certificates        chosen by the name a client asks for, RSA and ECDSA side by side; the first of each kind is
                        for clients that ask for none of the names.
    min_version         "1.2" or "1.3".
    starttls            offered in EHLO.
    implicit            the connection begins with TLS (RFC 8314 §3.3); STARTTLS is not offered then.
    required            MAIL is refused in clear, 530 5.7.0.
    requiretls          REQUIRETLS (RFC 8689) is offered under TLS.
    handshake_timeout   for the whole of it.
    client_ca           PEM file; clients are asked for a certificate, and those it has signed are verified.
    relay_verified      clients with a verified certificate may send to anybody.
    relay_certificates  SHA-256 fingerprints of certificates whose clients may send to anybody, whoever signed them.
    """

    certificates: list[CertificateOptions]
    min_version: Literal["1.2", "1.3"] = "1.2"
    starttls: bool = True
    implicit: bool = False
    required: bool = False
    requiretls: bool = True
    handshake_timeout: Duration = Duration(30)
    client_ca: str | None = None
    relay_verified: bool = False
    relay_certificates: list[str] = []

    def __post_init__(self) -> None:
        if not self.certificates:
            raise ValueError("certificates: at least one is needed")
        if not 1 <= self.handshake_timeout <= 300:
            raise ValueError("handshake_timeout: between 1s and 5m")
        if self.client_ca is not None:
            require_path("client_ca", self.client_ca)
        elif self.relay_verified:
            raise ValueError("relay_verified: needs client_ca, which verifies")
        if self.required and not (self.starttls or self.implicit):
            raise ValueError("required: without starttls or implicit nobody could send")
        for index, text in enumerate(self.relay_certificates):
            if not _FINGERPRINT.fullmatch(plain_fingerprint(text)):
                raise ValueError(f"relay_certificates[{index}]: not a SHA-256 fingerprint of 64 hex digits")

    @property
    def offers_starttls(self) -> bool:
        return self.starttls and not self.implicit

    @property
    def fingerprints(self) -> frozenset[bytes]:
        """relay_certificates as they are compared."""
        return frozenset(bytes.fromhex(plain_fingerprint(text)) for text in self.relay_certificates)


def plain_fingerprint(text: str) -> str:
    """"AB:CD:..." as openssl prints it, or without colons."""
    return text.replace(":", "").lower()


def require_path(key: str, path: str) -> None:
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(f'{key}: "{path}" is not an absolute path')
