"""[node]: who this machine is, where its spool lies, how many workers it runs."""

from __future__ import annotations

import os
import re
import socket
from typing import Final

import msgspec

from angarium.model.units import Duration, Octets

_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_SPOOL_OCTETS_MAX: Final = 96  # sun_path less "/admin.sock"
WORKERS_MAX: Final = 64  # a site's connections are counted per worker in one cache line, csrc/queue/shares.h

_DUPLICATE_WINDOW_MAX_S: Final = 10.0
# A record lies in one segment: the largest is the envelope or outcome of a message with many recipients, and 4 MiB
# hold those of more than the default max_recipients. The upper bound is the spool's (csrc/spool/open.c).
_SEGMENT_OCTETS_MIN: Final = 4 << 20
_SEGMENT_OCTETS_MAX: Final = 1 << 30


class NodeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What does not change while the daemon runs (daemon.py refuses a reload that would), but for the two marks.

    hostname   banner and EHLO name (RFC 5321 §4.1.1.1); "" means this machine's name.
    spool      directory of the spool; made when its parent exists.
    workers    processes; 0 means one per core this process may run on.
    user       whom to become when started as root; "" means stay.
    duplicate_window  a crash may repeat deliveries that ended within this; at most 10 s.
    segment_size  of new files of the spool, whole MiB; those of another size stay readable and are used up.
    min_free, min_free_inodes  of the spool's file system: with less, new mail is put off; 0 means no mark.
    """

    hostname: str = ""
    spool: str = "/var/spool/angarium"
    workers: int = 0
    user: str = ""
    duplicate_window: Duration = Duration(0.1)
    segment_size: Octets = Octets(64 << 20)
    min_free: Octets = Octets(256 << 20)
    min_free_inodes: int = 1000

    def __post_init__(self) -> None:
        if self.hostname and not is_hostname(self.hostname):
            raise ValueError(f'hostname: "{self.hostname}" is not a host name (RFC 5321 §2.3.5)')
        for key, text in (("spool", self.spool), ("user", self.user)):
            if not text.isprintable():
                raise ValueError(f"{key}: {text!r} has a control character")
        if not self.spool.startswith("/"):
            raise ValueError(f'spool: "{self.spool}" is not an absolute path')
        if len(self.spool.encode()) > _SPOOL_OCTETS_MAX:
            raise ValueError(
                f"spool: longer than {_SPOOL_OCTETS_MAX} octets (a unix socket lies in it, unix(7))"
            )
        if not 0 <= self.workers <= WORKERS_MAX:
            raise ValueError(f"workers: between 0 (one per core) and {WORKERS_MAX}, got {self.workers}")
        if self.duplicate_window > _DUPLICATE_WINDOW_MAX_S:
            raise ValueError(f"duplicate_window: between 0s and 10s, got {self.duplicate_window}")
        if not _SEGMENT_OCTETS_MIN <= self.segment_size <= _SEGMENT_OCTETS_MAX or self.segment_size % (1 << 20):
            raise ValueError(f"segment_size: whole MiB between 4MiB and 1GiB, got {self.segment_size}")
        if self.min_free_inodes < 0:
            raise ValueError(f"min_free_inodes: 0 (no mark) or more, got {self.min_free_inodes}")

    def own_hostname(self) -> str:
        """The host name to use. Asks the system only when none is set."""
        if self.hostname:
            return self.hostname
        found = socket.getfqdn()
        return found if is_hostname(found) else "localhost"

    def worker_count(self) -> int:
        """The number of workers to run, 1 at least."""
        return self.workers or min(len(os.sched_getaffinity(0)), WORKERS_MAX)


def is_hostname(text: str) -> bool:
    """Letters, digits and hyphens in labels of at most 63, 255 octets in all (RFC 1123 §2.1)."""
    return len(text) <= 255 and all(_LABEL.fullmatch(label) for label in text.split("."))
