"""Tells when something held a worker's loop for too long, and names it.

The loop itself is the witness: a timer that should fire every BEAT_S measures by how much it came late, so a
duration reported here was really a time in which no session was served. A thread looks now and then whether
the beat is overdue and, while it is, notes what the loop's thread is executing: the innermost frame of Python
code. C code that keeps the GIL for all of that time is measured but shows as the Python line that called it,
or as nothing. When it was called by a hook of the operator's, the hook is named besides.

CPU time of the loop's thread is reported beside: a long stall with little CPU was a blocking call or a
machine that gave the process no core, not a computation.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from types import FrameType
from typing import Final

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.policy.hook_file import hook_of

LIMIT_S: Final = 0.050
BEAT_S: Final = 0.025  # half the limit: a stall is seen at the latest half a limit after it began to count

stalls = counter("angarium_loop_stalls_total", "Times the loop was held for over 50 ms.")
stalled_ms = counter(
    "angarium_loop_stalled_milliseconds_total", "Time for which the loop was held in such stalls."
)


class Watchdog:
    """One per worker, on its loop. Call stop() before the loop is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._thread_id = threading.get_ident()
        self._due = time.monotonic() + BEAT_S
        self._cpu_s = time.thread_time()
        self._holder = ""
        self._hook = ""
        self._is_stopped = threading.Event()
        self._handle = loop.call_later(BEAT_S, self._beat)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._handle.cancel()
        self._is_stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        now = time.monotonic()
        cpu_s = time.thread_time()
        if now - self._due > LIMIT_S:
            late_s = now - self._due
            stalls.add(1)
            stalled_ms.add(round(late_s * 1000))
            self._journal.log(
                "stall",
                duration_s=late_s,
                cpu_s=min(cpu_s - self._cpu_s, late_s),
                holder=self._holder or "unknown",
                **({"hook": self._hook} if self._hook else {}),
            )
        self._holder = self._hook = ""
        self._cpu_s = cpu_s
        self._due = now + BEAT_S
        self._handle = self._loop.call_later(BEAT_S, self._beat)

    def _watch(self) -> None:
        while not self._is_stopped.wait(BEAT_S):
            if self._holder or time.monotonic() - self._due <= LIMIT_S / 2:
                continue
            frame = sys._current_frames().get(self._thread_id)
            if frame is not None:
                self._holder = _named(frame)
                self._hook = hook_of(frame)


def _named(frame: FrameType) -> str:
    """Where a thread is: function and line, innermost first, as deep as one line of log bears."""
    places: list[str] = []
    at: FrameType | None = frame
    while at is not None and len(places) < 6:
        code = at.f_code
        places.append(f"{code.co_qualname} ({code.co_filename}:{at.f_lineno})")
        at = at.f_back
    return " < ".join(places)
