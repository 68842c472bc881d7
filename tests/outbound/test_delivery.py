"""Messages from a real queue over real sockets: what arrives, by whatever the host offers."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from outbound.fault_server import fault_server
from outbound.outgoing import (
    BDAT,
    FLAG_8BIT,
    FLAG_BODY_8BITMIME,
    FLAG_DOT_LINE,
    FLAG_NO_FINAL_CRLF,
    FLAG_SMTPUTF8,
    HOSTNAME,
    MESSAGE,
    ONE_CONNECTION,
    on_uvloop,
    outgoing,
    to_here,
)


@on_uvloop
async def test_a_message_arrives_unchanged(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        body = b"Subject: dots\r\n\r\n.\r\n..two\r\nend\r\n"
        await relay.send(b"b@y.example", body, flags=FLAG_DOT_LINE)
        (event,) = await relay.outcomes(1)
        assert event["event"] == "delivered"
        assert event["remote"] == f"mx0.example.net[127.0.0.1]:{server.port}"
        (received,) = server.received
        assert received.message == body
        assert received.mail.startswith(b"MAIL FROM:<a@x.example>")
        assert received.rcpts == [b"RCPT TO:<b@y.example>"]
        assert server.commands[0] == b"EHLO " + HOSTNAME.encode()


@on_uvloop
async def test_recipients_of_one_message_share_a_transaction(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        recipients = [b"r%d@y.example" % i for i in range(250)]
        await relay.send(recipients)
        await relay.outcomes(250)
        assert sorted(len(each.rcpts) for each in server.received) == [50, 100, 100]
        assert sorted(rcpt for each in server.received for rcpt in each.rcpts) == sorted(
            b"RCPT TO:<%b>" % each for each in recipients
        )


@on_uvloop
async def test_under_load_body_and_next_transaction_leave_together(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(50)))
        await relay.outcomes(50)
        assert server.connections == 1
        assert len(server.received) == 50
        # RFC 2920 §3.1: behind the first 354 one write, and so one read here, per message.
        assert len(server.reads[0]) <= 1 + 1 + 50 + 3
        assert any(read.startswith(MESSAGE + b".\r\nMAIL FROM:") for read in server.reads[0])


@on_uvloop
async def test_without_pipelining_step_by_step(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(extensions=[]) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(5)))
        await relay.outcomes(5)
        assert len(server.received) == 5
        assert all(read.count(b"\r\n") == 1 or read.startswith(b"Subject") for read in server.reads[0])


@on_uvloop
async def test_an_old_server_is_served_with_helo(tmp_path: pathlib.Path) -> None:
    async with fault_server(extensions=None) as server, outgoing(tmp_path, to_here(server.port)) as relay:
        await relay.send(b"b@y.example")
        assert [event["event"] for event in await relay.outcomes(1)] == ["delivered"]
        assert server.commands[1].startswith(b"HELO ")


@on_uvloop
async def test_bdat_takes_one_round_trip(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(extensions=BDAT) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        body = b"Subject: dots\r\n\r\n.\r\nno line end"
        await relay.send(b"b@y.example", body, flags=FLAG_DOT_LINE | FLAG_NO_FINAL_CRLF)
        await relay.outcomes(1)
        (received,) = server.received
        assert received.message == body
        assert received.by == "BDAT"
        assert len(server.reads[0]) == 2, "EHLO, and then everything at once"


@on_uvloop
async def test_a_body_for_several_waits_for_an_accepted_recipient(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(extensions=BDAT, faults={"RCPT": b"550 5.1.1 no\r\n"}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send([b"b@y.example", b"c@y.example"], b"Subject: x\r\n\r\n.dot\r\n", flags=FLAG_DOT_LINE)
        assert {event["event"] for event in await relay.outcomes(2)} == {"failed"}
        assert not any(line.startswith(b"BDAT") for line in server.commands)


@pytest.mark.parametrize("extensions", [BDAT, [b"PIPELINING"], []])
@on_uvloop
async def test_large_bodies_arrive_whole(tmp_path: pathlib.Path, extensions: list[bytes]) -> None:
    lines = b"".join(b"." * (i % 3) + b"%06d " % i + b"x" * 60 + b"\r\n" for i in range(12_000))
    body = b"Subject: large\r\n\r\n" + lines
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(b"b@y.example", body, flags=FLAG_DOT_LINE)
        await relay.send([b"b@y.example", b"c@y.example"], body, flags=FLAG_DOT_LINE)
        await relay.outcomes(3)
        assert [each.message for each in server.received] == [body, body]


@on_uvloop
async def test_a_message_that_left_memory_is_read_back(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server.port), hot_limit_octets=0) as relay,
    ):
        bodies = [b"Subject: %d\r\n\r\n" % i + b"x" * 100 * i + b"\r\n" for i in range(20)]
        for body in bodies:
            await relay.send(b"b@y.example", body)
        await relay.outcomes(20)
        assert sorted(each.message for each in server.received) == sorted(bodies)


@pytest.mark.parametrize(
    ("flags", "recipient", "extensions", "outcome", "status"),
    [
        (FLAG_8BIT | FLAG_BODY_8BITMIME, b"b@y.example", [], "failed", "5.6.3"),  # RFC 6152 §3
        (FLAG_BODY_8BITMIME, b"b@y.example", [], "delivered", None),  # declared, but 7-bit all the same
        (FLAG_8BIT, b"b@y.example", [], "delivered", None),  # never declared: passed on as it came
        (FLAG_SMTPUTF8, "ü@y.example".encode(), [b"8BITMIME"], "failed", "5.6.7"),  # RFC 6531 §3.2
        (FLAG_SMTPUTF8, b"b@y.example", [b"8BITMIME"], "delivered", None),  # no address needs it
        (FLAG_SMTPUTF8, "ü@y.example".encode(), [b"8BITMIME", b"SMTPUTF8"], "delivered", None),
        (0, b"b@y.example", [b"SIZE 10"], "failed", "5.3.4"),  # RFC 1870 §6.2
        (0, b"b@y.example", [b"SIZE 0"], "delivered", None),  # RFC 1870 §4: no limit
        (0, b"b@y.example", [b"SIZE 1000"], "delivered", None),
    ],
)
@on_uvloop
async def test_what_the_host_does_not_offer(
    *,
    tmp_path: pathlib.Path,
    flags: int,
    recipient: bytes,
    extensions: list[bytes],
    outcome: str,
    status: str | None,
) -> None:
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(recipient, flags=flags)
        (event,) = await relay.outcomes(1)
        assert event["event"] == outcome
        if status:
            assert event["status"] == status
            assert not any(line.startswith(b"MAIL") for line in server.commands)


@on_uvloop
async def test_only_the_recipients_that_need_smtputf8_fail(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        await relay.send([b"b@y.example", "ü@y.example".encode(), b"c@y.example"], flags=FLAG_SMTPUTF8)
        told = {event["to"]: event["event"] for event in await relay.outcomes(3)}
        assert told == {"b@y.example": "delivered", "ü@y.example": "failed", "c@y.example": "delivered"}
        assert [len(each.rcpts) for each in server.received] == [2]
