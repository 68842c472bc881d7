"""Angarium as a contender: `angarium serve` with the configuration of a relay to one smarthost, as an
operator has it.

Its event log goes to a file on the same disk, as Postfix's does. Nothing is set that a user could not set.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from drive import RunFailed, await_greeting, end

CONFIGURATION = """\
[node]
hostname = "angarium.bench.example"
spool    = "{root}/spool"
workers  = {workers}

[[listener]]
address    = "127.0.0.1:{port}"
relay_from = ["127.0.0.0/8"]

[[route]]
domain   = "*"
next_hop = "smtp://127.0.0.1:{sink_port}"

[shaping.default]
connections = 50
"""


class Angarium:
    """Started by start(), ended by stop(); `pid` is the supervisor, `port` where it listens.

    workers   0: one per core.
    """

    name = "angarium"
    title = "Angarium"

    def __init__(self, work_directory: Path, port: int, sink_port: int, workers: int = 0) -> None:
        self.root = work_directory / f"angarium-{workers}"
        self.port = port
        self.sink_port = sink_port
        self.workers = workers
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    def version(self) -> str:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version("angarium")
        return "unpackaged checkout"

    def settings(self) -> str:
        """The configuration, for the results file."""
        return CONFIGURATION

    def configuration(self) -> str:
        """The text to be formatted."""
        return CONFIGURATION

    def start(self) -> None:
        """Writes the configuration, starts the supervisor and waits for a greeting."""
        self.root.mkdir(parents=True, exist_ok=True)
        configuration = self.root / "angarium.toml"
        configuration.write_text(
            self.configuration().format(
                root=self.root, workers=self.workers, port=self.port, sink_port=self.sink_port
            )
        )
        with (
            (self.root / "events.jsonl").open("ab") as events,
            (self.root / "errors.txt").open("ab") as errors,
        ):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "angarium.cli.main", "serve", "--config", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=events,
                stderr=errors,
            )
        self.pid = self._process.pid
        try:
            await_greeting(self.port, lambda: self._process is not None and self._process.poll() is None)
        except RunFailed as trouble:
            self.stop()
            raise RunFailed(
                f"angarium serve: {trouble}\n{(self.root / 'errors.txt').read_text()[-2000:]}"
            ) from None

    def stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            end(process, 20)
