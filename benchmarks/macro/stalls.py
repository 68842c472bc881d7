"""How long the event loop makes an SMTP client wait while it deals with a whole backlog.

    python benchmarks/macro/stalls.py                       a million deferred recipients, one worker
    python benchmarks/macro/stalls.py --messages 100000     quicker

One worker over a backlog (written as backlog.py does), a next hop that is not there, and a client on another core
that sends NOOP, waits for the reply and measures, a thousand times a second: what it waits more than usual, some work
on the loop took in one piece. Meanwhile the backlog is taken over at the start, listed, retried (a domain, then all of
it: every attempt fails), deleted (a domain, then all of it), and the configuration is read anew. Prints the longest
wait of each; the bar is 20 ms. All of it runs at real-time priority where that is allowed, so that no other process of
the machine is measured. Writes results/stalls.json when nothing was left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import backlog
import drive
import machine
from angarium_relay import Angarium

BAR_MS = 20.0
RESULTS = Path(__file__).resolve().parent.parent / "results" / "stalls.json"


def probe(port: int, words: Connection) -> None:
    """Measures until "end"; each other word ends a phase and is answered with its waits in milliseconds, sorted."""
    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.recv(4096)
    waits: list[float] = []
    words.send("ready")
    while True:
        if words.poll():
            if words.recv() == "end":
                return
            words.send(sorted(waits))
            waits = []
        began = time.perf_counter()
        connection.sendall(b"NOOP\r\n")
        if not connection.recv(4096).startswith(b"250"):
            raise SystemExit("no 250 to NOOP")
        waits.append((time.perf_counter() - began) * 1000)
        time.sleep(0.001)


class Probe:
    def __init__(self, port: int) -> None:
        self._words, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=probe, args=(port, theirs), daemon=True)
        self._process.start()
        self._words.recv()

    def waits(self) -> list[float]:
        """Since the last call."""
        self._words.send("next")
        found: list[float] = self._words.recv()
        return found

    def end(self) -> None:
        self._words.send("end")
        self._process.join(10)


class Patient(Angarium):
    """Takes any number of NOOP in one session."""

    def configuration(self) -> str:
        text = super().configuration().replace("[[route]]", "max_junk   = 10_000_000\n\n[[route]]", 1)
        # All of the backlog at once, and none of it behind a full queue for the pauses of a dead site.
        return text.replace("connections = 50", "connections = 50\nmax_ready   = 10_000_000")


def angarium(relay: Angarium, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "angarium.cli.main", *arguments, "--config", str(relay.root / "angarium.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip()


def until_at_rest(relay: Angarium) -> None:
    """Nothing ready, nothing loading."""
    while True:
        figures = backlog.workers_of(backlog.status(relay))
        if figures and not any(each.get("loading", 1) or each["ready"] for each in figures):
            return
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    longest: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        os.chmod(directory, 0o755)
        facts = machine.describe(Path(directory))
        relay = Patient(Path(directory), drive.free_port(), drive.free_port(), 1)
        backlog.write_backlog(relay, chosen.messages, 1)
        relay.start()
        try:
            client = Probe(relay.port)

            def phase(name: str, answer: str = "") -> None:
                until_at_rest(relay)
                waits = client.waits()
                longest[name] = {
                    "longest_ms": round(waits[-1], 1),
                    "999_of_1000_ms": round(waits[int(len(waits) * 0.999)], 1),
                    "probes": len(waits),
                }
                print(f"{name:32} {longest[name]}  {answer[:60]!r}", file=sys.stderr, flush=True)

            phase("taken over at the start")
            time.sleep(3)
            phase("nothing")
            phase("listing, nobody found", angarium(relay, "queue", "list", "--domain", "nobody.example"))
            phase("retry of a domain", angarium(relay, "queue", "retry", "--domain", "domain7.example"))
            phase("retry of all", angarium(relay, "queue", "retry", "--all"))
            os.kill(relay.pid, signal.SIGHUP)
            time.sleep(1)
            phase("reload")
            phase("deletion of a domain", angarium(relay, "queue", "delete", "--domain", "domain8.example"))
            phase("deletion of all", angarium(relay, "queue", "delete", "--all"))
            client.end()
        finally:
            relay.stop()
    worst = max(each["longest_ms"] for each in longest.values())
    print(f"{chosen.messages} recipients: {worst} ms at the longest (bar {BAR_MS:.0f})")
    if chosen.messages >= parser.get_default("messages"):
        result = {"machine": facts, "messages": chosen.messages, "waits": longest}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if worst <= BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
