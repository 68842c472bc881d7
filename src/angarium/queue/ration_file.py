"""Counts of warm-ups on disk: `warmup.json` in the spool's directory, so that a restart does not begin the day anew.

Written whole and renamed into place, by the supervisor alone, every few seconds while something is counted and at the
end; a crash forgets what was counted since. A file that cannot be read counts as none, and is told.

    {"version": 1, "day": 20783, "sent": {"ip-3\\nGmail": 120, "ip-3\\n": 14}}      day: since 1970, UTC
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from angarium.queue.rations import Ration
from angarium.spool.state_file import StateFile

NAME: Final = "warmup.json"


class _Counts(msgspec.Struct):
    version: int
    day: int
    sent: dict[str, int]


class RationFile:
    """directory_fd: of the spool's; borrowed."""

    def __init__(self, directory_fd: int) -> None:
        self._file = StateFile(directory_fd, NAME)
        self._written = b""

    def restore(self, rations: Iterable[Ration]) -> None:
        """Raises OSError, or ValueError when the file is not ours: nothing is restored then."""
        octets = self._file.read()
        if octets is None:
            return
        counts = msgspec.json.decode(octets, type=_Counts)      # its errors are ValueErrors
        if counts.version != 1 or counts.day < 0:
            raise ValueError(f"version {counts.version} and day {counts.day}")
        for ration in rations:
            if counts.sent.get(ration.name, 0) > 0:
                ration.restore(counts.day, counts.sent[ration.name])

    def save(self, day: int, rations: Iterable[Ration]) -> None:
        """Nothing is written when nothing has changed. Raises OSError."""
        sent = {ration.name: count for ration in rations if (count := ration.count())}
        octets = msgspec.json.encode(_Counts(1, day, sent))
        if octets == self._written or (not sent and not self._written):
            return
        self._file.write(octets)
        self._written = octets
