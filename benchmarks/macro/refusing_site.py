"""What a site that refuses everything costs the others.

    python benchmarks/macro/refusing_site.py

Three relays in turn take the same stream of mail for ten sites and an eleventh: one where the eleventh takes mail as
the others do, one where it turns every connection away (421), one where it refuses every recipient (450); what is
refused is tried again by the default times. Messages a second, over all that came in, until the last one for the ten is
delivered: each round's figures are divided by each other, and the median of the ratios counts; of few rounds that is
what else the machine does. Writes results/refusing_site.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import drive
import machine
import process_tree
import scale

SITES, BAR = 11, 0.05
MESSAGES = 88_000  # of fewer most is the beginning, in which the site that refuses is not known to
RECEIVERS = {
    "takes": "",
    "turns-away": '[receiver.r]\naddress = ["127.43.0.0/32"]\nreply = ["connect=421 4.3.2 Not now"]\n',
    "refuses": '[receiver.r]\naddress = ["127.43.0.0/32"]\nreply = ["rcpt=450 4.2.1 Not now"]\n',
}
RESULTS = Path(__file__).resolve().parent.parent / "results" / "refusing_site.json"


class Contender:
    """A relay and what is behind it."""

    def __init__(self, directory: Path, name: str) -> None:
        port = drive.free_port()
        self.receivers = scale.Receivers(directory / f"{name}-sink", port, RECEIVERS[name])
        routes = "".join(
            f'[[route]]\ndomain = "d{i}.example"\nnext_hop = "smtp://127.43.0.{i}:{port}"\n' for i in range(SITES)
        )
        self.relay = scale.Relay(directory / name, port, 2, routes)
        self.relay.start()
        self.events = scale.Events(self.relay.root / "events.jsonl")

    def run(self, paths: Path, messages: int) -> dict[str, float]:
        """The eleventh site's may be delivered, or wait: they are not waited for."""
        self.events.forget()
        cpu = process_tree.cpu_s(self.relay.pid)
        load = subprocess.Popen(
            [sys.executable, "-m", "angarium.cli.main", "blast", "--server", f"127.0.0.1:{self.relay.port}", "--json",
             "--to-file", str(paths), "--messages", str(messages), "--sessions", "50", "--pipelining", "--bdat"],
            stdout=subprocess.PIPE,
        )
        try:
            found = self.events.wait_for(messages * (SITES - 1) // SITES, b"good")
        finally:
            load.communicate()
        taken_s = max(each.at_s for each in found) - min(each.at_s - each.age_s for each in found)
        return {
            "messages_per_s": round(messages / taken_s, 1),
            "cpu_us": round((process_tree.cpu_s(self.relay.pid) - cpu) / messages * 1e6, 1),
        }

    def close(self) -> None:
        self.relay.stop()
        self.receivers.kill()


def measure(directory: Path, rounds: int, messages: int) -> dict[str, Any]:
    messages -= messages % SITES
    paths = directory / "paths"
    paths.write_text("bad@d0.example\n" + "".join(f"good@d{i}.example\n" for i in range(1, SITES)))
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in RECEIVERS}
    for turn in range(rounds + 1):
        for name in RECEIVERS if turn % 2 == 0 else reversed(RECEIVERS):
            # A relay each time: what waits from the last round would be tried again in the next.
            with contextlib.closing(Contender(directory / str(turn), name)) as contender:
                run = contender.run(paths, messages if turn else messages // 10 // SITES * SITES)
                if turn:
                    runs[name].append(run)
    rate = {name: statistics.median(run["messages_per_s"] for run in of) for name, of in runs.items()}
    # Of neighbours in time: what else the machine does meets both.
    loss = {}
    for name in RECEIVERS:
        pairs = zip(runs[name], runs["takes"], strict=True)
        loss[name] = round(1 - statistics.median(a["messages_per_s"] / b["messages_per_s"] for a, b in pairs), 4)
    return {"messages": messages, "runs": runs, "rates": rate, "losses": loss, "loss": max(loss.values())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    scale.end_cleanly()
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        facts = machine.describe(Path(directory))
        found = measure(Path(directory), chosen.rounds, chosen.messages)
    print(json.dumps(found, indent=1))
    if chosen.messages >= parser.get_default("messages"):
        RESULTS.write_text(json.dumps({"machine": facts, **found}, indent=1) + "\n")
    return 0 if found["loss"] <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
