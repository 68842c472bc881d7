"""What a connection is told that does not behave: limits, deadlines, relay rights, shutdown, reload."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from inbound.intake_harness import HOSTNAME, intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.listener import Listener, drain
from angarium.model.address import ListenAddress

NOBODY: dict[str, Any] = {"relay_from": ["192.0.2.0/24"]}


def test_relaying_is_denied_to_strangers(tmp_path: Path) -> None:
    async def main() -> None:
        relay_to = ["local.example", ".sub.example", "bücher.example"]
        async with intake_harness(tmp_path, **NOBODY, relay_to=relay_to) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example> SMTPUTF8\r\n")
            expected = {
                b"b@other.example": "550 5.7.1",
                b"b@local.example": "250 2.1.5",
                b"b@LOCAL.Example": "250 2.1.5",
                b"b@x.local.example": "550 5.7.1",
                b"b@sub.example": "550 5.7.1",
                b"b@a.sub.example": "250 2.1.5",
                b"b@a.b.SUB.example": "250 2.1.5",
                b"b@evilsub.example": "550 5.7.1",
                b"b@local.example.other.example": "550 5.7.1",
                b'"b@local.example"@other.example': "550 5.7.1",
                b"@local.example:b@other.example": "550 5.7.1",
                b"b%other.example@local.example": "550 5.7.1",
                b"b@[127.0.0.1]": "550 5.7.1",
                b"b@xn--bcher-kva.example": "250 2.1.5",
                "b@bücher.example".encode(): "250 2.1.5",
                b"Postmaster": "550 5.7.1",
            }
            for path, reply in expected.items():
                assert (await peer.ask(b"RCPT TO:<" + path + b">\r\n"))[:9] == reply, path
            denied = harness.events("rejected")
            assert {event["code"] for event in denied} == {550}
            assert denied[0]["to"] == "b@other.example"
            assert denied[0]["from"] == "a@x.example"
            assert (denied[0]["verb"], denied[0]["reason"]) == ("RCPT", "relay-denied")
            assert denied[0]["reply"] == "5.7.1 Relaying denied"

    run(main())


def test_postmaster_without_a_domain_is_ours(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **NOBODY, relay_to=[HOSTNAME]) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n")
            assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
            assert (await peer.ask(b"x\r\n.\r\n")).startswith("250")
            assert harness.events("received")[0]["to"] == [f"Postmaster@{HOSTNAME}"]

    run(main())


def test_postmaster_is_taken_from_strangers_where_a_route_says_where_it_goes(tmp_path: Path) -> None:
    """RFC 5321 §4.5.1. Nobody else of that domain is, and no spelling with a domain."""

    async def main() -> None:
        async with intake_harness(tmp_path, **NOBODY) as harness:
            harness.intake.has_postmaster = True
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            for path in ("b", f"b@{HOSTNAME}", f"postmaster@{HOSTNAME}", "postmaster@other.example"):
                assert (await peer.ask(f"RCPT TO:<{path}>\r\n".encode()))[:3] in ("501", "550"), path
            assert (await peer.ask(b"RCPT TO:<postMASTER>\r\n"))[:3] == "250"
            await peer.ask(b"DATA\r\n")
            assert (await peer.ask(b"x\r\n.\r\n")).startswith("250")
            assert harness.events("received")[0]["to"] == [f"postMASTER@{HOSTNAME}"]

    run(main())


@pytest.mark.parametrize(
    ("networks", "may"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.0/8"], True),
        (["127.0.0.0/31"], True),
        (["127.0.0.2/31"], False),
        (["126.0.0.0/7"], True),
        (["0.0.0.0/0"], True),
        (["::1"], False),
        (["::/0"], True),  # IPv4 clients are ::ffff:a.b.c.d there
        (["10.0.0.0/8", "127.0.0.0/16"], True),
        ([], False),
    ],
)
def test_networks_that_may_relay(tmp_path: Path, networks: list[str], may: bool) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, relay_from=networks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n")).startswith("250" if may else "550")

    run(main())


def test_reload_reaches_open_sessions_at_their_next_command(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n")).startswith("250")
            listener = harness.listeners[0]
            options = listener.context.options
            options = msgspec.structs.replace(options, relay_from=[], max_message_octets=1 << 20)
            listener.apply("new.test.example", options)
            assert (await peer.ask(b"RCPT TO:<c@y.example>\r\n")).startswith("550")
            await peer.ask(b"RSET\r\n")
            assert (await peer.ask(b"MAIL FROM:<a@x.example> SIZE=1048577\r\n")).startswith("552")
            peer.say(b"EHLO client.example\r\n")
            assert await peer.reader.readline() == b"250-new.test.example\r\n"

    run(main())


def test_octets_before_the_greeting_end_the_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            harness.listeners[0].pause()
            peer = await SmtpPeer.connect(harness.port)
            peer.say(b"EHLO client.example\r\n")
            await peer.writer.drain()
            harness.listeners[0].start()
            assert (await peer.rest()).startswith(b"554 5.5.0 ")
            peer.writer.close()
            await harness.until(lambda: not harness.intake.clients)

    run(main())


def test_improper_pipelining_ends_the_connection_and_the_reply_arrives(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
            peer.say(b"x\r\n" * 50000 + b".\r\n")
            last = (await peer.rest()).splitlines()[-1]
            assert last == b"503 5.5.0 Improper pipelining: wait for the reply to this command"
            peer.writer.close()
            await harness.until(lambda: not harness.intake.clients)
            assert harness.events("rejected")[0]["verb"] == "DATA"

    run(main())


def test_too_many_sessions_are_turned_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_sessions=2) as harness:
            first = await SmtpPeer.greeted(harness.port)
            await SmtpPeer.greeted(harness.port)
            third = await SmtpPeer.connect(harness.port)
            assert (await third.rest()).startswith(b"421 4.3.2 ")
            first.cut()
            await harness.until(lambda: harness.listeners[0].context.session_count == 1)
            await SmtpPeer.greeted(harness.port)

    run(main())


def test_silence_ends_in_421(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            harness.wheel.advance_by_ms(299_000)
            assert (await peer.ask(b"RSET\r\n")).startswith("250")
            harness.wheel.advance_by_ms(299_000)
            assert len(harness.intake.clients) == 1
            harness.wheel.advance_by_ms(2_000)
            assert (await peer.rest()).startswith(b"421 4.4.2 mx.test.example Timeout")
            peer.writer.close()
            await harness.until(lambda: not harness.intake.clients)

    run(main())


def test_one_octet_per_minute_gains_no_time_for_a_command(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for octet in b"MAIL":
                peer.say(bytes([octet]))
                await asyncio.sleep(0.01)
                harness.wheel.advance_by_ms(60_000)
            harness.wheel.advance_by_ms(61_000)
            assert (await peer.rest()).startswith(b"421 4.4.2 ")

    run(main())


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_silence_inside_a_message_ends_in_421_and_nothing_is_kept(tmp_path: Path, way: str) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            if way == "DATA":
                await peer.open_data()
                peer.say(b"Subject: x\r\n")
            else:
                peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
                peer.say(b"BDAT 100 LAST\r\nSubject: x\r\n")
                await peer.replies(2)
            await asyncio.sleep(0.02)
            harness.wheel.advance_by_ms(179_000)
            assert len(harness.intake.clients) == 1
            harness.wheel.advance_by_ms(2_000)
            assert (await peer.rest()).startswith(b"421 4.4.2 ")
            assert harness.intake.active == 0
            assert harness.events("received") == []

    run(main())


def test_message_that_comes_too_slowly_ends_in_421(tmp_path: Path) -> None:
    """A block now and then satisfies the timeout of a block, not the rate of the message."""

    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            for _ in range(5):
                peer.say(b"x\r\n")
                await asyncio.sleep(0.01)
                harness.wheel.advance_by_ms(59_000)
            assert len(harness.intake.clients) == 1
            harness.wheel.advance_by_ms(10_000)
            assert (await peer.rest()).startswith(b"421 4.4.2 mx.test.example Message data comes too slowly")

    run(main())


def test_octets_that_keep_coming_do_not_put_off_the_end_of_a_slow_message(tmp_path: Path) -> None:
    """Each octet armed the deadline anew: one that came every tenth of a second held a session for ever."""

    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            for _ in range(2):
                harness.wheel.advance_by_ms(149_000)
                peer.say(b"x")
                await asyncio.sleep(0.02)
            assert len(harness.intake.clients) == 1
            for _ in range(40):
                harness.wheel.pass_ms(100)
                if not harness.events("rejected"):
                    peer.say(b"x")
                await asyncio.sleep(0.005)
                harness.wheel.turn()        # behind the read, as when the loop has much to do
            assert (await peer.rest()).startswith(b"421 4.4.2 mx.test.example Message data comes too slowly")

    run(main())


def test_peer_that_does_not_read_its_last_reply_is_cut(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.writer.transport.pause_reading()
            peer.say(b"GET / HTTP/1.1\r\n")
            await harness.until(lambda: len(harness.events("rejected")) == 1)
            assert len(harness.intake.clients) == 1
            harness.wheel.advance_by_ms(3_000)
            await harness.until(lambda: not harness.intake.clients)

    run(main())


def test_drain_ends_idle_sessions_and_waits_for_a_message_in_hand(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            idle = await SmtpPeer.greeted(harness.port)
            busy = await SmtpPeer.greeted(harness.port)
            await busy.open_data()
            task = asyncio.create_task(drain(harness.intake, harness.listeners, 20.0))
            assert (await idle.rest()).startswith(b"421 4.3.2 mx.test.example Shutting down")
            assert not task.done()
            busy.say(b"x\r\n.\r\n")
            replies = await busy.rest()
            assert replies.startswith(b"250 2.0.0 Ok: queued")
            assert replies.endswith(b"421 4.3.2 mx.test.example Shutting down\r\n")
            idle.writer.close()
            busy.writer.close()
            assert await task == 0

    run(main())


def test_drain_cuts_at_its_deadline(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            assert await drain(harness.intake, harness.listeners, 0.05) == 1
            assert await peer.rest() == b""
            assert harness.intake.active == 0

    run(main())


def test_unix_socket_client_counts_as_loopback_and_has_no_address(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            path = str(tmp_path / "smtp.sock")
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
            options = msgspec.structs.replace(
                harness.listeners[0].context.options, address=ListenAddress(path=path)
            )
            listener = Listener(harness.intake, HOSTNAME, options, sock)
            listener.start()
            peer = SmtpPeer(*await asyncio.open_unix_connection(path))
            await peer.reply()
            await peer.ask(b"EHLO client.example\r\n")
            await peer.open_data()
            assert (await peer.ask(b"x\r\n.\r\n")).startswith("250")
            assert harness.events("received")[0]["client"] == ""
            peer.cut()
            listener.close()

    run(main())


def test_paused_listener_accepts_again_after_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            listener = harness.listeners[0]
            listener.pause()
            assert not listener.is_accepting
            peer = await SmtpPeer.connect(harness.port)
            await asyncio.sleep(0.02)
            assert not harness.intake.clients
            listener.start()
            assert (await peer.reply()).startswith("220 ")

    run(main())
