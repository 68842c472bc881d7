"""Files that hold a secret in their first line: read, and again when they change, unless others may read them."""

from __future__ import annotations

import os
import stat
from typing import Final

from angarium.model.errors import AngariumError

_OTHERS: Final = 0o037

Stamp = tuple[int, int, int]


class LoginTrouble(AngariumError):
    """No credentials: the text names the file, command or endpoint and says what to do. No secret is in it."""


def read_secret_file(path: str, most: int, known: Stamp | None = None) -> tuple[Stamp, str | None]:
    """The stamp of the file and its first line, of 1 to `most` octets of UTF-8; None: it is the one that is known.

    Waits for the disk. Raises LoginTrouble, also where others than owner and group may read the file, or more than the
    owner write it.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise LoginTrouble(f"{path}: not a regular file")
            if status.st_mode & _OTHERS:
                mode = stat.S_IMODE(status.st_mode)
                raise LoginTrouble(f"{path}: mode {mode:04o} lets others read or write it: chmod 0600")
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == known:
                return stamp, None
            octets = file.read(most + 2)
    except OSError as error:
        raise LoginTrouble(f"{path}: {error.strerror}") from None
    line = octets.split(b"\n", 1)[0].removesuffix(b"\r")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise LoginTrouble(f"{path}: not UTF-8") from None
    if not 1 <= len(line) <= most or "\0" in text:
        raise LoginTrouble(f"{path}: its first line must have 1 to {most} octets")
    return stamp, text
