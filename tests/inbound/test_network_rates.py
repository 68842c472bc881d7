"""Limits of a network whose events have code of their own: TLS handshakes and AUTH attempts."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import auth_harness, plain
from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_limits import admission, set_limits
from inbound.test_tls import listener_tls
from inbound.tls_peer import TlsPeer

from angarium.admission.tallies import Rules, Tallies, Visit
from angarium.inbound.options import ListenerAuthOptions

ANYWHERE = ListenerAuthOptions(offered=True, allow_plaintext_from=["0.0.0.0/0", "::/0"])
TOO_MANY_TRIES = "454 4.7.0 Too many authentication attempts from your network, try again later"
TOO_MANY_HANDSHAKES = "454 4.7.0 Too many TLS handshakes from your network, try again later"
WRONG = plain(password="guess")


async def proxied(folder_harness: IntakeHarness, *limits: dict[str, Any], **more: Any) -> int:
    """A listener whose clients' addresses XCLIENT gives, with these limits; its port."""
    listener = await folder_harness.listen(auth=ANYWHERE, relay_from=["10.0.0.0/8"], xclient_from=["127.0.0.0/8"])
    set_limits(folder_harness, *limits, **{"exempt": ["127.0.0.0/8"], **more})
    listener.apply(HOSTNAME, listener.context.options)
    return int(listener.context.options.address.port)


async def from_address(port: int, address: str) -> SmtpPeer:
    peer = await SmtpPeer.greeted(port)
    claim = address if "." in address else f"IPV6:{address}"
    assert (await peer.ask(f"XCLIENT ADDR={claim} HELO=spike PROTO=ESMTP\r\n".encode()))[:3] == "220"
    return peer


@pytest.mark.parametrize(
    ("limit", "tries", "free"),
    [
        ({}, ["192.0.2.1", "192.0.2.1", "192.0.2.1"], "192.0.2.2"),
        ({"ipv4_prefix": 24}, ["192.0.2.1", "192.0.2.2", "192.0.2.3"], "192.0.3.1"),
        ({}, ["2001:db8::1", "2001:db8::2", "2001:db8::3"], "2001:db8:0:1::1"),
        ({"ipv6_prefix": 48}, ["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"], "2001:db8:1::1"),
    ],
    ids=["address", "ipv4-network", "ipv6-subscriber", "ipv6-network"],
)
def test_auth_attempts_of_a_network_come_no_faster_than_they_may(
    tmp_path: Path, limit: dict[str, Any], tries: list[str], free: str
) -> None:
    """One guess from each of many addresses: no limit of a single address sees anything."""

    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            port = await proxied(harness, {"auth_attempts": "2/h", **limit})
            for address in tries[:2]:
                assert (await (await from_address(port, address)).ask(WRONG))[:9] == "535 5.7.8"
            late = await from_address(port, tries[2])
            assert await late.ask(plain()) == TOO_MANY_TRIES, "not even with the right password"
            assert harness.events("rejected")[-1]["reason"] == "network-auth-attempts"
            assert len(harness.events("auth-failed")) == 2, "nobody was asked"
            assert (await late.ask(b"NOOP\r\n"))[:3] == "250", "the session goes on"
            assert (await (await from_address(port, free)).ask(plain()))[:3] == "235"

    run(main())


def test_every_exchange_that_begins_is_an_attempt_and_nothing_else_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            port = await proxied(harness, {"auth_attempts": "3/h"})
            peer = await from_address(port, "192.0.2.1")
            assert (await peer.ask(b"AUTH WHAT\r\n"))[:3] == "504"
            assert (await peer.ask(b"AUTH PLAIN not-base64\r\n"))[:3] == "501"
            # Cancelled, a login of two responses, and one that succeeds.
            assert (await peer.ask(b"AUTH PLAIN\r\n"))[:3] == "334"
            assert (await peer.ask(b"*\r\n"))[:3] == "501"
            assert (await peer.ask(b"AUTH LOGIN\r\n"))[:3] == "334"
            assert (await peer.ask(base64.b64encode(b"alice@x.example") + b"\r\n"))[:3] == "334"
            assert (await peer.ask(base64.b64encode(b"guess") + b"\r\n"))[:3] == "535"
            assert (await peer.ask(plain()))[:3] == "235"
            assert await (await from_address(port, "192.0.2.1")).ask(plain()) == TOO_MANY_TRIES

    run(main())


