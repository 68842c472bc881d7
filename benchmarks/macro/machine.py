"""What the figures were measured on: machine, disk, versions, commit. All of it goes into the results file.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path

SYNCS = 200
PACKAGES = ("uvloop", "Cython", "msgspec")


def describe(work_directory: Path) -> dict[str, str | int | float | bool]:
    """Facts by name; `work_directory` is where both contenders keep their queues."""
    commit, is_dirty = _commit()
    return {
        "processor": _first_value("/proc/cpuinfo", "model name")
        or platform.processor()
        or platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_mib": int((_first_value("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) // 1024,
        "kernel": platform.release(),
        "system": _first_value("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "filesystem": _filesystem(work_directory),
        "fdatasync_4k_us": fdatasync_us(work_directory),
        "python": platform.python_version(),
        **{package.lower(): _version(package) for package in PACKAGES},
        "commit": commit,
        "has_uncommitted_changes": is_dirty,
    }


def fdatasync_us(directory: Path) -> float:
    """Median of fdatasync after overwriting 4 KiB of a preallocated file there, in microseconds."""
    path = directory / "sync-probe"
    octets = os.urandom(4096)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for i in range(SYNCS):
            os.pwrite(fd, octets, i * 4096)
        os.fsync(fd)
        took = []
        for i in range(SYNCS):
            os.pwrite(fd, octets, i * 4096)
            start = time.perf_counter()
            os.fdatasync(fd)
            took.append(time.perf_counter() - start)
    finally:
        os.close(fd)
        path.unlink()
    return round(statistics.median(took) * 1e6, 1)


def _first_value(path: str, key: str, separator: str = ":") -> str:
    for line in Path(path).read_text(errors="replace").splitlines():
        name, found, value = line.partition(separator)
        if found and name.strip() == key:
            return value.strip()
    return ""


def _filesystem(directory: Path) -> str:
    """Type and options of the mount that holds `directory`."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if (str(directory) + "/").startswith(point.rstrip("/") + "/") and len(point) > len(best[0]):
            best = (point, f"{kind} ({options})")
    return best[1]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _commit() -> tuple[str, bool]:
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], check=False, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    return git("rev-parse", "HEAD") or "none", bool(
        git("status", "--porcelain", "--", ":(top)src", ":(top)csrc", ":(top)setup.py")
    )
