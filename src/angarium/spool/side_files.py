"""What lies in a spool's directory beside its shards: orders, counts, the secret, databases (docs/operations.md). Each
file belongs to somebody else, who knows what is in it; here it is octets that go along when the mail moves to another
directory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

import msgspec

# Locks, half written files, what was set aside, and SQLite's index of a journal: nothing that a relay would read.
_PASSING: Final = ("lock", "format")
_PASSING_ENDS: Final = (".new", ".lock", "-lock", "-shm", ".damaged")
_PIECE_OCTETS: Final = 1 << 20


class SideFiles(msgspec.Struct):
    """copied: names, each synced. not_copied: name and reason."""

    copied: list[str] = []
    not_copied: list[tuple[str, str]] = []


def copy_side_files(source_fd: int, target_fd: int) -> SideFiles:
    """From one spool's directory to another's; the caller syncs that. A file that is there already is not replaced, one
    that cannot be read to its end is not there at all. Raises OSError when the target cannot be written.
    """
    result = SideFiles()
    for name in sorted(os.listdir(source_fd)):
        if name in _PASSING or name.startswith(".") or name.endswith(_PASSING_ENDS):
            continue
        try:
            if not stat.S_ISREG(os.stat(name, dir_fd=source_fd, follow_symlinks=False).st_mode):
                continue
            source = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=source_fd)
        except OSError as error:
            result.not_copied.append((name, error.strerror or str(error)))
            continue
        try:
            reason = _copy(source, target_fd, name)
        finally:
            os.close(source)
        if reason is None:
            result.copied.append(name)
        else:
            result.not_copied.append((name, reason))
    return result


def _copy(source: int, target_fd: int, name: str) -> str | None:
    """None, or why not."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        target = os.open(name, flags, 0o600, dir_fd=target_fd)
    except FileExistsError:
        return "the new spool has one already"
    is_whole = False
    try:
        reason = _copy_octets(source, target)
        if reason is None:
            os.fsync(target)
        is_whole = reason is None
    finally:
        os.close(target)
        if not is_whole:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=target_fd)
    return reason


def _copy_octets(source: int, target: int) -> str | None:
    """None, or why not. Raises OSError when the target cannot be written."""
    while True:
        try:
            octets = os.read(source, _PIECE_OCTETS)
        except OSError as error:
            return error.strerror or str(error)
        if not octets:
            return None
        while octets:
            octets = octets[os.write(target, octets) :]
