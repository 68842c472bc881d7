"""A whole relay as a process of its own, for tests that look at it from outside.

    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        relay.port, relay.events("delivered"), relay.command("queue", "list"), relay.workers() ...

Everything lies below the directory given: configuration, spool, log (stdout) and errors (stderr).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

PATIENCE_S = 20.0


def wait_for(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first true value of the condition; an AssertionError that says `what` was awaited in vain."""
    end = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {patience_s:g} s: {what}"
        time.sleep(0.01)
    return value


def maildir_route(directory: Path, domain: str = "*") -> str:
    """A route into Maildirs below `directory`/mail, one per local part."""
    return f'[[route]]\ndomain = "{domain}"\nnext_hop = "maildir:{directory}/mail/{{local}}"\n'


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter: gone between open and read
        return False


class RelayProcess:
    """`angarium serve` in the background. config: TOML behind the [node] and [[listener]] made here."""

    def __init__(self, directory: Path, config: str = "", *, workers: int = 1, listener: str = "") -> None:
        self.directory = directory
        self.config_path = directory / "angarium.toml"
        self.log_path = directory / "log"
        self.errors_path = directory / "errors"
        self.workers_wanted = workers
        self.listener = listener or 'address = "127.0.0.1:0"\nrelay_from = ["127.0.0.0/8"]\n'
        self.spool = directory / "spool"
        self.is_log_torn = False  # after kill -9, lines that are not whole are left out
        self.node = ""  # more keys of [node], a line each
        self.prefix: tuple[str, ...] = ()  # words in front of its command line; they must execute it in their place
        self.write_config(config)
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def write_config(self, config: str) -> None:
        """Replaces what follows [node] and [[listener]]; takes effect at the next start or reload."""
        self.config_path.write_text(
            f'[node]\nhostname = "mx.test"\nspool = "{self.spool}"\n'
            f"workers = {self.workers_wanted}\n{self.node}"
            f"[[listener]]\n{self.listener}\n{config}"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def start(self) -> None:
        """Starts it and waits until all workers serve."""
        self.launch()
        wait_for(lambda: self.started() or self.exit_status() is not None, "the relay serves")
        assert self.exit_status() is None, self.errors()
        ports = re.findall(r":(\d+)(?=,|$)", self.started())
        self.port = int(ports[-1]) if ports else 0

    def launch(self) -> None:
        """Starts it and does not wait."""
        with self.log_path.open("ab") as log, self.errors_path.open("ab") as errors:
            self._log_start = self.log_path.stat().st_size
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "angarium.cli.main", "serve", "--config", str(self.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )

    def started(self) -> str:
        """Listening addresses of this start; "" while it does not serve."""
        events = [event for event in self.all_events(self._log_start) if event["event"] == "started"]
        return str(events[-1]["listeners"]) if events else ""

    def exit_status(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """kill -9 of everything at once; returns when all of it is gone."""
        assert self.process is not None
        self.is_log_torn = True
        workers = self.workers()
        for pid in (self.process.pid, *workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in workers), "all are gone")

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def all_events(self, start: int = 0) -> list[dict[str, Any]]:
        """The whole log so far, but for a line still being written."""
        with self.log_path.open("rb") as log:
            log.seek(start)
            octets = log.read()
        events = []
        for line in octets[: octets.rfind(b"\n") + 1].splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                # kill -9 in the middle of a write leaves half a line, and another's first line behind it.
                assert self.is_log_torn, line
        return events

    def events(self, *names: str) -> list[dict[str, Any]]:
        return [event for event in self.all_events() if event["event"] in names]

    def errors(self) -> str:
        return self.errors_path.read_text()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `angarium WORDS --config ...` against this relay."""
        return angarium(*words, "--config", str(self.config_path))


def angarium(
    *words: str, input_text: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs an `angarium` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "angarium.cli.main", *words],
        input=input_text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
