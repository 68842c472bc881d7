"""Sockets of sessions: what clients do to them, several at once and at the end of what the process may have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from pathlib import Path

import pytest
from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_limits import watch

from angarium.inbound.acceptor import adopt
from angarium.inbound.judgement import Judges, MailCase, MessageCase

PAIR = b"MAIL FROM:<>\r\nRSET\r\n"  # answered differently
PAIRS = 200_000  # replies of 6 MB: more than the kernel's buffers hold


async def connected(port: int, *, receive_octets: int = 0) -> socket.socket:
    """Not read by anybody; greeting and EHLO are over."""
    sock = socket.socket()
    if receive_octets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_octets)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    assert (await loop.sock_recv(sock, 1000)).startswith(b"220 ")
    await loop.sock_sendall(sock, b"EHLO client.example\r\n")
    assert (await loop.sock_recv(sock, 1000)).startswith(b"250-")
    return sock


async def send_some(sock: socket.socket, octets: bytes) -> int:
    """As soon as the socket takes some."""
    loop = asyncio.get_running_loop()
    writable = loop.create_future()
    loop.add_writer(sock, writable.set_result, None)
    try:
        await writable
    finally:
        loop.remove_writer(sock)
    return sock.send(octets)


def test_replies_that_a_client_does_not_read_wait_in_order_and_stop_the_reading(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with intake_harness(tmp_path, receive_octets=65536, max_junk=PAIRS * 2) as harness:
            sock = await connected(harness.port, receive_octets=65536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
            said = PAIR * PAIRS + b"QUIT\r\n"
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < len(said):
                    sent += await asyncio.wait_for(send_some(sock, said[sent : sent + 65536]), 0.5)
            assert sent < len(said), "the server piled up what was not read"
            heard = b""
            while octets := await asyncio.wait_for(loop.sock_recv(sock, 65536), 20):
                heard += octets
                while sent < len(said):
                    try:
                        sent += sock.send(said[sent:])
                    except BlockingIOError:
                        break
            lines = heard.split(b"\r\n")
            assert lines[-2].startswith(b"221 ")
            assert lines[:2] == [b"250 2.1.0 Ok", b"250 2.0.0 Ok"]
            assert lines[:-2] == lines[:2] * PAIRS
            sock.close()

    run(main())


def test_a_session_ended_in_the_turn_in_which_its_own_octets_came_is_left_alone(tmp_path: Path) -> None:
    """Both sockets are ready when the loop looks; what the first says ends the others."""

    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            peers = [await SmtpPeer.greeted(harness.port) for _ in range(20)]

            def end_all_others(case: MailCase) -> None:
                for client in list(harness.intake.clients):
                    if client is not case.client:
                        client.abort()

            harness.intake.appointing = (lambda _: Judges(mail=(end_all_others,)),)
            harness.listeners[0].apply(HOSTNAME, harness.listeners[0].context.options)
            for peer in peers:  # without giving the loop a turn
                os.write(peer.writer.get_extra_info("socket").fileno(), b"MAIL FROM:<a@x.example>\r\n")
            heard = await asyncio.gather(*(peer.reader.read(100) for peer in peers), return_exceptions=True)
            assert sum(isinstance(each, bytes) and each.startswith(b"250") for each in heard) == 1
            assert len(harness.intake.clients) == 1
            survivor = peers[[bool(each) and not isinstance(each, BaseException) for each in heard].index(True)]
            assert (await survivor.ask(b"RSET\r\n")).startswith("250")
            again = await SmtpPeer.greeted(harness.port)
            assert (await again.ask(b"QUIT\r\n")).startswith("221")

    run(main())


async def told(harness: IntakeHarness, folder: Path, known_octets: int) -> int:
    """How long the journal is as soon as there is more in it; opens nothing."""
    journal = folder / "events.json"
    await harness.until(lambda: harness.journal.flush() or journal.stat().st_size > known_octets)
    return journal.stat().st_size


async def adopted(harness: IntakeHarness) -> socket.socket:
    """A client whose socket takes little from us at a time; greeting and EHLO are over."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    adopt(harness.listeners[0].context, theirs)
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    assert (await loop.sock_recv(ours, 1000)).startswith(b"220 ")
    await loop.sock_sendall(ours, b"EHLO client.example\r\n")
    assert (await loop.sock_recv(ours, 1000)).startswith(b"250-")
    return ours


@pytest.mark.parametrize("is_taken", [False, True])
def test_when_descriptors_are_out_it_is_said_and_who_waits_is_let_in_later(tmp_path: Path, is_taken: bool) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            waiting = socket.socket()
            lowest_free = os.dup(waiting.fileno())
            os.close(lowest_free)
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
            try:
                waiting.connect(("127.0.0.1", harness.port))  # the kernel says yes
                first = await told(harness, tmp_path, 0)
                if is_taken:  # by others, what rests has given back: for longer than the rest
                    taken = []
                    with contextlib.suppress(OSError):
                        while True:
                            taken.append(os.dup(waiting.fileno()))
                    await told(harness, tmp_path, first)
                    for fd in taken:
                        os.close(fd)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            waiting.setblocking(False)
            loop = asyncio.get_running_loop()
            greeting = await asyncio.wait_for(loop.sock_recv(waiting, 1000), 20)
            assert greeting.startswith(b"220 ")
            assert len(harness.events("error")) == 1 + is_taken
            assert "Too many open files" in harness.events("error")[0]["reason"]
            waiting.close()

    run(main())


def test_a_client_that_always_leaves_some_replies_unread_does_not_pile_up_those_it_has_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_junk=PAIRS * 2) as harness:
            loop = asyncio.get_running_loop()
            ours = await adopted(harness)
            said = PAIR * PAIRS + b"QUIT\r\n"
            saying = asyncio.create_task(loop.sock_sendall(ours, said))
            load = watch(harness, max_session_memory="1MiB")
            lines = 0
            while octets := await asyncio.wait_for(loop.sock_recv(ours, 2048), 20):
                lines += octets.count(b"\n")
                load.look()
                assert not harness.intake.is_memory_full
            await saying
            assert lines > 2 * PAIRS
            ours.close()

    run(main())


def test_a_client_that_shuts_its_side_and_does_not_read_is_let_go(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_junk=2000) as harness:
            judged = asyncio.get_running_loop().create_future()

            async def judge(case: MessageCase) -> None:
                await judged

            harness.intake.appointing = (lambda _: Judges(message=(judge,)),)
            harness.listeners[0].apply(HOSTNAME, harness.listeners[0].context.options)
            ours = await adopted(harness)
            message = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nBDAT 2 LAST\r\n\r\n"
            await asyncio.get_running_loop().sock_sendall(ours, PAIR * 300 + message)
            ours.shutdown(socket.SHUT_WR)
            other = await SmtpPeer.greeted(harness.port)
            assert (await other.ask(b"QUIT\r\n")).startswith("221")   # the end of the first was seen before this
            judged.set_result(None)
            await harness.until(lambda: harness.events("received"))
            await harness.until(lambda: harness.wheel.advance_by_ms(120_000) or not harness.intake.clients)
            ours.close()

    run(main())


@pytest.mark.parametrize("count", [1, 60])
def test_all_who_connected_while_nobody_accepted_are_greeted(tmp_path: Path, count: int) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path) as harness:
            listener = harness.listeners[0]
            listener.pause()
            peers = [await SmtpPeer.connect(harness.port) for _ in range(count)]
            listener.start()
            for peer in peers:
                assert (await peer.reply()).startswith("220 ")

    run(main())
