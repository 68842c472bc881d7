"""Hosts with certificates, and what plans and messages say of TLS, for the tests of TLS to next hops."""

from __future__ import annotations

import hashlib
import pathlib
import ssl
from typing import Any

import msgspec
from outbound.fault_server import FaultServer
from outbound.outgoing import Outgoing, smtp_site
from tls import authority

from angarium.model.plan import Site, StsRule
from angarium.model.tlsa import Tlsa, TlsaRecord, TlsaState
from angarium.queue.shaping_options import ShapingOptions

REQUIRETLS, TLS_OPTIONAL = 2048, 4096


def server_tls(name: str = "mx0.example.net", ca: str = "authority") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.certificate(name, ca=ca).configure_cert(context)
    return context


def to_here(server: FaultServer, **changes: Any) -> dict[bytes, Site]:
    return {b"*": msgspec.structs.replace(smtp_site(server.port), **changes)}


def shaping(folder: pathlib.Path, tls: str, **options: Any) -> ShapingOptions:
    """Policies that are published are heeded, unless the test says otherwise."""
    options.setdefault("mta_sts", True)
    return ShapingOptions(tls=tls, tls_ca=authority.write_authority(folder), **options)  # type: ignore[arg-type]


async def one(relay: Outgoing, **message: Any) -> dict[str, Any]:
    """Sends one message; its first outcome."""
    before = len(relay.events("delivered", "deferred", "failed", "expired"))
    await relay.send(b"b@y.example", **message)
    return (await relay.outcomes(before + 1))[-1]


UNDER_TLS = [b"PIPELINING", b"REQUIRETLS"]


def tlsa(name: str, usage: int = 3, ca: str = "authority") -> Tlsa:
    """USABLE: of the certificate that server_tls() shows, or of its authority."""
    issuer = authority.authority() if ca == "authority" else authority.stranger()
    if usage == 2:
        # Whole: the server does not send it (RFC 7671 §5.2.2).
        der = ssl.PEM_cert_to_DER_cert(issuer.cert_pem.bytes().decode())
        return Tlsa(TlsaState.USABLE, "mx0.example.net", (TlsaRecord(2, 0, 0, der),))
    der = authority.der(authority.certificate(name, ca=ca))
    return Tlsa(TlsaState.USABLE, "mx0.example.net", (TlsaRecord(usage, 0, 1, hashlib.sha256(der).digest()),))


def with_tlsa(server: FaultServer, *found: Tlsa | None, port: int = 0, **changes: Any) -> dict[bytes, Site]:
    here = smtp_site(server.port, *([port] if port else []))
    hosts = tuple(msgspec.structs.replace(host, tlsa=of) for host, of in zip(here.hosts, found, strict=True))
    return {b"*": msgspec.structs.replace(here, hosts=hosts, **changes)}


def with_rule(server: FaultServer, mode: str, *patterns: str, port: int = 0) -> Site:
    rule = StsRule(mode, patterns)  # type: ignore[arg-type]
    return msgspec.structs.replace(smtp_site(server.port, *([port] if port else [])), sts=rule)
