"""Connections of balancers that have not said yet for whom they are: they take a place like everybody, from accept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inbound.intake_harness import IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_limits import set_limits, watch

BALANCED: dict[str, Any] = {"relay_from": [], "relay_to": ["y.example"], "proxy_from": ["127.0.0.0/8"]}
HEADER = b"PROXY TCP4 192.0.2.9 198.51.100.7 56324 25\r\n"


async def silent(harness: IntakeHarness, count: int) -> list[SmtpPeer]:
    """Connections that are accepted and wait for their header."""
    peers = [await SmtpPeer.connect(harness.port) for _ in range(count)]
    await harness.until(lambda: len(harness.intake.clients) == count)
    return peers


async def turned_away(harness: IntakeHarness, header: bytes = HEADER) -> bytes:
    """What is said to one more, though its header comes."""
    peer = await SmtpPeer.connect(harness.port)
    peer.say(header)
    reply = await peer.rest()
    peer.writer.close()
    return reply


async def named(peer: SmtpPeer, header: bytes = HEADER) -> str:
    peer.say(header)
    return await peer.reply()


def test_who_has_not_said_a_header_has_a_place_of_the_listener(tmp_path: Path) -> None:
    """Any number of connections could be held open beyond max_sessions, five seconds each."""

    async def main() -> None:
        async with intake_harness(tmp_path, max_sessions=2, **BALANCED) as harness:
            first, second = await silent(harness, 2)
            assert (await turned_away(harness)).startswith(b"421 4.3.2 ")
            (event,) = harness.events("rejected")
            assert (event["client"], event["reason"]) == ("127.0.0.1", "too-many-sessions")
            first.cut()
            await harness.until(lambda: len(harness.intake.clients) == 1)
            # The place is the connection's, not another one once the client is named.
            assert (await named(second))[:3] == "220"
            (third,) = [await SmtpPeer.connect(harness.port)]
            assert (await named(third))[:3] == "220"

    run(main())


def test_who_has_not_said_a_header_has_a_place_of_the_machine(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **BALANCED) as harness:
            tallies = set_limits(harness, {"connections": 1}, max_sessions=2)
            first, second = await silent(harness, 2)
            assert tallies.sessions == 2
            assert (await turned_away(harness)).startswith(b"421 4.3.2 Too many sessions on this machine")
            assert (await named(first))[:3] == "220"
            assert tallies.sessions == 2, "it has one place, and had it already"
            # The network is the client's, and was not counted before it was named.
            second.say(HEADER)
            assert (await second.rest()).startswith(b"421 4.7.0 Too many connections from your network")
            second.cut()
            await harness.until(lambda: tallies.sessions == 1)
            first.cut()
            await harness.until(lambda: tallies.sessions == 0)

    run(main())


def test_an_exempt_client_gives_the_place_back_when_it_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **BALANCED) as harness:
            tallies = set_limits(harness, max_sessions=2, exempt=["192.0.2.0/24"])
            (peer,) = await silent(harness, 1)
            assert tallies.sessions == 1
            assert (await named(peer))[:3] == "220"
            assert tallies.sessions == 0
            peer.cut()
            await harness.until(lambda: not harness.intake.clients)
            assert tallies.sessions == 0

    run(main())


def test_no_memory_turns_connections_away_before_their_header(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **BALANCED) as harness:
            harness.intake.is_memory_full = True
            assert (await turned_away(harness, b"")).startswith(b"421 4.3.1 ")

    run(main())


def test_a_header_is_waited_for_less_long_while_the_load_is_high(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_sessions=4, **BALANCED) as harness:
            (before,) = await silent(harness, 1)
            load = watch(harness, tight={"from_percent": 50})
            assert not harness.intake.is_tight
            peers = [before, await SmtpPeer.connect(harness.port)]
            await harness.until(lambda: len(harness.intake.clients) == 2)
            load.look()
            assert harness.intake.is_tight
            peers.append(await SmtpPeer.connect(harness.port))
            await harness.until(lambda: len(harness.intake.clients) == 3)
            harness.wheel.advance_by_ms(3_200)
            for peer in peers:
                assert await peer.rest() == b""
            await harness.until(lambda: not harness.intake.clients)
            assert {event["reason"] for event in harness.events("rejected")} == {"proxy-header-late"}

    run(main())
