"""How long the event loop makes an SMTP client wait while it deals with a whole backlog.

    python benchmarks/macro/stalls.py                       a million deferred recipients, one worker: ten minutes
    python benchmarks/macro/stalls.py --messages 100000     quicker

One worker over a backlog (written as backlog.py does), a next hop that is not there, and a client that sends NOOP,
waits for the reply and measures, a thousand times a second: what it waits more than usual, some work on the loop took
in one piece. Meanwhile the backlog is taken over at the start, a twentieth of it expires within one second (each with
a report to its sender), it is listed, retried (a domain, then all, which is one site: every attempt fails),
suspended and resumed, deleted (a domain, then by the age of its messages, then all of it), and the configuration is
read anew. Prints the longest wait of each; the bar is 20 ms. Not counted is for how long client and worker were ready
to run and had no processor (/proc/PID/task/TID/schedstat), nor for how long the host gave the machine's processors to
others (`steal` of /proc/stat, in its steps of 10 ms), so that neither other processes nor other machines are measured;
`with_others_ms` has all. Writes results/stalls.json when nothing was left out.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import backlog
import drive
import machine
from angarium_relay import Angarium

from angarium.cli.admin_client import AdminClient
from angarium.config.location import admin_socket

BAR_MS = 20.0
MAX_AGE_S = 5 * 86400  # the default
WRITTEN_S, WRITTEN_PER_S = 60, 6000  # the backlog is written and taken over, and what comes before expiry is done
EXPIRED_WITHIN_S = 120
BEHIND_S = 3.0  # what a deletion leaves to be written and given back
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
DELETIONS = {
    "deletion of a domain": ("--domain", "domain8.example"),
    "deletion by age": ("--older-than", "100d"),
    "deletion of all": ("--all",),
}
RESULTS = Path(__file__).resolve().parent.parent / "results" / "stalls.json"


class Delay:
    """For how long threads were ready and had no processor, or processors were not the machine's, in milliseconds."""

    def __init__(self, *pids: int) -> None:
        self._files = [os.open(f"/proc/{pid}/task/{pid}/schedstat", os.O_RDONLY) for pid in pids]
        self._stat = os.open("/proc/stat", os.O_RDONLY)

    def read(self) -> float:
        stolen = int(os.pread(self._stat, 200, 0).split()[8]) * 1000 / CLOCK_TICKS
        return stolen + sum(int(os.pread(each, 100, 0).split()[1]) for each in self._files) / 1e6


def probe(port: int, worker: int, words: Connection) -> None:
    """Measures until "end"; each other word ends a phase and is answered with its waits, sorted.

    They are milliseconds, in pairs: without and with the time for which there was no processor.
    """
    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.recv(4096)
    waits: list[tuple[float, float]] = []
    delay = Delay(worker, os.getpid())
    words.send("ready")
    while True:
        if words.poll():
            if words.recv() == "end":
                return
            words.send(sorted(waits))
            waits = []
        before, began = delay.read(), time.perf_counter()
        connection.sendall(b"NOOP\r\n")
        if not connection.recv(4096).startswith(b"250"):
            raise SystemExit("no 250 to NOOP")
        wait = (time.perf_counter() - began) * 1000
        waits.append((max(wait - (delay.read() - before), 0.0), wait))
        time.sleep(0.001)


class Probe:
    def __init__(self, port: int, worker: int) -> None:
        self._words, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=probe, args=(port, worker, theirs), daemon=True)
        self._process.start()
        self._words.recv()

    def waits(self) -> list[tuple[float, float]]:
        """Since the last call."""
        self._words.send("next")
        found: list[tuple[float, float]] = self._words.recv()
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


async def write_shard(spool: Path, number: int, messages: int, expire_utc_s: int) -> None:
    """A twentieth of them expires then."""
    old_ms = (expire_utc_s - MAX_AGE_S) * 1000
    await backlog.write_shard(spool, number, messages, lambda i: old_ms if i % 20 == 0 else None)


def until_at_rest(relay: Angarium) -> None:
    """Nothing ready, nothing loading."""
    while True:
        figures = backlog.workers_of(backlog.status(relay))
        if figures and not any(each.get("loading", 1) or each["ready"] for each in figures):
            return
        time.sleep(0.2)


def until_expired(relay: Angarium, count: int) -> None:
    """With as many reports made. Not until nothing is ready: what was retried before comes due again about now."""
    metrics = AdminClient(admin_socket(str(relay.root / "spool")))
    end = time.monotonic() + EXPIRED_WITHIN_S
    while time.monotonic() < end:
        for line in metrics.stream("/metrics"):
            if line.startswith("angarium_recipients_expired_total") and float(line.split()[-1]) >= count:
                return
        time.sleep(1)
    raise SystemExit(f"{count} recipients have not expired {EXPIRED_WITHIN_S} s after their time")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    longest: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        os.chmod(directory, 0o755)
        facts = machine.describe(Path(directory))
        relay = Patient(Path(directory), drive.free_port(), drive.free_port(), 1)
        expire_utc_s = int(time.time()) + WRITTEN_S + chosen.messages // WRITTEN_PER_S
        backlog.write_backlog(relay, chosen.messages, 1, functools.partial(write_shard, expire_utc_s=expire_utc_s))
        relay.start()
        try:
            [worker] = (each["pid"] for each in backlog.status(relay)["workers"])
            client = Probe(relay.port, worker)

            def phase(name: str, answer: str = "", until: Callable[[Angarium], None] = until_at_rest) -> None:
                until(relay)
                waits = client.waits()
                longest[name] = {
                    "longest_ms": round(waits[-1][0], 1),
                    "999_of_1000_ms": round(waits[int(len(waits) * 0.999)][0], 1),
                    "with_others_ms": round(max(with_others for _, with_others in waits), 1),
                    "probes": len(waits),
                }
                print(f"{name:32} {longest[name]}  {answer[:60]!r}", file=sys.stderr, flush=True)

            phase("taken over at the start")
            time.sleep(3)
            phase("nothing")
            phase("listing, nobody found", angarium(relay, "queue", "list", "--domain", "nobody.example"))
            phase("listing, a thousand", angarium(relay, "queue", "list", "--limit", "1000"), lambda relay: None)
            phase("retry of a domain", angarium(relay, "queue", "retry", "--domain", "domain7.example"))
            phase("retry of all, one site", angarium(relay, "queue", "retry", "--all"))
            phase("suspension of all", angarium(relay, "queue", "suspend", "--all", "--name", "stalls"))
            phase("its end", angarium(relay, "queue", "resume", "--all"))
            time.sleep(max(expire_utc_s - time.time(), 0))
            phase("expiry of a twentieth", until=lambda relay: until_expired(relay, chosen.messages // 20))
            os.kill(relay.pid, signal.SIGHUP)
            time.sleep(1)
            phase("reload", until=lambda relay: None)
            for name, filters in DELETIONS.items():
                phase(name, angarium(relay, "queue", "delete", *filters), lambda relay: time.sleep(BEHIND_S))
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
