"""A record at another's place has a right checksum, and is still not what was asked for.

The story: a block that a disk wrote to the wrong place put a message's octets over another's of the same length.
Checksum, salt and length were right, and the wrong mail would have been delivered.
"""

import asyncio
import os
from pathlib import Path

import pytest

from angarium.model.errors import SpoolCorrupt
from angarium.spool.shard import Shard, Stored


def move_record(directory: Path, source: Stored, target: Stored) -> None:
    """Copies one body record over another of the same length in the same segment."""
    (_, start, length), (_, end, _) = source.body_place or source.place, target.body_place or target.place
    (file,) = [each for each in (directory / "00").glob("seg-*") if each.read_bytes()[4096:8192].strip(b"\0")]
    with file.open("r+b") as segment:
        segment.seek(start)
        record = segment.read(32 + length)
        segment.seek(end)
        segment.write(record)


def test_another_messages_octets_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        shard = Shard(directory, "00", 0, segment_octets=1 << 20)
        os.close(directory)
        shard.attach(asyncio.get_running_loop())
        mine = await shard.append(b"a@x", [b"b@y"], b"for b only")
        other = await shard.append(b"a@x", [b"c@y"], b"for c only")
        move_record(tmp_path, mine, other)
        assert other.body_place is not None and mine.body_place is not None
        assert await shard.fetch(*mine.body_place, body_of=mine.id) == b"for b only"
        with pytest.raises(SpoolCorrupt):
            await shard.fetch(*other.body_place, body_of=other.id)
        shard.close()

    asyncio.run(main())


def test_another_run_of_the_same_message_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        shard = Shard(directory, "00", 0, segment_octets=1 << 20)
        os.close(directory)
        shard.attach(asyncio.get_running_loop())
        message_id = shard.new_id()
        first = await shard.append_body(message_id, 0, b"first run ")
        second = await shard.append_body(message_id, 10, b"second run")
        move_record(tmp_path, first, second)
        assert await shard.fetch(*first.place, body_of=message_id) == b"first run "
        with pytest.raises(SpoolCorrupt):
            await shard.fetch(*second.place, body_of=message_id, run_offset=10)
        shard.close()

    asyncio.run(main())
