"""Messages that lie in the spool in several chunks leave it chunk by chunk."""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import resource

import pytest
from outbound.fault_server import CLOSE, Fault, fault_server
from outbound.outgoing import (
    BDAT,
    FLAG_DOT_LINE,
    FLAG_NO_FINAL_CRLF,
    ONE_CONNECTION,
    Outgoing,
    on_uvloop,
    outgoing,
    smtp_site,
    until,
)

from angarium.model.plan import Site
from angarium.queue import recovery
from angarium.spool.shard import Shard

CHUNK = 256 * 1024


def long_message(octets: int, ending: bytes = b"\r\n") -> bytes:
    """Lines with dots where chunks are cut, so that stuffing has to know how the last chunk ended."""
    chance = random.Random(octets)
    lines = [b"Subject: long\r\n", b"\r\n"]
    length = 17
    while length < min(octets, 1_000_000):
        line = b"." * chance.randrange(3) + b"%x" % chance.getrandbits(4 * chance.randrange(1, 60)) + b"\r\n"
        lines.append(line)
        length += len(line)
    body = b"".join(lines)
    body *= -(-octets // len(body))
    return body[: body.rindex(b"\r\n", 0, octets)] + ending


async def store(
    directory: pathlib.Path, body: bytes, recipients: list[bytes], cut: int, flags: int = 0
) -> None:
    """A message in chunks of `cut` octets, as a streaming session writes it, in a shard nobody serves yet."""
    directory_fd = os.open(directory, os.O_RDONLY)
    shard = Shard(directory_fd, "00", 0, segment_octets=8 << 20)
    shard.attach(asyncio.get_running_loop())
    message_id = shard.new_id()
    stored = [
        await shard.append_body(message_id, start, body[start : start + cut])
        for start in range(0, len(body), cut)
    ]
    await shard.append(
        b"a@x.example",
        recipients,
        None,
        chunks=[each.place for each in stored],
        message_id=message_id,
        flags=flags,
    )
    shard.close()
    os.close(directory_fd)


async def recover(relay: Outgoing) -> None:
    while recovery.recover(relay.scheduler, relay.shard) >= 0:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("extensions", [BDAT, [b"PIPELINING"], []])
@pytest.mark.parametrize("cut", [CHUNK, 100_001, 65_536])
@on_uvloop
async def test_chunks_become_one_message(tmp_path: pathlib.Path, extensions: list[bytes], cut: int) -> None:
    body = long_message(1_500_000)
    await store(tmp_path, body, [b"b@y.example", b"c@y.example"], cut, FLAG_DOT_LINE)
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, {b"*": smtp_site(server.port)}, shaping=ONE_CONNECTION) as relay,
    ):
        await recover(relay)
        await relay.send(b"after@y.example")
        assert {event["event"] for event in await relay.outcomes(3)} == {"delivered"}
        assert body in [each.message for each in server.received]
        await until(lambda: relay.scheduler.depth()["messages"] == 0)


@on_uvloop
async def test_a_message_without_last_line_end_gets_one_for_data(tmp_path: pathlib.Path) -> None:
    body = long_message(600_000, b"")
    await store(tmp_path, body, [b"b@y.example"], CHUNK, FLAG_DOT_LINE | FLAG_NO_FINAL_CRLF)
    async with fault_server() as server, outgoing(tmp_path, {b"*": smtp_site(server.port)}) as relay:
        await recover(relay)
        await relay.outcomes(1)
        assert server.received[0].message == body + b"\r\n"


