"""What a host refuses or fails to say, command by command: for whom it counts, and what of the rest arrives."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from outbound.fault_server import CLOSE, RESET, SILENCE, Fault, fault_server
from outbound.outgoing import BDAT, ONE_CONNECTION, on_uvloop, outgoing, to_here, until

VERBS = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "END"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "fault",
    [
        b"451 4.3.0 later\r\n",
        b"421 4.3.2 closing\r\n",
        CLOSE,
        RESET,
        b"garbage\r\n",
        b"250 ok\n",
        b"354 go\r\n",
    ],
)
@on_uvloop
async def test_a_passing_fault_defers_once_and_everything_else_arrives(
    tmp_path: pathlib.Path, verb: str, fault: Fault
) -> None:
    """Whatever goes wrong once, at whatever command: one deferral at most, and no other message suffers."""
    if verb == "DATA" and fault == b"354 go\r\n":
        pytest.skip("that is no fault")
    faults: list[Fault] = [None, None, None, fault] if verb in ("MAIL", "RCPT", "DATA", "END") else [fault]
    async with (
        fault_server(faults={verb: faults}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(8)))
        outcomes = await relay.outcomes(8)
        kinds = [event["event"] for event in outcomes]
        if verb in ("greeting", "EHLO"):
            assert set(kinds) <= {"deferred", "delivered"}
            return
        expected_deferrals = 0 if fault == b"421 4.3.2 closing\r\n" and verb != "END" else 1
        if fault in (CLOSE, RESET) and verb == "MAIL":
            expected_deferrals = 0  # the connection had served before: its end says nothing of this message
        assert kinds.count("deferred") == expected_deferrals, outcomes
        assert kinds.count("delivered") == 8 - expected_deferrals
        for event in outcomes:
            if event["event"] == "deferred":
                assert event["status"].startswith("4."), event
        delivered = {event["to"].encode() for event in outcomes if event["event"] == "delivered"}
        received = {rcpt[9:-1] for each in server.received for rcpt in each.rcpts}
        assert delivered <= received


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "END"])
@pytest.mark.parametrize("extensions", [BDAT, [b"PIPELINING"], []])
@on_uvloop
async def test_a_refusal_fails_that_message_alone(
    tmp_path: pathlib.Path, verb: str, extensions: list[bytes]
) -> None:
    if verb == "DATA" and b"CHUNKING" in extensions:
        pytest.skip("no DATA there")
    faults: dict[str, Any] = {verb: [None, b"554 5.7.1 not this one\r\n"]}
    async with (
        fault_server(faults=faults, extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(6)))
        outcomes = await relay.outcomes(6)
        failed = [event for event in outcomes if event["event"] == "failed"]
        assert len(failed) == 1
        assert failed[0]["status"] == "5.7.1"
        assert failed[0]["code"] == 554
        assert len([event for event in outcomes if event["event"] == "delivered"]) == 5
        assert server.connections == 1, "a refusal does not cost the connection"


@on_uvloop
async def test_too_many_recipients_go_in_the_next_transaction(tmp_path: pathlib.Path) -> None:
    count = 0

    def ten_at_most(line: bytes) -> Fault:
        nonlocal count
        count += 1
        return b"452 4.5.3 too many recipients\r\n" if count > 10 else None

    def begin(line: bytes) -> Fault:
        nonlocal count
        count = 0
        return None

    async with (
        fault_server(faults={"RCPT": ten_at_most, "MAIL": begin}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send([b"r%d@y.example" % i for i in range(35)])
        assert {event["event"] for event in await relay.outcomes(35)} == {"delivered"}
        assert [len(each.rcpts) for each in server.received] == [10, 10, 10, 5]


@on_uvloop
async def test_some_recipients_refused_some_deferred_some_delivered(tmp_path: pathlib.Path) -> None:
    def by_name(line: bytes) -> Fault:
        if b"bad" in line:
            return b"550 5.1.1 no such mailbox\r\n"
        return b"450 mailbox busy\r\n" if b"busy" in line else None

    async with (
        fault_server(faults={"RCPT": by_name}) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send([b"bad@y.example", b"good@y.example", b"busy@y.example", b"fine@y.example"])
        told = {event["to"]: (event["event"], event.get("status")) for event in await relay.outcomes(4)}
        assert told["bad@y.example"] == ("failed", "5.1.1")
        assert told["busy@y.example"] == ("deferred", "4.2.0")
        assert told["good@y.example"][0] == told["fine@y.example"][0] == "delivered"
        classes = {event["to"]: event.get("class") for event in relay.events("delivered", "deferred", "failed")}
        assert (classes["bad@y.example"], classes["busy@y.example"]) == ("bad-mailbox", "mailbox-trouble")
        assert classes["good@y.example"] is classes["fine@y.example"] is None


@on_uvloop
async def test_a_full_mailbox_among_others_is_not_taken_for_too_many_recipients(tmp_path: pathlib.Path) -> None:
    def by_name(line: bytes) -> Fault:
        return b"452 4.2.2 over quota\r\n" if b"full" in line else None

    async with (
        fault_server(faults={"RCPT": by_name}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send([b"a@y.example", b"full@y.example", b"c@y.example"])
        told = {event["to"]: (event["event"], event.get("class")) for event in await relay.outcomes(3)}
        assert told["full@y.example"] == ("deferred", "mailbox-full")
        assert sum(b"full" in command for command in server.commands) == 1


@pytest.mark.parametrize("fault", [b"503 5.5.1 nested MAIL\r\n", b"452 4.5.3 too many messages, open another\r\n"])
@pytest.mark.parametrize("extensions", [[b"PIPELINING"], [b"PIPELINING", b"CHUNKING"], []])
@on_uvloop
async def test_a_connection_that_takes_no_more_mail_is_left_for_another_without_an_attempt(
    tmp_path: pathlib.Path, fault: bytes, extensions: list[bytes]
) -> None:
    mails = 0

    def second_of_each(line: bytes) -> Fault:
        nonlocal mails
        mails += 1
        return fault if mails % 2 == 0 else None

    async with (
        fault_server(faults={"MAIL": second_of_each}, extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send([b"r%d@y.example" % i, b"s%d@y.example" % i]) for i in range(6)))
        outcomes = await relay.outcomes(12)
        assert {(event["event"], event["attempt"]) for event in outcomes} == {("delivered", 1)}
        assert len(server.received) == 6
        assert server.connections > 1


@pytest.mark.parametrize("verb", ["MAIL", "END"])
@on_uvloop
async def test_silence_ends_with_the_deadline_of_the_command(tmp_path: pathlib.Path, verb: str) -> None:
    async with (
        fault_server(faults={verb: SILENCE}) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(b"b@y.example")
        await until(
            lambda: (
                any(line.startswith(b"DATA") for line in server.commands)
                or (verb == "MAIL" and any(line.startswith(b"MAIL") for line in server.commands))
            )
        )
        relay.wheel.advance_by_ms(290_000)
        assert not relay.events("deferred")
        relay.wheel.advance_by_ms(320_000)
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.4.2")
        assert "timed out at" in event["reply"]


@on_uvloop
async def test_a_reply_octet_by_octet_does_not_move_the_deadline(tmp_path: pathlib.Path) -> None:
    """RFC 5321 §4.5.3.2 gives five minutes for the reply to MAIL, not five minutes for each octet of it."""
    dribbled = 0

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dribbled
        writer.write(b"220 slow\r\n")
        await reader.readline()
        writer.write(b"250-slow\r\n250 PIPELINING\r\n")
        await reader.readline()
        for octet in b"250-this reply takes its time and takes its time and never ends":
            writer.write(bytes([octet]))
            dribbled += 1
            await asyncio.sleep(0.02)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    async with outgoing(tmp_path, to_here(server.sockets[0].getsockname()[1])) as relay:
        await relay.send(b"b@y.example")
        for count in range(1, 21):
            await until(lambda count=count: dribbled >= count or relay.events("deferred"))
            relay.wheel.advance_by_ms(20_000)
        (event,) = await relay.outcomes(1)
        assert event["event"] == "deferred"
        assert event["reply"].startswith("timed out at MAIL")
    server.close()
