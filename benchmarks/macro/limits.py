"""How closely rates are kept over all workers, counted where mail arrives.

    python benchmarks/macro/limits.py                    100/s and 1000/s, of a site and of a source (about a minute)
    python benchmarks/macro/limits.py --seconds 30       each for longer

Two workers, and two of `angarium sink` as next hops, which write down when each message came. Twelve seconds' worth
of mail is accepted as fast as it goes. From one second behind the first message to the last the sinks' own times are
counted: messages a second over the whole, and the most in any one second, which may be a tenth of a second's worth over
the rate (the burst). The bar is 2 % of the rate. What is limited is one site, or one source over two sites, by
[shaping.source.NAME] all_sites. Writes results/limits.json when nothing was left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drive
import machine
from angarium_relay import Angarium

BAR = 0.02
SECOND_BAR = 1.1 + BAR          # with the burst that is allowed
SECONDS = 10
RATES = (100, 1000)
WORKERS = 2
# Left out: the burst and the first connections lie in it.
SETTLE_S = 1.0
RESULTS = Path(__file__).resolve().parent.parent / "results" / "limits.json"

CONFIGURATION = """\
[node]
hostname = "angarium.bench.example"
spool    = "{root}/spool"
workers  = {workers}

[[listener]]
address    = "127.0.0.1:{port}"
relay_from = ["127.0.0.0/8"]

[[route]]
domain   = "a.example"
next_hop = "smtp://127.0.0.1:{sink_port}"

[[route]]
domain   = "b.example"
next_hop = "smtp://127.0.0.1:{second_port}"

[source.ip-1]
address = "127.0.0.1"

"""
LIMITS = {
    "site": '[shaping.default]\nmessage_rate = "{rate}/s"\n',
    "source": '[shaping.source.ip-1]\nall_sites = {{ message_rate = "{rate}/s" }}\n',
}


class Limited(Angarium):
    """The relay of this benchmark: what is limited, and to how much."""

    def __init__(self, work_directory: Path, ports: list[int], what: str, rate: int) -> None:
        super().__init__(work_directory / f"{what}-{rate}", ports[0], ports[1], WORKERS)
        self._tail = LIMITS[what].format(rate=rate)
        self._second_port = ports[2]

    def configuration(self) -> str:
        text = CONFIGURATION.replace("{second_port}", str(self._second_port))
        return text + self._tail.replace("{", "{{").replace("}", "}}")


def angarium(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "angarium.cli.main", *arguments]


@contextlib.contextmanager
def sink(port: int, record: Path) -> Iterator[None]:
    command = angarium("sink", "--listen", f"127.0.0.1:{port}", "--record", str(record))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        drive.await_greeting(port, lambda: process.poll() is None, 10)
        yield
    finally:
        drive.end(process)


def times_of(records: list[Path]) -> list[float]:
    """When each message came, in order. A line that is being written is left for the next look."""
    return sorted(
        json.loads(line)["time_utc"]
        for record in records
        if record.exists()
        for line in record.read_bytes().split(b"\n")[:-1]
    )


def lines_of(records: list[Path]) -> int:
    return sum(record.read_bytes().count(b"\n") for record in records if record.exists())


def most_in_one_second(times: list[float]) -> int:
    most = first = 0
    for index, at in enumerate(times):
        while at - times[first] >= 1.0:
            first += 1
        most = max(most, index - first + 1)
    return most


def run(directory: Path, what: str, rate: int, seconds: int) -> dict[str, Any]:
    ports = [drive.free_port() for _ in range(3)]
    relay = Limited(directory, ports, what, rate)
    domains = ["a.example"] if what == "site" else ["a.example", "b.example"]
    count = rate * (seconds + 2) // len(domains)
    records = [relay.root.parent / f"{domain}.jsonl" for domain in domains]
    relay.root.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        for port, record in zip(ports[1:], records, strict=False):
            stack.enter_context(sink(port, record))
        relay.start()
        stack.callback(relay.stop)
        for domain in domains:
            order = ("--messages", str(count), "--sessions", "40", "--size", "2k", "--to", f"u{{n}}@{domain}")
            command = angarium("blast", "--server", f"127.0.0.1:{ports[0]}", *order, "--no-progress", "--json")
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 3 * seconds + 10
        while lines_of(records) < count * len(domains):
            if time.monotonic() > deadline:
                raise drive.RunFailed(f"{lines_of(records)} of {count * len(domains)} messages came")
            time.sleep(0.2)
    times = times_of(records)
    times = [at for at in times if at >= times[0] + SETTLE_S]
    found = (len(times) - 1) / (times[-1] - times[0])
    return {
        "limited": what,
        "rate": rate,
        "messages": len(times),
        "seconds": round(times[-1] - times[0], 2),
        "found_per_s": round(found, 2),
        "off": round(found / rate - 1, 4),
        "most_in_one_second": most_in_one_second(times),
    }


def measure(directory: Path, seconds: int) -> dict[str, Any]:
    """worst_off: part of the rate, over or under. most_in_one_second: part of the rate."""
    runs = []
    for what in LIMITS:
        for rate in RATES:
            runs.append(run(directory, what, rate, seconds))
            print(f"{what:8} {rate:5}/s  {runs[-1]}", file=sys.stderr, flush=True)
    return {
        "workers": WORKERS,
        "runs": runs,
        "worst_off": max(abs(each["off"]) for each in runs),
        "most_in_one_second": round(max(each["most_in_one_second"] / each["rate"] for each in runs), 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each measurement (%(default)s)")
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        os.chmod(directory, 0o755)
        facts = machine.describe(Path(directory))
        found = measure(Path(directory), chosen.seconds)
    worst, over = found["worst_off"], found["most_in_one_second"]
    print(
        f"{worst:.2%} off at the most (bar {BAR:.0%}); {over:.2f} of the rate in one second at the most "
        f"(bar {SECOND_BAR})"
    )
    if chosen.seconds >= SECONDS:
        RESULTS.write_text(json.dumps({"machine": facts, **found}, indent=1) + "\n")
    return 0 if worst <= BAR and over <= SECOND_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
