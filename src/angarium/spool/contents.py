"""What a spool holds, read from outside: no lock is taken and nothing is written, so it works beside a running relay.
What the relay changes meanwhile may be seen or not. It can look like damage: a scan meets the end of what is written,
and behind it, a moment later, a whole batch; a segment is used again between its header and its records. So what looks
damaged is looked at twice, and damage is what both looks have seen.

A segment counts for the shard that its header names, wherever the file lies.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from angarium.model.errors import SpoolCorrupt
from angarium.spool.envelope import Envelope, Flag, RecipientState, parse_state
from angarium.spool.resolution import OutcomePlace, Resolution
from angarium.spool.segment_file import UNREADABLE, Entry, Header, Kind, Scan, SegmentFile

_SEGMENT_NAME: Final = re.compile(r"seg-(?:\d{4}|[1-9]\d{4,8})\.ang", re.ASCII)
_FREED_ENTRY: Final = struct.Struct("<QI")


class Damage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Octets that are not what was written, or something that is missing."""

    segment: str
    """Path of the file below the spool."""
    what: str
    serial: int = 0
    offset: int = 0
    octets: int = 0

    def __str__(self) -> str:
        serial = f" (serial {self.serial})" if self.serial else ""
        offset = f" offset {self.offset}" if self.offset else ""
        octets = f", {self.octets} octets" if self.octets else ""
        return f"{self.segment}{serial}{offset}: {self.what}{octets}"


class Segment(msgspec.Struct, frozen=True):
    """A segment file with a valid header."""

    path: str
    header: Header

    def open(self, root_fd: int) -> SegmentFile:
        return SegmentFile(root_fd, self.path)


class StoredMessage(msgspec.Struct, frozen=True):
    """A live message. state: None before its first outcome; then every recipient waits."""

    segment: Segment
    offset: int
    envelope: Envelope
    state: tuple[RecipientState, ...] | None

    @property
    def recipient_states(self) -> tuple[RecipientState, ...]:
        """One for each recipient, in the order of the envelope."""
        return self.state if self.state is not None else (RecipientState(),) * len(self.envelope.recipients)


