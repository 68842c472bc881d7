"""Random damage to a spool that the real shard wrote. Whatever is broken: check, repair and recovery come to an end
without an exception, and every octet given out is what was stored: a message is whole or absent.

ANGARIUM_DAMAGE_ROUNDS says how often each kind of harm is done, each time to another spool, from the seed
ANGARIUM_DAMAGE_SEED on: `make damage` takes two hundred of each.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from spool_writer import SEGMENT, Written, fill, move_some

from angarium.model.errors import SpoolCorrupt, SpoolError
from angarium.spool.contents import Contents
from angarium.spool.directory import SpoolDirectory
from angarium.spool.envelope import Envelope, Flag, encode_id
from angarium.spool.notice import Notice, NoticeKind
from angarium.spool.salvage import Salvaged, salvage
from angarium.spool.shard import Shard
from angarium.spool.verification import Verification, verify

BLOCK = 512
ROUNDS = int(os.environ.get("ANGARIUM_DAMAGE_ROUNDS", "6"))
SEED = int(os.environ.get("ANGARIUM_DAMAGE_SEED", "0"))


def segments(spool: Path) -> list[Path]:
    return sorted(spool.glob("00/seg-*.ang"))


def used(octets: bytes) -> int:
    """Most damage goes where records are."""
    return max(8192, len(octets[: SEGMENT - 4096].rstrip(b"\0")))


def flip_bits(spool: Path, chance: random.Random) -> None:
    file = chance.choice(segments(spool))
    octets = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 5, 50))):
        octets[chance.randrange(used(octets))] ^= 1 << chance.randrange(8)
    file.write_bytes(octets)


def zero_blocks(spool: Path, chance: random.Random) -> None:
    file = chance.choice(segments(spool))
    octets = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 4))):
        start = chance.randrange(used(octets) // BLOCK) * BLOCK
        length = BLOCK * chance.choice((1, 8))
        octets[start : start + length] = bytes(length)
    file.write_bytes(octets[:SEGMENT].ljust(SEGMENT, b"\0"))


def repeat_blocks(spool: Path, chance: random.Random) -> None:
    """A block written to the wrong place, of the same file or of another one."""
    source, target = chance.choice(segments(spool)), chance.choice(segments(spool))
    taken, octets = source.read_bytes(), bytearray(target.read_bytes())
    for _ in range(chance.choice((1, 10))):
        length = BLOCK * chance.choice((1, 2, 8, 64))
        start = chance.randrange(used(taken) // BLOCK) * BLOCK
        end = chance.randrange(used(octets) // BLOCK) * BLOCK
        octets[end : end + length] = taken[start : start + length]
    target.write_bytes(octets[:SEGMENT].ljust(SEGMENT, b"\0"))


def swap_segments(spool: Path, chance: random.Random) -> None:
    """Two files' names, or their headers."""
    if len(segments(spool)) < 2:
        return
    first, second = chance.sample(segments(spool), 2)
    a, b = first.read_bytes(), second.read_bytes()
    at = chance.choice((SEGMENT, 4096, 2048))
    first.write_bytes(b[:at] + a[at:])
    second.write_bytes(a[:at] + b[at:])


def truncate(spool: Path, chance: random.Random) -> None:
    file = chance.choice(segments(spool))
    os.truncate(file, chance.randrange(used(file.read_bytes())))


def lose_header(spool: Path, chance: random.Random) -> None:
    """Both copies, as a page of zeros does."""
    if len(segments(spool)) < 2:
        return
    with chance.choice(segments(spool)).open("r+b") as file:
        file.write(bytes(4096 * chance.choice((1, 4))))


def lose_end(spool: Path, chance: random.Random) -> None:
    """Of the file, behind all records but the index of a sealed segment."""
    os.truncate(chance.choice(segments(spool)), SEGMENT - BLOCK * chance.choice((1, 2)))


HARM: list[Callable[[Path, random.Random], None]] = [
    flip_bits, zero_blocks, repeat_blocks, swap_segments, truncate, lose_header, lose_end,
]  # fmt: skip


