"""The macro benchmark: the same work through Angarium and through Postfix, in turn, on this machine, now.

    python benchmarks/macro/run.py            every row, five rounds (a quarter of an hour); what `make bench` does
    python benchmarks/macro/run.py --quick    a fifth of the work, two rounds: an idea of the figures, kept nowhere
    python benchmarks/macro/run.py --rows limits,faulty     these rows; the others stay as they were kept before
    python benchmarks/macro/run.py --rows 4k,memory --only angarium

Both MTAs sync to the same disk before they answer 250 and log every message to a file on it. See
../README.md for what is measured how, and what these figures do not show. Postfix starts only as root;
without root, only Angarium is run. Exit status: 0 when every bar that could be judged is met, 1 when one is
not, 2 when the benchmark could not run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import chart
import drive
import kept
import machine
import process_tree
import scale_rows
import table
from angarium_relay import Angarium
from postfix import Postfix
from rows import (
    ANGARIUM_ALONE,
    IDLE_CONNECTIONS,
    IDLE_LOSS_BAR,
    IDLE_MEMORY_BAR,
    KEYS,
    MEMORY_BAR,
    MEMORY_WORK,
    QUICK_DIVISOR,
    ROUNDS,
    ROWS,
    SCALE_KEYS,
    scaled,
)

Contender = Angarium | Postfix
RESULTS = Path(__file__).resolve().parent.parent / "results"
WARM_UP_DIVISOR = 10


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Bench:
    """Runs rows and gathers measures. `divisor` scales the work down, `rounds` counts per contender and
    row.
    """

    def __init__(self, work_directory: Path, names: Sequence[str], rounds: int, divisor: int) -> None:
        self.work_directory = work_directory
        self.names = names
        self.rounds = rounds
        self.divisor = divisor
        self.measures: list[table.Measure] = []
        self.runs: dict[str, Any] = {}

    def _new(self, name: str, workers: int = 0) -> Contender:
        if name == "angarium":
            return Angarium(self.work_directory, drive.free_port(), drive.free_port(), workers)
        return Postfix(self.work_directory, drive.free_port(), drive.free_port())

    @contextlib.contextmanager
    def _running(self, name: str, workers: int = 0) -> Iterator[Contender]:
        contender = self._new(name, workers)
        try:
            contender.start()
            yield contender
        finally:
            contender.stop()

    def rates(self, keys: Sequence[str]) -> None:
        """The rows of messages/s: all contenders stay up, and take turns at each round."""
        with contextlib.ExitStack() as up:
            contenders = [up.enter_context(self._running(name)) for name in self.names]
            for row in (row for row in ROWS if row.key in keys):
                work = scaled(row.work, self.divisor)
                taken: dict[str, list[drive.Run]] = {c.name: [] for c in contenders}
                for contender in contenders:
                    self._through(contender, scaled(work, WARM_UP_DIVISOR))
                for turn in range(self.rounds):
                    # Who goes first changes each round: whatever drifts on the machine meets both alike.
                    for contender in contenders if turn % 2 == 0 else contenders[::-1]:
                        run = self._through(contender, work)
                        taken[contender.name].append(run)
                        say(
                            f"{row.title}: {contender.title} {run.messages_per_s:,.0f} messages/s, "
                            f"{run.cpu_us_per_message:,.0f} us CPU per message "
                            f"(tools {run.tools_cpu_s / run.messages * 1e6:,.0f})"
                        )
                ceiling = [drive.without_mta(work, drive.free_port()) for _ in range(min(self.rounds, 3))]
                say(f"{row.title}: {statistics.median(ceiling):,.0f} messages/s without an MTA")
                self.runs[row.key] = {name: [asdict(run) for run in runs] for name, runs in taken.items()}
                us, them = taken.get("angarium", []), taken.get("postfix", [])
                self.measures.append(
                    table.measure(
                        row.key,
                        row.title,
                        row.rate_bar,
                        unit="messages/s",
                        better="higher",
                        angarium=[r.messages_per_s for r in us],
                        postfix=[r.messages_per_s for r in them],
                        tools=ceiling,
                    )
                )
                self.measures.append(
                    table.measure(
                        row.key + "-cpu",
                        f"{row.title}: CPU per message",
                        row.cpu_bar,
                        unit="us",
                        better="lower",
                        angarium=[r.cpu_us_per_message for r in us],
                        postfix=[r.cpu_us_per_message for r in them],
                    )
                )

    def _through(self, contender: Contender, work: drive.Work) -> drive.Run:
        return drive.run(work, contender)

    def memory(self) -> None:
        """Peak memory under the first row's work. Runs of its own: looking at the memory slows what is
        looked at.
        """
        peaks: dict[str, list[float]] = {name: [] for name in self.names}
        kept: dict[str, list[dict[str, float]]] = {name: [] for name in self.names}
        for _ in range(max(1, min(self.rounds, 3))):
            for name in self.names:
                with self._running(name) as contender:
                    samples: list[process_tree.Memory] = []

                    def sample(pid: int = contender.pid, to: list[process_tree.Memory] = samples) -> None:
                        to.append(process_tree.memory(pid))

                    drive.run(scaled(MEMORY_WORK, self.divisor), contender, every=sample)
                peak = max(samples, key=lambda m: m.pss_octets)
                peaks[name].append(peak.pss_octets / 2**20)
                kept[name].append({**asdict(peak), "samples": len(samples)})
                say(
                    f"memory: {contender.title} {peak.pss_octets / 2**20:.0f} MiB PSS, "
                    f"{peak.rss_octets / 2**20:.0f} MiB RSS in {peak.process_count} processes"
                )
        self.runs["memory"] = kept
        self.measures.append(
            table.measure(
                "memory",
                "memory at 4 KiB, 100 sessions (PSS, peak)",
                MEMORY_BAR,
                unit="MiB",
                better="lower",
                angarium=peaks.get("angarium", []),
                postfix=peaks.get("postfix", []),
            )
        )

    def idle(self) -> None:
        """15,000 idle connections on one worker: what each costs, and what the first row loses beside them.
        """
        work = scaled(ROWS[0].work, self.divisor)
        alone: list[float] = []
        beside: list[float] = []
        each_kib: list[float] = []
        with self._running("angarium", workers=1) as contender:
            self._through(contender, scaled(work, WARM_UP_DIVISOR))
            for _ in range(self.rounds):
                alone.append(self._through(contender, work).messages_per_s)
                before = process_tree.memory(contender.pid)
                with idle_connections(contender.port, IDLE_CONNECTIONS) as check:
                    grown = process_tree.memory(contender.pid).pss_octets - before.pss_octets
                    each_kib.append(grown / IDLE_CONNECTIONS / 1024)
                    beside.append(self._through(contender, work).messages_per_s)
                    if (left := check()) != IDLE_CONNECTIONS:
                        raise drive.RunFailed(
                            f"only {left} of {IDLE_CONNECTIONS} idle connections were left after the run"
                        )
                say(
                    f"idle: {each_kib[-1]:.2f} KiB per connection; {alone[-1]:,.0f} messages/s alone, "
                    f"{beside[-1]:,.0f} beside them"
                )
        self.runs["idle"] = {
            "angarium": [
                {"alone_per_s": a, "beside_per_s": b, "each_kib": k}
                for a, b, k in zip(alone, beside, each_kib, strict=True)
            ]
        }
        # The first growth counts: later rounds find the memory of earlier ones already there.
        self.measures.append(
            table.measure(
                "idle-memory",
                f"{IDLE_CONNECTIONS:,} idle connections, one worker: memory of each",
                IDLE_MEMORY_BAR,
                unit="KiB",
                better="lower",
                angarium=each_kib[:1],
            )
        )
        loss = (1 - statistics.median(beside) / statistics.median(alone)) * 100
        self.measures.append(
            table.measure(
                "idle-loss",
                "messages/s the first row loses beside them",
                IDLE_LOSS_BAR,
                unit="%",
                better="lower",
                angarium=[loss],
            )
        )

    def scale(self, keys: Sequence[str]) -> None:
        """Outbound scale: each scenario has relays, receivers and name servers of its own."""
        for key in keys:
            directory = self.work_directory / key
            directory.mkdir()
            measures, found = scale_rows.SCENARIOS[key](directory, self.rounds, self.divisor)
            self.measures += measures
            self.runs[key] = found
            for each in measures:
                say(f"{each['title']}: {statistics.median(each['angarium']):,.1f} {each['unit']}")


class _Check:
    """Asks the idle-connections process how many of its connections are still open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return _answer(self.process, "alive")


