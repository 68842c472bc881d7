"""Limits of networks where a proxy speaks for clients, by XCLIENT or PROXY: they count the client, and the proxy only
for itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from inbound.intake_harness import IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_limits import RCPT, set_limits

from angarium.admission.tallies import Tallies, Visit
from angarium.inbound.judgement import Answer, ConnectCase, Judges
from angarium.model.refusal import Refusal

PROXIED: dict[str, Any] = {"relay_from": ["10.0.0.0/8"], "relay_to": ["y.example"], "xclient_from": ["127.0.0.0/8"]}
CLIENT, NEIGHBOUR, OTHER = b"192.0.2.7", b"192.0.2.8", b"198.51.100.1"
MAIL = b"MAIL FROM:<a@x.example>\r\n"


async def introduced(port: int, address: bytes, more: bytes = b"") -> SmtpPeer:
    peer = await SmtpPeer.greeted(port)
    said = b"XCLIENT ADDR=" + address + b" HELO=spike PROTO=ESMTP" + more + b"\r\n"
    assert (await peer.ask(said))[:3] == "220"
    return peer


async def turned_away(port: int, address: bytes, more: bytes = b"") -> str:
    peer = await SmtpPeer.greeted(port)
    peer.say(b"XCLIENT ADDR=" + address + b" HELO=spike PROTO=ESMTP" + more + b"\r\n")
    reply = await peer.rest()
    peer.writer.close()
    return reply.decode("ascii").strip()


def is_free(harness: IntakeHarness, host: str) -> bool:
    """Whether no connection of it is counted; one too many given back shows as many that are there."""
    assert harness.intake.gate is not None and harness.intake.gate.rules is not None
    return isinstance(harness.intake.gate.rules.visit(host), Visit)


def test_connections_are_those_of_the_claimed_client_and_are_given_back_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            set_limits(harness, {"connections": 1})
            peer = await introduced(harness.port, CLIENT)
            assert is_free(harness, "127.0.0.1"), "the proxy's own count was given back"
            assert not is_free(harness, "192.0.2.7")
            assert await turned_away(harness.port, CLIENT) == "421 4.7.0 Too many connections from your network at once"
            event = harness.events("rejected")[-1]
            assert (event["reason"], event["client"], event["verb"]) == ("network-connections", "192.0.2.7", "XCLIENT")
            _other = await introduced(harness.port, OTHER)
            peer.cut()
            await harness.until(lambda: is_free(harness, "192.0.2.7"))
            _again = await introduced(harness.port, CLIENT)
        for host in ("127.0.0.1", "192.0.2.7", "198.51.100.1"):
            assert is_free(harness, host)

    run(main())


def test_each_introduction_moves_the_count(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            set_limits(harness, {"connections": 1})
            peer = await introduced(harness.port, CLIENT)
            assert (await peer.ask(b"XCLIENT ADDR=" + OTHER + b"\r\n"))[:3] == "220"
            assert is_free(harness, "192.0.2.7")
            assert not is_free(harness, "198.51.100.1")
            # Back to the first, which is another's meanwhile.
            _other = await introduced(harness.port, CLIENT)
            peer.say(b"XCLIENT ADDR=" + CLIENT + b"\r\n")
            assert (await peer.rest())[:9] == b"421 4.7.0"
            await harness.until(lambda: is_free(harness, "198.51.100.1"))
            assert not is_free(harness, "192.0.2.7")

    run(main())


def test_commands_that_name_nobody_new_are_not_counted_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            set_limits(harness, {"connection_rate": "2/h", "connections": 1})
            peer = await introduced(harness.port, CLIENT)
            for said in (b"NAME=spike.example", b"HELO=spike PROTO=ESMTP", b"ADDR=" + CLIENT):
                assert (await peer.ask(b"XCLIENT " + said + b"\r\n"))[:3] == "220"
            assert not is_free(harness, "192.0.2.7")
            peer.cut()
            await harness.until(lambda: not harness.intake.clients)
            # The proxy itself came once, and so did the client.
            await introduced(harness.port, CLIENT)

    run(main())


def test_a_claimed_address_that_is_the_proxys_own_stays_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            set_limits(harness, {"connections": 1})
            _peer = await introduced(harness.port, b"127.0.0.1")
            assert not is_free(harness, "127.0.0.1")

    run(main())


@pytest.mark.parametrize(
    ("limit", "spend", "past"),
    [
        ({"messages": "1/h"}, [MAIL, b"RSET\r\n"], (MAIL, "450 4.7.0")),
        ({"recipients": "2/h"}, [MAIL, RCPT, RCPT, b"RSET\r\n", MAIL], (RCPT, "450 4.7.0")),
        ({"errors": "2/h"}, [b"WHAT\r\n", b"WHAT\r\n"], None),
        ({"connection_rate": "2/h"}, [], None),
    ],
    ids=["messages", "recipients", "errors", "connection_rate"],
)
def test_what_comes_at_a_rate_is_that_of_the_claimed_client(
    tmp_path: Path, limit: dict[str, str], spend: list[bytes], past: tuple[bytes, str] | None
) -> None:
    """Of its network, whatever connection it comes over; and neither of the proxy nor of another client."""

    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            # The proxy's own address has a rate of connections, too, and is not what this is about.
            set_limits(harness, {"ipv4_prefix": 24, **limit}, exempt=["127.0.0.0/8"])
            first = await introduced(harness.port, CLIENT)
            for command in spend:
                await first.ask(command)
            if past is None:
                second = await introduced(harness.port, NEIGHBOUR) if not spend else first
                assert (await turned_away(harness.port, NEIGHBOUR))[:9] == "421 4.7.0"
                del second
            else:
                command, code = past
                second = await introduced(harness.port, NEIGHBOUR)
                for before in spend[spend.index(b"RSET\r\n") + 1 :]:
                    await second.ask(before)
                assert (await second.ask(command))[:9] == code
            other = await introduced(harness.port, OTHER)
            for command in (MAIL, RCPT):
                assert (await other.ask(command))[:3] == "250"

    run(main())


def test_machine_sessions_are_taken_and_given_back_once_whoever_is_introduced(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            tallies = set_limits(harness, max_sessions=2, exempt=["203.0.113.0/24"])
            peer = await introduced(harness.port, CLIENT)
            assert tallies.sessions == 1, "it had a place as the proxy, and kept it"
            _exempt = await introduced(harness.port, b"203.0.113.1")
            assert tallies.sessions == 1, "an exempt client has none"
            third = await introduced(harness.port, OTHER)
            assert tallies.sessions == 2
            # A place that it has is no new one.
            assert (await peer.ask(b"XCLIENT ADDR=" + NEIGHBOUR + b"\r\n"))[:3] == "220"
            assert (await third.ask(b"XCLIENT ADDR=203.0.113.2\r\n"))[:3] == "220"
            assert tallies.sessions == 1
            _fourth = await introduced(harness.port, OTHER)
            third.say(b"XCLIENT ADDR=" + CLIENT + b"\r\n")
            assert (await third.rest())[:9] == b"421 4.3.2"
            assert tallies.sessions == 2
        assert tallies.sessions == 0

    run(main())


def test_an_exempt_proxys_clients_are_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            tallies = set_limits(harness, {"connections": 1}, max_sessions=10, exempt=["127.0.0.0/8"])
            _proxy = await SmtpPeer.greeted(harness.port)
            assert tallies.sessions == 0
            peer = await introduced(harness.port, CLIENT)
            assert tallies.sessions == 1
            assert (await turned_away(harness.port, CLIENT))[:9] == "421 4.7.0"
            peer.cut()
            await harness.until(lambda: tallies.sessions == 0)

    run(main())


def test_who_may_relay_by_claimed_address_or_login_is_its_own_client(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            set_limits(harness, {"connections": 1}, exempt=["127.0.0.0/8"])
            _known = [await introduced(harness.port, b"10.1.1.1") for _ in range(2)]
            _stranger = await introduced(harness.port, CLIENT)
            _login = await introduced(harness.port, CLIENT, b" LOGIN=alice@x.example")
            # LOGIN that comes later makes of the stranger a client of our own, and taken away it makes it one again.
            assert (await _stranger.ask(b"XCLIENT LOGIN=bob@x.example\r\n"))[:3] == "220"
            assert is_free(harness, "192.0.2.7")
            assert (await _stranger.ask(b"XCLIENT LOGIN=[UNAVAILABLE]\r\n"))[:3] == "220"
            assert not is_free(harness, "192.0.2.7")

    run(main())


class NotToday:
    """A judge that turns clients away by their claimed address, and holds the rest back."""

    def __call__(self, case: ConnectCase) -> Answer:
        if case.client.host == CLIENT.decode():
            return Refusal(b"554 5.7.1 Not today\r\n", "not-today")
        if case.client.host == OTHER.decode():
            case.client.hold_back(30.0)
        return None


def test_a_client_refused_by_policy_after_it_was_counted_gives_everything_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            harness.intake.appointing = (lambda _: Judges(connect=(NotToday(),)),)
            listener = await harness.listen(**PROXIED)
            port = listener.context.options.address.port
            tallies = set_limits(harness, {"connections": 1}, max_sessions=10)
            listener.apply("mx.test.example", listener.context.options)
            assert (await turned_away(port, CLIENT))[:9] == "554 5.7.1"
            await harness.until(lambda: not harness.intake.clients)
            assert is_free(harness, "192.0.2.7")
            assert tallies.sessions == 0

    run(main())


def test_what_one_client_was_kept_waiting_for_is_not_the_next_ones(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            harness.intake.appointing = (lambda _: Judges(connect=(NotToday(),)),)
            port = (await harness.listen(**PROXIED)).context.options.address.port
            peer = await SmtpPeer.greeted(port)
            peer.say(b"XCLIENT ADDR=" + OTHER + b" HELO=spike PROTO=ESMTP\r\n")
            await harness.until(lambda: len(harness.events("introduced")) == 1)
            harness.wheel.advance_by_ms(31_000)
            assert (await peer.reply())[:3] == "220"
            peer.say(b"XCLIENT ADDR=" + NEIGHBOUR + b" HELO=spike PROTO=ESMTP\r\n")
            assert (await peer.reply())[:3] == "220", "at once, no timer has run"
            assert (await peer.ask(b"NOOP\r\n"))[:3] == "250"

    run(main())


@pytest.mark.parametrize("end", ["quit", "reset", "timeout", "rset and silence", "garbage"])
def test_every_end_of_a_session_brings_all_counts_to_zero(tmp_path: Path, end: str) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED, max_sessions=10) as harness:
            tallies = set_limits(harness, {"connections": 1, "errors": "100/h"}, max_sessions=10)
            places = harness.listeners[0].context.places
            peer = await introduced(harness.port, CLIENT)
            await peer.ask(MAIL)
            if end == "quit":
                assert (await peer.ask(b"QUIT\r\n"))[:3] == "221"
            elif end == "garbage":
                peer.say(b"bare\nline\r\n")
                await peer.rest()
                peer.writer.close()
            elif end == "reset":
                peer.cut()
            else:
                if end != "timeout":
                    await peer.ask(b"RSET\r\n")
                harness.wheel.advance_by_ms(301_000)
                assert (await peer.rest())[:9] == b"421 4.4.2"
                peer.writer.close()
            await harness.until(lambda: not harness.intake.clients)
            assert tallies.sessions == 0
            assert places.used == places.reserved == 0
            assert is_free(harness, "127.0.0.1") and is_free(harness, "192.0.2.7")

    run(main())


def test_a_dead_workers_introduced_clients_are_counted_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            tallies = Tallies()
            set_limits(harness, {"connections": 1}, max_sessions=10, tallies=tallies)
            reader, writer = os.pipe()
            if (pid := os.fork()) == 0:     # another worker: it counts a client, and is killed
                tallies.attach(1)
                visit = harness.intake.gate.rules.visit("192.0.2.7")
                os.write(writer, b"y" if isinstance(visit, Visit) else b"n")
                os.read(os.pipe()[0], 1)
            assert os.read(reader, 1) == b"y"
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(reader)
            os.close(writer)
            assert (await turned_away(harness.port, CLIENT))[:9] == "421 4.7.0"
            tallies.forget_worker(1)
            await introduced(harness.port, CLIENT)

    run(main())


def test_behind_a_balancer_the_client_of_the_header_is_counted_and_the_balancer_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        balanced: dict[str, Any] = {"relay_to": ["y.example"], "relay_from": [], "proxy_from": ["127.0.0.0/8"]}
        async with intake_harness(tmp_path, **balanced) as harness:
            tallies = set_limits(harness, {"connections": 1}, max_sessions=10)

            async def connect(address: bytes) -> tuple[SmtpPeer, str]:
                peer = await SmtpPeer.connect(harness.port)
                peer.say(b"PROXY TCP4 " + address + b" 192.0.2.99 1234 25\r\n")
                return peer, await peer.reply()

            first, said = await connect(CLIENT)
            assert said[:3] == "220"
            assert is_free(harness, "127.0.0.1")
            assert (await connect(CLIENT))[1][:9] == "421 4.7.0"
            _other, said = await connect(OTHER)
            assert said[:3] == "220"
            silent = await SmtpPeer.connect(harness.port)
            await harness.until(lambda: tallies.sessions == 3)
            assert is_free(harness, "127.0.0.1"), "who has not said for whom it speaks has a place, and no network"
            silent.cut()
            first.cut()
            await harness.until(lambda: tallies.sessions == 1)
            assert is_free(harness, "192.0.2.7")

    run(main())


def test_clients_whose_address_nobody_knows_are_one_client_and_may_be_exempt(tmp_path: Path) -> None:
    """Without an address they would have no limit, and so would a proxy that gives its clients none."""

    async def main() -> None:
        async with intake_harness(tmp_path, **PROXIED) as harness:
            set_limits(harness, {"connections": 1})
            _peer = await introduced(harness.port, b"[UNAVAILABLE]")
            assert is_free(harness, "127.0.0.1") and not is_free(harness, "0.0.0.0")
            assert (await turned_away(harness.port, b"[TEMPUNAVAIL]"))[:9] == "421 4.7.0"
            _other = await introduced(harness.port, CLIENT)
            set_limits(harness, {"connections": 1}, exempt=["0.0.0.0/32"])
            _first, _second = [await introduced(harness.port, b"[UNAVAILABLE]") for _ in range(2)]

    run(main())


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"], ids=["v1", "v2"])
def test_connections_of_a_balancers_own_are_counted_as_the_balancer(tmp_path: Path, header: bytes) -> None:
    async def main() -> None:
        balanced = {"relay_from": [], "relay_to": ["y.example"], "proxy_from": ["127.0.0.0/8"]}
        async with intake_harness(tmp_path, **balanced) as harness:

            async def greeted(header: bytes) -> str:
                peer = await SmtpPeer.connect(harness.port)
                kept.append(peer)
                peer.say(header)
                return await peer.reply()

            kept: list[SmtpPeer] = []
            set_limits(harness, {"connections": 1})
            assert (await greeted(header))[:3] == "220"
            assert not is_free(harness, "127.0.0.1")
            assert (await greeted(header))[:9] == "421 4.7.0"
            assert (await greeted(b"PROXY TCP4 192.0.2.9 198.51.100.7 56324 25\r\n"))[:3] == "220"
            # Its checks must not be turned away; its clients have their limits all the same.
            set_limits(harness, {"connections": 1}, exempt=["127.0.0.1/32"])
            assert [(await greeted(header))[:3] for _ in range(3)] == ["220"] * 3
            named = [(await greeted(b"PROXY TCP4 192.0.2.7 198.51.100.7 56324 25\r\n"))[:3] for _ in range(2)]
            assert named == ["220", "421"]

    run(main())
