"""The spool's root directory: made, checked and owned here. The shards below are the business of shard.pyx.

spool/          0700
  format        one line, "angarium-spool 1"; "angarium-spool-repair unfinished" until a repair is done
  lock          flock'd by the supervisor, holds its pid
  00 .. ff/     shards, each locked by the worker that serves it
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from typing import Self

from angarium.model.errors import SpoolBusy, SpoolCorrupt, SpoolError, SpoolUnfinished, SpoolVersion
from angarium.spool.segment_file import UNREADABLE, SegmentFile

_FORMAT = b"angarium-spool 1\n"
# Nobody who looks for the other line serves it, older programs neither.
_UNFINISHED = b"angarium-spool-repair unfinished\n"
_OURS = {"lock", "format", "format.new"}
_SEGMENT_NAME = re.compile(r"seg-[0-9]{4,9}\.ang")
_SHARD_NAME = re.compile(r"[0-9a-f]{2}")
SHARDS_MAX = 256


class SpoolDirectory:
    """An open spool root. Everything below is reached through `fd`; the path is only for texts.

    The lock lives as long as this object is open, in this process and in those forked from it.

    format_trouble  what is wrong with the file `format`, or "": only open_damaged() goes on then.
    """

    def __init__(self, path: str, fd: int, lock_fd: int, format_trouble: str = "") -> None:
        self.path = path
        self.fd = fd
        self.format_trouble = format_trouble
        self._held = [lock_fd] if lock_fd >= 0 else []

    @classmethod
    def open(cls, path: str) -> SpoolDirectory:
        """Opens `path`, making it when only its last part is missing.

        Raises SpoolBusy (names the owner's pid), SpoolVersion, SpoolCorrupt (not a spool), SpoolError.
        Nothing that was there is touched when it raises.
        """
        fd = _open_root(path)
        lock_fd = -1
        try:
            _check_format_or_empty(path, fd)
            lock_fd = _lock(path, fd)
            _write_format_if_missing(path, fd)
        except BaseException:
            if lock_fd >= 0:
                os.close(lock_fd)
            os.close(fd)
            raise
        return cls(path, fd, lock_fd)

    @classmethod
    def open_beside_owner(cls, path: str) -> SpoolDirectory:
        """Opens a spool that exists, without its lock: to read it, or to write into a shard that nobody serves.

        Raises SpoolVersion, SpoolCorrupt (not a spool), SpoolError. Whose it is does not matter: the kernel says
        who may read.
        """
        fd = _open_existing(path)
        try:
            _check_format(path, fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, -1)

    @classmethod
    def open_damaged(cls, path: str) -> SpoolDirectory:
        """Like open_beside_owner(), and also when `format` is lost, empty or damaged, as long as a shard has a segment
        with a valid header: for who only reads. What `format` would have said is in those headers as well.
        """
        fd = _open_existing(path)
        trouble = ""
        try:
            try:
                _check_format(path, fd)
            except SpoolCorrupt:
                if not _has_segments(fd):
                    raise
                trouble = _format_trouble(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, -1, trouble)

    def shards(self) -> list[int]:
        """Numbers of the shards that exist, rising."""
        return [int(name, 16) for name in _shard_names(self.fd)]

    def mark_unfinished(self) -> None:
        """Until mark_whole() nobody opens it, after a crash neither: for who fills a fresh one. Raises SpoolError."""
        _write_format(self.path, self.fd, _UNFINISHED)

    def mark_whole(self) -> None:
        """Once all that is in it is durable. Raises SpoolError."""
        _write_format(self.path, self.fd, _FORMAT)

    def refuse_owner(self) -> None:
        """Keeps owners away from the spool and all its shards until close(), and writes nothing: for who reads a
        spool in order to replace it. Raises SpoolBusy (names the owner's pid).
        """
        for name in ("lock", *(f"{shard_name(number)}/lock" for number in self.shards())):
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
            except FileNotFoundError:
                continue
            self._held.append(fd)
            _flock(f"spool {self.path}" if name == "lock" else f"spool {self.path} shard {name[:2]}", fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in self._held:
            os.close(fd)
        os.close(self.fd)


def shard_name(number: int) -> str:
    """The directory of a shard: two hexadecimal digits."""
    if not 0 <= number < SHARDS_MAX:
        raise ValueError("a shard number has eight bits")
    return f"{number:02x}"


def _open_root(path: str) -> int:
    try:
        try:
            os.mkdir(path, 0o700)
            _sync_directory(os.path.dirname(os.path.abspath(path)))
        except FileExistsError:
            pass
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SpoolError(f"spool {path}: {error.strerror}") from error
    status = os.fstat(fd)
    reason = None
    if status.st_uid != os.geteuid():
        reason = f"belongs to user {status.st_uid}, not to {os.geteuid()}"
    elif stat.S_IMODE(status.st_mode) & 0o077:
        reason = f"has mode {stat.S_IMODE(status.st_mode):04o}; others may not read mail: chmod 700"
    if reason is not None:
        os.close(fd)
        raise SpoolError(f"spool {path}: {reason}")
    return fd


def _read(fd: int, name: str) -> bytes | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=fd)
    except FileNotFoundError:
        return None
    try:
        return os.read(file, 256)
    finally:
        os.close(file)


def _open_existing(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SpoolError(f"spool {path}: {error.strerror}") from error


def _shard_names(fd: int) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(fd)
        if _SHARD_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
    )


def _has_segments(fd: int) -> bool:
    """Whether a header says so: names alone are no proof that it is a spool. Raises SpoolVersion."""
    for shard in _shard_names(fd):
        try:
            shard_fd = os.open(shard, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=fd)
        except OSError:
            continue
        try:
            for name in sorted(os.listdir(shard_fd)):
                if _SEGMENT_NAME.fullmatch(name) and _has_header(shard_fd, name):
                    return True
        except OSError:
            continue
        finally:
            os.close(shard_fd)
    return False


def _has_header(shard_fd: int, name: str) -> bool:
    try:
        with SegmentFile(shard_fd, name) as file:
            return file.header() is not None
    except (SpoolCorrupt, OSError):
        return False


def _format_trouble(fd: int) -> str:
    try:
        text = _read(fd, "format")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "is not there" if text is None else "is empty" if not text else "is damaged"


def _check_format(path: str, fd: int) -> None:
    _check_format_or_empty(path, fd)
    if not _read(fd, "format"):
        raise SpoolCorrupt(f"spool {path}: not a spool: it has no file `format`")


def _check_format_or_empty(path: str, fd: int) -> None:
    try:
        text = _read(fd, "format")
        # A crash between making the directory and naming its format leaves `lock` and no more.
        foreign = [] if text else [name for name in os.listdir(fd) if name not in _OURS]
    except OSError as error:
        if error.errno in UNREADABLE and _has_segments(fd):
            raise SpoolCorrupt(_advice(path, fd)) from error
        raise SpoolError(f"spool {path}: {error.strerror}") from error
    if text == _UNFINISHED:
        raise SpoolUnfinished(
            f"spool {path}: `angarium spool repair` was interrupted while it filled it, and not all mail is in it: "
            "remove it, and repair the old spool again"
        )
    words = (text or b"").split()
    if len(words) == 2 and words[0] == b"angarium-spool" and words[1] != b"1":
        version = words[1].decode("ascii", "replace")
        raise SpoolVersion(f"spool {path}: format version {version}, this program reads version 1")
    if (foreign or (text and text != _FORMAT)) and _has_segments(fd):
        raise SpoolCorrupt(_advice(path, fd))
    if foreign:
        raise SpoolCorrupt(f"spool {path}: not a spool: it holds {sorted(foreign)[0]!r} and no file `format`")
    if text and text != _FORMAT:
        raise SpoolCorrupt(f"spool {path}: its file `format` is not ours")


def _advice(path: str, fd: int) -> str:
    return (
        f"spool {path}: its file `format` {_format_trouble(fd)}, and it holds mail: see `angarium spool check`, then "
        "save everything into a new spool with `angarium spool repair`"
    )


def _lock(path: str, fd: int) -> int:
    try:
        lock_fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=fd)
    except OSError as error:
        raise SpoolError(f"spool {path}: lock: {error.strerror}") from error
    try:
        _flock(f"spool {path}", lock_fd)
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        os.close(lock_fd)
        raise SpoolError(f"spool {path}: lock: {error.strerror}") from error
    except SpoolError:
        os.close(lock_fd)
        raise
    return lock_fd


def _flock(what: str, lock_fd: int) -> None:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock_fd, 24, 0).strip().decode("ascii", "replace") or "(unknown)"
        raise SpoolBusy(f"{what} is in use by process {owner}") from None


def _write_format_if_missing(path: str, fd: int) -> None:
    if not _read(fd, "format"):
        _write_format(path, fd, _FORMAT)


def _write_format(path: str, fd: int, text: bytes) -> None:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open("format.new", flags, 0o600, dir_fd=fd)
        try:
            if os.write(file, text) != len(text):
                # Renamed all the same, it would be a spool that nobody opens any more.
                raise OSError(errno.EIO, "only a part of it could be written")
            os.fsync(file)
        finally:
            os.close(file)
        os.rename("format.new", "format", src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)
    except OSError as error:
        raise SpoolError(f"spool {path}: format: {error.strerror}") from error


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
