"""How much room the spool's file system has left: below a mark new mail waits outside, so that the mail inside can
still leave.

Delivery needs room itself: outcomes, freed ids, segments that compaction fills. A spool that stops taking mail only
when the last segment cannot be had (csrc/spool, is_full) keeps its own reserve for that, but shares the file
system with others. What it is not: that last line.

Files that the spool keeps for reuse are as good as free space: new mail goes into them first. If they did not count, a
spool whose own spare files fill a small file system would refuse mail for ever.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

from angarium.events.journal import Journal
from angarium.metrics.counters import gauge

LOOK_S: Final = 1.0
# Over when an eighth more than the mark is free: by judgement, so that a file system at the mark does not change its
# mind every second. A larger part would keep mail outside for longer than there is a reason to.
_SLACK_PART: Final = 8

is_low_gauge = gauge("angarium_spool_low", "1 while the file system is below a mark: new mail is answered 452.")
free_octets_gauge = gauge("angarium_spool_disk_free_octets", "Octets free on the spool's file system.")
free_inodes_gauge = gauge(
    "angarium_spool_disk_free_inodes", "Inodes free on it; 0 where it does not count them."
)


class Room(Protocol):
    """What os.fstatvfs answers, as far as it is looked at."""

    @property
    def f_frsize(self) -> int: ...
    @property
    def f_bavail(self) -> int: ...
    @property
    def f_files(self) -> int: ...
    @property
    def f_favail(self) -> int: ...


class Watermark:
    """One per worker, on its loop, from start() to stop().

    spool_fd         any descriptor on the spool's file system.
    min_free_octets  the marks; 0: not judged.
    min_free_inodes
    spare_octets     of files kept for reuse, as of now.
    tell             called with True when there is too little, with False when there is enough again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        spool_fd: int,
        tell: Callable[[bool], None],
        *,
        min_free_octets: int,
        min_free_inodes: int,
        spare_octets: Callable[[], int] = lambda: 0,
        look: Callable[[int], Room] = os.fstatvfs,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._fd = spool_fd
        self._tell = tell
        self._look = look
        self._spare_octets = spare_octets
        self._handle: asyncio.TimerHandle | None = None
        self.is_low = False
        self.set_marks(min_free_octets, min_free_inodes)

    def set_marks(self, min_free_octets: int, min_free_inodes: int) -> None:
        """A reload; they count from the next look on."""
        self._min_free_octets = min_free_octets
        self._min_free_inodes = min_free_inodes

    def start(self) -> None:
        """The first look is now, before any mail comes in."""
        self.judge()
        self._handle = self._loop.call_later(LOOK_S, self.start)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def judge(self) -> None:
        """Looks, and tells when the answer is another than before."""
        try:
            room = self._look(self._fd)
        except OSError:
            return  # a file system that cannot even be asked fails writes too, and those are told with their reason
        free_octets = room.f_bavail * room.f_frsize
        free_octets_gauge.set(free_octets)
        free_inodes_gauge.set(room.f_favail)
        spare_octets = self._spare_octets()
        is_low = self._is_below(free_octets + spare_octets, self._min_free_octets)
        if room.f_files:  # btrfs and its like count none
            is_low = is_low or self._is_below(room.f_favail, self._min_free_inodes)
        is_low_gauge.set(int(is_low))
        if is_low == self.is_low:
            return
        self.is_low = is_low
        self._tell(is_low)
        facts = {"free_octets": free_octets, "spare_octets": spare_octets, "free_inodes": room.f_favail}
        if is_low:
            self._journal.log("spool-low", **facts)
        else:
            self._journal.log("spool-recovered", **facts)

    def _is_below(self, free: int, mark: int) -> bool:
        return free < (mark + mark // _SLACK_PART if self.is_low else mark)
