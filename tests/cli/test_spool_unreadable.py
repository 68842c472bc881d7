"""`angarium spool` over a disk that answers some reads with an error: what cannot be read is damage at its place, and
everything else is had."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
from relay_process import angarium
from spool_writer import SEGMENT, Written, fill
from unreadable import angarium_without

from angarium.spool.envelope import encode_id
from angarium.spool.segment_file import Kind, SegmentFile

BLOCK = 4096
HOLED = 5


@pytest.fixture
def written(tmp_path: Path) -> dict[int, Written]:
    return asyncio.run(fill(tmp_path / "spool", seed=7, messages=31, biggest=60_000))


def segment(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "00" / "seg-0000.ang"


def block_inside(path: Path, octets: bytes) -> int:
    """Offset of a block in the midst of a body."""
    part = octets[20_000:40_000]
    return (path.read_bytes().index(part) + len(part) // 2) // BLOCK * BLOCK


def ids(spool: Path) -> set[str]:
    done = angarium("spool", "ls", "--json", "--spool", str(spool))
    assert done.returncode == 0, done.stderr
    return {json.loads(line)["id"] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("number", [errno.EIO, errno.EREMOTEIO, errno.EUCLEAN, errno.EBADMSG])
def test_a_block_that_cannot_be_read_costs_what_lies_in_it(
    tmp_path: Path, written: dict[int, Written], number: int
) -> None:
    path, spool = segment(tmp_path), tmp_path / "spool"
    start = block_inside(path, max((each.octets for each in written.values()), key=len))
    words = os.strerror(number)

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return angarium_without(path, start, start + BLOCK, "spool", *words, "--spool", spool, number=number)

    checked = run("check")
    assert checked.returncode == 1, checked.stderr
    assert "00/seg-0000.ang (serial 1) offset " in checked.stdout and words in checked.stdout

    to = tmp_path / "mail"
    exported = run("export", "--all", "--to", to)
    assert exported.returncode == 1
    not_exported = {line.split()[3].rstrip(":") for line in exported.stderr.splitlines() if "not exported" in line}
    assert not_exported and words in exported.stderr
    assert {each.stem for each in to.glob("*.eml")} == ids(spool) - not_exported
    for message_id in set(written) - {each for each in written if encode_id(each) in not_exported}:
        assert (to / f"{encode_id(message_id)}.eml").read_bytes() == written[message_id].octets

    new = tmp_path / "new"
    repaired = run("repair", "--to", new)
    assert repaired.returncode == 1
    assert words in repaired.stdout
    lost = {line.split()[1].rstrip(":") for line in repaired.stdout.splitlines() if line.startswith("LOST")}
    assert lost == not_exported
    assert ids(new) == ids(spool) - not_exported
    assert all(f"message {each} cannot be read" in checked.stdout for each in not_exported)


@pytest.mark.parametrize("start", [at * BLOCK for at in (0, 1, 14, 33, 44)])
def test_whichever_block_is_lost_the_orders_come_to_an_end(
    tmp_path: Path, written: dict[int, Written], start: int
) -> None:
    path, spool = segment(tmp_path), tmp_path / "spool"
    checked = angarium_without(path, start, start + BLOCK, "spool", "check", "--json", "--spool", spool)
    assert (checked.returncode, checked.stderr) == (1, "")
    assert os.strerror(errno.EIO) in checked.stdout
    new = tmp_path / "new"
    repaired = angarium_without(path, start, start + BLOCK, "spool", "repair", "--to", new, "--spool", spool)
    saved = ids(new)
    assert len(saved) >= (0 if start == 0 else len(written) - HOLED)
    # What is over is not read by the index of the segment: nothing of worth lay there.
    if repaired.returncode == 0:
        assert saved == set(map(encode_id, written))
    else:
        assert repaired.returncode == 1 and os.strerror(errno.EIO) in repaired.stdout
    assert angarium("spool", "check", "--spool", str(new)).returncode == 0


def test_a_block_behind_the_last_record_is_told(tmp_path: Path, written: dict[int, Written]) -> None:
    """What lay there is not known: the last batch may have, which was acknowledged."""
    path, spool = segment(tmp_path), tmp_path / "spool"
    start = SEGMENT - 8 * BLOCK
    checked = angarium_without(path, start, start + 2 * BLOCK, "spool", "check", "--spool", spool)
    assert checked.returncode == 1
    wanted = f"offset {start}: cannot be read: Input/output error, {2 * BLOCK} octets"
    assert wanted in checked.stdout


def test_a_lost_first_record_leaves_the_segment(tmp_path: Path, written: dict[int, Written]) -> None:
    path, spool = segment(tmp_path), tmp_path / "spool"
    listed = angarium_without(path, BLOCK, BLOCK + 32, "spool", "ls", "--json", "--spool", spool)
    assert listed.returncode in (0, 1)
    assert len(listed.stdout.splitlines()) >= len(written) - HOLED


def test_a_lost_locator_is_told_and_costs_nothing(tmp_path: Path, written: dict[int, Written]) -> None:
    path, spool = segment(tmp_path), tmp_path / "spool"
    checked = angarium_without(path, SEGMENT - BLOCK, SEGMENT, "spool", "check", "--spool", spool)
    assert checked.returncode == 1
    assert "the locator of the footer cannot be read: Input/output error" in checked.stdout
    assert f"{len(written)} live messages" in checked.stdout


def test_a_body_of_the_last_batch_is_lost_and_no_torn_end(tmp_path: Path, written: dict[int, Written]) -> None:
    """Without an index, as after a crash. The batch was acknowledged: whose body cannot be read is named."""
    path, spool = segment(tmp_path), tmp_path / "spool"
    newest = max(each for each in written if len(written[each].octets) > 50_000)
    start = block_inside(path, written[newest].octets)
    fd = os.open(path.parent, os.O_RDONLY)
    with SegmentFile(fd, path.name) as file:
        entries = file.scan(file.header()).entries(Kind.ENVELOPE)
        end = next(each.end for each in entries if each.id == newest)
    os.close(fd)
    # Nothing is behind its envelope, which is behind its body.
    octets = path.read_bytes()
    path.write_bytes(octets[:end] + bytes(len(octets) - end))
    words = ("spool", "repair", "--to", tmp_path / "new", "--spool", spool)
    repaired = angarium_without(path, start, start + BLOCK, *words)
    assert repaired.returncode == 1
    assert f"LOST     {encode_id(newest)}: " in repaired.stdout, repaired.stdout
