"""What a sink keeps of the messages it swallows: a JSON line each, or whole messages in a Maildir.

Nothing is synced: a sink is an instrument, not a store.
"""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path
from typing import BinaryIO

import msgspec

from angarium.measure.sources import Counts, Source

# Lines of a record gather until so many octets or so much time; a reader who follows the file waits no
# longer.
FLUSH_OCTETS = 1 << 16
FLUSH_S = 0.1


class Received(msgspec.Struct, gc=False):
    """One message as it is recorded: octets after un-stuffing. Paths keep whatever octets were sent
    (latin-1).
    """

    time_utc: float
    peer: str
    reverse_path: str
    forward_paths: list[str]
    octets: int
    message_id: str
    subject: str


class Lines:
    """Appends JSON lines to a file ("-": standard output)."""

    def __init__(self, path: str) -> None:
        # Open as long as the sink runs; close() is the sink's to call.
        self._file: BinaryIO = os.fdopen(os.dup(1), "ab") if path == "-" else open(path, "ab")  # noqa: SIM115
        self._encoder = msgspec.json.Encoder()
        self._lines: list[bytes] = []
        self._octets = 0

    def append(self, value: object) -> None:
        """Takes one line; the file may lag until flush()."""
        line = self._encoder.encode(value) + b"\n"
        self._lines.append(line)
        self._octets += len(line)
        if self._octets >= FLUSH_OCTETS:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            self._file.write(b"".join(self._lines))
            self._file.flush()
            self._lines.clear()
            self._octets = 0

    def close(self) -> None:
        self.flush()
        self._file.close()


class Record(Lines):
    """A line per message."""

    def add(self, message: Received) -> None:
        """Takes one message; the file may lag until flush()."""
        self.append(message)


class Seconds(Lines):
    """A line per receiver, client address and second (since 1970) in which something happened: the fields of
    Counts, without those that are 0.
    """

    def add(self, source: Source, second: int, counts: Counts) -> None:
        """Takes one second that is over; the file may lag until flush()."""
        happened = {name: count for name in counts.__struct_fields__ if (count := getattr(counts, name))}
        self.append({"second": second, "receiver": source.receiver, **source.names(), **happened})


class Maildir:
    """Writes each message as it came into DIR/new (by way of DIR/tmp, so that a reader never sees half of
    one).
    """

    def __init__(self, path: str) -> None:
        self._root = Path(path)
        for name in ("tmp", "new", "cur"):
            (self._root / name).mkdir(parents=True, exist_ok=True)
        self._numbers = count(1)

    def add(self, message: bytes) -> None:
        name = f"{time.time():.6f}.P{os.getpid()}Q{next(self._numbers)}.sink"
        under_way = self._root / "tmp" / name
        under_way.write_bytes(message)
        under_way.rename(self._root / "new" / name)


def field_body(header_section: bytes, name: bytes) -> str:
    """The first field of that name (lower case), unfolded; "" when there is none."""
    for line in header_section.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
        found, colon, body = line.partition(b":")
        if colon and found.strip().lower() == name:
            return body.strip().decode("utf-8", "replace")
    return ""
