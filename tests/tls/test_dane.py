"""Certificates against TLSA records, in the handshake: our client against our server, in memory."""

from __future__ import annotations

import datetime
import hashlib

import msgspec
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from angarium.model.errors import RemoteProtocolError
from angarium.model.tlsa import TlsaRecord
from angarium.tls.client import ClientContext, ClientTls, is_usable
from angarium.tls.context import ServerContext
from angarium.tls.session import TlsSession

CA, OTHER_CA = trustme.CA(), trustme.CA()
PAST = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
LEAF = CA.issue_cert("mx.example.net")
NEXT = CA.issue_cert("mx.example.net")              # what is rolled over to
OTHER_NAME = CA.issue_cert("other.example")
DOMAIN = CA.issue_cert("example.net")
WILDCARD = CA.issue_cert("*.example.net")
STRANGER = OTHER_CA.issue_cert("mx.example.net")
EXPIRED = CA.issue_cert("mx.example.net", not_before=PAST, not_after=PAST + datetime.timedelta(days=1))


def record(usage: int, selector: int, matching: int, of: trustme.LeafCert | trustme.CA) -> TlsaRecord:
    pem = of.cert_pem.bytes() if isinstance(of, trustme.CA) else of.cert_chain_pems[0].bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    if selector == 0:
        data = certificate.public_bytes(Encoding.DER)
    else:
        data = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if matching:
        data = (hashlib.sha256, hashlib.sha512)[matching - 1](data).digest()
    return TlsaRecord(usage, selector, matching, data)


def server(leaf: trustme.LeafCert, *, with_root: bool = True) -> ServerContext:
    """DANE-TA wants the trust anchor in the chain (RFC 7672 §3.1.2)."""
    context = ServerContext(is_tls13_only=False, tickets=None)
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    if with_root:
        chain += (OTHER_CA if leaf is STRANGER else CA).cert_pem.bytes()
    context.add(chain, leaf.private_key_pem.bytes())
    context.seal()
    return context


def verdict(context: ServerContext, records: tuple[TlsaRecord, ...], more_names: tuple[str, ...] = ()) -> str:
    """ "" when the handshake comes about; else why not."""
    client = ClientTls(ClientContext("dane"), "mx.example.net", "key", records, more_names)
    peer = TlsSession(context)
    try:
        while not client.is_established:
            peer.open_octets(client.seal_octets(b""))
            client.open_octets(peer.seal_octets(b""))
    except RemoteProtocolError as error:
        return str(error)
    assert client.is_verified
    return ""


class Row(msgspec.Struct, frozen=True):
    reason: str
    records: tuple[TlsaRecord, ...]
    leaf: trustme.LeafCert
    why: str = ""
    more_names: tuple[str, ...] = ()


NO_MATCH = "no matching DANE TLSA records"
ROWS = [
    *(
        Row(f"{usage} {selector} {matching}", (record(usage, selector, matching, CA if usage == 2 else LEAF),), LEAF)
        for usage in (2, 3) for selector in (0, 1) for matching in (0, 1, 2)
    ),
    *(
        Row(f"{usage} {selector} {matching} of another",
            (record(usage, selector, matching, OTHER_CA if usage == 2 else NEXT),),
            LEAF, NO_MATCH)
        for usage in (2, 3) for selector in (0, 1) for matching in (0, 1, 2)
    ),
    Row("roll-over: the old one is served", (record(3, 1, 1, LEAF), record(3, 1, 1, NEXT)), LEAF),
    Row("roll-over: the new one is served", (record(3, 1, 1, LEAF), record(3, 1, 1, NEXT)), NEXT),
    Row("one of two usages is enough", (record(2, 0, 1, OTHER_CA), record(3, 1, 1, LEAF)), LEAF),
    Row("RFC 7672 §3.1.1: names do not count with usage 3", (record(3, 1, 1, OTHER_NAME),), OTHER_NAME),
    Row("RFC 7672 §3.1.1: nor do dates", (record(3, 1, 1, EXPIRED),), EXPIRED),
    Row("§3.1.2: with usage 2 dates do", (record(2, 0, 1, CA),), EXPIRED, "expired"),
    Row("§3.2.2: with usage 2 the name does", (record(2, 0, 1, CA),), OTHER_NAME, "ostname mismatch"),
    Row("§3.2.3: a wildcard for the first label", (record(2, 0, 1, CA),), WILDCARD),
    Row("§3.2.2: the next hop's domain will do", (record(2, 0, 1, CA),), DOMAIN, "", ("example.net",)),
    Row("§3.2.2: another domain will not", (record(2, 0, 1, CA),), DOMAIN, "ostname mismatch", ("d.example",)),
    Row("an authority that everybody trusts has no say", (record(3, 1, 1, LEAF),), STRANGER, NO_MATCH),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row.reason for row in ROWS])
def test_a_certificate_against_its_records(row: Row) -> None:
    why = verdict(server(row.leaf), row.records, row.more_names)
    assert (row.why in why) if row.why else why == ""


def test_a_trust_anchor_that_only_dns_has() -> None:
    """RFC 7671 §5.2.2: a whole certificate or key in the record needs no copy of it in the chain; a digest does."""
    assert verdict(server(LEAF, with_root=False), (record(2, 0, 0, CA),)) == ""
    assert verdict(server(LEAF, with_root=False), (record(2, 1, 0, CA),)) == ""
    assert verdict(server(LEAF, with_root=False), (record(2, 0, 1, CA),)) != ""


def test_a_session_is_resumed_and_stays_verified() -> None:
    client, peer = ClientContext("dane"), server(LEAF)
    for is_resumed in (False, True):
        mine = ClientTls(client, "mx.example.net", "key", (record(3, 1, 1, LEAF),))
        theirs = TlsSession(peer)
        while not mine.is_established:
            theirs.open_octets(mine.seal_octets(b""))
            mine.open_octets(theirs.seal_octets(b""))
        theirs.open_octets(mine.seal_octets(b""))
        mine.open_octets(theirs.seal_octets(b"250 ok\r\n"))
        assert mine.is_verified
        assert mine.is_resumed in (False, is_resumed)


def test_no_connection_without_a_record_of_use() -> None:
    for bad in (TlsaRecord(1, 1, 1, bytes(32)), TlsaRecord(3, 1, 1, bytes(31)), TlsaRecord(3, 0, 0, b"")):
        assert not is_usable(bad)
        with pytest.raises(ValueError, match="no TLS for a host"):
            ClientTls(ClientContext("dane"), "mx.example.net", "key", (bad,))


def test_whole_certificates_are_read_to_their_end() -> None:
    whole = record(3, 0, 0, LEAF)
    assert is_usable(whole)
    assert not is_usable(msgspec.structs.replace(whole, data=whole.data + b"\0"))
    for length in range(0, len(whole.data), 7):
        assert not is_usable(msgspec.structs.replace(whole, data=whole.data[:length]))
        assert not is_usable(msgspec.structs.replace(whole, selector=1, data=whole.data[:length]))
