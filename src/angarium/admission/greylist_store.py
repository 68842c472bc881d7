"""Where greylisting keeps what it knows: one SQLite file for all workers, asked from a thread of each.

Bounded: entries have an end, and past `max_entries` those go first whose end is nearest, which are the ones that never
came back. A store in trouble keeps no mail out: whoever cannot be looked up is let through, and the operator is told. A
file that is damaged is set aside, and a new one begun.

Format: two tables without row ids, `triplet` and `network`, keys are digests of 16 octets (greylist.py), times UTC
seconds; user_version is the format's, 1. WAL with synchronous=NORMAL: a crash of the machine may forget the last tries.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from angarium.admission.greylist import Seen, judge, network_key, triplet_key
from angarium.admission.options import GreylistOptions
from angarium.metrics.counters import counter
from angarium.model.sqlite_file import SqliteFile
from angarium.resolver.cache import ExpiringCache

deferred_total = counter("angarium_greylist_deferred_total", "Recipients answered 450: the client is to come again.")
passed_total = counter("angarium_greylist_passed_total", "Recipients of triplets that came back for the first time.")
errors_total = counter(
    "angarium_greylist_errors_total", "Recipients let through because the store could not be asked."
)

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS triplet
    (key BLOB PRIMARY KEY, first INTEGER NOT NULL, expires INTEGER NOT NULL, passed INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS triplet_expires ON triplet (expires);
CREATE TABLE IF NOT EXISTS network
    (key BLOB PRIMARY KEY, passes INTEGER NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS network_expires ON network (expires);
"""
# Other workers hold the lock for a batch, which is milliseconds.
_BUSY_S: Final = 2.0
# Requests that may wait for the thread; past them clients are let through unasked.
_WAITING_MAX: Final = 5000
_PURGE_S: Final = 60.0
# Who has passed is not looked up again for so long, and so many are remembered.
_REMEMBER_S: Final = 3600.0
_REMEMBERED: Final = 50_000


class _Known(msgspec.Struct, frozen=True):
    expires_mono_s: float


class _Request(msgspec.Struct, eq=False):
    triplet: bytes
    network: bytes
    answer: asyncio.Future[int]


class GreylistStore:
    """One worker's, on its loop; close() last.

    path   of the file, made when it is missing. report  is told in words what is wrong, from the loop.
    clock  UTC seconds.
    """

    def __init__(
        self,
        path: str,
        options: GreylistOptions,
        report: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._report = report
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="greylist")
        self._known: ExpiringCache[bytes, _Known] = ExpiringCache(_REMEMBERED, time.monotonic)
        self._network = functools.lru_cache(_REMEMBERED)(lambda host: network_key(host, options))
        self._waiting: list[_Request] = []
        self._is_closed = False
        self._running: asyncio.Task[None] | None = None
        pragmas = ("journal_mode = WAL", "synchronous = NORMAL")
        self._file = SqliteFile(path, _SCHEMA, _VERSION, busy_s=_BUSY_S, pragmas=pragmas)  # the thread's
        self._purged_mono_s = 0.0  # likewise

    def knows_network(self, host: str) -> bool:
        """Whether all of its mail may pass, without asking."""
        return self._known.get(self._network(host)) is not None

    def wait_now(self, host: str, reverse_path: bytes, forward_path: bytes) -> int | None:
        """0 when it is known without asking that this may pass; None: ask wait_s()."""
        triplet = triplet_key(self._network(host), reverse_path, forward_path)
        return 0 if self._known.get(triplet) is not None else None

    async def wait_s(self, host: str, reverse_path: bytes, forward_path: bytes) -> int:
        """Takes this for a try: 0: it may pass; else the seconds it should wait. Never raises but CancelledError."""
        if self._is_closed or len(self._waiting) >= _WAITING_MAX:
            errors_total.add()
            return 0
        network = self._network(host)
        triplet = triplet_key(network, reverse_path, forward_path)
        request = _Request(triplet, network, self._loop.create_future())
        self._waiting.append(request)
        if self._running is None:
            self._running = self._loop.create_task(self._run())
        wait_s = await request.answer
        if wait_s:
            deferred_total.add()
        return wait_s

    async def close(self) -> None:
        """Whoever asks from now on is told to let through."""
        self._is_closed = True
        while self._running is not None:
            await asyncio.wait([self._running])
        await self._loop.run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        """Batches, one after the other: what comes while one is under way makes the next."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    answers = await self._loop.run_in_executor(self._thread, self._judge_all, batch)
                except (sqlite3.Error, OSError) as error:
                    errors_total.add(len(batch))
                    self._report(f"{self._file.path}: {error}")
                    answers = [(0, False)] * len(batch)
                for request, (wait_s, is_network_known) in zip(batch, answers, strict=True):
                    if wait_s == 0:
                        self._remember(request.network if is_network_known else request.triplet)
                    if not request.answer.done():
                        request.answer.set_result(wait_s)
        finally:
            self._running = None

    def _remember(self, key: bytes) -> None:
        self._known.put(key, _Known(time.monotonic() + _REMEMBER_S))

    # In the thread.

    def _judge_all(self, batch: list[_Request]) -> list[tuple[int, bool]]:
        """For each: seconds to wait, and whether its network is known as a whole. One transaction."""
        now = int(self._clock())
        with self._file.transaction() as database:
            answers = [self._judge(database, request, now) for request in batch]
        if time.monotonic() - self._purged_mono_s >= _PURGE_S:
            self._purged_mono_s = time.monotonic()
            self._purge(now)
        return answers

    def _judge(self, database: sqlite3.Connection, request: _Request, now: int) -> tuple[int, bool]:
        options = self._options
        keep_until = now + round(options.keep)
        row = database.execute(
            "SELECT passes, expires FROM network WHERE key = ? AND expires > ?", (request.network, now)
        ).fetchone()
        passes = row[0] if row else 0
        if options.passes and passes >= options.passes:
            if keep_until - row[1] > _REMEMBER_S:
                database.execute("UPDATE network SET expires = ? WHERE key = ?", (keep_until, request.network))
            return 0, True
        row = database.execute(
            "SELECT first, expires, passed FROM triplet WHERE key = ?", (request.triplet,)
        ).fetchone()
        judgement = judge(Seen(row[0], row[1], bool(row[2])) if row else None, now, options)
        if judgement.seen is not None:
            seen = judgement.seen
            database.execute(
                "INSERT OR REPLACE INTO triplet VALUES (?, ?, ?, ?)",
                (request.triplet, seen.first_utc_s, seen.expires_utc_s, seen.has_passed),
            )
        if judgement.is_first_pass:
            passed_total.add()
            database.execute(
                "INSERT OR REPLACE INTO network VALUES (?, ?, ?)", (request.network, passes + 1, keep_until)
            )
        return judgement.wait_s, False

    def _purge(self, now: int) -> None:
        with self._file.transaction() as database:
            for table in ("triplet", "network"):
                database.execute(f"DELETE FROM {table} WHERE expires <= ?", (now,))
                (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
                if count > self._options.max_entries:
                    database.execute(
                        f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} ORDER BY expires LIMIT ?)",
                        (count - self._options.max_entries,),
                    )
