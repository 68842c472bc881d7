"""What a connection under TLS tells those who decide about its client, held against Python's ssl in memory."""

from __future__ import annotations

import hashlib
import random
import ssl
from datetime import UTC, datetime

import pytest
from tls.authority import authority, certificate, client_context, der, fingerprint
from tls.in_memory import Pair

from angarium.model.errors import RemoteProtocolError
from angarium.tls.context import ServerContext, TicketKeys
from angarium.tls.peer_certificate import PeerCertificate
from angarium.tls.session import TlsSession


def server_context(*, ask: bool = True) -> ServerContext:
    context = ServerContext(tickets=TicketKeys())
    leaf = certificate("mx.test.example")
    context.add(b"".join(blob.bytes() for blob in leaf.cert_chain_pems), leaf.private_key_pem.bytes())
    context.seal()
    if ask:
        context.ask_certificate(authority().cert_pem.bytes())
    return context


def test_the_clients_certificate() -> None:
    leaf = authority().issue_cert("client.example", "me@client.example", common_name="client.example")
    pair = Pair(server_context(), client_context(leaf))
    told = pair.server.peer_certificate()
    assert told == PeerCertificate(
        fingerprint=fingerprint(leaf),
        is_verified=True,
        subject=told.subject if told else "",
        domains=("client.example",),
        mailboxes=("me@client.example",),
    )
    assert "CN=client.example" in told.subject


def test_no_certificate_and_one_that_nobody_signed() -> None:
    assert Pair(server_context(), client_context()).server.peer_certificate() is None
    stranger = certificate("client.example", ca="stranger")
    told = Pair(server_context(), client_context(stranger)).server.peer_certificate()
    assert told is not None
    assert (told.is_verified, told.fingerprint) == (False, fingerprint(stranger))
    assert Pair(server_context(ask=False), client_context(stranger)).server.peer_certificate() is None


def test_control_octets_in_a_subject_come_out_escaped() -> None:
    leaf = authority().issue_cert("client.example", common_name='evil\r\n"event":\x00"x', organization_name="ü")
    told = Pair(server_context(), client_context(leaf)).server.peer_certificate()
    assert told is not None
    assert told.subject.isascii()
    assert told.subject.isprintable()


def test_channel_binding_to_the_servers_certificate() -> None:
    pair = Pair(server_context(), client_context())
    expected = hashlib.sha256(der(certificate("mx.test.example"))).digest()
    assert pair.server.channel_binding("tls-server-end-point") == expected


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_channel_binding_by_exporter_is_of_this_connection(version: ssl.TLSVersion) -> None:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    server = server_context()
    one, other = (Pair(server, context).server.channel_binding("tls-exporter") for _ in range(2))
    assert one is not None
    assert other is not None
    assert len(one) == 32
    assert one != other


def test_bindings_that_are_not_there() -> None:
    pair = Pair(server_context(), client_context())
    assert pair.server.channel_binding("tls-unique") is None


def test_version_and_cipher() -> None:
    pair = Pair(server_context(), client_context())
    assert (pair.server.version, pair.server.cipher) == ("TLSv1.3", pair.client.cipher()[0])  # type: ignore[index]
    assert not pair.server.is_resumed


def test_damaged_handshakes_fail_and_do_nothing_else() -> None:
    """Any octets give a failure or a wait for more, the same for every cut; never a session."""
    context = server_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname="mx.test.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    chance = random.Random(3207)
    for _ in range(500):
        damaged = bytearray(hello)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        if chance.random() < 0.3:
            damaged = bytearray(chance.randbytes(chance.randrange(1, 600)))
        outcomes = set()
        for cut in (0, chance.randrange(len(damaged))):
            session = TlsSession(context)
            try:
                said = session.open_octets(damaged[:cut]) + session.open_octets(damaged[cut:])
                outcomes.add(said)
            except RemoteProtocolError as error:
                outcomes.add(str(error).encode())
            session.seal_octets(b"")
        assert len(outcomes) == 1, damaged.hex()


def test_the_end_of_a_certificate_is_known() -> None:
    end = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    leaf = authority().issue_cert("mx.test.example", not_after=end)
    context = ServerContext()
    context.add(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())
    assert context.expires_utc_s(0) == int(end.timestamp())
    with pytest.raises(IndexError):
        context.expires_utc_s(1)
