"""Certificates for tests, made when they are needed: no key is ever stored with the sources."""

from __future__ import annotations

import functools
import hashlib
import ssl
from pathlib import Path
from typing import Any

import trustme


@functools.cache
def authority() -> trustme.CA:
    """The one that clients of the tests trust."""
    return trustme.CA()


@functools.cache
def stranger() -> trustme.CA:
    """Another, that nobody trusts."""
    return trustme.CA()


@functools.cache
def certificate(name: str, kind: str = "ECDSA", ca: str = "authority") -> trustme.LeafCert:
    """One for a domain or a mailbox; equal arguments give the same."""
    issuer = authority() if ca == "authority" else stranger()
    return issuer.issue_cert(name, key_type=trustme.KeyType[kind])


def write(folder: Path, leaf: trustme.LeafCert, stem: str) -> dict[str, str]:
    """Its files, as a table of [listener.tls] certificates."""
    cert, key = folder / f"{stem}.pem", folder / f"{stem}.key"
    key.write_bytes(leaf.private_key_pem.bytes())
    cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return {"cert": str(cert), "key": str(key)}


def write_authority(folder: Path) -> str:
    path = folder / "ca.pem"
    path.write_bytes(authority().cert_pem.bytes())
    return str(path)


def client_context(leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Trusts the authority; shows the certificate given."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    if leaf is not None:
        leaf.configure_cert(context)
    return context


def fingerprint(leaf: trustme.LeafCert) -> str:
    return hashlib.sha256(der(leaf)).hexdigest()


def der(leaf: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


def listener_tls(folder: Path, **options: Any) -> dict[str, Any]:
    """[listener.tls] with one ECDSA certificate for mx.test.example, unless others are given."""
    options.setdefault("certificates", [write(folder, certificate("mx.test.example"), "mx")])
    return options
