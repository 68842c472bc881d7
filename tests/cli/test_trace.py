"""`angarium trace` from outside: over two workers, until it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from relay_process import RelayProcess, maildir_route, wait_for


class Tracer:
    """The command in the background."""

    def __init__(self, relay: RelayProcess, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "angarium.cli.main", "trace", "--config", str(relay.config_path), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.process.stderr is not None
        assert self.process.stderr.readline() == f"looking on at clients of {words[1]}; Ctrl-C ends it\n"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(20)
        self._reader.join()
        return status


def said(port: int, *commands: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as sock, sock.makefile("rwb") as lines:
        for command in (b"", *commands):
            lines.write(command + b"\r\n" if command else b"")
            lines.flush()
            lines.readline()


def test_dialogues_of_all_workers_are_shown_as_they_happen(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=2) as relay:
        tracer = Tracer(relay, "--client", "127.0.0.0/8")
        elsewhere = Tracer(relay, "--client", "192.0.2.0/24", "--json")

        def is_seen() -> bool:
            """Both workers have been told of the trace: sessions of each have been shown."""
            said(relay.port, b"HELO c.example", b"QUIT")
            return len({line.split()[1].partition(".")[0] for line in tracer.lines}) == 2

        wait_for(is_seen, "sessions of both workers are shown")
        said(relay.port, b"HELO last.example", b"RCPT TO:<b@y.example>", b"QUIT")
        wait_for(lambda: any("S: 503 5.5.1 MAIL first" in line for line in tracer.lines), "the last is shown")
        assert any(line.endswith("C: HELO last.example") for line in tracer.lines)
        assert tracer.stop() == -signal.SIGINT
        assert elsewhere.stop() == -signal.SIGINT
        assert elsewhere.lines == []
        as_json = Tracer(relay, "--client", "127.0.0.1/32", "--json")

        def is_told() -> bool:
            said(relay.port, b"HELO c.example", b"QUIT")
            return any(json.loads(line)["event"] == "command" for line in as_json.lines)

        wait_for(is_told, "events come as JSON")
        assert as_json.stop() == -signal.SIGINT
        assert relay.stop() == 0


def test_a_network_that_is_none_is_refused(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        told = relay.command("trace", "--client", "10.0.0.1/8")
        assert told.returncode == 2
        assert "10.0.0.1/8 has host bits set" in told.stderr
