"""Limits of clients' networks and of the machine, junk, tarpitting, and deadlines under load."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.admission.options import AdmissionOptions
from angarium.admission.tallies import Rules, Tallies, Visit
from angarium.inbound.gate import Gate
from angarium.inbound.load import LoadWatch
from angarium.model.units import decode_unit

PUBLIC: dict[str, Any] = {"relay_from": [], "relay_to": ["y.example"]}
RCPT = b"RCPT TO:<b@y.example>\r\n"


def admission(**tables: Any) -> AdmissionOptions:
    return msgspec.convert({"exempt": [], **tables}, AdmissionOptions, dec_hook=decode_unit)


def set_limits(harness: IntakeHarness, *limits: dict[str, Any], tallies: Tallies | None = None, **more: Any) -> Tallies:
    """[admission] with these limits, for the harness's listener."""
    tallies = tallies or Tallies()
    harness.intake.gate = Gate(tallies, admission(limit=list(limits), **more))
    listener = harness.listeners[0]
    listener.apply(HOSTNAME, listener.context.options, listener.context.tls)
    return tallies


async def refused(port: int) -> str:
    peer = await SmtpPeer.connect(port)
    reply = await peer.rest()
    peer.writer.close()
    return reply.decode("ascii").strip()


def test_no_more_connections_of_a_network_at_once_than_may_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            set_limits(harness, {"connections": 2})
            first, _second = [await SmtpPeer.greeted(harness.port) for _ in range(2)]
            assert await refused(harness.port) == "421 4.7.0 Too many connections from your network at once"
            assert [each["reason"] for each in harness.events("rejected")] == ["network-connections"]
            first.cut()
            await harness.until(lambda: len(harness.intake.clients) == 1)
            await SmtpPeer.greeted(harness.port)

    run(main())