def test_auth_attempts_of_exempt_and_own_clients_are_not_counted_unless_it_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            port = await proxied(harness, {"auth_attempts": "1/h"}, exempt=["127.0.0.0/8", "203.0.113.0/24"])
            for address in ("203.0.113.1", "10.0.0.1"):
                for _ in range(2):
                    assert (await (await from_address(port, address)).ask(plain()))[:3] == "235"
            other = tmp_path / "own"
            other.mkdir()
        async with auth_harness(other) as harness:
            port = await proxied(harness, {"auth_attempts": "1/h", "own_clients": True})
            assert (await (await from_address(port, "10.0.0.1")).ask(plain()))[:3] == "235"
            assert await (await from_address(port, "10.0.0.1")).ask(plain()) == TOO_MANY_TRIES

    run(main())


def test_attempts_are_given_back_and_refusals_end_a_session_that_does_not_stop(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            port = await proxied(harness, {"auth_attempts": "100/s"})
            peer = await from_address(port, "192.0.2.1")
            for _ in range(100):
                assert (await peer.ask(b"AUTH PLAIN\r\n"))[:3] in ("334", "454")
                if (await peer.ask(b"*\r\n"))[:3] == "421":
                    break
            else:
                raise AssertionError("errors have no bound")
        # Of 100 a minute the next one is given back after 600 ms.
        visit = Rules(Tallies(16), admission(limit=[{"auth_attempts": "100/m"}]).limit).visit("192.0.2.1")
        assert isinstance(visit, Visit)
        taken = sum(visit.try_take("auth_attempts") for _ in range(200))
        assert 100 <= taken < 200
        while not visit.try_take("auth_attempts"):
            await asyncio.sleep(0.001)

    run(main())


def test_starttls_past_the_rate_is_refused_and_the_session_goes_on_in_clear(tmp_path: Path) -> None:
    async def main() -> None:
        public: dict[str, Any] = {"relay_from": [], "relay_to": ["y.example"]}
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path), **public) as harness:
            set_limits(harness, {"handshakes": "2/h"})
            _first, _second = [await TlsPeer.started(harness.port) for _ in range(2)]
            third = await SmtpPeer.greeted(harness.port)
            assert await third.ask(b"STARTTLS\r\n") == TOO_MANY_HANDSHAKES
            assert harness.events("rejected")[-1]["reason"] == "network-handshakes"
            await third.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await third.ask(b"RCPT TO:<b@y.example>\r\n"))[:3] == "250"

    run(main())


def test_a_handshake_counts_when_it_begins_whatever_becomes_of_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        public: dict[str, Any] = {"relay_from": [], "relay_to": ["y.example"], "max_sessions": 5}
        async with intake_harness(tmp_path, tls=listener_tls(tmp_path), **public) as harness:
            tallies = set_limits(harness, {"handshakes": "2/h", "connections": 1}, max_sessions=5)
            places = harness.listeners[0].context.places
            for octets in (b"no TLS at all, and more than a record's header\r\n", b""):
                peer = await SmtpPeer.greeted(harness.port)
                assert (await peer.ask(b"STARTTLS\r\n"))[:3] == "220"
                if octets:
                    peer.say(octets)
                    await peer.rest()
                    peer.writer.close()
                else:
                    peer.cut()
                await harness.until(lambda: not harness.intake.clients)
                assert (tallies.sessions, places.used, places.reserved) == (0, 0, 0)
            peer = await SmtpPeer.greeted(harness.port)
            assert await peer.ask(b"STARTTLS\r\n") == TOO_MANY_HANDSHAKES

    run(main())


def test_a_connection_that_would_begin_with_tls_past_the_rate_is_closed_without_a_word_in_clear(tmp_path: Path) -> None:
    async def main() -> None:
        implicit = listener_tls(tmp_path, implicit=True)
        async with intake_harness(tmp_path, tls=implicit, relay_from=[], relay_to=["y.example"]) as harness:
            tallies = set_limits(harness, {"handshakes": "1/h"}, max_sessions=10)
            first = await TlsPeer.connect(harness.port)
            assert (await first.reply())[:3] == "220"
            second = await SmtpPeer.connect(harness.port)
            assert await second.rest() == b""
            second.writer.close()
            assert harness.events("rejected")[-1]["reason"] == "network-handshakes"
            await harness.until(lambda: tallies.sessions == 1)

    run(main())
