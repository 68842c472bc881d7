"""Text maps and constant databases, read by others' eyes: the C tests know the spellings."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

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