async def recover(spool: Path) -> tuple[dict[int, tuple[Envelope, bytes | None]], list[Notice]]:
    """What the relay would load, with the body of each (None: refused), and what it reported."""
    root = os.open(spool, os.O_RDONLY)
    shard = Shard(root, "00", 0, segment_octets=SEGMENT)
    os.close(root)
    shard.attach(asyncio.get_running_loop())
    found: dict[int, tuple[Envelope, bytes | None]] = {}
    notices: list[Notice] = []
    while (some := shard.recover()) is not None:
        for message in some:
            envelope = Envelope.parse(message.envelope)
            body, position = b"", 0
            try:
                for chunk in envelope.chunks:
                    place = (chunk.segment_serial, chunk.offset, chunk.length)
                    body += await shard.fetch(*place, body_of=envelope.id, run_offset=position)
                    position += chunk.length
                found[message.id] = (envelope, body)
            except SpoolError:
                found[message.id] = (envelope, None)
        notices += shard.notices()
        await asyncio.sleep(0.001)
    notices += shard.notices()
    shard.close()
    return found, notices


def assert_whole(envelope: Envelope, octets: bytes, written: dict[int, Written]) -> None:
    """A settled message may come back when what said so is damaged; then `written` does not know it."""
    if envelope.id in written:
        assert octets == written[envelope.id].octets
        assert envelope.recipients == written[envelope.id].envelope.recipients
        assert envelope.reverse_path == written[envelope.id].envelope.reverse_path


def check(spool: Path) -> Verification:
    with SpoolDirectory.open_beside_owner(str(spool)) as opened:
        return verify(opened.fd, ["00"], lambda segment: True)


def repair(spool: Path, target: Path) -> Salvaged:
    async def main() -> Salvaged:
        with SpoolDirectory.open_beside_owner(str(spool)) as source, SpoolDirectory.open(str(target)) as new:
            return await salvage(source, new, segment_octets=SEGMENT)

    return asyncio.run(main())


def bodies(spool: Path) -> dict[int, tuple[Envelope, bytes]]:
    with SpoolDirectory.open_beside_owner(str(spool)) as opened:
        contents = Contents(opened.fd, ["00"])
        return {
            message.envelope.id: (message.envelope, b"".join(contents.body(message)))
            for message in contents.messages(0)
        }


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_a_message_is_whole_or_absent(harm: Callable[[Path, random.Random], None], seed: int, tmp_path: Path) -> None:
    chance = random.Random(f"{harm.__name__} {seed}")
    written = asyncio.run(fill(tmp_path / "spool", seed, 60, biggest=chance.choice((300, 60_000)), streamed=3))
    if seed % 2:
        asyncio.run(move_some(tmp_path / "spool", seed, written))
    everything = bodies(tmp_path / "spool")
    assert everything.keys() == written.keys()
    harm(tmp_path / "spool", chance)

    found = check(tmp_path / "spool")
    saved = repair(tmp_path / "spool", tmp_path / "new")
    for envelope, octets in bodies(tmp_path / "new").values():
        assert_whole(envelope, octets, written)
    assert check(tmp_path / "new").damage == []
    present = set(bodies(tmp_path / "new")) & set(written)
    if present != set(written):
        assert found.damage and (saved.lost or saved.damage), "what is missing was told"

    recovered, notices = asyncio.run(recover(tmp_path / "spool"))
    for envelope, body in recovered.values():
        if body is not None:
            assert_whole(envelope, body, written)
    whole = {message_id for message_id, (_, body) in recovered.items() if body is not None}
    assert whole & set(written) <= present, "repair saves whatever recovery finds"
    if harm is lose_end:
        assert whole >= set(written), "what is there is served"
    if not whole >= set(written) and harm is not swap_segments:     # records of another salt are a file used before
        assert notices, "what is missing was told"


