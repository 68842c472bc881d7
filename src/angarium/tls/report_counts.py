"""Outcomes of TLS that one worker has seen, on their way to the file that all workers share (report_store.py)."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from angarium.metrics.counters import counter
from angarium.tls.report_outcome import TlsOutcome
from angarium.tls.report_store import DAY_S, TlsReportStore

counted = counter("angarium_tls_outcomes_total", "Outcomes of TLS with other hosts that were counted for reports.")
dropped = counter("angarium_tls_outcomes_dropped_total", "Those that were not, for want of room.")

FLUSH_S: Final = 60.0
# Different ones in a minute; the file takes what comes after.
_KINDS_MOST: Final = 50_000


class TlsCounts:
    """On the loop. report: is told why the file cannot be written. utc: seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        report: Callable[[str], None],
        utc: Callable[[], float] = time.time,
    ) -> None:
        self._loop = loop
        self._store = TlsReportStore(path)
        self._report = report
        self._utc = utc
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tls-counts")
        self._counts: Counter[tuple[int, TlsOutcome]] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Task[None] | None = None

    def note(self, outcome: TlsOutcome) -> None:
        key = (int(self._utc() // DAY_S), outcome)
        if key not in self._counts and len(self._counts) >= _KINDS_MOST:
            dropped.add(1)
            return
        counted.add(1)
        self._counts[key] += 1
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self._due)

    def _due(self) -> None:
        self._timer = None
        self._flush = self._loop.create_task(self.flush())

    async def flush(self) -> None:
        """To the file. What cannot be written waits for the next time, as far as there is room."""
        counts, self._counts = self._counts, Counter()
        by_day: dict[int, list[tuple[TlsOutcome, int]]] = {}
        for (day, outcome), count in counts.items():
            by_day.setdefault(day, []).append((outcome, count))
        for day, rows in by_day.items():
            try:
                await self._loop.run_in_executor(self._thread, self._store.add, day, rows)
            except (sqlite3.Error, OSError) as error:
                self._report(str(error))
                room = _KINDS_MOST - len(self._counts)
                dropped.add(sum(count for _, count in rows[room:]))
                self._counts.update({(day, outcome): count for outcome, count in rows[:room]})
                if self._timer is None:
                    self._timer = self._loop.call_later(FLUSH_S, self._due)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._flush is not None:
            await self._flush
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()
        await self._loop.run_in_executor(self._thread, self._store.close)
        self._thread.shutdown(wait=False)
