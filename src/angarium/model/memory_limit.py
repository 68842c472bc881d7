"""How much memory there is for us: the machine's, or what the control groups that we are in leave of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_MOUNT: Final = Path("/sys/fs/cgroup")
# cgroups(7): version 2 (memory.high slows down whoever is above it), alone or beside version 1; and version 1.
_HIERARCHIES: Final = {
    "": (("", "unified"), ("memory.max", "memory.high")),
    "memory": (("memory",), ("memory.limit_in_bytes",)),
}


def machine_octets(membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> int:
    """Memory of this machine, or of the control group that this process is in or of one above it, if that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for place in _limits(membership, mount):
        try:
            text = place.read_text().strip()
        except OSError:
            continue                    # there is no such limit, or no such hierarchy
        if text.isdigit() and int(text):
            limits.append(int(text))    # else "max"
    return min(limits)


def _limits(membership: Path, mount: Path) -> Iterator[Path]:
    """Files that may say one."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        for controller, (folders, names) in _HIERARCHIES.items():
            if controller not in controllers.split(","):
                continue
            # Within a namespace the groups above ours are out of reach, and the path begins at ours.
            inner = PurePosixPath(path.lstrip("/"))
            for group in (inner, *inner.parents) if ".." not in inner.parts else (PurePosixPath(),):
                for folder in folders:
                    yield from (mount / folder / group / name for name in names)
