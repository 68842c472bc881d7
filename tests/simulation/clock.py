"""One clock for a whole process, moved by the event loop when nothing is left to be done (clock.c does it).

    run_simulated([sys.executable, "-m", "simulation.day"], directory)      # a process that can have such a clock
    begin(utc_s)                                                            # in it; then run an event loop
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Timers that are nearer to each other fire together: the timer wheel ticks ten times a second, a day long.
STEP_S: Final = 2.0
_LIBRARY: Final = "ANGARIUM_SIMULATED_CLOCK"


def run_simulated(command: Sequence[str], directory: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """directory: for the library, which is compiled for it. timeout_s: of real time."""
    library = str(_built(directory))
    preloaded = " ".join(filter(None, (os.environ.get("LD_PRELOAD"), library)))
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "LD_PRELOAD": preloaded, _LIBRARY: library, "PYTHONPATH": paths}
    return subprocess.run(
        command, env=environment, text=True, capture_output=True, timeout=timeout_s, check=False
    )


def begin(utc_s: float) -> None:
    """From now on it is that time, and passes on this thread's event loop alone. Once a process."""
    if _LIBRARY not in os.environ:
        raise RuntimeError("this process has the kernel's clock: start it by run_simulated()")
    library = ctypes.CDLL(os.environ[_LIBRARY])
    library.simulated_clock_begin.argtypes = [ctypes.c_int64, ctypes.c_int64]
    library.simulated_clock_begin(int(utc_s * 1e9), int(STEP_S * 1000))


def _built(directory: Path) -> Path:
    library = directory / "clock.so"
    compiler = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2"]
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, Path(__file__).with_name("clock.c")], check=True)
    return library
