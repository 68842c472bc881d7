"""A next hop that fails at a command that carries no message, or inside a chunk: whom it costs what, row by row.

test_faults.py has the same for greeting, EHLO, MAIL, RCPT, DATA and the end of data. We send a message as one chunk,
BDAT n LAST; its beginning, its middle and its end are three places where the host may fail.
"""

from __future__ import annotations

import pathlib
from typing import Any

import msgspec
import pytest
from outbound.fault_server import CLOSE, RESET, SILENCE, Fault, FaultServer, fault_server
from outbound.outgoing import (
    BDAT,
    FLAG_DOT_LINE,
    ONE_CONNECTION,
    Outgoing,
    on_uvloop,
    outgoing,
    smtp_site,
    to_here,
    until,
)
from outbound.test_streaming import CHUNK, long_message, recover, store

from angarium.metrics.counters import registry
from angarium.outbound.options import OutboundOptions
from angarium.queue.shaping_options import ShapingOptions

LATER = b"451 4.3.0 later\r\n"
NEVER = b"554 5.3.0 never\r\n"
CLOSING = b"421 4.3.2 closing\r\n"
GARBAGE = b"garbage\r\n"
FAULTS: list[Fault] = [LATER, NEVER, CLOSING, GARBAGE, CLOSE, RESET, SILENCE]
NAMES = ["451", "554", "421", "garbage", "close", "reset", "silence"]
DELIVERED = ("delivered", 1, None)
(LOST_CONNECTIONS,) = (each for each in registry() if each.name == "angarium_outbound_connections_lost_total")


def told(event: dict[str, Any]) -> tuple[str, int, str | None]:
    status = None if event["event"] == "delivered" else event["status"]
    return event["event"], event["attempt"], status


async def let_deadlines_pass(relay: Outgoing, server: FaultServer, verb: bytes, deadline_ms: int) -> None:
    """Once the host has the command and is silent."""
    await until(lambda: any(line.startswith(verb) for line in server.commands))
    relay.wheel.advance_by_ms(deadline_ms)


