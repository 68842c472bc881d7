"""A disk that has lost some octets: for commands that are to go on without them (unreadable.c)."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp


@cache
def _library() -> Path:
    made = Path(mkdtemp(prefix="unreadable-")) / "unreadable.so"
    compiler = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2"]
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", made, Path(__file__).with_suffix(".c"), "-ldl"], check=True)
    return made


def angarium_without(
    lost: Path, start: int, end: int, *words: str | Path, number: int = errno.EIO
) -> subprocess.CompletedProcess[str]:
    """Runs an `angarium` command that cannot read the octets from start to end of the file `lost`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "LD_PRELOAD": " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(_library())))),
        "UNREADABLE": f"{lost} {start} {end} {number}",
    }
    command = [sys.executable, "-m", "angarium.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
