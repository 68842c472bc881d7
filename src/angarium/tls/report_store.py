"""Outcomes of TLS by day, and the reports that are to be made of them: one SQLite file in the spool, for all workers.

What a worker has counted lies here within a minute (report_counts.py); a crash loses that minute's counts, and no mail.
Commands look into the file and change when a report is due; who sends sees it at the next turn.

Format, user_version 1. day: UTC seconds // 86400. `outcome` counts equal outcomes; `policy` is ReportedPolicy as JSON.
`report` is one for each day and domain of which there are outcomes, from when it is due until all who want it have it;
`sent` are the places that have, as JSON. Damaged: set aside, and begun anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from angarium.model.sqlite_file import SqliteFile
from angarium.tls.report_outcome import ReportedPolicy, TlsOutcome

DAY_S: Final = 86_400
FILE_NAME: Final = "tls-reports.db"

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outcome
    (day INTEGER NOT NULL, domain TEXT NOT NULL, policy TEXT NOT NULL, result TEXT NOT NULL, mx TEXT NOT NULL,
     ip TEXT NOT NULL, sender TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,
     PRIMARY KEY (day, domain, policy, result, mx, ip, sender, reason)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS report
    (day INTEGER NOT NULL, domain TEXT NOT NULL, due INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
     sent TEXT NOT NULL DEFAULT '[]', PRIMARY KEY (day, domain)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS report_due ON report (due);
"""
_BUSY_S: Final = 5.0
# Chosen: a quarter of a gibibyte, some two million different outcomes; past it nothing new is counted.
_PAGES_MOST: Final = 65_536
_KEYS: Final = "day, domain, policy, result, mx, ip, sender, reason"


class Counted(msgspec.Struct, frozen=True):
    outcome: TlsOutcome
    count: int


class Due(msgspec.Struct, frozen=True):
    """A report that is to be made. tries: how often that failed. sent: where it has arrived."""

    day: int
    domain: str
    due_utc_s: int
    tries: int
    sent: tuple[str, ...]


class Summary(msgspec.Struct, frozen=True):
    """For people. due_utc_s: 0: at a random time behind the end of the day."""

    day: int
    domain: str
    good: int
    bad: int
    due_utc_s: int
    tries: int