# ---- HELO, after a refused EHLO


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
@on_uvloop
async def test_a_host_that_fails_at_helo_costs_no_mail_where_there_is_another(
    tmp_path: pathlib.Path, fault: Fault
) -> None:
    """RFC 5321 §5.1: no mail was tried there, whatever it said. The next host takes it: that is the first attempt."""
    async with (
        fault_server(extensions=None, faults={"HELO": fault}) as broken,
        fault_server() as sound,
        outgoing(tmp_path, {b"*": smtp_site(broken.port, sound.port)}, shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send(b"b@y.example")
        if fault == SILENCE:
            await let_deadlines_pass(relay, broken, b"HELO", 300_100)
        (event,) = await relay.outcomes(1)
        assert told(event) == DELIVERED
        assert [line[:4] for line in broken.commands][:2] == [b"EHLO", b"HELO"]
        assert len(sound.received) == 1
        assert not broken.received


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (LATER, "4.3.0"),
        (NEVER, "4.3.0"),           # its mood, and no word about the mail
        (CLOSING, "4.3.2"),
        (GARBAGE, "4.5.0"),
        (CLOSE, "4.4.2"),
        (RESET, "4.4.2"),
        (SILENCE, "4.4.2"),
    ],
    ids=NAMES,
)
@on_uvloop
async def test_the_only_host_failing_at_helo_defers_and_never_fails_mail(
    tmp_path: pathlib.Path, fault: Fault, status: str
) -> None:
    async with (
        fault_server(extensions=None, faults={"HELO": [fault]}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send(b"b@y.example")
        if fault == SILENCE:
            await let_deadlines_pass(relay, server, b"HELO", 300_100)
        (event,) = await relay.outcomes(1)
        assert told(event) == ("deferred", 1, status)
        await relay.send(b"c@y.example")            # the host is back
        assert told((await relay.outcomes(2))[1]) == DELIVERED
        assert [each.rcpts for each in server.received] == [[b"RCPT TO:<c@y.example>"]]


# ---- RSET, before the next message


class Reset(msgspec.Struct, frozen=True):
    """outcome: of the message behind RSET."""

    fault: Fault
    outcome: tuple[str, int, str | None]
    reason: str


RESETS = [
    Reset(LATER, DELIVERED, "the connection is of no use; of the message nothing was said"),
    Reset(NEVER, DELIVERED, "likewise"),
    Reset(CLOSING, DELIVERED, "enough of the connection, not of the message"),
    Reset(CLOSE, DELIVERED, "likewise"),
    Reset(RESET, DELIVERED, "likewise"),
    Reset(GARBAGE, ("deferred", 1, "4.5.0"), "no SMTP: as behind any other command"),
    Reset(SILENCE, ("deferred", 1, "4.4.2"), "five minutes are gone: the host is in trouble"),
]


@pytest.mark.parametrize("extensions", [[b"PIPELINING"], []], ids=["pipelined", "stepwise"])
@pytest.mark.parametrize("row", RESETS, ids=["451", "554", "421", "close", "reset", "garbage", "silence"])
@on_uvloop
async def test_a_fault_at_rset_is_of_no_message(tmp_path: pathlib.Path, row: Reset, extensions: list[bytes]) -> None:
    def by_name(line: bytes) -> Fault:
        return b"550 5.1.1 nobody\r\n" if b"nobody" in line else None

    async with (
        fault_server(faults={"RCPT": by_name, "RSET": [row.fault]}, extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send(b"first@y.example")
        await relay.send(b"nobody@y.example")
        await relay.send(b"next@y.example")
        if row.fault == SILENCE:
            await let_deadlines_pass(relay, server, b"RSET", 300_100)
        found = {event["to"]: told(event) for event in await relay.outcomes(3)}
        assert found == {
            "first@y.example": DELIVERED,
            "nobody@y.example": ("failed", 1, "5.1.1"),
            "next@y.example": row.outcome,
        }, row.reason
        arrived = sorted(rcpt for each in server.received for rcpt in each.rcpts)
        assert arrived == [b"RCPT TO:<first@y.example>"] + [b"RCPT TO:<next@y.example>"] * (row.outcome == DELIVERED)
        assert server.connections == 1 + (row.outcome == DELIVERED)


# ---- QUIT, behind the last message


@pytest.mark.parametrize("is_long_idle", [False, True], ids=["behind a message", "when idle"])
@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
@on_uvloop
async def test_a_fault_at_quit_is_nobodys_trouble(tmp_path: pathlib.Path, fault: Fault, is_long_idle: bool) -> None:
    """All is delivered by then. Nothing is sent again, nothing counts against the host, the window stays as it is."""
    per_connection = 0 if is_long_idle else 1
    shaping = ShapingOptions(connections=4, messages_per_connection=per_connection)
    lost = LOST_CONNECTIONS.value
    async with (
        fault_server(faults={"QUIT": fault}) as server,
        outgoing(
            tmp_path, to_here(server.port), shaping=shaping, options=OutboundOptions(window_first=4)
        ) as relay,
    ):
        for number in range(4):
            await relay.send(b"r%d@y.example" % number)
        outcomes = await relay.outcomes(4)
        if is_long_idle:
            relay.wheel.advance_by_ms(5_100)        # idle_time
        await until(lambda: server.quits)
        if fault == SILENCE:
            await until(lambda: server.quits == server.connections)
            relay.wheel.advance_by_ms(5_100)        # politeness has its price
        await until(lambda: not relay.dispatcher.connections())
        assert [told(event) for event in await relay.outcomes(4)] == [DELIVERED] * 4
        assert sorted(rcpt for each in server.received for rcpt in each.rcpts) == sorted(
            b"RCPT TO:<%b>" % event["to"].encode() for event in outcomes
        )
        assert LOST_CONNECTIONS.value == lost
        assert relay.dispatcher.status()[0]["window"] == 4
        await relay.send(b"after@y.example")        # nor is the host left alone for it
        assert told((await relay.outcomes(5))[4]) == DELIVERED


# ---- BDAT


class Chunk(msgspec.Struct, frozen=True):
    """place: before the chunk, in its middle, behind it. short: what becomes of a message whose chunk leaves in one
    write; long: of one that is still under way."""

    place: str
    fault: Fault
    short: tuple[str, str]
    long: tuple[str, str]


PLACES = [("BDAT", "first"), ("CHUNK", "middle"), ("END", "last")]
LOST = ("deferred", "4.4.2")
CHUNKS = [
    # Who answers while octets of the chunk are due may mean anything: only to wait is safe.
    *(Chunk(place, LATER, ("deferred", "4.3.0"), ("deferred", "4.5.0")) for place in ("BDAT", "CHUNK")),
    *(Chunk(place, NEVER, ("failed", "5.3.0"), ("deferred", "4.5.0")) for place in ("BDAT", "CHUNK")),
    Chunk("END", LATER, ("deferred", "4.3.0"), ("deferred", "4.3.0")),
    Chunk("END", NEVER, ("failed", "5.3.0"), ("failed", "5.3.0")),
    *(Chunk(place, CLOSING, ("deferred", "4.3.2"), ("deferred", "4.3.2")) for place, _ in PLACES),
    *(Chunk(place, GARBAGE, ("deferred", "4.5.0"), ("deferred", "4.5.0")) for place, _ in PLACES),
    *(Chunk(place, fault, LOST, LOST) for fault in (CLOSE, RESET, SILENCE) for place, _ in PLACES),
]


def name_of(row: Chunk) -> str:
    return f"{dict(PLACES)[row.place]}-{NAMES[FAULTS.index(row.fault)]}"


@pytest.mark.parametrize("extensions", [BDAT, [b"CHUNKING"]], ids=["pipelined", "stepwise"])
@pytest.mark.parametrize("row", CHUNKS, ids=name_of)
@on_uvloop
async def test_a_fault_at_a_short_chunk(tmp_path: pathlib.Path, row: Chunk, extensions: list[bytes]) -> None:
    await check_chunk(tmp_path, row, extensions, row.short, b"Subject: short\r\n\r\nHello\r\n.\r\nYou\r\n")


@pytest.mark.parametrize("row", CHUNKS, ids=name_of)
@on_uvloop
async def test_a_fault_at_a_long_chunk(tmp_path: pathlib.Path, row: Chunk) -> None:
    """Longer than what lies in the buffers between us: the host fails while we still write."""
    await check_chunk(tmp_path, row, BDAT, row.long, long_message(20_000_000))


async def check_chunk(
    tmp_path: pathlib.Path, row: Chunk, extensions: list[bytes], expected: tuple[str, str], body: bytes
) -> None:
    await store(tmp_path, body, [b"struck@y.example"], CHUNK, FLAG_DOT_LINE)
    async with (
        fault_server(faults={row.place: [row.fault]}, extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await recover(relay)
        if row.fault == SILENCE:
            await until(lambda: server.struck, 20)
            relay.wheel.advance_by_ms(600_100)
        (event,) = await relay.outcomes(1)
        assert told(event) == (expected[0], 1, expected[1])
        await relay.send(b"next@y.example")
        assert told((await relay.outcomes(2))[1]) == DELIVERED
        assert [each.rcpts for each in server.received] == [[b"RCPT TO:<next@y.example>"]]
