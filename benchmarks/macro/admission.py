"""What it costs to ask who may come in, and what thousands of clients cost that only hold a place.

    python benchmarks/macro/admission.py                  five rounds in turn, about five minutes
    python benchmarks/macro/admission.py --rounds 1 --messages 4000 --clients 2000

Two relays, one beside the other, take the same mail from a stranger in turn: one with an empty [admission], one with
all of it: two limits, a wait before the greeting, three lists, names of the address and of HELO, greylisting,
tarpitting. The client is known to it after the warm-up, as DNS is: what is measured is what mail of a known stranger
pays. Messages come over kept connections, and then on a new connection each. The bar is 90 % of the first.

Then, at the relay with all of it, ordinary mail alone and beside 20,000 clients that hold a connection: half say
nothing, half an octet of a command every minute. The bar is 80 %. Writes results/admission.json when all rounds were
run. Exit status 1: a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drive
import machine
from angarium_relay import CONFIGURATION, Angarium

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "admission.json"
BARS = {"kept": 0.90, "new": 0.90, "crowd": 0.80}
ROUNDS = 5
SESSIONS = 20
CROWD = 10_000  # files that one process may open, less a few

ALL = """
[resolver]
nameservers = ["{nameserver}"]

[admission]
exempt        = []
max_sessions  = 100000
greet_wait    = "1s"
refuse_score  = 10
tarpit_score  = 8
tarpit_errors = 5
cache_time    = "1h"

[[admission.limit]]
connections     = 60000
connection_rate = "100000000/h"
messages        = "100000000/h"
recipients      = "100000000/h"
handshakes      = "100000000/h"
errors          = "100000/h"

[[admission.limit]]
ipv4_prefix = 24
ipv6_prefix = 48
connections = 60000
messages    = "100000000/h"

[[admission.dns_list]]
zone  = "one.lists.example"
score = 10

[[admission.dns_list]]
zone   = "two.lists.example"
score  = 3
values = ["127.0.0.10-127.0.0.11"]

[[admission.dns_list]]
zone  = "three.lists.example"
score = 2

[admission.checks]
no_ptr            = 3
ptr_unconfirmed   = 2
helo_is_ours      = 10
helo_bare_address = 3
helo_unqualified  = 2
helo_unresolvable = 2

[admission.greylist]
delay  = "1s"
passes = 1
"""
# The client has names that lead back, and is on one list with two points: everything is looked at, nothing refuses it.
RECORDS = {
    "1.0.0.127.in-addr.arpa": {"PTR": ["source.example."]},
    "source.example": {"A": ["127.0.0.1"]},
    "1.0.0.127.three.lists.example": {"A": ["127.0.0.2"]},
}


class PublicRelay(Angarium):
    """Clients are strangers, the recipients' domain is its own."""

    def __init__(self, work_directory: Path, tables: str) -> None:
        super().__init__(work_directory, drive.free_port(), drive.free_port())
        self._tables = tables

    def configuration(self) -> str:
        strangers = 'relay_to = ["sink.example"]'  # with as many places as a listener has that says nothing
        text = CONFIGURATION.replace('relay_from = ["127.0.0.0/8"]', strangers)
        return text + self._tables.replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def nameserver() -> Iterator[str]:
    """The tests' own, in a process of its own; its address."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as zone:
        json.dump({"records": RECORDS}, zone)
        zone.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.dns_server", "--port", "0", "--zone", zone.name],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            drive.end(process)  # type: ignore[arg-type]


@contextlib.contextmanager
def crowd(port: int, count: int) -> Iterator[None]:
    """Clients that hold a connection each and say nothing, or an octet a minute; CROWD of them in each process."""
    with contextlib.ExitStack() as undo:
        crowds = [undo.enter_context(part(port, min(CROWD, count - at))) for at in range(0, count, CROWD)]
        for each, size in crowds:
            await_answer(each, "ready", size)
        yield
        for each, size in crowds:
            assert each.stdin is not None
            each.stdin.write("?\n")
            each.stdin.flush()
            await_answer(each, "alive", size)


@contextlib.contextmanager
def part(port: int, count: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("slow_clients.py")), str(port), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process, count
    finally:
        process.kill()
        process.communicate()


def await_answer(process: subprocess.Popen[str], word: str, count: int) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().split()
    if said != [word, str(count)]:
        raise drive.RunFailed(f"of {count} slow clients: {said}")


def measured(relay: PublicRelay, work: drive.Work) -> dict[str, float]:
    run = drive.run(work, relay)
    return {"per_s": run.messages_per_s, "cpu_us": run.cpu_us_per_message}


def introduce(relay: PublicRelay) -> None:
    """Until the relay knows the client: the first try is greylisted."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(drive.RunFailed):
            drive.run(drive.Work(200, SESSIONS, 4096), relay)
            return
        time.sleep(1)
    raise drive.RunFailed("the relay does not let its client in")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=20_000)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    kept = drive.Work(chosen.messages, SESSIONS, 4096)
    works = {"kept": kept, "new": drive.Work(chosen.messages // 4, SESSIONS, 4096, is_kept_open=False)}
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory, nameserver() as address:
        folder = Path(directory)
        os.chmod(folder, 0o755)
        facts = machine.describe(folder)
        (folder / "none").mkdir()
        (folder / "all").mkdir()
        relays = {
            "none": PublicRelay(folder / "none", ""),
            "all": PublicRelay(folder / "all", ALL.replace("{nameserver}", address)),
        }
        with contextlib.ExitStack() as undo:
            for relay in relays.values():
                relay.start()
                undo.callback(relay.stop)
                introduce(relay)
            for number in range(chosen.rounds):
                for what, work in works.items():
                    # Who comes second finds what the first has left behind: they change places.
                    for name in sorted(relays, reverse=bool(number % 2)):
                        tell(runs, f"{what} {name}", measured(relays[name], work))
            for _ in range(chosen.rounds):
                tell(runs, "crowd none", measured(relays["all"], kept))
                with crowd(relays["all"].port, chosen.clients):
                    tell(runs, "crowd all", measured(relays["all"], kept))
    ratios: dict[str, Any] = {}
    is_good = True
    for what, bar in BARS.items():
        found = {figure: ratio(runs[f"{what} all"], runs[f"{what} none"], figure) for figure in ("per_s", "cpu_us")}
        ratios[what] = found
        is_good &= found["per_s"] >= bar
        print(f"{what}: {found['per_s']:.0%} of the rate (bar {bar:.0%}), {found['cpu_us']:.0%} of the relay's CPU")
    if chosen.rounds >= ROUNDS:
        kept_facts = {"machine": facts, "messages": chosen.messages, "clients": chosen.clients}
        RESULTS.write_text(json.dumps({**kept_facts, "runs": runs, "ratios": ratios}, indent=1) + "\n")
    return 0 if is_good else 1


def tell(runs: dict[str, list[dict[str, float]]], name: str, row: dict[str, float]) -> None:
    runs.setdefault(name, []).append(row)
    print(f"{name:12} {row['per_s']:8.0f}/s {row['cpu_us']:8.0f} us of the relay", flush=True)


def ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]], figure: str) -> float:
    """The median of the rounds' ratios: neighbours in time saw the same machine."""
    return statistics.median(mine[figure] / other[figure] for mine, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    sys.exit(main())