def test_connections_come_no_faster_than_they_may(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            set_limits(harness, {"connection_rate": "3/h"})
            for _ in range(3):
                (await SmtpPeer.greeted(harness.port)).cut()
            assert (await refused(harness.port)).startswith("421 4.7.0 Too many connections from your network")

    run(main())


def test_messages_and_recipients_of_a_network_are_limited_over_its_connections(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            set_limits(harness, {"messages": "2/h", "recipients": "3/h"})
            one, other = [await SmtpPeer.greeted(harness.port) for _ in range(2)]
            one.say(b"MAIL FROM:<a@x.example>\r\n" + 2 * RCPT)
            assert [reply[:3] for reply in await one.replies(3)] == ["250"] * 3
            other.say(b"MAIL FROM:<a@x.example>\r\n" + 2 * RCPT)
            assert [reply[:9] for reply in await other.replies(3)] == ["250 2.1.0", "250 2.1.5", "450 4.7.0"]
            await one.ask(b"RSET\r\n")
            assert (await one.ask(b"MAIL FROM:<a@x.example>\r\n"))[:9] == "450 4.7.0"
            # What is refused for another reason takes nothing.
            assert (await other.ask(b"RCPT TO:<b@z.example>\r\n"))[:9] == "550 5.7.1"

    run(main())


def test_errors_of_a_network_end_the_session_and_turn_the_next_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            set_limits(harness, {"errors": "3/h"})
            other = await SmtpPeer.greeted(harness.port)
            await other.ask(b"MAIL FROM:<a@x.example>\r\n")
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(3):
                assert (await peer.ask(b"WHAT\r\n"))[:3] == "500"
            peer.say(b"WHAT\r\nNOOP\r\n")
            assert (await peer.rest()).endswith(b"421 4.7.0 Too many errors from your network, try again later\r\n")
            assert (await refused(harness.port))[:9] == "421 4.7.0"
            # Also refusals of policy count: who tries out recipients gets no further.
            other.say(b"RCPT TO:<b@z.example>\r\n")
            assert (await other.rest()).splitlines()[-1][:9] == b"421 4.7.0"

    run(main())


def test_exempt_networks_and_own_clients_are_not_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            set_limits(harness, {"connections": 1}, exempt=["127.0.0.0/8"])
            for _ in range(3):
                await SmtpPeer.greeted(harness.port)
        other = tmp_path / "own"
        other.mkdir()
        async with intake_harness(other) as harness:
            set_limits(harness, {"connections": 1})
            for _ in range(3):
                await SmtpPeer.greeted(harness.port)
            set_limits(harness, {"connections": 1, "own_clients": True})
            _one = await SmtpPeer.greeted(harness.port)
            assert (await refused(harness.port))[:9] == "421 4.7.0"

    run(main())


def test_a_listener_may_do_without_limits(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC, admission={"limits": False}) as harness:
            set_limits(harness, {"connections": 1})
            for _ in range(3):
                await SmtpPeer.greeted(harness.port)

    run(main())


def test_the_sessions_of_the_machine_are_limited_over_all_workers(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            tallies = set_limits(harness, max_sessions=2)
            first, _ = [await SmtpPeer.greeted(harness.port) for _ in range(2)]
            assert tallies.sessions == 2
            assert await refused(harness.port) == "421 4.3.2 Too many sessions on this machine, try again later"
            assert harness.events("rejected")[-1]["reason"] == "machine-full"
            assert tallies.sessions == 2
            first.cut()
            await harness.until(lambda: tallies.sessions == 1)
            await SmtpPeer.greeted(harness.port)

    run(main())


def test_a_reload_does_not_lose_count_of_who_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            tallies = set_limits(harness, {"connections": 5}, max_sessions=10)
            peers = [await SmtpPeer.greeted(harness.port) for _ in range(3)]
            set_limits(harness, {"connections": 3}, max_sessions=10, tallies=tallies)
            assert (await refused(harness.port))[:9] == "421 4.7.0"
            for peer in peers:
                peer.cut()
            await harness.until(lambda: tallies.sessions == 0)
            others = [await SmtpPeer.greeted(harness.port) for _ in range(3)]
            assert (await refused(harness.port))[:9] == "421 4.7.0"
            del others

    run(main())


@pytest.mark.parametrize(
    ("limit", "hosts", "last"),
    [
        ({"connections": 2}, ["192.0.2.1", "192.0.2.2", "192.0.2.3"], True),
        ({"connections": 2, "ipv4_prefix": 24}, ["192.0.2.1", "192.0.2.2", "192.0.2.3"], False),
        ({"connections": 2}, ["2001:db8::1", "2001:db8::2", "2001:db8::3"], False),
        ({"connections": 2}, ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::3"], True),
        ({"connections": 2, "ipv6_prefix": 48}, ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::3"], False),
        ({"connections": 2, "ipv6_prefix": 128}, ["2001:db8::1", "2001:db8::2", "2001:db8::3"], True),
    ],
)
def test_what_is_one_network(limit: dict[str, Any], hosts: list[str], last: bool) -> None:
    rules = Rules(Tallies(16), admission(limit=[limit]).limit)
    visits = [rules.visit(host) for host in hosts]
    assert isinstance(visits[1], Visit)
    assert isinstance(visits[2], Visit) is last


def test_several_limits_hold_together_and_one_that_refuses_takes_nothing_of_the_others() -> None:
    limits = admission(limit=[{"ipv4_prefix": 24, "connections": 3}, {"connections": 1}]).limit
    rules = Rules(Tallies(16), limits)
    visits = [rules.visit(f"192.0.2.{last}") for last in (1, 1, 1, 1, 2, 3)]
    assert visits[1:4] == ["open"] * 3
    assert isinstance(visits[5], Visit)
    assert rules.visit("192.0.2.4") == "open"


def test_junk_commands_end_the_session_unless_a_message_comes_between(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_junk=10) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(3):
                for _ in range(4):
                    assert (await peer.ask(b"NOOP\r\n"))[:3] == "250"
                    assert (await peer.ask(b"RSET\r\n"))[:3] == "250"
                await peer.open_data()
                assert (await peer.ask(b"x\r\n.\r\n"))[:3] == "250"
            for command in 2 * (b"NOOP", b"RSET", b"VRFY x", b"HELP", b"EHLO x"):
                assert (await peer.ask(command + b"\r\n"))[:1] == "2"
            peer.say(b"NOOP\r\n")
            assert (await peer.rest()) == b"421 4.7.0 mx.test.example Too many errors\r\n"

    run(main())


def test_a_tarpitted_client_waits_for_each_reply_and_nobody_else_does(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            set_limits(harness, tarpit_errors=2, tarpit_delay="5s")
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"WHAT\r\n"))[:3] == "500"
            for command in (b"WHAT\r\n", b"NOOP\r\n"):
                peer.say(command)
                await asyncio.sleep(0.05)
                harness.wheel.advance_by_ms(4_800)
                other = await SmtpPeer.greeted(harness.port)
                other.cut()
                assert not peer.reader._buffer, "nothing was said yet"
                harness.wheel.advance_by_ms(400)
                await peer.reply()
            peer.say(b"NOOP\r\n")
            await asyncio.sleep(0.05)

    run(main())


def test_a_session_held_back_is_ended_by_shutdown_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            set_limits(harness, tarpit_errors=1, tarpit_delay="60s")
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(b"WHAT\r\n")
            await harness.until(lambda: harness.events("rejected"))
            harness.intake.drain()
            assert (await peer.rest()).splitlines()[-1].startswith(b"421 4.3.2 ")

    run(main())


def watch(harness: IntakeHarness, **tables: Any) -> LoadWatch:
    made = LoadWatch(harness.intake, lambda: [listener.context for listener in harness.listeners])
    made.apply(admission(**tables))
    return made


def test_deadlines_shorten_under_load_also_for_those_who_wait_already(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_sessions=10) as harness:
            load = watch(harness, tight={"command_timeout": "10s"})
            peers = [await SmtpPeer.greeted(harness.port) for _ in range(7)]
            load.look()
            assert not harness.intake.is_tight
            peers.append(await SmtpPeer.greeted(harness.port))
            load.look()
            assert harness.intake.is_tight
            harness.wheel.advance_by_ms(9_000)
            assert (await peers[0].ask(b"RSET\r\n"))[:3] == "250"
            harness.wheel.advance_by_ms(2_000)
            for peer in peers[1:]:
                assert (await peer.rest()).startswith(b"421 4.4.2 ")
                peer.writer.close()
            await harness.until(lambda: len(harness.intake.clients) == 1)
            load.look()
            assert not harness.intake.is_tight
            assert [event["sessions"] for event in harness.events("load-high")] == [8]
            assert len(harness.events("load-normal")) == 1
            await peers[0].ask(b"RSET\r\n")
            harness.wheel.advance_by_ms(200_000)
            assert (await peers[0].ask(b"RSET\r\n"))[:3] == "250"

    run(main())


def test_the_least_rate_of_message_data_rises_under_load(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_sessions=2) as harness:
            load = watch(harness, tight={"message_time": "20s", "data_timeout": "15s", "data_octets_per_s": 1000})
            peers = [await SmtpPeer.greeted(harness.port) for _ in range(2)]
            slow, quick = peers
            for peer in peers:
                await peer.open_data()
            load.look()
            for _ in range(3):
                slow.say(b"x\r\n")
                quick.say(b"x" * 998 + b"\r\n" + b"y" * 998 + b"\r\n" + 9 * (b"z" * 998 + b"\r\n"))
                await asyncio.sleep(0.05)
                harness.wheel.advance_by_ms(9_000)
            assert (await slow.rest()).startswith(b"421 4.4.2 mx.test.example Message data comes too slowly")
            assert (await quick.ask(b".\r\n"))[:3] == "250"

    run(main())


def test_past_the_memory_that_sessions_may_hold_new_ones_are_turned_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            load = watch(harness, max_session_memory="256KiB")
            peer = await SmtpPeer.greeted(harness.port)
            load.look()
            _other = await SmtpPeer.greeted(harness.port)
            # A line that does not end, RCPTs without end: whatever is held counts.
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            for _ in range(10):
                peer.say(100 * (b"RCPT TO:<" + b"b" * 64 + b"@y.example>\r\n"))
                await peer.replies(100)
            peers = [await SmtpPeer.greeted(harness.port) for _ in range(60)]
            load.look()
            assert harness.intake.is_memory_full
            assert await refused(harness.port) == "421 4.3.1 No memory for more sessions, try again later"
            assert harness.events("rejected")[-1]["reason"] == "session-memory-full"
            for each in peers:
                each.cut()
            await harness.until(lambda: len(harness.intake.clients) == 2)
            load.look()
            assert not harness.intake.is_memory_full

    run(main())


def test_what_sessions_of_other_workers_hold_counts_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            load = watch(harness, max_session_memory="1MiB")
            bounds = harness.intake.bounds
            load.look()
            assert not harness.intake.is_memory_full
            bounds.attach(1)
            bounds.memory_with(1 << 20)
            bounds.attach(0)
            load.look()
            assert harness.intake.is_memory_full
            assert await refused(harness.port) == "421 4.3.1 No memory for more sessions, try again later"
            bounds.forget_worker(1)
            load.look()
            assert not harness.intake.is_memory_full

    run(main())


def test_a_session_that_was_turned_away_takes_no_place(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_sessions=2) as harness:
            places = harness.listeners[0].context.places
            first, second = [await SmtpPeer.greeted(harness.port) for _ in range(2)]
            lingering = [await SmtpPeer.connect(harness.port) for _ in range(3)]
            for each in lingering:
                assert (await each.reply())[:9] == "421 4.3.2"
            assert places.used == places.reserved == 2
            first.cut()
            await harness.until(lambda: places.used == 1)
            # The three are still there, and who comes now is let in.
            assert len(harness.intake.clients) >= 2
            third = await SmtpPeer.greeted(harness.port)
            for each in (second, third, *lingering):
                each.cut()
            await harness.until(lambda: not harness.intake.clients)
            assert places.used == places.reserved == 0

    run(main())
