"""One map, whatever its file is, opened and looked into. When it is opened anew: map_watch.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal, Protocol, cast

import lmdb
import msgspec

from angarium.model.errors import AngariumError
from angarium.model.memory_limit import machine_octets
from angarium.recipients.tables import CdbMap, TextMap

# LMDB's own limit is 511 unless it was built with another; a longer key is in no map.
_LMDB_KEY_OCTETS: Final = 511
_READ_OCTETS: Final = 1 << 20
_PART_OF_MEMORY: Final = 4      # judged: what is read must not drive out what others need

Stamp = tuple[int, ...] | None


class MapTrouble(AngariumError):
    """A map cannot be looked into now: whoever depends on it waits (451 4.3.0)."""


class MapSource(msgspec.Struct, frozen=True):
    """ "file:/path" (text), "lmdb:/path" (a file, or a directory with data.mdb), "cdb:/path"."""

    kind: Literal["file", "lmdb", "cdb"]
    path: str

    @classmethod
    def parse(cls, text: str) -> MapSource:
        """Raises ValueError."""
        kind, _, path = text.partition(":")
        if kind not in ("file", "lmdb", "cdb") or not path.startswith("/") or "\0" in path:
            raise ValueError(f'"{text}" is none of "file:/path", "lmdb:/path", "cdb:/path"')
        return cls(cast(Literal["file", "lmdb", "cdb"], kind), path)

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}"

    @property
    def file(self) -> str:
        """Where the data is."""
        return os.path.join(self.path, "data.mdb") if self.kind == "lmdb" and os.path.isdir(self.path) else self.path

    def stamp(self) -> Stamp:
        """Changes when the map must be opened anew; None: it is not there. LMDB changes inside an open file are seen
        without: only another file in its place counts."""
        try:
            found = os.stat(self.file)
        except OSError:
            return None
        if self.kind == "lmdb":
            return (found.st_dev, found.st_ino)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Map(Protocol):
    """A map that is open."""

    def get(self, key: bytes) -> bytes | None:
        """Raises OSError, ValueError, lmdb.Error."""

    def close(self) -> None:
        """Nobody looks up any more. For a thread: of a large text map it takes its time."""


class LmdbMap:
    """An LMDB environment's unnamed database. One process may have a file open once only."""

    def __init__(self, path: str) -> None:
        """Raises lmdb.Error; ValueError: the file ends before its last page."""
        is_directory = os.path.isdir(path)
        try:
            self._environment = lmdb.open(path, subdir=is_directory, readonly=True, create=False)
        except lmdb.Error:
            # Where we may not write its lock file: then nobody writes to the map in place, either, or the operator
            # lets us.
            self._environment = lmdb.open(path, subdir=is_directory, readonly=True, create=False, lock=False)
        # LMDB maps the file: to touch a page that a copy broken off has left out would be SIGBUS, the worker's end.
        wanted = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        there = os.path.getsize(os.path.join(path, "data.mdb") if is_directory else path)
        if there < wanted:
            self._environment.close()
            raise ValueError(
                f"{path}: {there} octets of {wanted}, as of a copy that was broken off; "
                "write a whole one beside it and rename that over it"
            )

    def get(self, key: bytes) -> bytes | None:
        if not 0 < len(key) <= _LMDB_KEY_OCTETS:
            return None
        with self._environment.begin() as transaction:
            value: bytes | None = transaction.get(key)
            return value

    def close(self) -> None:
        self._environment.close()


def open_map(source: MapSource, *, folds_case: bool) -> Map:
    """Raises OSError, ValueError, lmdb.Error. Of "file" all of it is read: call it in a thread."""
    match source.kind:
        case "file":
            return TextMap.read(Path(source.path), folds_case)
        case "cdb":
            return CdbMap(Path(source.path))
        case "lmdb":
            return LmdbMap(source.path)


def read_ahead(source: MapSource) -> None:
    """Into the page cache, as far as that is a small part of memory: LMDB and CDB are looked into where the file is
    mapped, on the loop, and each page that is not in memory would hold that up for as long as the disk takes. For a
    thread."""
    octets = bytearray(_READ_OCTETS)
    try:
        with open(source.file, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size <= machine_octets() // _PART_OF_MEMORY:
                while file.readinto(octets):
                    pass
    except OSError:
        pass                                    # who opens it says what is wrong


class OpenMap:
    """A map as those who look into it hold it: what stands behind it is replaced when the file changes."""

    def __init__(self, source: MapSource, *, folds_case: bool) -> None:
        self.source = source
        self.folds_case = folds_case
        self.map: Map | None = None
        self.reason = "not loaded yet"

    def get(self, key: bytes) -> bytes | None:
        """The value; None: no such key. Raises MapTrouble."""
        if self.map is None:
            raise MapTrouble(f"{self.source}: {self.reason}")
        try:
            value = self.map.get(key)
            if value is None and self.source.kind != "file":
                value = self.map.get(key + b"\0")       # as postmap writes them
        except (OSError, ValueError, lmdb.Error) as error:
            raise MapTrouble(f"{self.source}: {error}") from None
        return value if value is None or self.source.kind == "file" else value.rstrip(b"\0")
