"""Free space and inodes of the spool's file system against the marks, with a file system made up."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from angarium.events.journal import Journal
from angarium.spool.watermark import Watermark, free_octets_gauge, is_low_gauge

MIB = 1 << 20


@dataclass
class Room:
    free_mib: float = 1000.0
    f_favail: int = 100_000
    f_files: int = 1_000_000
    f_frsize: int = 4096
    error: int = 0

    @property
    def f_bavail(self) -> int:
        return int(self.free_mib * MIB) // self.f_frsize


class Watched:
    """A Watermark over a Room; `told` is what it has said."""

    def __init__(self, folder: Path, **marks: int) -> None:
        self.room = Room()
        self.told: list[bool] = []
        self.loop = asyncio.new_event_loop()
        self._path = folder / "journal"
        self._fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._journal = Journal(self._fd)
        marks = {"min_free_octets": 256 * MIB, "min_free_inodes": 1000, **marks}
        self.spare_octets = 0
        self.watermark = Watermark(
            self.loop,
            self._journal,
            7,
            self.told.append,
            spare_octets=lambda: self.spare_octets,
            look=self._look,
            **marks,
        )

    def _look(self, fd: int) -> Room:
        assert fd == 7
        if self.room.error:
            raise OSError(self.room.error, os.strerror(self.room.error))
        return self.room

    def with_free(self, mib: float = 1000.0, inodes: int = 100_000) -> list[bool]:
        """Looks with so much free; what it has said so far."""
        self.room.free_mib, self.room.f_favail = mib, inodes
        self.watermark.judge()
        return self.told

    def events(self) -> list[dict[str, Any]]:
        self._journal.flush()
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def close(self) -> None:
        self.loop.close()
        os.close(self._fd)


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    each = Watched(tmp_path)
    yield each
    each.close()


def test_below_the_mark_it_is_low_and_an_eighth_above_it_is_over(watched: Watched) -> None:
    assert watched.with_free(256) == []
    assert watched.with_free(255.9) == [True]
    assert watched.with_free(256) == [True], "at the mark it would change its mind every second"
    assert watched.with_free(287.9) == [True]
    assert watched.with_free(288) == [True, False]
    assert watched.with_free(257) == [True, False], "and then the mark itself counts again"


def test_files_kept_for_reuse_are_as_good_as_free_space(watched: Watched) -> None:
    """Once a spool that had filled a small file system, and was empty again, refused mail for the space that its own
    spare files took."""
    assert watched.with_free(1) == [True]
    watched.spare_octets = 286 * MIB
    assert watched.with_free(1) == [True]
    watched.spare_octets = 287 * MIB
    assert watched.with_free(1) == [True, False]
    assert [event["spare_octets"] for event in watched.events()] == [0, 287 * MIB]


def test_inodes_count_as_well(watched: Watched) -> None:
    assert watched.with_free(inodes=1000) == []
    assert watched.with_free(inodes=999) == [True]
    assert watched.with_free(inodes=1124) == [True]
    assert watched.with_free(inodes=1125) == [True, False]


def test_both_must_have_recovered(watched: Watched) -> None:
    assert watched.with_free(mib=1, inodes=1) == [True]
    assert watched.with_free(inodes=1) == [True]
    assert watched.with_free(mib=1) == [True]
    assert watched.with_free() == [True, False]


def test_a_file_system_that_counts_no_inodes_is_not_judged_by_them(watched: Watched) -> None:
    watched.room.f_files = 0  # btrfs
    assert watched.with_free(inodes=0) == []
    assert watched.with_free(mib=1, inodes=0) == [True]
    assert watched.with_free(inodes=0) == [True, False]


def test_without_marks_nothing_is_low(tmp_path: Path) -> None:
    watched = Watched(tmp_path, min_free_octets=0, min_free_inodes=0)
    assert watched.with_free(mib=0, inodes=0) == []
    watched.close()


def test_a_reload_moves_the_marks(watched: Watched) -> None:
    watched.watermark.set_marks(2000 * MIB, 0)
    assert watched.with_free() == [True]
    watched.watermark.set_marks(0, 0)
    assert watched.with_free() == [True, False]


def test_a_file_system_that_cannot_be_asked_changes_nothing(watched: Watched) -> None:
    watched.with_free(mib=1)
    watched.room.error = errno.EIO
    assert watched.with_free(mib=1000) == [True]
    watched.room.error = 0
    assert watched.with_free(mib=1000) == [True, False]


def test_the_operator_is_told_once_for_each_change(watched: Watched) -> None:
    for mib in (1000, 10, 9, 8, 1000, 1000):
        watched.with_free(mib)
        assert (is_low_gauge.of_row(0), free_octets_gauge.of_row(0)) == (int(mib < 256), mib * MIB)
    events = [(each["event"], each["free_octets"], each["free_inodes"]) for each in watched.events()]
    assert events == [("spool-low", 10 * MIB, 100_000), ("spool-recovered", 1000 * MIB, 100_000)]


def test_it_looks_by_itself_from_start_to_stop(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angarium.spool.watermark.LOOK_S", 0.001)
    watched.room.free_mib = 1

    async def until_it_is_over() -> None:
        watched.watermark.start()
        assert watched.told == [True], "before any mail comes in"
        watched.room.free_mib = 1000
        async with asyncio.timeout(10):
            while watched.told != [True, False]:
                await asyncio.sleep(0.001)
        watched.watermark.stop()
        watched.room.free_mib = 1
        await asyncio.sleep(0.02)
        assert watched.told == [True, False]

    watched.loop.run_until_complete(until_it_is_over())