class Contents:
    """The segments that a spool had when this was made, and what was found damaged since."""

    def __init__(self, root_fd: int, directories: list[str]) -> None:
        """directories  names of the shard directories to look into."""
        self._root_fd = root_fd
        self.damage: list[Damage] = []
        self.free: list[Segment] = []
        self._shards: dict[int, dict[int, Segment]] = {}
        self._first_salts: list[tuple[Segment, int]] = []
        for directory in directories:
            for name in self._names_in(directory):
                if _SEGMENT_NAME.fullmatch(name):
                    self._look_at(directory, name)
        self._find_exchanged()

    @property
    def shards(self) -> list[int]:
        """Numbers of the shards that have segments in use, rising."""
        return sorted(self._shards)

    def segments(self, shard: int) -> list[Segment]:
        """Those in use, newest first."""
        of_shard = self._shards.get(shard, {})
        return [of_shard[serial] for serial in sorted(of_shard, reverse=True)]

    def last_incarnation(self, shard: int) -> int:
        """The youngest that a header of the shard names (docs/spool-format.md, "Message ids")."""
        headers = [each.header for each in (*self.segments(shard), *self.free)]
        return max((header.incarnation for header in headers if header.shard == shard), default=0)

    def octets(self) -> int:
        """Of all segments in use."""
        return sum(each.header.segment_octets for shard in self._shards.values() for each in shard.values())

    def messages(
        self,
        shard: int,
        *,
        scan: Callable[[SegmentFile, Header], Scan] = SegmentFile.scan,
        looked_at: Callable[[Segment, SegmentFile, Scan], None] = lambda segment, file, scan: None,
    ) -> Iterator[StoredMessage]:
        """The live messages of a shard, newest segments first. Damage met on the way is added to `damage`.

        scan       how the records of a segment are found.
        looked_at  called for each segment when its records are known.
        """
        segments = self.segments(shard)
        resolution = Resolution(segment.header.serial for segment in segments)
        doubtful: list[StoredMessage] = []
        for segment in segments:
            try:
                file = segment.open(self._root_fd)
            except FileNotFoundError:  # a worker has removed it: nothing in it is needed
                continue
            except SpoolCorrupt as error:
                self.damage.append(Damage(segment.path, str(error), segment.header.serial))
                continue
            known = len(self.damage)
            with file:
                yield from self._messages_of(segment, file, scan, looked_at, resolution, doubtful=doubtful)
                if not is_unchanged(file, segment):  # used again meanwhile: likewise
                    del self.damage[known:]
        for message in reversed(doubtful):  # of several the oldest, as recovery has it
            if resolution.take(message.envelope.id, message.segment.header.serial):
                state = self._state(message.envelope, resolution.outcome(message.envelope.id), shard)
                yield StoredMessage(message.segment, message.offset, message.envelope, state)

    def body(self, message: StoredMessage) -> list[bytes]:
        """All octets of the message, in pieces. Raises SpoolCorrupt unless every one is what was stored."""
        envelope, pieces, position = message.envelope, [], 0
        for chunk in envelope.chunks:
            segment = self._shards[message.segment.header.shard].get(chunk.segment_serial)
            if segment is None:
                raise SpoolCorrupt(f"segment {chunk.segment_serial} with octets of it is not there")
            try:
                with segment.open(self._root_fd) as file:
                    pieces.append(
                        file.read(segment.header, chunk.offset, chunk.length, Kind.BODY, envelope.id, position)
                    )
            except FileNotFoundError:
                raise SpoolCorrupt(f"segment {chunk.segment_serial} with octets of it is gone") from None
            position += chunk.length
        if position != envelope.message_octets:
            raise SpoolCorrupt(f"its chunks have {position} octets, its envelope says {envelope.message_octets}")
        return pieces

    # --- from here on private ---

    def _names_in(self, directory: str) -> list[str]:
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._root_fd)
            try:
                return sorted(os.listdir(fd))
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            self.damage.append(Damage(directory, f"the directory cannot be read: {error.strerror}"))
            return []

    def _look_at(self, directory: str, name: str) -> None:
        path = f"{directory}/{name}"
        try:
            with SegmentFile(self._root_fd, path) as file:
                try:
                    header, copies, file_octets, first_salt = _head_of(file)
                    is_suspect = bool(copies) or (header is not None and file_octets < header.segment_octets)
                except SpoolCorrupt:
                    is_suspect = True
                if is_suspect:
                    file.forget_cache()
                    header, copies, file_octets, first_salt = _head_of(file)
                is_lost = header is None and file.has_octets()
        except FileNotFoundError:
            return
        except (SpoolCorrupt, OSError) as error:  # not SpoolVersion: nothing in a spool of another one can be judged
            self.damage.append(Damage(path, str(getattr(error, "strerror", None) or error)))
            return
        if header is None:
            if is_lost:
                what = "both copies of its header are zeros, and there is something behind them; it is not looked at"
                self.damage.append(Damage(path, what))
            return
        for offset in copies:
            what = "this copy of the header is damaged; the other one serves"
            self.damage.append(Damage(path, what, header.serial, offset))
        if file_octets < header.segment_octets:
            missing = header.segment_octets - file_octets
            self.damage.append(Damage(path, "the file is too short", header.serial, file_octets, missing))
        if f"{header.shard:02x}" != directory:
            self.damage.append(Damage(path, f"the file belongs to shard {header.shard:02x}", header.serial))
        segment = Segment(path, header)
        self._first_salts.append((segment, first_salt))
        if not header.is_live:
            self.free.append(segment)
            return
        of_shard = self._shards.setdefault(header.shard, {})
        known = of_shard.get(header.serial)
        if known is not None and first_salt == header.salt != dict(self._first_salts)[known]:
            what = f"{path} has the same serial, and the records; this file is not looked at"
            self.damage.append(Damage(known.path, what, header.serial))
            of_shard[header.serial] = segment
        elif known is not None:
            what = f"{known.path} has the same serial; this file is not looked at"
            self.damage.append(Damage(path, what, header.serial))
        else:
            of_shard[header.serial] = segment

    def _find_exchanged(self) -> None:
        """A file used again still has the records of an earlier use; but their salt is nobody's any more."""
        by_salt = {segment.header.salt: segment for segment, _ in self._first_salts}
        for segment, salt in self._first_salts:
            owner = by_salt.get(salt)
            if owner is not None and owner.header.salt != segment.header.salt:
                what = f"its records belong to the header of {owner.path}"
                self.damage.append(Damage(segment.path, what, segment.header.serial))

    def _messages_of(
        self,
        segment: Segment,
        file: SegmentFile,
        scan_segment: Callable[[SegmentFile, Header], Scan],
        looked_at: Callable[[Segment, SegmentFile, Scan], None],
        resolution: Resolution,
        *,
        doubtful: list[StoredMessage],
    ) -> Iterator[StoredMessage]:
        header = segment.header
        scan = scan_segment(file, header)
        suspects: set[int] = set()
        while any(start not in suspects for start, _ in scan.damaged):
            suspects = {start for start, _ in scan.damaged}
            file.forget_cache()
            scan = scan_segment(file, header)
        self.damage += _damage_of(segment, scan)
        looked_at(segment, file, scan)
        is_damaged = bool(scan.damaged or scan.unreadable)
        for entry in scan.entries(Kind.OUTCOME, Kind.FREED):
            if entry.kind == Kind.OUTCOME:
                resolution.note_outcome(entry.id, OutcomePlace(header.serial, entry.offset, entry.length))
            else:
                octets = self._read(segment, file, entry)
                is_damaged |= octets is None
                for message_id, home in freed_entries(octets or b""):
                    resolution.note_freed(message_id, home)
        for entry in scan.entries(Kind.ENVELOPE):
            if resolution.is_freed(entry.id, header.serial):
                continue
            envelope = self._envelope(segment, file, entry)
            is_damaged |= envelope is None
            if envelope is None or _is_torn(segment, scan, entry, envelope):
                continue
            outcome = resolution.outcome(entry.id)
            # A compaction was cut short behind it, or something near it is damaged: an older copy goes before it.
            if (Flag.COPY_FIRST in envelope.flags and outcome is None) or (Flag.COPY in envelope.flags and is_damaged):
                doubtful.append(StoredMessage(segment, entry.offset, envelope, None))
            elif resolution.take(entry.id, header.serial):
                known = len(self.damage)
                state = self._state(envelope, outcome, header.shard)
                is_damaged |= outcome is not None and outcome.serial == header.serial and len(self.damage) > known
                yield StoredMessage(segment, entry.offset, envelope, state)

    def _read(self, segment: Segment, file: SegmentFile, entry: Entry) -> bytes | None:
        try:
            return file.read(segment.header, entry.offset, entry.length, Kind(entry.kind), entry.id)
        except SpoolCorrupt as error:
            self._add_record_damage(segment, entry.offset, entry.length, error)
            return None

    def _add_record_damage(self, segment: Segment, offset: int, length: int, error: SpoolCorrupt) -> None:
        what = str(error).partition(": ")[2] or str(error)
        self.damage.append(Damage(segment.path, what, segment.header.serial, offset, length))

    def _envelope(self, segment: Segment, file: SegmentFile, entry: Entry) -> Envelope | None:
        octets = self._read(segment, file, entry)
        if octets is None:
            return None
        try:
            envelope = Envelope.parse(octets)
            if envelope.id != entry.id:
                raise SpoolCorrupt("the envelope has another id than its record")
        except SpoolCorrupt as error:
            self._add_record_damage(segment, entry.offset, entry.length, error)
            return None
        return envelope

    def _state(self, envelope: Envelope, place: OutcomePlace | None, shard: int) -> tuple[RecipientState, ...] | None:
        segment = self._shards[shard].get(place.serial) if place is not None else None
        if place is None or segment is None:
            return None
        try:
            with segment.open(self._root_fd) as file:
                try:
                    octets = file.read(segment.header, place.offset, place.length, Kind.OUTCOME, envelope.id)
                except SpoolCorrupt:
                    if is_unchanged(file, segment):
                        raise
                    return None  # used again meanwhile: there is a newer one, or the message is over
            state = parse_state(octets)
            if len(state) != len(envelope.recipients):
                raise SpoolCorrupt("the outcome is about another number of recipients than the envelope")
        except FileNotFoundError:
            return None
        except SpoolCorrupt as error:
            self._add_record_damage(segment, place.offset, place.length, error)
            return None
        return state


