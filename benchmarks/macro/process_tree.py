"""CPU time and memory of a whole process tree, read from /proc. Knows nothing of mail.

Processes that have ended are counted too: the kernel adds the time of a waited-for child to its parent's
cutime and cstime, and an MTA's master process waits for all of its children. What would be missed is a child
that outlives its parent; neither contender has such.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Octets of all processes of the tree together.

    pss_octets   each shared page divided by the number of processes that share it: what the tree really
                 takes.
    rss_octets   shared pages counted once per process: what `ps` adds up to.
    """

    pss_octets: int
    rss_octets: int
    process_count: int


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name, in parentheses, may hold spaces and parentheses itself.
    return text[text.rindex(")") + 2 :].split()


def members(root_pid: int) -> dict[int, list[str]]:
    """Every living process of the tree under root_pid, itself included: pid -> stat fields from `state` on.
    """
    fields_of: dict[int, list[str]] = {}
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat_fields(int(name))) is not None:
            fields_of[int(name)] = fields
            children.setdefault(int(fields[1]), []).append(int(name))
    found: dict[int, list[str]] = {}
    waiting = [root_pid]
    while waiting:
        pid = waiting.pop()
        if pid in fields_of:
            found[pid] = fields_of[pid]
            waiting += children.get(pid, [])
    return found


def cpu_s(root_pid: int) -> float:
    """User and system seconds the tree has used since it began, ended processes included."""
    ticks = 0
    for fields in members(root_pid).values():
        ticks += sum(int(fields[i]) for i in (11, 12, 13, 14))  # utime, stime, cutime, cstime
    return ticks / TICKS_PER_S


def memory(root_pid: int) -> Memory:
    """Resident memory of the tree now. Needs the right to read /proc/PID/smaps_rollup: same user, or root."""
    pss = rss = count = 0
    for pid in members(root_pid):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since it was listed
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:] if line.endswith("kB")}
        pss += sizes.get("Pss", 0) * 1024
        rss += sizes.get("Rss", 0) * 1024
        count += 1
    return Memory(pss, rss, count)


def raise_descriptor_limit(wanted: int) -> int:
    """Lets this process and its children open `wanted` files; returns what is allowed, which may be less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, PermissionError):  # only root may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
