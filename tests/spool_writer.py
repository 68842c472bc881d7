"""A spool made by the real shard, with every kind of thing in it, for those who read it from outside.

    written = asyncio.run(fill(path, seed=1, messages=40))     # the spool is closed then, as after a clean stop
    written[id].octets, .envelope, .states
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec

from angarium.spool.directory import SpoolDirectory, shard_name
from angarium.spool.envelope import Chunk, Envelope, Flag, Recipient, RecipientState, Status, build_state
from angarium.spool.shard import Shard, Stored

SEGMENT = 1 << 20


class Written(msgspec.Struct):
    """What a live message must read as. states: None when nothing was said."""

    envelope: Envelope
    octets: bytes
    states: tuple[RecipientState, ...] | None
    home: int


async def fill(
    path: Path, seed: int = 0, messages: int = 30, shards: int = 1, *, biggest: int = 5000, streamed: int = 1
) -> dict[int, Written]:
    """Messages of all sizes, some streamed in chunks, with outcomes for some and about half of them settled. Returns
    the live ones. move_some() goes on from there.
    """
    chance = random.Random(seed)
    live: dict[int, Written] = {}
    with SpoolDirectory.open(str(path)) as spool:
        for number in range(shards):
            shard = Shard(spool.fd, shard_name(number), number, segment_octets=SEGMENT, spare_segments=1)
            shard.attach(asyncio.get_running_loop())
            while shard.recover() is not None:
                await asyncio.sleep(0.001)
            outcomes: list[asyncio.Future[Stored]] = []
            for count in range(messages):
                written = await put(shard, chance, biggest, outcomes, is_streamed=count < streamed)
                live[written.envelope.id] = written
                if chance.random() < 0.5:
                    gone = chance.choice([each for each in live.values() if each.envelope.id >> 56 == number])
                    del live[gone.envelope.id]
                    serials = [chunk.segment_serial for chunk in gone.envelope.chunks]
                    shard.settle(gone.envelope.id, gone.home, None, serials)
            shard.close()
            await asyncio.gather(*outcomes)
    return live


async def move_some(path: Path, seed: int, live: dict[int, Written]) -> None:
    """Has about half of what lives in shard 0 moved into a new segment as a compaction would, with chunks and outcomes;
    of some the word that the old copy is over is left out, as by a crash.
    """
    chance = random.Random(seed)
    with SpoolDirectory.open(str(path)) as spool:
        shard = Shard(spool.fd, shard_name(0), 0, segment_octets=SEGMENT, spare_segments=1)
        shard.attach(asyncio.get_running_loop())
        state_homes: dict[int, int | None] = {}
        while (some := shard.recover()) is not None:
            state_homes.update((message.id, message.state_serial) for message in some)
            await asyncio.sleep(0.001)
        for message_id in chance.sample(sorted(live), len(live) // 2):
            written = live[message_id]
            old, position, chunks = written.envelope, 0, []
            for chunk in () if Flag.INLINE in old.flags else old.chunks:
                part = written.octets[position : position + chunk.length]
                chunks.append(Chunk(*(await shard.append_body(message_id, position, part)).place))
                position += chunk.length
            flags = Flag.COPY | (Flag.COPY_FIRST if written.states else Flag(0))
            copy = msgspec.structs.replace(old, flags=old.flags | flags, chunks=tuple(chunks))
            stored = await shard.store(copy.build(), None if chunks else written.octets)
            if written.states:
                await shard.write_state(message_id, stored.place[0], build_state(written.states))
            if chance.random() < 0.8:
                serials = [chunk.segment_serial for chunk in old.chunks if chunks]
                shard.settle(message_id, written.home, state_homes[message_id], serials)
            written.envelope, written.home = copy, stored.place[0]
        shard.close()


async def put(
    shard: Shard, chance: random.Random, biggest: int, outcomes: list[asyncio.Future[Stored]], *, is_streamed: bool
) -> Written:
    """One message with random parameters, and perhaps outcomes, which become durable later."""
    message_id = shard.new_id()
    octets = text(chance, chance.choice((1, 100, biggest)))
    recipients = tuple(
        Recipient(path, chance.choice((b"", b"rfc822;" + path)), chance.choice((0, 2, 6)), path.rfind(b"@") + 1)
        for path in (b"u%d@y.example" % number for number in range(chance.choice((1, 1, 3))))
    )
    chunks = []
    if is_streamed:
        octets = text(chance, 3 * 40_000)
        for start in range(0, len(octets), 40_000):
            part = octets[start : start + 40_000]
            chunks.append(Chunk(*(await shard.append_body(message_id, start, part)).place))
    envelope = Envelope(
        id=message_id,
        received_utc_ms=1_700_000_000_000 + chance.randrange(1000),
        message_octets=len(octets),
        flags=Flag(0) if is_streamed else Flag.INLINE,
        reverse_path=chance.choice((b"", b"a@x.example")),
        envid=chance.choice((b"", b"QQ%d" % chance.randrange(99))),
        helo=b"client.example",
        client_address=b"192.0.2.1",
        listener=b"[::]:25",
        recipients=recipients,
        chunks=tuple(chunks),
    )
    stored = await shard.store(envelope.build(), None if is_streamed else octets)
    states = None
    for attempt in range(chance.choice((0, 0, 1, 2))):
        states = tuple(
            RecipientState(
                chance.choice((Status.WAITING, Status.DELIVERED)), attempt + 1, 1_800_000_000, 451, (4, 7, 1), b"later"
            )
            for _ in recipients
        )
        outcomes.append(shard.write_state(message_id, stored.place[0], build_state(states)))
    return Written(envelope, octets, states, stored.place[0])


def text(chance: random.Random, octets: int) -> bytes:
    """So many octets of lines."""
    return (b"%016x" % chance.getrandbits(64) + bytes(chance.choices(b"abc .", k=octets)))[: max(octets, 16)] + b"\r\n"