def _answer(process: subprocess.Popen[str], word: str) -> int:
    assert process.stdout is not None
    said = process.stdout.readline().split()
    if len(said) != 2 or said[0] != word:
        words = process.stderr.read() if process.stderr is not None else ""
        raise drive.RunFailed(f"idle connections: {words.strip() or 'no answer'}")
    return int(said[1])


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[_Check]:
    """Holds `count` idle connections to the port while the block runs."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("idle_connections.py")), str(port), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _answer(process, "ready")
        yield _Check(process)
    finally:
        process.kill()
        process.communicate()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        epilog="See benchmarks/README.md for what is measured and how.",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=0,
        metavar="N",
        help="runs per contender and row (5; 2 with --quick); rows of outbound scale have 3 at the most",
    )
    parser.add_argument("--rows", default=",".join(KEYS), help="comma-separated: %(default)s")
    parser.add_argument("--only", choices=("angarium", "postfix"), help="one contender, no ratios")
    parser.add_argument("--quick", action="store_true", help="a fifth of the messages")
    parser.add_argument(
        "--work-directory",
        type=Path,
        default=Path("/var/tmp"),
        metavar="DIR",
        help="both queues are kept in a new directory below it (%(default)s); all parents must be "
        "searchable by everybody",
    )
    parser.add_argument("--keep", action="store_true", help="leave that directory, with logs and queues")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="all that is measured as JSON, with a chart beside it (.svg); without it each row that had its whole "
        "work, all its rounds and both contenders is kept in benchmarks/results/relay.json",
    )
    chosen = parser.parse_args(arguments)
    chosen.rows = chosen.rows.split(",")
    if unknown := [key for key in chosen.rows if key not in KEYS]:
        parser.error(f"--rows: no row {unknown[0]!r}; there are {', '.join(KEYS)}")
    chosen.rounds = chosen.rounds or (2 if chosen.quick else ROUNDS)
    return chosen


def rows_to_keep(chosen: argparse.Namespace, names: Sequence[str], measured: Sequence[str]) -> list[str]:
    """Of the rows that were measured those that are worth keeping: with the whole work, all rounds, and both contenders
    where there are two.
    """
    if chosen.quick:
        return []
    return [
        key
        for key in measured
        if (chosen.rounds >= scale_rows.ROUNDS if key in SCALE_KEYS else chosen.rounds >= ROUNDS)
        and (key in ANGARIUM_ALONE or len(names) == 2)
    ]


def keep(
    bench: Bench,
    chosen: argparse.Namespace,
    before: kept.Results,
    *,
    facts: dict[str, Any],
    started_utc: str,
    arguments: Sequence[str],
) -> None:
    """Writes what was measured, and what was kept before of other rows, and draws the chart."""
    origin = kept.Origin(
        started_utc=started_utc,
        command=" ".join(["python", "benchmarks/macro/run.py", *arguments]),
        rounds=chosen.rounds,
        machine=facts,
    )
    output = chosen.output or RESULTS / "relay.json"
    keys = list(bench.runs) if chosen.output else rows_to_keep(chosen, bench.names, list(bench.runs))
    if left_out := [key for key in bench.runs if key not in keys]:
        print(f"\nnot kept, for want of rounds, work or a contender: {', '.join(left_out)}")
    if not keys:
        return
    results = kept.merged(
        before,
        keys,
        origin,
        measures=bench.measures,
        runs=bench.runs,
        contenders={
            name: {"version": contender.version(), "settings": contender.settings()}
            for name in bench.names
            for contender in [bench._new(name)]
        },
    )
    kept.write(output, results)
    output.with_suffix(".svg").write_text(chart.draw(results))
    print(f"\nkept in {output} and {output.with_suffix('.svg')}: {', '.join(keys)}")


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse(arguments)
    names = [chosen.only] if chosen.only else ["angarium", "postfix"]
    if os.geteuid() != 0 and "postfix" in names:
        say("Postfix starts only as root: measuring Angarium alone")
        names.remove("postfix")
        if not names:
            return 2
    try:
        before = kept.nothing() if chosen.output else kept.read(RESULTS / "relay.json")
    except (OSError, ValueError) as trouble:
        print(f"benchmark not begun: {trouble}", file=sys.stderr)
        return 2
    # A TERM from outside cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    process_tree.raise_descriptor_limit(65_536)
    work_directory = Path(tempfile.mkdtemp(prefix="angarium-bench-", dir=chosen.work_directory))
    work_directory.chmod(0o755)  # Postfix's own user must get at its queue
    bench = Bench(work_directory, names, chosen.rounds, QUICK_DIVISOR if chosen.quick else 1)
    facts = machine.describe(work_directory)
    started_utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print("\n".join(f"{name:>24}  {value}" for name, value in facts.items()), "\n", file=sys.stderr)
    failure = ""
    try:
        if any(row.key in chosen.rows for row in ROWS):
            bench.rates(chosen.rows)
        if "memory" in chosen.rows:
            bench.memory()
        if "idle" in chosen.rows and "angarium" in names:
            bench.idle()
        if "angarium" in names:
            bench.scale([key for key in SCALE_KEYS if key in chosen.rows])
    except (drive.RunFailed, OSError) as trouble:
        failure = f"benchmark failed: {trouble}"
    except KeyboardInterrupt:
        failure = "interrupted"
    finally:
        if chosen.keep:
            say(f"kept {work_directory}")
        else:
            shutil.rmtree(work_directory, ignore_errors=True)
    print(table.render(bench.measures))
    # Rows that came to their end are good, whatever became of the next.
    words = sys.argv[1:] if arguments is None else arguments
    keep(bench, chosen, before, facts=facts, started_utc=started_utc, arguments=words)
    if failure:
        print(failure, file=sys.stderr)
        return 2
    return 1 if any(m["is_met"] is False for m in bench.measures) else 0


if __name__ == "__main__":
    sys.exit(main())
