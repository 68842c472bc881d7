"""How spool-v1-moved.tar.gz was made, by the shard of its day: what compaction writes, in every state that a crash can
leave it in, and all that an envelope can carry. What must be read from it stands in spool-v1-moved.json, written from
what was put in here and looked through. A later version of the format makes a set of its own; this one stays as it is.

    PYTHONPATH=src:tests .venv/bin/python -m golden.make_moved NAME     # NAME.tar.gz and NAME.json

Four segments: each but the last is sealed by a clean stop, the last has no footer, as a crash leaves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from angarium.spool.archive import ExportedMessage
from angarium.spool.contents import Segment, StoredMessage
from angarium.spool.envelope import (
    Attribute,
    Chunk,
    Envelope,
    Flag,
    Recipient,
    RecipientState,
    Status,
    build_state,
)
from angarium.spool.segment_file import Header
from angarium.spool.shard import Shard

SEGMENT = 1 << 20
NOWHERE = Segment("", Header(1, True, 0, 0, 0, 0, 0, 0, 0))  # what is wanted of a message names no place
PLAIN = Flag(0)
LATER_UTC_S = 4_102_444_800

EVERY_ATTRIBUTE = (
    (Attribute.HOLD_UNTIL, b"4102444800;F3600"),
    (Attribute.DELIVER_BY, b"4102448400;RT"),
    (Attribute.PRIORITY, b"-9"),
    (Attribute.TENANT, b"tenant one"),
    (Attribute.CAMPAIGN, "kampagne größe".encode()),
    (Attribute.ROUTE, b"smtp://relay.example:2525"),
    (Attribute.POOL, b"marketing"),
    (Attribute.IDENTITY, b"user@x.example"),
    (Attribute.SOLICIT, b"net.example:ADV,org.example:ADV:ADLT"),
)
OF_A_LATER_VERSION = ((Attribute.TENANT, b"t2"), (4242, b"text \xff of a later version"), (Attribute.TENANT, b"not me"))
TRIED = RecipientState(Status.WAITING, 3, LATER_UTC_S, 451, (4, 7, 1), b"later", b"mx.y.example")
DELIVERED = RecipientState(Status.DELIVERED, 1, 0, 250, (2, 0, 0), b"ok", b"mx.y.example")


class Message:
    """One that the set must be read as, wherever its newest copy lies."""

    def __init__(
        self, shard: Shard, octets: bytes, flags: Flag, attributes: tuple[tuple[int, bytes], ...] = ()
    ) -> None:
        self.id = shard.new_id()
        self.octets = octets
        self.flags = flags
        self.attributes = attributes
        self.states: tuple[RecipientState, ...] | None = None
        self.home = 0
        self.state_home: int | None = None
        self.chunk_homes: list[int] = []

    def envelope(self, flags: Flag, chunks: tuple[Chunk, ...] = ()) -> Envelope:
        paths = (b"b@y.example", b"c@z.example")
        return Envelope(
            id=self.id,
            received_utc_ms=1_700_000_000_123,
            message_octets=len(self.octets),
            flags=self.flags | flags | (Flag(0) if chunks else Flag.INLINE),
            reverse_path=b"a@x.example",
            envid=b"QQ1",
            helo=b"client.example",
            client_address=b"192.0.2.1",
            listener=b"[::]:25",
            recipients=tuple(Recipient(path, b"rfc822;" + path, 6, path.rfind(b"@") + 1) for path in paths),
            chunks=chunks,
            attributes=self.attributes,
        )

    async def store(self, shard: Shard, flags: Flag = PLAIN, pieces: int = 0) -> None:
        """A copy of it, whole or in so many pieces."""
        size = -(-len(self.octets) // pieces) if pieces else 0
        chunks = []
        for start in range(0, len(self.octets) if pieces else 0, size or 1):
            stored = await shard.append_body(self.id, start, self.octets[start : start + size])
            chunks.append(Chunk(*stored.place))
        envelope = self.envelope(flags, tuple(chunks))
        stored = await shard.store(envelope.build(), None if pieces else self.octets)
        self.home = stored.place[0]
        self.chunk_homes = [chunk.segment_serial for chunk in chunks]

    async def tell(self, shard: Shard, *states: RecipientState) -> None:
        self.states = states
        stored = await shard.write_state(self.id, self.home, build_state(states), self.state_home)
        self.state_home = stored.place[0]

    async def move(self, shard: Shard, pieces: int = 0) -> None:
        """As the compaction does, to its end: a copy, its outcome behind it, and the word that the old one is over."""
        home, state_home, chunk_homes, states = self.home, self.state_home, self.chunk_homes, self.states
        await self.store(shard, Flag.COPY | (Flag.COPY_FIRST if states else Flag(0)), pieces)
        self.state_home = None
        if states:
            await self.tell(shard, *states)
        shard.settle(self.id, home, state_home, chunk_homes)

    def end(self, shard: Shard) -> None:
        shard.settle(self.id, self.home, self.state_home, self.chunk_homes)

    def expectation(self) -> dict[str, object]:
        stored = StoredMessage(NOWHERE, 0, self.envelope(Flag(0)), self.states)
        octets = self.octets.decode("utf-8", "surrogateescape")
        return {"message": msgspec.to_builtins(ExportedMessage.of(stored)), "octets": octets}


@contextlib.asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Shard]:
    """What is written lies in a segment of its own."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, "00", 0, segment_octets=SEGMENT, spare_segments=0)
    os.close(fd)
    shard.attach(asyncio.get_running_loop())
    while shard.recover() is not None:
        await asyncio.sleep(0.001)
    try:
        yield shard
    finally:
        shard.close()


