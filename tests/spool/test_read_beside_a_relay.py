"""Who reads a spool beside a relay takes nothing for damage that the relay was just writing, or has used again.

The story: `angarium spool ls` beside a busy relay ended with "no valid record". Its scan had met the end of what was
written, and a whole batch behind it in the part of the file that it read a moment later.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from spool_writer import SEGMENT, Written, fill

from angarium.cli.main import main
from angarium.model.errors import SpoolCorrupt
from angarium.spool import contents as contents_module
from angarium.spool.contents import Contents, StoredMessage
from angarium.spool.directory import SpoolDirectory
from angarium.spool.envelope import RecipientState, Status, build_state, encode_id
from angarium.spool.segment_file import Header, Kind, Scan, SegmentFile
from angarium.spool.shard import Shard


@pytest.fixture
def written(tmp_path: Path) -> dict[int, Written]:
    return asyncio.run(fill(tmp_path / "spool", seed=5, messages=12))


@pytest.mark.parametrize("comes_later", [True, False], ids=["just written", "damaged"])
def test_a_batch_that_is_written_while_its_segment_is_scanned(
    tmp_path: Path, written: dict[int, Written], comes_later: bool
) -> None:
    path = tmp_path / "spool" / "00" / "seg-0000.ang"
    octets = path.read_bytes()
    chosen = sorted(written)[1]         # not of the last batch: that would be a torn end
    looks = 0

    def scan(file: SegmentFile, header: Header) -> Scan:
        nonlocal looks
        looks += 1
        if looks == 1:
            # A batch begins on a sector of its own (docs/spool-format.md).
            whole = file.scan_records(header)
            entry = next(each for each in whole.entries(Kind.ENVELOPE) if each.id == chosen)
            begin, end = entry.offset // 512 * 512, (entry.end + 511) // 512 * 512
            path.write_bytes(octets[:begin] + bytes(end - begin) + octets[end:])
        found = file.scan_records(header)
        if comes_later:
            path.write_bytes(octets)
        return found

    with SpoolDirectory.open(str(tmp_path / "spool")) as spool:
        contents = Contents(spool.fd, ["00"])
        seen = {message.envelope.id for message in contents.messages(0, scan=scan)}
    if comes_later:
        assert (contents.damage, seen, looks) == ([], set(written), 2)
    else:
        assert [damage.what for damage in contents.damage] == ["no valid record"] and chosen not in seen


@pytest.mark.parametrize("comes_later", [True, False], ids=["just written", "damaged"])
def test_a_header_that_is_written_while_it_is_read(
    tmp_path: Path, written: dict[int, Written], comes_later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = contents_module._head_of
    looks = 0

    def torn(file: SegmentFile) -> Any:
        nonlocal looks
        looks += 1
        if looks == 1 or not comes_later:
            raise SpoolCorrupt("both copies of its header are damaged")
        return read(file)

    monkeypatch.setattr(contents_module, "_head_of", torn)
    with SpoolDirectory.open(str(tmp_path / "spool")) as spool:
        contents = Contents(spool.fd, ["00"])
        assert bool(contents.damage) == (not comes_later)
        assert len(list(contents.messages(0))) == (len(written) if comes_later else 0)


def test_a_segment_with_an_outcome_that_is_used_again_meanwhile_is_no_damage(tmp_path: Path) -> None:
    async def write() -> tuple[int, int]:
        with SpoolDirectory.open(str(tmp_path / "spool")) as spool:
            shard = Shard(spool.fd, "00", 0, segment_octets=SEGMENT)
            shard.attach(asyncio.get_running_loop())
            while shard.recover() is not None:
                await asyncio.sleep(0.001)
            old = await shard.append(b"a@x.example", [b"b@y.example"], b"x" * 1000)
            last = old
            while last.place[0] == old.place[0]:
                last = await shard.append(b"a@x.example", [b"b@y.example"], b"x" * 100_000)
            state = (RecipientState(Status.WAITING, 1, 1_800_000_000, 451, (4, 7, 1), b"later"),)
            outcome = shard.write_state(old.id, old.place[0], build_state(state))
            shard.close()
            await outcome
            return old.id, last.place[0]

    old_id, newer = asyncio.run(write())
    paths: dict[int, Path] = {}

    def scan(file: SegmentFile, header: Header) -> Scan:
        paths[header.serial] = path = tmp_path / "spool" / file.name
        if header.serial != newer:      # the newer one has been read: now it is used again
            paths[newer].write_bytes(path.read_bytes()[:4096] + bytes(SEGMENT - 4096))
        return file.scan_records(header)

    with SpoolDirectory.open(str(tmp_path / "spool")) as spool:
        contents = Contents(spool.fd, ["00"])
        (message,) = (each for each in contents.messages(0, scan=scan) if each.envelope.id == old_id)
    assert (contents.damage, message.state) == ([], None)


def unreadable_once(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """The first body that is asked for is not where it was; then() has happened to it."""
    read = Contents.body
    asked: list[int] = []

    def body(self: Contents, message: StoredMessage) -> list[bytes]:
        asked.append(message.envelope.id)
        if len(asked) == 1:
            then()
            raise SpoolCorrupt("segment 1 with octets of it is gone")
        return read(self, message)

    monkeypatch.setattr(Contents, "body", body)


def over(directory: Path, message_id: int, home: int) -> Callable[[], object]:
    async def settle() -> None:
        with SpoolDirectory.open(str(directory)) as spool:
            shard = Shard(spool.fd, "00", 0, segment_octets=SEGMENT)
            shard.attach(asyncio.get_running_loop())
            while shard.recover() is not None:
                await asyncio.sleep(0.001)
            shard.settle(message_id, home)
            shard.close()

    def run() -> object:
        work: Coroutine[Any, Any, None] = settle()
        return asyncio.run(work)

    return run


def test_a_message_that_is_moved_while_it_is_printed_is_printed(
    tmp_path: Path,
    written: dict[int, Written],
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    unreadable_once(monkeypatch, lambda: None)
    wanted = next(iter(written))
    monkeypatch.setattr("sys.stdout", os.fdopen(os.dup(1), "w"))
    assert main(["spool", "cat", encode_id(wanted), "--spool", str(tmp_path / "spool")]) == 0
    assert capfdbinary.readouterr().out == written[wanted].octets


@pytest.mark.parametrize("is_over", [True, False], ids=["over", "moved"])
def test_an_export_has_what_is_moved_meanwhile_and_misses_nothing_that_is_over(
    tmp_path: Path,
    written: dict[int, Written],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_over: bool,
) -> None:
    with SpoolDirectory.open(str(tmp_path / "spool")) as spool:
        first = next(iter(Contents(spool.fd, ["00"]).messages(0))).envelope.id
    end = over(tmp_path / "spool", first, written[first].home)
    unreadable_once(monkeypatch, end if is_over else lambda: None)
    done = main(["spool", "export", "--all", "--to", str(tmp_path / "mail"), "--spool", str(tmp_path / "spool")])
    said = capsys.readouterr()
    assert (done, said.err) == (0, "")
    assert (tmp_path / "mail" / f"{encode_id(first)}.eml").exists() != is_over
    assert len(list((tmp_path / "mail").glob("*.eml"))) == len(written) - is_over
