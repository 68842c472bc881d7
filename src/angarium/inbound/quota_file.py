"""What identities have used of their quotas, on disk: `quotas.json` in the spool's directory, so that a restart gives
nobody a new one.

Written whole and renamed into place, by the supervisor alone, every so often while something is counted and at the end;
a crash forgets what was counted since. A file that cannot be read counts as none, and is told. Identities are not in
it, but what their names are hashed to in the table (csrc/queue/shares.h), with the secret that they are hashed with.

    {"version": 1, "secret": "2mJbq...", "whole": [[7226435013, 1779873600000], ...]}   when each will be whole: Unix ms
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from angarium.inbound.quota import DAY_NS
from angarium.queue.shares import Shares
from angarium.spool.state_file import StateFile

NAME: Final = "quotas.json"


class _Kept(msgspec.Struct):
    version: int
    secret: bytes
    whole: list[tuple[int, int]]
    written_utc_ms: int = 0


class QuotaFile:
    """directory_fd: of the spool's; borrowed. sent: of Counts."""

    def __init__(self, directory_fd: int, sent: Shares) -> None:
        self._file = StateFile(directory_fd, NAME)
        self._sent = sent
        self._written: dict[int, int] = {}

    def restore(self) -> None:
        """Before the first share of the table. Raises OSError, or ValueError when the file is not ours: nothing is
        restored then."""
        octets = self._file.read()
        if octets is None:
            return
        kept = msgspec.json.decode(octets, type=_Kept)  # its errors are ValueErrors
        if kept.version != 1:
            raise ValueError(f"version {kept.version}")
        # The clock may be behind until it is set: it is not earlier than when this was written.
        now_utc_ns, now_mono_ns = max(time.time_ns(), kept.written_utc_ms * 1_000_000), time.monotonic_ns()
        arrivals = {}
        for key, whole_utc_ms in kept.whole:
            if not 0 < key < 1 << 64:
                raise ValueError(f"no key: {key}")
            # A clock that was set meanwhile must not keep anybody out for longer than a quota can.
            owed_ns = min(whole_utc_ms * 1_000_000 - now_utc_ns, DAY_NS)
            if owed_ns > 0:
                arrivals[key] = now_mono_ns + owed_ns
        self._sent.restore(kept.secret, arrivals)
        self._written = arrivals

    def save(self) -> None:
        """Nothing is written when nothing was counted since. Raises OSError."""
        arrivals = self._sent.arrivals()
        if arrivals.items() <= self._written.items():
            return
        ahead_ns = time.time_ns() - time.monotonic_ns()
        whole = [(key, (arrival_ns + ahead_ns) // 1_000_000) for key, arrival_ns in arrivals.items()]
        self._file.write(msgspec.json.encode(_Kept(1, self._sent.secret, whole, time.time_ns() // 1_000_000)))
        self._written = arrivals