def test_of_a_damaged_copy_and_its_original_the_original_is_saved(tmp_path: Path) -> None:
    """The tools took the younger one, whose octets were lost, and told the message for lost; the relay had it."""
    body = b"Subject: moved\r\n\r\ntwice on disk\r\n"

    async def write() -> int:
        with SpoolDirectory.open(str(tmp_path / "spool")) as spool:
            shard = Shard(spool.fd, "00", 0, segment_octets=SEGMENT)
            shard.attach(asyncio.get_running_loop())
            stored = await shard.append(b"a@x.example", [b"b@y.example"], body)
            shard.close()
            shard = Shard(spool.fd, "00", 0, segment_octets=SEGMENT)
            shard.attach(asyncio.get_running_loop())
            while (some := shard.recover()) is not None:
                for message in some:
                    envelope = Envelope.parse(message.envelope)
                    flags = envelope.flags | Flag.COPY
                    await shard.store(msgspec.structs.replace(envelope, flags=flags, chunks=()).build(), body)
                await asyncio.sleep(0.001)
            await shard.append(b"a@x.example", [b"c@y.example"], b"behind it\r\n")
            shard.close()
        return stored.id

    victim = asyncio.run(write())
    _, younger = segments(tmp_path / "spool")
    octets = bytearray(younger.read_bytes())
    octets[-4096:] = bytes(4096)  # never sealed: a start scans it, and sees the damage
    octets[octets.index(body)] ^= 1
    younger.write_bytes(octets)
    assert check(tmp_path / "spool").damage
    assert repair(tmp_path / "spool", tmp_path / "new").lost == []
    assert bodies(tmp_path / "new")[victim][1] == body
    recovered, _ = asyncio.run(recover(tmp_path / "spool"))  # last: it says durably that the copy is over
    assert recovered[victim][1] == body


def test_damage_in_the_middle_is_told_with_its_place_and_set_aside(tmp_path: Path) -> None:
    """In a segment without a footer, as a crash leaves it; what lies before and behind is served."""
    written = asyncio.run(fill(tmp_path / "spool", 5, 20, biggest=300, streamed=0))
    (file,) = segments(tmp_path / "spool")
    octets = bytearray(file.read_bytes())
    octets[-4096:] = bytes(4096)
    victim = sorted(bodies(tmp_path / "spool"))[1]
    (chunk,) = bodies(tmp_path / "spool")[victim][0].chunks
    octets[chunk.offset + 40] ^= 1
    file.write_bytes(octets)

    damage = check(tmp_path / "spool").damage
    assert {(each.segment, each.serial, each.offset) for each in damage} >= {("00/seg-0000.ang", 1, chunk.offset)}
    recovered, notices = asyncio.run(recover(tmp_path / "spool"))
    assert {key for key, (_, body) in recovered.items() if body is not None} == set(written) - {victim}
    (told,) = (each for each in notices if each.kind == NoticeKind.DAMAGED)
    assert (told.serial, told.offset) == (1, chunk.offset)
    assert f"segment 1 offset {chunk.offset}: {told.octets} damaged octets" in told.text
    assert [each.serial for each in notices if each.kind == NoticeKind.UNREAD] == [1], "the segment stays"
    assert not [each for each in notices if each.kind == NoticeKind.TORN]
    aside = (tmp_path / "spool" / "00" / "damaged" / f"1-{chunk.offset}.bin").read_bytes()
    assert aside == octets[chunk.offset : chunk.offset + told.octets]
    assert len(aside) >= chunk.length
    saved = repair(tmp_path / "spool", tmp_path / "new")
    assert set(bodies(tmp_path / "new")) == set(written) - {victim}
    assert [each[0] for each in saved.lost] and saved.damage


def test_a_torn_end_is_no_damage(tmp_path: Path) -> None:
    written = asyncio.run(fill(tmp_path / "spool", 6, 8, biggest=300, streamed=0))
    (file,) = segments(tmp_path / "spool")
    octets = bytearray(file.read_bytes())
    octets[-4096:] = bytes(4096)  # never sealed
    footer = bytes(octets).rfind(b"AngR")
    octets[footer + 34] ^= 1  # and its last write cut short
    file.write_bytes(octets)
    found = check(tmp_path / "spool")
    assert found.damage == []
    (report,) = (each for each in found.segments if not each.is_free)
    assert (report.torn_pieces, report.is_sealed) == (1, False)
    assert found.message_count == len(written)
    recovered, (notice,) = asyncio.run(recover(tmp_path / "spool"))
    assert set(recovered) == set(written)
    assert (notice.kind, notice.serial, notice.offset) == (NoticeKind.TORN, 1, footer)
    # A disk that has lost it since leaves the same behind: so it is kept, as damage is.
    kept = tmp_path / "spool" / "00" / "damaged" / f"1-{footer}.bin"
    assert kept.read_bytes() == octets[footer : footer + notice.octets]
    assert notice.octets > 32


