"""A file that several share: who sets it aside, when it is damaged, and what becomes of what others have begun."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from angarium.model.sqlite_file import SqliteFile

SCHEMA = "CREATE TABLE IF NOT EXISTS word (text TEXT)"
WAL = ("journal_mode = WAL", "synchronous = NORMAL")
DAMAGED = sqlite3.DatabaseError("file is not a database")


def shared(path: Path, pragmas: tuple[str, ...] = WAL) -> SqliteFile:
    return SqliteFile(str(path), SCHEMA, 1, busy_s=2.0, pragmas=pragmas)


def put(file: SqliteFile, text: str) -> None:
    with file.transaction() as database:
        database.execute("INSERT INTO word VALUES (?)", (text,))


def words(file: SqliteFile) -> list[str]:
    return [text for (text,) in file.open().execute("SELECT text FROM word ORDER BY rowid")]


@pytest.mark.parametrize("pragmas", [WAL, ()], ids=["wal", "journal"])
def test_who_finds_the_damage_late_leaves_the_new_file_alone(tmp_path: Path, pragmas: tuple[str, ...]) -> None:
    path = tmp_path / "f"
    first, second = shared(path, pragmas), shared(path, pragmas)
    put(first, "old")
    assert words(second) == ["old"]
    first.failed(DAMAGED)
    put(first, "new")
    second.failed(DAMAGED)
    assert words(second) == words(first) == ["new"]
    first.close()
    second.close()
    again = shared(path)
    assert words(again) == ["new"]
    again.close()


def test_a_log_of_the_damaged_file_is_no_log_of_the_new_one(tmp_path: Path) -> None:
    file = shared(tmp_path / "f")
    put(file, "old")
    assert (tmp_path / "f-wal").exists()
    file.failed(DAMAGED)
    assert sorted(os.listdir(tmp_path)) == ["f.damaged"]
    assert words(file) == []
    file.close()


def test_what_was_set_aside_by_others_is_not_written_any_more(tmp_path: Path) -> None:
    """A process whose pages are all in memory would never see the damage, and all that it wrote would be lost."""
    first, second = shared(tmp_path / "f"), shared(tmp_path / "f")
    put(first, "old")
    put(second, "old")
    first.failed(DAMAGED)
    put(second, "new")
    assert words(first) == ["new"]
    first.close()
    second.close()


def test_a_busy_file_is_not_at_fault(tmp_path: Path) -> None:
    file, other = SqliteFile(str(tmp_path / "f"), SCHEMA, 1, busy_s=0.01, pragmas=WAL), shared(tmp_path / "f")
    put(other, "kept")
    file.open()
    with other.transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
        put(file, "late")
    put(file, "next")
    assert words(other) == ["kept", "next"]
    file.close()
    other.close()


def test_opening_a_file_drops_no_lock_that_this_process_holds_on_it(tmp_path: Path) -> None:
    """POSIX locks go when any descriptor of the file is closed: another process would then take away the log."""
    first = shared(tmp_path / "f")
    put(first, "one")
    second = shared(tmp_path / "f")
    second.open()
    child = os.fork()
    if child == 0:
        last = sqlite3.connect(tmp_path / "f")
        last.execute("SELECT * FROM word").fetchall()
        last.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "f-wal").exists()
    second.close()
    first.close()


def test_a_file_of_a_later_version_stays_as_it_is(tmp_path: Path) -> None:
    later = SqliteFile(str(tmp_path / "f"), SCHEMA, 2, busy_s=2.0)
    put(later, "x")
    later.close()
    file = shared(tmp_path / "f")
    with pytest.raises(sqlite3.OperationalError, match="later version: 2"):
        put(file, "y")
    assert words(later) == ["x"]
    later.close()
