"""The spool beside the raw disk, SQLite, and a file per message: durable messages a second, by size and by writers.

    python benchmarks/macro/spool/run.py             every cell, seven rounds (about ten minutes); results/spool.json
    python benchmarks/macro/spool/run.py --quick     one round of shorter runs, kept nowhere

`raw` is pwrite + fdatasync of exactly as many octets as one of our commits had, in the same round: what the disk
gives to one who groups as we do and has nothing else to do. Bars: at least 80 % of its syncs and octets with 16
writers, half with 64 and more. Exit status: 0 when all bars are met, 1 when one is not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import machine
import stores

SIZES = (1 << 10, 4 << 10, 100 << 10)
WRITERS = (1, 16, 64, 256)
RESULTS = Path(__file__).resolve().parents[2] / "results" / "spool.json"


def bar_of(writers: int) -> float:
    return 0.0 if writers < 16 else 0.8 if writers < 64 else 0.5


def cell(parent: Path, size: int, writers: int, seconds: float) -> dict[str, stores.Outcome]:
    """One round. The raw disk right behind ours: what the machine does meanwhile weighs on both alike."""
    ours = stores.in_new_directory(parent, partial(stores.angarium, writers=writers, size=size, seconds=seconds))
    raw = stores.in_new_directory(
        parent, partial(stores.raw, octets=max(ours.octets_per_sync, 512), seconds=seconds)
    )
    return {
        "angarium": ours,
        "raw": raw,
        "sqlite": stores.in_new_directory(
            parent, partial(stores.sqlite, writers=writers, size=size, seconds=seconds)
        ),
        "files": stores.in_new_directory(
            parent, partial(stores.files, writers=writers, size=size, seconds=seconds)
        ),
    }


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} - {max(values):,.0f})"


def summary(rounds: list[dict[str, stores.Outcome]], size: int, writers: int) -> dict[str, Any]:
    def values(name: str, figure: str) -> list[float]:
        return [getattr(each[name], figure) for each in rounds]

    median = statistics.median
    syncs = median(a / b for a, b in zip(values("angarium", "syncs_per_s"), values("raw", "syncs_per_s"), strict=True))
    octets = median(
        a / b for a, b in zip(values("angarium", "octets_per_s"), values("raw", "octets_per_s"), strict=True)
    )
    return {
        "size_octets": size,
        "writers": writers,
        "messages_per_s": {name: values(name, "messages_per_s") for name in rounds[0]},
        "syncs_per_s": {name: values(name, "syncs_per_s") for name in rounds[0]},
        "octets_per_s": {name: values(name, "octets_per_s") for name in rounds[0]},
        "syncs_of_raw": round(syncs, 3),
        "octets_of_raw": round(octets, 3),
        "bar": bar_of(writers),
        "is_met": min(syncs, octets) >= bar_of(writers),
    }


def show(line: dict[str, Any]) -> str:
    rates = line["messages_per_s"]
    ours = statistics.median(rates["angarium"])
    written = statistics.median(line["octets_per_s"]["angarium"]) / 1e6
    against = {name: ours / statistics.median(rates[name]) for name in ("sqlite", "files")}
    return (
        f"{line['size_octets'] >> 10:4} KiB {line['writers']:4} writers: {spread(rates['angarium']):>28} messages/s, "
        f"{written:5,.0f} MB/s; of raw: {line['syncs_of_raw']:4.0%} of the syncs, {line['octets_of_raw']:4.0%} of the "
        f"octets (bar {line['bar']:.0%}{'' if line['is_met'] else ', NOT MET'}); "
        f"SQLite x{against['sqlite']:.1f}, files x{against['files']:.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one short round of each, kept nowhere")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="octets, with commas")
    parser.add_argument("--writers", default=",".join(map(str, WRITERS)))
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"), help="on the disk to be measured")
    chosen = parser.parse_args()
    rounds, seconds = (1, 0.7) if chosen.quick else (chosen.rounds, chosen.seconds)
    lines = []
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as parent:
        facts = machine.describe(Path(parent))
        for size in map(int, chosen.sizes.split(",")):
            for writers in map(int, chosen.writers.split(",")):
                measured = [cell(Path(parent), size, writers, seconds) for _ in range(rounds)]
                lines.append(summary(measured, size, writers))
                print(show(lines[-1]), flush=True)
    has_all = all(getattr(chosen, name) == parser.get_default(name) for name in ("sizes", "writers"))
    if has_all and not chosen.quick:
        measured_utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        result = {"measured_utc": measured_utc, "machine": facts, "cells": lines}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(line["is_met"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
