"""What the shards of a worker have to tell: their figures as metrics, their reports as events. Looked at now
and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from angarium.events.journal import Journal
from angarium.metrics.counters import counter, gauge
from angarium.spool.notice import Notice, NoticeKind
from angarium.spool.shard import Shard

LOOK_S: Final = 2.0

# Kept by the shards themselves (spool/spool.h, spool_statistics); copied here, which is why they are set and
# not added to.
_FIGURES: Final = {
    "commits": counter("angarium_spool_commits_total", "Group commits: one write and one sync each."),
    "records": counter("angarium_spool_records_total", "Records written."),
    "octets_written": counter("angarium_spool_written_octets_total", "Octets written, framing included."),
    "sync_errors": counter(
        "angarium_spool_sync_errors_total",
        "Headers and footers of segments that could not be written; it costs time or space, no mail.",
    ),
    "write_errors": counter(
        "angarium_spool_write_errors_total", "Writes that failed; each sealed a segment for ever."
    ),
    "torn_records": counter(
        "angarium_spool_torn_records_total", "Unfinished records at the ends of segments, found at start and dropped."
    ),
    "damaged_records": counter(
        "angarium_spool_damaged_records_total", "Damaged places found, at start or when read, set aside."
    ),
    "unread_segments": gauge(
        "angarium_spool_unread_segments", "Segments that could not all be read at start: kept, and read at the next."
    ),
    "segment_octets": gauge("angarium_spool_segment_octets", "Octets of all segments in use."),
    "live_octets": gauge("angarium_spool_live_octets", "Octets of messages in them that are not over."),
    "segments": gauge("angarium_spool_segments", "Segments with live mail."),
    "excess_segments": gauge(
        "angarium_spool_excess_segments",
        "Segments beyond twice the live octets and four a shard: beyond twelve, compaction is the faster for each; "
        "beyond fourteen, new mail waits for it.",
    ),
    "held_us": counter(
        "angarium_spool_held_microseconds_total",
        "Commits of new mail waited so long, since it came faster than segments are emptied.",
    ),
    "free_segments": gauge("angarium_spool_free_segments", "Segments kept for reuse."),
    "is_full": gauge("angarium_spool_full", "1 while a shard has no room: new mail is answered 452."),
}


class SpoolWatch:
    """One per worker, on its loop, until stop()."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        shards: Sequence[Shard],
        strangers: Callable[[], Iterable[Shard]] = tuple,
    ) -> None:
        """strangers: shards of other workers that are open for reading; what they hold is counted by their owners, and
        damage by who meets it.
        """
        self._loop = loop
        self._journal = journal
        self._shards = shards
        self._strangers = strangers
        self._look()

    def stop(self) -> None:
        """Looks a last time."""
        self._handle.cancel()       # else one that is due already looks into closed shards
        self._look()
        self._handle.cancel()

    def _look(self) -> None:
        totals = dict.fromkeys(_FIGURES, 0)
        for shard in self._shards:
            figures = shard.statistics()
            for key in totals:
                totals[key] += int(figures[key])
            self._tell(shard)
        for shard in self._strangers():
            totals["damaged_records"] += int(shard.statistics()["damaged_records"])
            self._tell(shard)
        for key, figure in _FIGURES.items():
            figure.set(totals[key])
        self._handle = self._loop.call_later(LOOK_S, self._look)

    def _tell(self, shard: Shard) -> None:
        for notice in shard.notices():
            self._log(shard.name, notice)

    def _log(self, shard: str, notice: Notice) -> None:
        segment, offset, report = notice.serial, notice.offset, notice.text
        if notice.kind == NoticeKind.TORN:
            octets = notice.octets
            self._journal.log("spool-torn", shard=shard, segment=segment, offset=offset, octets=octets, report=report)
        elif notice.kind == NoticeKind.DAMAGED:
            octets = notice.octets
            self._journal.log(
                "spool-damaged", shard=shard, segment=segment, offset=offset, octets=octets, report=report
            )
        elif notice.kind == NoticeKind.UNREAD:
            self._journal.log("spool-unread", shard=shard, segment=segment, report=report)
        else:
            self._journal.log("spool", shard=shard, report=report)
