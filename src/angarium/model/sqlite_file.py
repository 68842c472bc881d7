"""A small SQLite file that several processes share, and that is begun anew when it is damaged. What is in it is said by
who opens it.

Damaged: renamed to NAME.damaged, by whoever comes first. Others find that out later, from the file that they still have
open; by then another may lie at the path, which is good and stays. Who renames holds the directory's lock meanwhile, so
that there is no moment between a look at the path and the renaming.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path


class SqliteFile:
    """Every method waits for the disk: call from one thread at a time. Raises sqlite3.Error or OSError.

    path     of the file, made when it is missing, for its owner only.
    schema   statements that do no harm where their tables are.
    version  user_version of the file; one of another version is not touched.
    busy_s   how long to wait for who else writes.
    pragmas  run at each opening: "journal_mode = WAL".
    is_read_only  it is only looked into, and must be there.
    """

    def __init__(
        self,
        path: str,
        schema: str,
        version: int,
        *,
        busy_s: float,
        pragmas: Sequence[str] = (),
        is_read_only: bool = False,
    ) -> None:
        self.path = path
        self._schema = schema
        self._version = version
        self._busy_s = busy_s
        self._pragmas = pragmas
        self._is_read_only = is_read_only
        self._database: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None     # device and inode

    def open(self) -> sqlite3.Connection:
        """The same until failed() or close(), unless another file lies at the path: then that. In autocommit mode.

        Raises what failed() is to be told.
        """
        if self._database is not None and not self._is_read_only and self._opened != self._at_path():
            self.close()        # set aside by another process: what is written there now is lost
        if self._database is None:
            self._database = self._look_into() if self._is_read_only else self._prepare()
        return self._database

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One that writes, and waits at its begin for others that do. failed() is told what goes wrong in it."""
        try:
            database = self.open()
            with database:
                database.execute("BEGIN IMMEDIATE")
                yield database
        except sqlite3.DatabaseError as error:
            self.failed(error)
            raise

    def failed(self, error: sqlite3.DatabaseError) -> None:
        """Closes the file, and sets it aside if it is at fault and still the one at the path."""
        try:
            # OperationalError: busy, full, not allowed: the file is not at fault.
            if not self._is_read_only and not isinstance(error, sqlite3.OperationalError):
                with contextlib.suppress(OSError):
                    self._set_aside()
        finally:
            self.close()        # not before: while it is open, no other file can get its inode

    def close(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
        self._database = self._opened = None

    def _look_into(self) -> sqlite3.Connection:
        uri = f"{Path(self.path).as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, timeout=self._busy_s, check_same_thread=False)

    def _prepare(self) -> sqlite3.Connection:
        # A file that is there is not opened here: closing it would drop the locks that this process holds on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._opened = self._at_path()
        database = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False)
        try:
            if self._opened != self._at_path():
                raise sqlite3.OperationalError("another file has taken its place")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, self._version):
                raise sqlite3.OperationalError(f"of a later version: {version}")
            for pragma in self._pragmas:
                database.execute(f"PRAGMA {pragma}")
            database.executescript(self._schema)
            database.execute(f"PRAGMA user_version = {self._version}")
        except BaseException:
            database.close()
            raise
        return database

    def _at_path(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _set_aside(self) -> None:
        directory_fd = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory_fd, fcntl.LOCK_EX)
            if self._opened is None or self._opened != self._at_path():
                return
            # First what belongs to it: behind the renaming others may begin a log of the new file.
            for rest in ("-wal", "-shm", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path + rest)
            os.replace(self.path, self.path + ".damaged")
        finally:
            os.close(directory_fd)      # and the lock with it
