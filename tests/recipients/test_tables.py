"""Text maps and constant databases, read by others' eyes: the C tests know the spellings."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import lmdb
import pytest

from angarium.recipients.tables import CdbMap, TextMap


def write_cdb(path: Path, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """The format as cdb.txt tells it."""
    tables: list[list[tuple[int, int]]] = [[] for _ in range(256)]
    body = bytearray(2048)
    for key, value in pairs:
        hash_ = 5381
        for octet in key:
            hash_ = (hash_ * 33 & 0xFFFFFFFF) ^ octet
        tables[hash_ & 255].append((hash_, len(body)))
        body += struct.pack("<II", len(key), len(value)) + key + value
    for number, table in enumerate(tables):
        slots = [(0, 0)] * (2 * len(table))
        for hash_, at in table:
            slot = (hash_ >> 8) % len(slots)
            while slots[slot][1]:
                slot = (slot + 1) % len(slots)
            slots[slot] = (hash_, at)
        struct.pack_into("<II", body, number * 8, len(body), len(slots))
        for entry in slots:
            body += struct.pack("<II", *entry)
    path.write_bytes(body)


def test_a_text_map_is_read(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("Bob@Y.example: carol@y.example,\n  dave@y.example\neve\n")
    found = TextMap.read(path, True)
    assert (len(found), found.get(b"eve"), found.get(b"nobody")) == (2, b"", None)
    assert found.get(b"bob@y.example") == b"carol@y.example,   dave@y.example"
    assert TextMap.read(path, False).get(b"Bob@y.example") is not None


def test_an_empty_file_is_an_empty_map(tmp_path: Path) -> None:
    (tmp_path / "map").touch()
    assert TextMap.read(tmp_path / "map", True).get(b"a") is None


def test_a_text_map_with_a_nul_or_none_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map").write_bytes(b"a\nb\0c\n")
    with pytest.raises(ValueError, match="line 2: NUL octet"):
        TextMap.read(tmp_path / "map", True)
    with pytest.raises(OSError):
        TextMap.read(tmp_path / "none", True)


def test_a_constant_database_gives_the_first_value(tmp_path: Path) -> None:
    path = tmp_path / "map.cdb"
    pairs = [(b"u%d@x.example" % number, b"v%d" % number) for number in range(3000)]
    write_cdb(path, [*pairs, (b"u7@x.example", b"second"), (b"k" * 2000, b"long"), (b"", b"empty")])
    found = CdbMap(path)
    assert all(found.get(key) == value for key, value in pairs)
    assert (found.get(b"k" * 2000), found.get(b"")) == (b"long", b"empty")
    assert found.get(b"u3000@x.example") is None


@pytest.mark.parametrize("cut", [0, 2047])
def test_what_is_too_short_is_no_constant_database(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "map.cdb"
    write_cdb(path, [(b"a", b"b")])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="not a constant database"):
        CdbMap(path)


def test_a_damaged_constant_database_is_an_error_and_never_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "map.cdb"
    write_cdb(path, [(b"a", b"b"), (b"c", b"d")])
    whole = path.read_bytes()
    outcomes = set()
    for at in range(0, len(whole)):
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        for key in (b"a", b"c"):
            try:
                outcomes.add(CdbMap(path).get(key))
            except ValueError:
                outcomes.add(b"refused")
    assert b"refused" in outcomes and b"b" in outcomes
    path.write_bytes(whole)
    found = CdbMap(path)
    path.write_bytes(whole[:2048])          # shortened under our eyes
    with pytest.raises(ValueError, match="not a sound"):
        found.get(b"a")


def test_a_walk_through_a_damaged_constant_database_of_gigabytes_ends(tmp_path: Path) -> None:
    """One word of the header makes a table of all the file, with no free slot for a long way: the loop stood still."""
    path, key, slots = tmp_path / "map.cdb", b"bob@x.example", 200_000_000
    hash_ = 5381
    for octet in key:
        hash_ = (hash_ * 33 & 0xFFFFFFFF) ^ octet
    begin = 2048 + (hash_ >> 8) % slots * 8
    with path.open("wb") as made:
        made.write(struct.pack("<II", 2048, slots) * 256)
        made.truncate(2048 + slots * 8)
        made.seek(begin)
        made.write(struct.pack("<II", 1, 1) * (1 << 16))
    with pytest.raises(ValueError, match="not a sound"):
        CdbMap(path).get(key)
    with path.open("r+b") as made:
        made.seek(begin + 8 * 60_000)
        made.write(bytes(8))
    assert CdbMap(path).get(key) is None            # full, and sound


@pytest.mark.parametrize("at", [0, 100, 4096, 8192, 20_000, 300_000, -4096])
def test_an_lmdb_map_whose_copy_was_broken_off_is_refused_and_ends_no_worker(tmp_path: Path, at: int) -> None:
    """In a process of its own: LMDB maps the file, so that a page behind its end was SIGBUS."""
    path = tmp_path / "map.lmdb"
    with lmdb.open(str(path), subdir=False, map_size=1 << 24, sync=False) as made, made.begin(write=True) as put:
        for number in range(5000):
            put.put(b"u%d@x.example" % number, b"v" * 50)
    whole = path.read_bytes()
    assert looked_up(path) == "5000"
    path.write_bytes(whole[:at])
    said = looked_up(path)
    assert said.startswith("refused: ") and str(path) in said
    assert "as of a copy that was broken off" in said or 0 <= at <= 4096


def looked_up(path: Path) -> str:
    """How many of 5,000 keys are found, or why none is."""
    program = f"""
import lmdb
from angarium.recipients.maps import LmdbMap
try:
    found = LmdbMap({str(path)!r})
    print(sum(found.get(b"u%d@x.example" % number) is not None for number in range(5000)))
except (OSError, ValueError, lmdb.Error) as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.strip()
