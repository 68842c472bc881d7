"""`angarium spool check`: every record of a spool held against its checksum, and every record against the others.

It reads beside a running relay. What a relay does meanwhile can look like damage to one pass: a batch half written when
it was read with a whole one behind it, a chunk whose segment was freed after its envelope was read. Such a thing is
gone in a second pass over the spool; damage is what both have seen.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from angarium.model.errors import SpoolCorrupt
from angarium.spool.contents import Contents, Damage, Segment, freed_entries, is_unchanged
from angarium.spool.envelope import Envelope, encode_id, parse_state
from angarium.spool.segment_file import Entry, Header, Kind, Scan, SegmentFile


class SegmentReport(msgspec.Struct, kw_only=True):
    """What was found in one segment file.

    is_sealed     it ends with an index (footer).
    records       count of each kind: "body", "envelope", "outcome", "freed".
    torn_pieces   unfinished writes at its end, as a crash leaves them: nobody was told 250 for them, unless
                  the disk has lost them since.
    messages      live messages whose home it is.
    """

    segment: str
    shard: int
    serial: int
    octets: int
    is_free: bool = False
    is_sealed: bool = False
    records: dict[str, int] = {}
    record_octets: int = 0
    torn_pieces: int = 0
    messages: int = 0
    damage: list[Damage] = []


class Verification(msgspec.Struct):
    """Of a whole spool, or of the parts asked for. damage: of all segments and of what has no valid header."""

    segments: list[SegmentReport]
    damage: list[Damage]
    message_count: int


def verify(
    root_fd: int,
    directories: list[str],
    wants: Callable[[str], bool],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Looks at the shard directories given.

    wants     whether the segment with this path is asked for; the others are read only as far as it takes to know which
              messages live.
    progress  called with octets done and octets in all.
    """
    first = _look(root_fd, directories, wants, progress)
    while first.damage:
        for directory in directories:
            _forget_cache(root_fd, directory)
        second = _look(root_fd, directories, wants, progress)
        known = {_identity(each) for each in first.damage}
        if all(_identity(each) in known for each in second.damage):
            return second
        first = second
    return first


def _identity(damage: Damage) -> tuple[str, int, int, str]:
    return damage.segment, damage.serial, damage.offset, damage.what


def _forget_cache(root_fd: int, directory: str) -> None:
    contents = Contents(root_fd, [directory])
    for shard in contents.shards:
        for segment in contents.segments(shard):
            try:
                with segment.open(root_fd) as file:
                    file.forget_cache()
            except (FileNotFoundError, SpoolCorrupt):
                pass


def _look(
    root_fd: int,
    directories: list[str],
    wants: Callable[[str], bool],
    progress: Callable[[int, int], None],
) -> Verification:
    contents = Contents(root_fd, directories)
    reports = {each.path: _report_of(each, is_free=True) for each in contents.free if wants(each.path)}
    contents.damage = [each for each in contents.damage if wants(each.segment)]
    look = _Look(contents, reports, wants, progress)
    for shard in contents.shards:
        look.shard(shard)
    for damage in contents.damage:
        if damage.segment in reports:
            reports[damage.segment].damage.append(damage)
    ordered = sorted(reports.values(), key=lambda each: (each.shard, each.is_free, each.serial))
    return Verification(ordered, contents.damage, sum(each.messages for each in ordered))


def _report_of(segment: Segment, *, is_free: bool = False) -> SegmentReport:
    header = segment.header
    return SegmentReport(
        segment=segment.path,
        shard=header.shard,
        serial=header.serial,
        octets=header.segment_octets,
        is_free=is_free,
    )


class _Look:
    """One pass."""

    def __init__(
        self,
        contents: Contents,
        reports: dict[str, SegmentReport],
        wants: Callable[[str], bool],
        progress: Callable[[int, int], None],
    ) -> None:
        self._contents = contents
        self._reports = reports
        self._wants = wants
        self._progress = progress
        self._done = 0
        self._total = contents.octets()

    def shard(self, shard: int) -> None:
        for message in self._contents.messages(shard, scan=self._scan, looked_at=self._looked_at):
            report = self._reports.get(message.segment.path)
            if report is None:
                continue
            report.messages += 1
            try:
                self._contents.body(message)
            except SpoolCorrupt as error:
                what = f"message {encode_id(message.envelope.id)} cannot be read: {error}"
                self._add(message.segment, message.offset, 0, what)

    def _scan(self, file: SegmentFile, header: Header) -> Scan:
        return file.scan_records(header) if self._wants(file.name) else file.scan(header)

    def _looked_at(self, segment: Segment, file: SegmentFile, scan: Scan) -> None:
        self._done += segment.header.segment_octets
        self._progress(self._done, self._total)
        if not self._wants(segment.path) or not is_unchanged(file, segment):
            return
        report = _report_of(segment)
        report.torn_pieces = scan.torn_count
        by_footer = file.scan(segment.header)
        report.is_sealed = by_footer.has_footer
        self._reports[segment.path] = report
        self._check_index(segment, file, scan, by_footer)
        for entry in scan.entries():
            kind = Kind(entry.kind)
            report.records[kind.name.lower()] = report.records.get(kind.name.lower(), 0) + 1
            report.record_octets += entry.end - entry.offset
            if kind != Kind.BODY:
                self._check_sense(segment, file, entry, kind)

    def _check_index(self, segment: Segment, file: SegmentFile, scan: Scan, by_footer: Scan) -> None:
        trouble = file.index_damage(segment.header, by_footer)
        if trouble is None and by_footer.has_footer and not scan.damaged and not scan.has_same_entries(by_footer):
            trouble = "the footer lists other records than there are"
        if trouble is not None:
            self._add(segment, 0, 0, trouble)

    def _check_sense(self, segment: Segment, file: SegmentFile, entry: Entry, kind: Kind) -> None:
        """What the octets say, of settled messages too: their checksum is right already."""
        try:
            octets = file.read(segment.header, entry.offset, entry.length, kind, entry.id)
            if kind == Kind.ENVELOPE:
                Envelope.parse(octets)
            elif kind == Kind.OUTCOME:
                parse_state(octets)
            elif sum(1 for _ in freed_entries(octets)) * 12 != len(octets):
                raise SpoolCorrupt("a freed record of half an entry")
        except SpoolCorrupt as error:
            self._add(segment, entry.offset, entry.length, str(error).partition(": ")[2] or str(error))

    def _add(self, segment: Segment, offset: int, octets: int, what: str) -> None:
        damage = Damage(segment.path, what, segment.header.serial, offset, octets)
        # Envelopes and outcomes of live messages are met twice: here, and by who looks for the messages.
        if damage not in self._contents.damage:
            self._contents.damage.append(damage)
