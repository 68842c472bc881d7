"""What a client's certificate is good for, and that it never stands in the way of a handshake."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from inbound.intake_harness import intake_harness, run
from inbound.tls_peer import TlsPeer
from tls.authority import certificate, client_context, fingerprint, listener_tls, stranger, write_authority

NOBODY: dict[str, Any] = {"relay_from": []}
BOTH = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


async def may_relay(port: int, leaf: trustme.LeafCert | None, version: ssl.TLSVersion = BOTH[1]) -> bool:
    context = client_context(leaf)
    context.minimum_version = context.maximum_version = version
    peer = await TlsPeer.started(port, context)
    peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
    mail, rcpt = await peer.replies(2)
    assert mail.startswith("250")
    assert rcpt[:9] in ("250 2.1.5", "550 5.7.1")
    return rcpt.startswith("250")


@pytest.mark.parametrize("version", BOTH)
def test_a_verified_certificate_may_relay_where_that_is_said(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        ours, others = certificate("client.example"), certificate("client.example", ca="stranger")
        for relay_verified in (True, False):
            tls = listener_tls(tmp_path, client_ca=write_authority(tmp_path), relay_verified=relay_verified)
            folder = tmp_path / str(relay_verified)
            folder.mkdir()
            async with intake_harness(folder, **NOBODY, tls=tls) as harness:
                assert await may_relay(harness.port, ours, version) is relay_verified
                assert not await may_relay(harness.port, others, version), "no right, but a handshake"
                assert not await may_relay(harness.port, None, version)

    run(main())


def test_a_listed_fingerprint_may_relay_whoever_signed_it(tmp_path: Path) -> None:
    async def main() -> None:
        listed, other = certificate("a.example", ca="stranger"), certificate("b.example", ca="stranger")
        digits = fingerprint(listed).upper()
        colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
        tls = listener_tls(tmp_path, relay_certificates=[colons])
        async with intake_harness(tmp_path, **NOBODY, tls=tls) as harness:
            assert await may_relay(harness.port, listed)
            assert not await may_relay(harness.port, other)

    run(main())


def test_a_reload_takes_rights_from_open_sessions(tmp_path: Path) -> None:
    async def main() -> None:
        leaf = certificate("a.example", ca="stranger")
        tls = listener_tls(tmp_path, relay_certificates=[fingerprint(leaf)])
        async with intake_harness(tmp_path, **NOBODY, tls=tls) as harness:
            peer = await TlsPeer.started(harness.port, client_context(leaf))
            assert (await peer.ask(b"MAIL FROM:<a@x.example>\r\n")).startswith("250")
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n")).startswith("250")
            context = harness.listeners[0].context
            without = await harness.listen(**NOBODY, tls=listener_tls(tmp_path))
            harness.listeners[0].apply("mx.test.example", without.context.options, context.tls)
            assert (await peer.ask(b"RCPT TO:<c@y.example>\r\n")).startswith("550 5.7.1")

    run(main())


def test_a_resumed_session_has_the_rights_of_its_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        leaf = certificate("client.example")
        tls = listener_tls(tmp_path, client_ca=write_authority(tmp_path), relay_verified=True)
        async with intake_harness(tmp_path, **NOBODY, tls=tls) as harness:
            context = client_context(leaf)
            first = await TlsPeer.started(harness.port, context)
            again = await TlsPeer.started(harness.port, context, session=first.tls.session)
            assert again.tls.session_reused
            again.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
            assert [reply[:3] for reply in await again.replies(2)] == ["250", "250"]

    run(main())


def test_a_ticket_carries_no_verdict_to_a_listener_with_another_authority(tmp_path: Path) -> None:
    async def main() -> None:
        leaf = certificate("client.example")
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path, client_ca=write_authority(tmp_path))) as harness:
            stranger_ca = tmp_path / "stranger.pem"
            stranger_ca.write_bytes(stranger().cert_pem.bytes())
            tls = listener_tls(tmp_path, client_ca=str(stranger_ca), relay_verified=True)
            other = await harness.listen(**NOBODY, tls=tls)
            context = client_context(leaf)
            first = await TlsPeer.started(harness.port, context)
            port = int(other.context.options.address.port)
            peer = await TlsPeer.started(port, context, session=first.tls.session)
            assert not peer.tls.session_reused
            peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
            assert [reply[:3] for reply in await peer.replies(2)] == ["250", "550"]

    run(main())