async def fill(root: Path) -> list[Message]:
    """Those that are live at the end."""
    async with opened(root) as shard:  # segment 1
        every = Message(
            shard, b"Subject: every attribute\r\n\r\n.x\r\n", Flag.REQUIRETLS | Flag.DOT_LINE, EVERY_ATTRIBUTE
        )
        binary = Message(
            shard,
            b"Subject: binary\r\n\r\n" + bytes(range(256)) * 3,
            Flag.BINARYMIME | Flag.EIGHT_BIT | Flag.NO_FINAL_CRLF,
        )
        given_up = Message(shard, b"Subject: given up\r\n\r\ncopy freed\r\n", Flag.TLS_OPTIONAL, OF_A_LATER_VERSION)
        cut_short = Message(shard, b"Subject: cut short\r\n\r\nold copy\r\n", Flag.TLS_OPTIONAL)
        stays = Message(shard, b"Subject: stays\r\n\r\noutcome elsewhere\r\n", Flag(0))
        twice = Message(shard, b"Subject: twice\r\n\r\nthree homes\r\n", Flag.REQUIRETLS | Flag.TLS_OPTIONAL)
        both = Message(shard, b"Subject: both\r\n\r\ntwo copies, none freed\r\n", Flag(0), EVERY_ATTRIBUTE[3:5])
        ended = Message(shard, b"Subject: ended\r\n\r\nmoved, then over\r\n", Flag.REQUIRETLS)
        for each in (every, given_up, cut_short, stays, twice, both, ended):
            await each.store(shard)
        await binary.store(shard, pieces=3)
        await every.tell(shard, TRIED, DELIVERED)
        await cut_short.tell(shard, TRIED, TRIED)
        await twice.tell(shard, DELIVERED, TRIED)
    async with opened(root) as shard:  # segment 2
        for each in (every, twice, ended):
            await each.move(shard)
        await binary.move(shard, pieces=3)
        await stays.tell(shard, TRIED, RecipientState())
        # A copy that was given up: a next hop took the message meanwhile.
        home = given_up.home
        await given_up.store(shard, Flag.COPY)
        shard.settle(given_up.id, given_up.home)
        given_up.home = home
    async with opened(root) as shard:  # segment 3
        await twice.move(shard)
        ended.end(shard)
        await stays.tell(shard, DELIVERED, TRIED)
        await given_up.tell(shard, TRIED, DELIVERED)
    async with opened(root) as shard:  # segment 4: the crash
        await both.store(shard, Flag.COPY)
        await binary.tell(shard, DELIVERED, TRIED)
        await cut_short.store(shard, Flag.COPY | Flag.COPY_FIRST)  # its outcome did not get there
        shutil.copytree(root / "00", root / "crashed")
    shutil.rmtree(root / "00")
    (root / "crashed").rename(root / "00")
    (root / "00" / "lock").unlink()
    return [every, binary, given_up, cut_short, stays, twice, both]


def pack(root: Path) -> bytes:
    """Always the same octets for the same files."""
    octets = io.BytesIO()
    with tarfile.open(fileobj=octets, mode="w") as archive:
        for path in sorted((root / "00").glob("seg-*.ang")):
            member = tarfile.TarInfo(f"00/{path.name}")
            member.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(member, file)
    return gzip.compress(octets.getvalue(), mtime=0)


def main() -> None:
    name = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as root:
        live = asyncio.run(fill(Path(root)))
        name.with_suffix(".tar.gz").write_bytes(pack(Path(root)))
    wanted = [each.expectation() for each in live]
    name.with_suffix(".json").write_text(json.dumps(wanted, indent=1) + "\n")


if __name__ == "__main__":
    main()