class TlsReportStore:
    """Every method waits for the disk: call from one thread. Raises sqlite3.Error or OSError."""

    def __init__(self, path: str, *, pages_more: int = 0) -> None:
        """pages_more: beyond where others stop; who empties a full file has to write in it."""
        self._file = SqliteFile(
            path, _SCHEMA, _VERSION, busy_s=_BUSY_S,
            # WAL: counting and reading do not wait for each other.
            pragmas=("journal_mode = WAL", "synchronous = NORMAL", f"max_page_count = {_PAGES_MOST + pages_more}"),
        )  # fmt: skip

    def add(self, day: int, counts: Iterable[tuple[TlsOutcome, int]]) -> None:
        rows = [(day, *_row(outcome), count) for outcome, count in counts]
        self._write(
            f"INSERT INTO outcome ({_KEYS}, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            f" ON CONFLICT ({_KEYS}) DO UPDATE SET count = count + excluded.count",
            rows,
        )

    def days_without_reports(self, before: int) -> list[tuple[int, str]]:
        """Days before that one, and domains with outcomes of them for which no report is planned yet."""
        rows = self._read(
            "SELECT DISTINCT day, domain FROM outcome WHERE day < ?"
            " EXCEPT SELECT day, domain FROM report ORDER BY 1, 2",
            (before,),
        )
        return [(int(day), str(domain)) for day, domain in rows]

    def plan(self, planned: Iterable[tuple[int, str, int]]) -> None:
        """(day, domain, due); one that is planned already stays as it is."""
        self._write("INSERT OR IGNORE INTO report (day, domain, due) VALUES (?, ?, ?)", list(planned))

    def due(self, now_utc_s: int, limit: int) -> list[Due]:
        rows = self._read(
            "SELECT day, domain, due, tries, sent FROM report WHERE due <= ? ORDER BY due LIMIT ?", (now_utc_s, limit)
        )
        return [
            Due(day, domain, due, tries, tuple(msgspec.json.decode(sent, type=list[str])))
            for day, domain, due, tries, sent in rows
        ]

    def outcomes(self, day: int, domain: str) -> list[Counted]:
        rows = self._read(
            "SELECT domain, policy, result, mx, ip, sender, reason, count FROM outcome WHERE day = ? AND domain = ?",
            (day, domain),
        )
        return [_counted(row) for row in rows]

    def again(self, due: Due, at_utc_s: int, sent: Iterable[str]) -> None:
        self._write(
            "UPDATE report SET due = ?, tries = tries + 1, sent = ? WHERE day = ? AND domain = ?",
            [(at_utc_s, msgspec.json.encode(sorted(sent)).decode(), due.day, due.domain)],
        )

    def arrived(self, due: Due, sent: Iterable[str]) -> None:
        """Where the report is by now: it is not sent there again, whatever happens."""
        self._write(
            "UPDATE report SET sent = ? WHERE day = ? AND domain = ?",
            [(msgspec.json.encode(sorted(sent)).decode(), due.day, due.domain)],
        )

    def done(self, day: int, domain: str, counted: Iterable[Counted]) -> None:
        """Takes back what the report has told: of a day that is not over more may have come since."""
        with self._file.transaction() as database:
            for each in counted:
                key = (day, *_row(each.outcome))
                where = " AND ".join(f"{name} = ?" for name in _KEYS.split(", "))
                database.execute(f"UPDATE outcome SET count = count - ? WHERE {where}", (each.count, *key))
            database.execute("DELETE FROM outcome WHERE day = ? AND domain = ? AND count <= 0", (day, domain))
            database.execute("DELETE FROM report WHERE day = ? AND domain = ?", (day, domain))

    def hurry(self, domain: str, now_utc_s: int) -> int:
        """All reports of a domain ("": of all), today's too, are due now; how many those are."""
        with self._file.transaction() as database:
            database.execute(
                "INSERT INTO report (day, domain, due) SELECT DISTINCT day, domain, ? FROM outcome"
                " WHERE ? IN ('', domain) ON CONFLICT (day, domain) DO UPDATE SET due = excluded.due",
                (now_utc_s, domain),
            )
        ((count,),) = self._read("SELECT count(*) FROM report WHERE ? IN ('', domain)", (domain,))
        return int(count)

    def summaries(self, domain: str = "") -> list[Summary]:
        rows = self._read(
            "SELECT outcome.day, outcome.domain, sum(CASE result WHEN '' THEN count ELSE 0 END),"
            " sum(CASE result WHEN '' THEN 0 ELSE count END), coalesce(max(due), 0), coalesce(max(tries), 0)"
            " FROM outcome LEFT JOIN report ON report.day = outcome.day AND report.domain = outcome.domain"
            " WHERE ? IN ('', outcome.domain) GROUP BY outcome.day, outcome.domain ORDER BY 1, 2",
            (domain,),
        )
        return [Summary(*row) for row in rows]

    def close(self) -> None:
        self._file.close()

    def _read(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        try:
            return self._file.open().execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            self._file.failed(error)
            raise

    def _write(self, statement: str, rows: list[Any]) -> None:
        with self._file.transaction() as database:
            database.executemany(statement, rows)


def _row(outcome: TlsOutcome) -> tuple[str, ...]:
    policy = msgspec.json.encode(outcome.policy).decode()
    return outcome.domain, policy, outcome.result, outcome.mx, outcome.ip, outcome.sender, outcome.reason


def _counted(row: tuple[Any, ...]) -> Counted:
    domain, policy, result, mx, ip, sender, reason, count = row
    decoded = msgspec.json.decode(policy, type=ReportedPolicy)
    return Counted(TlsOutcome(domain, decoded, result, mx, ip, sender, reason), count)