def _head_of(file: SegmentFile) -> tuple[Header | None, list[int], int, int]:
    """Header, damaged copies of it, octets of the file, and the salt of its first record. Raises SpoolCorrupt."""
    return file.header(), file.damaged_header_copies(), file.file_octets, file.first_salt()


def is_unchanged(file: SegmentFile, segment: Segment) -> bool:
    """Whether the file is in the same use as when it was looked at first."""
    try:
        return file.header() == segment.header
    except SpoolCorrupt:
        return True


def freed_entries(octets: bytes) -> Iterator[tuple[int, int]]:
    """(id, serial of its home) of each message in the payload of a FREED record."""
    whole = len(octets) - len(octets) % _FREED_ENTRY.size
    yield from _FREED_ENTRY.iter_unpack(octets[:whole])


def _damage_of(segment: Segment, scan: Scan) -> Iterator[Damage]:
    """What the disk does not give up is damage behind the last record too: there may have been more."""
    rest = dict.fromkeys(scan.unreadable)
    for start, end in scan.damaged:
        what = "no valid record"
        for place in scan.unreadable:
            if place[0] < end and start < place[1]:
                rest.pop(place, None)
                what = f"no valid record; it cannot be read: {place[2]}"
        yield Damage(segment.path, what, segment.header.serial, start, end - start)
    for start, end, why in rest:
        yield Damage(segment.path, f"cannot be read: {why}", segment.header.serial, start, end - start)


def _is_torn(segment: Segment, scan: Scan, entry: Entry, envelope: Envelope) -> bool:
    """A message of the last batch counts only when its body got there too; else it was never acknowledged."""
    if scan.has_footer or entry.offset < scan.last_batch:
        return False
    for chunk in envelope.chunks:
        if chunk.segment_serial == segment.header.serial and chunk.offset >= scan.last_batch:
            body = Entry(chunk.offset, chunk.length, entry.id, Kind.BODY)
            if any(start < body.end and body.offset < end for start, end, _ in scan.unreadable):
                continue  # it may be whole, and acknowledged: lost, and to be named
            if scan.find(chunk.offset) != body:
                return True
    return False
