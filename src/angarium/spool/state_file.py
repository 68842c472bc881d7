"""A small file in the spool's directory that is written whole: a crash leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import os


class StateFile:
    """directory_fd: borrowed."""

    def __init__(self, directory_fd: int, name: str) -> None:
        self._directory_fd = directory_fd
        self._name = name

    def read(self) -> bytes | None:
        """None: there is none yet. Raises OSError."""
        try:
            fd = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory_fd)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read()

    def write(self, octets: bytes) -> None:
        """On disk when it returns. Raises OSError: the old one is still there then, unless only the last sync failed.
        Who must know which one it is writes the old one again.
        """
        temporary = f"{self._name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self._directory_fd)
        try:
            with open(fd, "wb") as file:
                file.write(octets)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self._name, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
            os.fsync(self._directory_fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._directory_fd)
            raise