def test_what_a_crash_left_of_a_kept_piece_is_written_anew(tmp_path: Path) -> None:
    """Killed between the name and the octets: nothing, or half of it, is no copy of what is damaged."""
    asyncio.run(fill(tmp_path / "spool", 6, 8, biggest=300, streamed=0))
    (file,) = segments(tmp_path / "spool")
    octets = bytearray(file.read_bytes())
    octets[-4096:] = bytes(4096)
    octets[4096 + 40] ^= 1  # in the first record
    file.write_bytes(octets)
    _, notices = asyncio.run(recover(tmp_path / "spool"))
    (notice,) = (each for each in notices if each.kind == NoticeKind.DAMAGED)
    kept = tmp_path / "spool" / "00" / "damaged" / f"1-{notice.offset}.bin"
    whole = kept.read_bytes()
    assert whole == octets[notice.offset : notice.offset + notice.octets]
    for left in (b"", whole[:20], bytes(len(whole))):
        kept.write_bytes(left)
        asyncio.run(recover(tmp_path / "spool"))
        assert kept.read_bytes() == whole
    kept.write_bytes(whole + b"more")  # of a longer extent that another start met
    asyncio.run(recover(tmp_path / "spool"))
    assert kept.read_bytes() == whole + b"more"


def test_octets_of_another_message_are_never_given_out_for_it(tmp_path: Path) -> None:
    """A body record copied over another of the same length: its checksum is right."""
    written = asyncio.run(fill(tmp_path / "spool", 9, 40, biggest=100, streamed=0))
    found = bodies(tmp_path / "spool")
    same: dict[int, list[int]] = {}
    for message_id, (envelope, _) in found.items():
        same.setdefault(envelope.message_octets, []).append(message_id)
    first, second = next(ids for ids in same.values() if len(ids) > 1)[:2]
    (source,), (target,) = found[first][0].chunks, found[second][0].chunks
    (file,) = segments(tmp_path / "spool")
    octets = bytearray(file.read_bytes())
    record = octets[source.offset : source.offset + 32 + source.length]
    octets[target.offset : target.offset + len(record)] = record
    file.write_bytes(octets)
    assert any("cannot be read" in each.what for each in check(tmp_path / "spool").damage)
    saved = repair(tmp_path / "spool", tmp_path / "new")
    assert len(saved.lost) == 1
    assert set(bodies(tmp_path / "new")) == set(written) - {second}
    with pytest.raises(SpoolCorrupt), SpoolDirectory.open_beside_owner(str(tmp_path / "spool")) as opened:
        contents = Contents(opened.fd, ["00"])
        for message in contents.messages(0):
            contents.body(message)
    recovered, _ = asyncio.run(recover(tmp_path / "spool"))
    assert recovered[second][1] is None


def test_a_run_of_a_streamed_message_is_never_given_out_for_another_run(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "spool", 11, 3, biggest=100, streamed=3))
    found = bodies(tmp_path / "spool")
    victim, (envelope, _) = next(iter(found.items()))
    first, second = envelope.chunks[:2]
    (file,) = segments(tmp_path / "spool")
    octets = bytearray(file.read_bytes())
    record = octets[first.offset : first.offset + 32 + first.length]
    octets[second.offset : second.offset + len(record)] = record
    file.write_bytes(octets)
    (damage,) = check(tmp_path / "spool").damage
    assert "another record lies there" in damage.what
    assert [lost[0] for lost in repair(tmp_path / "spool", tmp_path / "new").lost] == [encode_id(victim)]
    recovered, _ = asyncio.run(recover(tmp_path / "spool"))
    assert recovered[victim][1] is None
