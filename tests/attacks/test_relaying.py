"""Open relay by other means: addresses that route inside the local-part, forged addresses of the client."""

from __future__ import annotations

from pathlib import Path

import pytest
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer

OURS = {"relay_from": [], "relay_to": ["local.example"]}

ROUTING = [
    b"victim%other.example@local.example",
    b'"victim@other.example"@local.example',
    b'"victim%other.example"@local.example',
    b"other.example!victim@local.example",
    b'"other.example!victim"@local.example',
    b'"@other.example:victim@third.example"@local.example',
    b'"|/bin/sh"@local.example',
    b'"/etc/passwd"@local.example',
    b'"\\|/bin/sh"@local.example',
    b'"\\/etc/passwd"@local.example',
    b'" |/bin/sh"@local.example',
    b'"\\ \\|/bin/sh"@local.example',
    b"@local.example:victim%other.example@local.example",
    b'"victim\\@other.example"@local.example',
]
ELSEWHERE = [
    b"victim@other.example",
    b"@local.example:victim@other.example",
    b"@local.example,@third.example:victim@other.example",
    b'"victim@local.example"@other.example',
    b"victim@local.example.other.example",
    b"victim@xlocal.example",
    b"victim@[127.0.0.1]",
    b"victim@[IPv6:::1]",
]


@pytest.mark.parametrize("path", ROUTING)
def test_a_local_part_that_routes_is_refused_to_strangers(path: bytes, tmp_path: Path) -> None:
    """The domain is ours, and the host behind us might do as the local-part says: sendmail's and Exim's old % and !."""

    async def main() -> None:
        async with intake_harness(tmp_path, **OURS) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"MAIL FROM:<a@x.example>\r\n")).startswith("250 ")
            assert (await peer.ask(b"RCPT TO:<" + path + b">\r\n")).startswith("550 5.7.1 "), path
            (event,) = harness.events("rejected")
            assert event["reason"] == "local-part-routing"

    run(main())


@pytest.mark.parametrize("path", ELSEWHERE)
def test_no_spelling_makes_another_domain_ours(path: bytes, tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **OURS) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"MAIL FROM:<a@x.example>\r\n")).startswith("250 ")
            assert (await peer.ask(b"RCPT TO:<" + path + b">\r\n")).startswith("550 5.7.1 "), path
            (event,) = harness.events("rejected")
            assert event["reason"] == "relay-denied"

    run(main())


@pytest.mark.parametrize(
    "path", [b"b@local.example", b"b+tag@local.example", b'"b c"@local.example', b"srs0=x=y=z@local.example"]
)
def test_plain_local_parts_are_taken(path: bytes, tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **OURS) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"MAIL FROM:<a@x.example>\r\n")).startswith("250 ")
            assert (await peer.ask(b"RCPT TO:<" + path + b">\r\n")).startswith("250 "), path

    run(main())


def test_who_may_relay_may_route(tmp_path: Path) -> None:
    """Our own machines send to whatever address a partner gives them."""

    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"MAIL FROM:<a@x.example>\r\n")).startswith("250 ")
            for path in ROUTING:
                assert (await peer.ask(b"RCPT TO:<" + path + b">\r\n")).startswith("250 "), path

    run(main())


def test_an_ipv4_mapped_client_is_the_ipv4_client_and_nobody_else(tmp_path: Path) -> None:
    """On a socket for both families 192.0.2.1 comes as ::ffff:192.0.2.1: neither a hole in v4 lists nor in v6 ones."""
    for networks, may in (
        (["127.0.0.0/8"], True),
        (["::1/128"], False),
        (["2001:db8::/32"], False),
        (["::ffff:0:0/96"], True),
        (["10.0.0.0/8"], False),
    ):

        async def main(networks: list[str] = networks, may: bool = may) -> None:
            async with intake_harness(tmp_path, relay_from=networks) as harness:
                peer = await SmtpPeer.greeted(harness.port)
                await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
                reply = await peer.ask(b"RCPT TO:<b@other.example>\r\n")
                assert reply.startswith("250 " if may else "550 "), networks

        run(main())
