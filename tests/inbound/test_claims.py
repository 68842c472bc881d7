"""XCLIENT and XFORWARD on a socket: whose rights hold, what is logged and what stands in Received."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import auth_harness
from inbound.intake_harness import IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer

HERE = ["127.0.0.0/8"]


async def ehlo(peer: SmtpPeer) -> list[str]:
    peer.say(b"EHLO proxy.example\r\n")
    lines = []
    while True:
        lines.append((await peer.reader.readline()).decode().strip())
        if lines[-1][3:4] == " ":
            return lines


async def send(peer: SmtpPeer, harness: IntakeHarness, to: bytes = b"b@y.example") -> dict[str, Any]:
    """One message; its line in the log."""
    count = len(harness.events("received"))
    peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<" + to + b">\r\nDATA\r\n")
    assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
    assert (await peer.ask(b"Subject: x\r\n\r\nhello\r\n.\r\n")).startswith("250 ")
    return harness.events("received")[count]


def test_only_listed_peers_see_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            listed = await harness.listen(xclient_from=HERE, xforward_from=HERE)
            others = await harness.listen(xclient_from=["192.0.2.0/24"], xforward_from=["192.0.2.0/24"])
            peer = await SmtpPeer.connect(listed.context.options.address.port)
            await peer.reply()
            lines = await ehlo(peer)
            assert "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT REVERSE_NAME" in lines
            assert "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE" in lines
            for port in (harness.port, others.context.options.address.port):
                peer = await SmtpPeer.connect(port)
                await peer.reply()
                assert not [line for line in await ehlo(peer) if "XCLIENT" in line or "XFORWARD" in line]
                assert (await peer.ask(b"XCLIENT ADDR=10.0.0.1\r\n")).startswith("502 5.5.1 ")
                assert (await peer.ask(b"XFORWARD ADDR=10.0.0.1\r\n")).startswith("502 5.5.1 ")

    run(main())


@pytest.mark.parametrize(
    ("claim", "may"),
    [
        (b"ADDR=10.1.2.3", True),
        (b"ADDR=192.0.2.1", False),
        (b"ADDR=IPV6:::ffff:10.1.2.3", True),       # an IPv4 client, as everywhere
        (b"ADDR=IPV6:::ffff:192.0.2.1", False),
        (b"ADDR=IPV6:2001:db8::1", False),
        (b"ADDR=[UNAVAILABLE]", False),             # nobody is in no network, the peer's own neither
        (b"NAME=localhost", True),                  # the address stays the peer's
    ],
)
def test_rights_are_those_of_the_claimed_address(tmp_path: Path, claim: bytes, may: bool) -> None:
    async def main() -> None:
        networks = ["10.0.0.0/8", "127.0.0.0/8"]
        async with intake_harness(tmp_path, xclient_from=HERE, relay_from=networks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"XCLIENT " + claim + b"\r\n")).startswith("220 mx.test.example")
            await peer.ask(b"EHLO spike.example\r\n")
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n"))[:3] == ("250" if may else "550")

    run(main())


def test_who_is_introduced_is_logged_and_traced(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, xclient_from=HERE, relay_to=["y.example"]) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            said = b"XCLIENT NAME=spike.example ADDR=IPV6:2001:db8::7 HELO=spike PROTO=ESMTP\r\n"
            assert (await peer.ask(said)).startswith("220 ")
            event = await send(peer, harness)
            assert (event["client"], event["helo"]) == ("IPv6:2001:db8::7", "spike")
            introduced = harness.events("introduced")[0]
            assert (introduced["peer"], introduced["client"]) == ("127.0.0.1", "IPv6:2001:db8::7")
            # The peer may speak for somebody else next, decided on its own address again.
            assert (await peer.ask(b"XCLIENT ADDR=192.0.2.9\r\n")).startswith("220 ")
            await peer.ask(b"EHLO nine.example\r\n")
            assert (await send(peer, harness))["client"] == "192.0.2.9"

    run(main())


def test_an_unknown_address_is_not_a_local_client(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, xclient_from=HERE, relay_to=["y.example"]) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"XCLIENT ADDR=[UNAVAILABLE] HELO=spike PROTO=ESMTP\r\n")
            assert (await send(peer, harness))["client"] == "0.0.0.0"

    run(main())


def test_login_gives_the_rights_of_the_identity_and_unavailable_takes_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            listener = await harness.listen(xclient_from=HERE, relay_from=[])
            peer = await SmtpPeer.greeted(listener.context.options.address.port)
            login = b"XCLIENT ADDR=192.0.2.7 LOGIN=alice@x.example HELO=a PROTO=ESMTP\r\n"
            assert (await peer.ask(login)).startswith("220 ")
            assert (await peer.ask(b"MAIL FROM:<eve@z.example>\r\n")).startswith("553 5.7.1 ")
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n")).startswith("250 ")
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n")).startswith("250 ")
            await peer.ask(b"RSET\r\n")
            assert (await peer.ask(b"XCLIENT LOGIN=[UNAVAILABLE] HELO=a PROTO=ESMTP\r\n")).startswith("220 ")
            assert (await peer.ask(b"MAIL FROM:<eve@z.example>\r\n")).startswith("250 ")
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n")).startswith("550 5.7.1 ")

    run(main())


def test_xforward_is_logged_with_one_message_only(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, xforward_from=HERE) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(b"XFORWARD NAME=spike.example ADDR=192.0.2.7\r\nXFORWARD HELO=spike IDENT=4QB2\r\n")
            assert [reply[:3] for reply in await peer.replies(2)] == ["250", "250"]
            event = await send(peer, harness)
            assert event["client"] == "127.0.0.1"       # rights and trace are the peer's own
            assert (event["origin_client"], event["origin_helo"], event["origin_id"]) == ("192.0.2.7", "spike", "4QB2")
            assert not [key for key in await send(peer, harness) if key.startswith("origin")]
            # RSET ends it, too (XFORWARD_README, "XFORWARD Server operation").
            await peer.ask(b"XFORWARD ADDR=192.0.2.8\r\n")
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            await peer.ask(b"RSET\r\n")
            assert not [key for key in await send(peer, harness) if key.startswith("origin")]

    run(main())


def test_bad_claims_are_errors_and_too_many_end_the_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, xclient_from=HERE, max_errors=3) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(2):
                assert (await peer.ask(b"XCLIENT ADDR=nowhere\r\n")).startswith("501 5.5.4 ")
            assert (await peer.ask(b"XCLIENT ADDR=nowhere\r\n")).startswith("421 4.7.0 ")
            assert await peer.rest() == b""
            assert {event["verb"] for event in harness.events("rejected")} == {"XCLIENT"}

    run(main())


def test_without_the_listing_a_reload_takes_them_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            listener = await harness.listen(xclient_from=HERE)
            peer = await SmtpPeer.greeted(listener.context.options.address.port)
            import msgspec

            now = msgspec.structs.replace(listener.context.options, xclient_from=[])
            listener.apply("mx.test.example", now)
            await peer.ask(b"NOOP\r\n")
            assert (await peer.ask(b"XCLIENT ADDR=10.0.0.1\r\n")).startswith("502 ")

    run(main())
