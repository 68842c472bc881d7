"""One segment file, read and never written: for tools and tests that look into a spool from outside."""

import enum
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import msgspec

UNREADABLE: frozenset[int]
"""errno of reads that failed for what the medium or the file system has lost: damage, and not a mistake of ours."""

class Kind(enum.IntEnum):
    """spool_kind of csrc/spool/spool.h."""

    BODY = 1
    ENVELOPE = 2
    OUTCOME = 3
    FREED = 4
    FOOTER = 5

class Header(msgspec.Struct, frozen=True):
    """The header that counts: the valid copy with the higher generation (docs/spool-format.md)."""

    version: int
    is_live: bool
    shard: int
    salt: int
    serial: int
    incarnation: int
    segment_octets: int
    created_utc_s: int
    generation: int

class Entry(msgspec.Struct, frozen=True, gc=False):
    """Where a record is: offset of its header in the segment, octets of its payload, message id, kind."""

    offset: int
    length: int
    id: int
    kind: int
    @property
    def end(self) -> int:
        """Behind its padding."""

class Scan:
    """The records of a segment by rising offset, as csrc/spool/scan.h says."""

    has_footer: bool
    """The records come from the footer; their payloads were not checked."""
    last_batch: int
    """Offset of the last batch with a valid record; 0 with a footer."""
    damaged: list[tuple[int, int]]
    """From, to: octets that should be records and are not, though they had been durable."""
    unreadable: list[tuple[int, int, str]]
    """From, to, why: whole blocks that were wanted and could not be read. They count as zeros."""
    torn_count: int
    """Invalid pieces at the end: never acknowledged."""
    end: int
    """Behind the last valid record; with a footer, before it."""
    def __len__(self) -> int: ...
    def entries(self, *kinds: Kind) -> Iterator[Entry]:
        """Those of these kinds; without kinds all."""
    def find(self, offset: int) -> Entry | None:
        """The record that starts there."""
    def has_same_entries(self, other: Scan) -> bool: ...

class SegmentFile:
    """An open segment file; nothing is locked. Raises OSError when it cannot be opened; SpoolCorrupt, here and in
    reads, when what the disk says is one of UNREADABLE."""

    name: str
    def __init__(self, directory_fd: int, name: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...
    @property
    def file_octets(self) -> int:
        """Length of the file; less than the header's segment_octets: truncated."""
    def has_octets(self) -> bool:
        """Whether anything but zeros is behind the header block."""
    def header(self) -> Header | None:
        """None: zeros, a file that never held a record. Raises SpoolCorrupt, SpoolVersion."""
    def damaged_header_copies(self) -> list[int]:
        """Offsets of copies that no crash leaves beside the one that counts."""
    def index_damage(self, header: Header, scan: Scan) -> str | None:
        """What is wrong with footer or locator; `scan` must be from scan(). None after a crash, which leaves neither."""
    def scan(self, header: Header) -> Scan:
        """By the footer where there is one, else record by record. What cannot be read counts as zeros."""
    def scan_records(self, header: Header) -> Scan:
        """Record by record, checking every checksum, bodies included."""
    def read(
        self, header: Header, offset: int, length: int, kind: Kind, message_id: int, aux: int | None = None
    ) -> bytes:
        """The payload of the one record that must lie there: checksum, kind, id and, when given, aux. Raises SpoolCorrupt."""
    def first_salt(self) -> int:
        """That of the first record, whatever the header says; 0: none there, or none that can be read."""
    def forget_cache(self) -> None:
        """The next reads come from the disk."""
