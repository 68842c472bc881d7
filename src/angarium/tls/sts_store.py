"""Where MTA-STS policies lie over restarts, for all workers: one small SQLite file, asked from a thread of each worker.

Only what was fetched is in it, never what was not to be had. A file that cannot be used costs fetches, not mail: the
caller is told and goes on without it. A damaged one is set aside.

Format: one table `policy` by domain; times UTC seconds; patterns apart by blanks; user_version is the format's, 1.
"""

from __future__ import annotations

import sqlite3
from typing import Final, cast

import msgspec

from angarium.model.sqlite_file import SqliteFile
from angarium.tls.sts_policy import Mode, StsPolicy

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS policy
    (domain TEXT PRIMARY KEY, id TEXT NOT NULL, mode TEXT NOT NULL, patterns TEXT NOT NULL, max_age INTEGER NOT NULL,
     fetched INTEGER NOT NULL) WITHOUT ROWID;
"""
_BUSY_S: Final = 2.0
# Chosen: some 10 MB of file; those that are fetched longest ago go first.
_POLICIES_MAXIMUM: Final = 50_000


class Kept(msgspec.Struct, frozen=True):
    """A policy as it was fetched. id: what the TXT record said then."""

    id: str
    policy: StsPolicy
    fetched_utc_s: int

    @property
    def expires_utc_s(self) -> int:
        return self.fetched_utc_s + self.policy.max_age_s


class StsStore:
    """Every method waits for the disk: call from one thread. Raises sqlite3.Error or OSError.

    path          of the file, made when it is missing.
    is_read_only  it is only looked into, and put() does nothing: for commands beside a relay.
    """

    def __init__(self, path: str, *, is_read_only: bool = False) -> None:
        self._is_read_only = is_read_only
        self._file = SqliteFile(path, _SCHEMA, _VERSION, busy_s=_BUSY_S, is_read_only=is_read_only)

    def get(self, domain: str) -> Kept | None:
        try:
            row = self._file.open().execute(
                "SELECT id, mode, patterns, max_age, fetched FROM policy WHERE domain = ?", (domain,)
            ).fetchone()
        except sqlite3.DatabaseError as error:
            self._file.failed(error)
            raise
        if row is None:
            return None
        return Kept(row[0], StsPolicy(cast(Mode, row[1]), tuple(row[2].split()), row[3]), row[4])

    def put(self, domain: str, kept: Kept) -> None:
        if self._is_read_only:
            return
        policy = kept.policy
        words = (domain, kept.id, policy.mode, " ".join(policy.patterns), policy.max_age_s, kept.fetched_utc_s)
        with self._file.transaction() as database:
            # Another worker may have fetched it a moment later.
            database.execute(
                "INSERT INTO policy VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (domain) DO UPDATE SET id = excluded.id,"
                " mode = excluded.mode, patterns = excluded.patterns, max_age = excluded.max_age,"
                " fetched = excluded.fetched WHERE excluded.fetched >= policy.fetched",
                words,
            )
            database.execute("DELETE FROM policy WHERE fetched + max_age <= ?", (kept.fetched_utc_s,))
            database.execute(
                "DELETE FROM policy WHERE domain IN"
                " (SELECT domain FROM policy ORDER BY fetched DESC LIMIT -1 OFFSET ?)",
                (_POLICIES_MAXIMUM,),
            )

    def close(self) -> None:
        self._file.close()
