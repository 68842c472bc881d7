"""System calls of a running process that fail as told: strace(1) attached to it, with fault injection."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop.programs import program
from relay_process import wait_for


class Faults:
    """What strace has done so far."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def count(self) -> int:
        """How many calls have failed by our doing."""
        return self._log.read_bytes().count(b"(INJECTED)")

    def wait_for_count(self, count: int) -> None:
        wait_for(lambda: self.count() >= count, f"{count} calls have failed", 30)


@contextlib.contextmanager
def failing(pid: int, calls: str, error: str, when: str = "1+") -> Iterator[Faults]:
    """In all threads of the process, until the end of the block.

    calls  names with commas between; error: "EIO"; when: which of a thread's calls, as in strace(1): "1+2" is
    every second one.
    """
    command = program("strace")
    with tempfile.TemporaryDirectory(prefix="strace-") as directory:
        log, said = Path(directory, "log"), Path(directory, "said")
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    *(command, "-f", "-p", str(pid), "-o", str(log)),
                    *("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            wait_for(lambda: b" attached" in said.read_bytes() or process.poll() is not None, "strace is attached")
            if process.poll() is not None:
                text = said.read_text()
                if "not permitted" in text:
                    pytest.skip(f"processes cannot be traced here: {text.strip()}")
                raise AssertionError(text)
            yield Faults(log)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGINT)  # detaches and ends
                process.wait(20)


def with_failing(calls: str, error: str) -> tuple[str, ...]:
    """Words in front of a command line: all its processes run with these calls failing, from the first one on."""
    command = program("strace")
    probe = subprocess.run([command, "-qq", "-e", "trace=none", "true"], check=False, capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"processes cannot be traced here: {probe.stderr.strip()}")
    # Only what is to fail stops: else the start of an interpreter takes many seconds.
    return (
        *(command, "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"),
        *("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"),
    )