@on_uvloop
async def test_memory_stays_small_while_the_peer_is_slow(tmp_path: pathlib.Path) -> None:
    """At most two chunks are held, however long the message and however slow the peer."""
    body = long_message(40_000_000)
    await store(tmp_path, body, [b"b@y.example"], CHUNK)
    length = len(body)
    del body
    seen = 0
    most_buffered = 0
    done = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        writer.write(b"220 slow\r\n")
        await reader.readline()
        writer.write(b"250-slow\r\n250 PIPELINING\r\n")
        for _ in range(3):
            await reader.readline()
        writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
        tail = b""
        while not tail.endswith(b"\r\n.\r\n"):
            data = await reader.read(1 << 17)
            assert data
            seen += len(data)
            tail = (tail + data)[-5:]
        writer.write(b"250 ok\r\n")
        await reader.readline()
        writer.close()
        done.set()

    server = await asyncio.start_server(slow, "127.0.0.1", 0, limit=1 << 16)
    port = server.sockets[0].getsockname()[1]
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with outgoing(tmp_path, {b"*": smtp_site(port)}) as relay:
        await recover(relay)
        (event,) = await relay.outcomes(1, timeout_s=25)
        assert event["event"] == "delivered"
        most_buffered = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert seen >= length
    assert most_buffered < 16_000, f"{most_buffered} KiB more for a message of {length} octets"
    server.close()


@pytest.mark.parametrize("fault", [CLOSE, b"421 4.3.2 closing\r\n", b"552 5.3.4 too big\r\n"])
@on_uvloop
async def test_a_fault_at_the_end_of_a_long_message(tmp_path: pathlib.Path, fault: Fault) -> None:
    await store(tmp_path, long_message(1_000_000), [b"b@y.example"], CHUNK)
    async with (
        fault_server(faults={"END": [fault]}) as server,
        outgoing(tmp_path, {b"*": smtp_site(server.port)}) as relay,
    ):
        await recover(relay)
        (event,) = await relay.outcomes(1)
        assert event["event"] == ("failed" if isinstance(fault, bytes) and fault[:1] == b"5" else "deferred")


@on_uvloop
async def test_a_peer_that_goes_away_in_mid_message(tmp_path: pathlib.Path) -> None:
    await store(tmp_path, long_message(20_000_000), [b"b@y.example"], CHUNK)

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 brief\r\n")
        await reader.readline()
        writer.write(b"250-brief\r\n250 PIPELINING\r\n")
        await reader.readline()
        writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
        await reader.readexactly(3_000_000)
        writer.transport.abort()

    server = await asyncio.start_server(leave, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with outgoing(tmp_path, {b"*": smtp_site(port)}) as relay:
        await recover(relay)
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.4.2")
        assert "may have been received" not in event["reply"]
    server.close()


@on_uvloop
async def test_a_damaged_chunk_is_never_sent(tmp_path: pathlib.Path) -> None:
    body = long_message(1_000_000)
    await store(tmp_path, body, [b"b@y.example"], CHUNK)
    (segment,) = [path for path in (tmp_path / "00").iterdir() if path.stat().st_size > 1_000_000]
    at = segment.read_bytes().index(body[600_000:600_100])
    with segment.open("r+b") as file:
        file.seek(at)
        file.write(b"X" * 10)
    async with fault_server() as server, outgoing(tmp_path, {b"*": smtp_site(server.port)}) as relay:
        await recover(relay)
        await relay.send(b"sound@y.example")
        told = {event["to"]: event for event in await relay.outcomes(2)}
        assert told["sound@y.example"]["event"] == "delivered"
        assert (told["b@y.example"]["event"], told["b@y.example"]["status"]) == ("deferred", "4.3.0")
        assert len(server.received) == 1


@on_uvloop
async def test_chunks_reach_a_maildir(tmp_path: pathlib.Path) -> None:
    body = long_message(1_500_000)
    await store(tmp_path, body, [b"b@y.example", b"c@y.example"], 100_001)
    path = str(tmp_path / "mail" / "{local}")
    async with outgoing(tmp_path, {b"*": Site(f"maildir:{path}", "maildir", (), path)}) as relay:
        await recover(relay)
        assert {event["event"] for event in await relay.outcomes(2)} == {"delivered"}
        for name in ("b", "c"):
            (file,) = (tmp_path / "mail" / name / "new").iterdir()
            assert file.read_bytes().partition(b"\n")[2].partition(b"\n")[2] == body.replace(b"\r\n", b"\n")
