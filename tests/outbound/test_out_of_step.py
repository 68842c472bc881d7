"""Peers that answer before they were asked, hang up in mid-sentence, or have no room for one more."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket

import pytest
from outbound.fault_server import GARBLE, fault_server
from outbound.outgoing import on_uvloop, outgoing, smtp_site, until
from outbound.tls_hops import one, server_tls, shaping, to_here

from angarium.model.plan import Site

BODY = b"Subject: early\r\n\r\n" + b"SECRET\r\n" * 500


@on_uvloop
@pytest.mark.parametrize("answer", [b"250 had it\r\n", b"250 h", b"250-a\r\n250 b\r\n", b"550 no\r\n"])
async def test_who_answers_before_the_body_gets_no_memory_and_no_mail_is_lost(
    tmp_path: pathlib.Path, answer: bytes
) -> None:
    """A reply right behind 354 ends the transaction, and its body with it, before anything of it was sent."""
    got = bytearray()
    sessions = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sessions
        sessions += 1
        writer.write(b"220 early.example ESMTP\r\n")
        await reader.readline()
        writer.write(b"250-early.example\r\n250 PIPELINING\r\n")
        for _ in range(3):
            await reader.readline()
        writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n" + answer)
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(65536):
                got.extend(octets)
                if answer == b"250 h" and got.endswith(b"\r\n.\r\n"):
                    writer.write(b"ad it\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with outgoing(tmp_path, {b"*": smtp_site(port)}) as relay:
            event = await one(relay, body=BODY)
            assert event["event"] == ("failed" if answer.startswith(b"550") else "deferred"), event
        assert sessions == 1
    sent = BODY + b".\r\n"
    assert bytes(got[: len(sent)]) == sent[: len(got)]


@on_uvloop
async def test_a_connection_that_ends_while_it_says_quit_leaves_no_deadline(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(tls=server_tls(), faults={"END": [GARBLE]}) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "required")) as relay,
    ):
        before = relay.wheel.count
        assert (await one(relay))["event"] == "delivered"
        await until(lambda: not relay.dispatcher.connections())
        assert relay.wheel.count == before


@on_uvloop
async def test_a_socket_with_no_room_for_one_more_is_not_taken_for_connected(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lmtp")
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listening.bind(path)
        listening.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                waiting.setblocking(False)
                waiting.connect(path)
        async with outgoing(tmp_path, {b"*": Site(f"lmtp+unix:{path}", "lmtp+unix", (), path)}) as relay:
            event = await one(relay)
    assert event["event"] == "deferred"
    assert "connection failed: Resource temporarily unavailable" in event["reply"]
