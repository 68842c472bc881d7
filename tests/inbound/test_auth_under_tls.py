"""AUTH as it is meant to be used, under TLS: offered only there, bound to the channel, and by certificate."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from inbound.auth_harness import PASSWORD, auth_harness, plain
from inbound.intake_harness import run
from inbound.smtp_peer import SmtpPeer
from inbound.tls_peer import TlsPeer
from tls.authority import certificate, client_context, listener_tls, write_authority

from angarium.inbound.options import ListenerAuthOptions

OFFERED = ListenerAuthOptions(offered=True)


def test_auth_is_offered_and_taken_only_behind_starttls(tmp_path: Path) -> None:
    """RFC 4954 §4: 538 before; RFC 3848: ESMTPSA behind."""

    async def main() -> None:
        async with auth_harness(tmp_path, auth=OFFERED, tls=listener_tls(tmp_path)) as harness:
            clear = await SmtpPeer.greeted(harness.port)
            assert (await clear.ask(plain())).startswith("538 5.7.11 ")
            peer = await TlsPeer.started(harness.port)
            assert (await peer.ask(plain())).startswith("235 2.7.0 ")
            peer.say(b"MAIL FROM:<alice@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
            assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
            assert (await peer.ask(b"x\r\n.\r\n"))[:3] == "250"
            (received,) = harness.events("received")
            assert (received["protocol"], received["user"]) == ("ESMTPSA", "alice@x.example")

    run(main())


def test_who_authenticated_in_clear_is_nobody_behind_starttls(tmp_path: Path) -> None:
    """RFC 3207 §4.2: nothing that was said in clear holds, and one may authenticate again."""

    async def main() -> None:
        auth = ListenerAuthOptions(required=True, allow_plaintext_from=["127.0.0.0/8"])
        async with auth_harness(tmp_path, auth=auth, tls=listener_tls(tmp_path)) as harness:
            clear = await SmtpPeer.greeted(harness.port)
            assert (await clear.ask(plain()))[:3] == "235"
            assert (await clear.ask(b"STARTTLS\r\n"))[:3] == "220"
            peer = TlsPeer(clear)
            await peer.handshake()
            assert (await peer.ask(b"EHLO client.example\r\n"))[:3] == "250"
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n")).startswith("530 5.7.0 ")
            assert (await peer.ask(plain("bob@x.example")))[:3] == "235"
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n")).startswith("553 5.7.1 ")

    run(main())


@pytest.mark.parametrize(("is_ours", "code"), [(True, "235"), (False, "535")])
def test_scram_plus_is_bound_to_the_servers_certificate(is_ours: bool, code: str, tmp_path: Path) -> None:
    """RFC 5802 §6, RFC 5929 §4: whoever stands between with another certificate has another binding."""

    async def main() -> None:
        async with auth_harness(tmp_path, auth=OFFERED, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            der = peer.tls.getpeercert(binary_form=True) or b""
            binding = hashlib.sha256(der if is_ours else b"another").digest()
            header, bare = b"p=tls-server-end-point,,", b"n=alice@x.example,r=fyko"
            reply = await peer.ask(b"AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(header + bare) + b"\r\n")
            server_first = base64.b64decode(reply[4:])
            fields = dict(field.split(b"=", 1) for field in server_first.split(b","))
            salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(fields[b"s"]), int(fields[b"i"]))
            without_proof = b"c=" + base64.b64encode(header + binding) + b",r=" + fields[b"r"]
            client_key = hmac.digest(salted, b"Client Key", "sha256")
            signature = hmac.digest(
                hashlib.sha256(client_key).digest(), b",".join((bare, server_first, without_proof)), "sha256"
            )
            proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
            reply = await peer.ask(base64.b64encode(without_proof + b",p=" + base64.b64encode(proof)) + b"\r\n")
            if reply.startswith("334 "):
                reply = await peer.ask(b"\r\n")
            assert reply[:3] == code

    run(main())


def test_a_client_that_could_bind_and_was_told_that_we_cannot_is_refused(tmp_path: Path) -> None:
    """RFC 5802 §6: flag y."""

    async def main() -> None:
        async with auth_harness(tmp_path, auth=OFFERED, tls=listener_tls(tmp_path)) as harness:
            peer = await TlsPeer.started(harness.port)
            first = base64.b64encode(b"y,,n=alice@x.example,r=fyko")
            assert (await peer.ask(b"AUTH SCRAM-SHA-256 " + first + b"\r\n"))[:3] == "535"
            assert harness.events("auth-failed")[0]["reason"] == "downgrade"

    run(main())


@pytest.mark.parametrize(
    ("name", "ca", "code"),
    [
        ("alice@x.example", "ours", "235"),
        ("mallory@x.example", "ours", "535"),  # verified, and nobody in the file
        ("alice@x.example", "stranger", "504"),  # not verified: EXTERNAL is not offered
    ],
)
def test_external_is_the_name_in_a_verified_certificate(name: str, ca: str, code: str, tmp_path: Path) -> None:
    """RFC 4422 appendix A."""

    async def main() -> None:
        tls = listener_tls(tmp_path, client_ca=write_authority(tmp_path))
        async with auth_harness(tmp_path, auth=OFFERED, tls=tls) as harness:
            leaf = certificate(name) if ca == "ours" else certificate(name, ca=ca)
            peer = await TlsPeer.started(harness.port, client_context(leaf))
            assert (await peer.ask(b"AUTH EXTERNAL =\r\n"))[:3] == code

    run(main())


def test_implicit_tls_offers_auth_from_the_first_ehlo(tmp_path: Path) -> None:
    """RFC 8314 §3.3."""

    async def main() -> None:
        async with auth_harness(tmp_path, auth=OFFERED, tls=listener_tls(tmp_path, implicit=True)) as harness:
            peer = await TlsPeer.connect(harness.port)
            assert (await peer.reply())[:3] == "220"
            assert (await peer.ask(b"EHLO client.example\r\n"))[:3] == "250"
            assert (await asyncio.wait_for(peer.ask(plain()), 20))[:3] == "235"

    run(main())
