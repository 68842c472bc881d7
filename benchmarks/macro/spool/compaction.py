"""What compaction costs commits: messages a second of 64 writers with compaction at work, and without.

    python benchmarks/macro/spool/compaction.py            twelve pairs, about three minutes; results/compaction.json

A spool is filled with segments of which most is over and a tenth or so is deferred for hours. Each run takes over a
copy of it as after a start and lets 64 writers of 4 KiB messages commit as fast as they can for three seconds: with
the queue's Compactor emptying one old segment after the other, or with none. Runs of both kinds take turns. (Windows
of both in one run do not do: what compaction has moved decides how many segments the next window finds ready.) Bar:
at most 10 % fewer messages, by the median of the pairs. Exit status: 0 when it is met, 1 when not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import machine
import uvloop

from angarium.events.journal import Journal
from angarium.measure.spool_load import SpoolLoad
from angarium.metrics.counters import registry
from angarium.model.plan import Plan, RoutingTrouble, Source
from angarium.queue.compaction import Compactor
from angarium.queue.options import QueueOptions
from angarium.queue.recovery import recover
from angarium.queue.scheduler import Scheduler
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.shares import Shares
from angarium.queue.wheel import Wheel
from angarium.routing.egress_pool import EgressPool
from angarium.spool.shard import Shard

WRITERS, MESSAGE_OCTETS = 64, 4096
SEGMENT_OCTETS = 64 << 20  # the default
LATER_S = 6 * 3600
BAR = 0.9
WARM_UP_S = 1.0
RESULTS = Path(__file__).resolve().parents[2] / "results" / "compaction.json"


class NoRouter:
    """Nothing is due for hours, so nobody asks."""

    def plan_now(self, domain: bytes) -> Plan | None:
        return None

    async def plan(self, domain: bytes) -> Plan:
        raise RoutingTrouble(False, (4, 4, 3), "no answer")


def deferred(number: int) -> bytes:
    """The state of one recipient that has been tried once (csrc/spool/state.c)."""
    reply, remote = b"4.2.1 try again later", b"mx.busy.example[192.0.2.1]:25"
    due = int(time.time()) + LATER_S + number % 3600
    entry = struct.pack("<BBHQHHHBBBB", 0, 0, 1, due, 450, 2, 1, 4, len(reply), len(remote), 0)
    return struct.pack("<II", 1, 1) + entry + reply + remote


async def fill(directory: Path, segments: int, share: float) -> int:
    """Returns how many messages are deferred."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, "00", 0, segment_octets=SEGMENT_OCTETS)
    shard.attach(asyncio.get_running_loop())
    while shard.recover() is not None:
        await asyncio.sleep(0.01)
    load = SpoolLoad(shard, WRITERS, MESSAGE_OCTETS)
    load.start()
    count = 0
    while shard.statistics()["segments"] < segments:
        if count >= load.messages * share:
            await asyncio.sleep(0.001)
            continue
        numbers = range(count, count + 32)
        stored = await asyncio.gather(
            *(shard.append(b"a@source.example", [b"user%d@busy.example" % i], b"x" * MESSAGE_OCTETS) for i in numbers)
        )
        await asyncio.gather(*(shard.write_state(each.id, each.place[0], deferred(each.id)) for each in stored))
        count += 32
    load.stop()
    while load.under_way:
        await asyncio.sleep(0.01)
    shard.close()
    os.close(fd)
    return count


def counted() -> dict[str, int]:
    return {each.name: each.value for each in registry()}


async def window(shard: Shard, load: SpoolLoad, seconds: float) -> dict[str, float]:
    commits = shard.statistics()["commits"]
    messages, cpu, start = load.messages, time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    took, done = time.perf_counter() - start, max(load.messages - messages, 1)
    return {
        "messages_per_s": done / took,
        "messages_per_sync": done / max(shard.statistics()["commits"] - commits, 1),
        "cpu_us": (time.process_time() - cpu) * 1e6 / done,
    }


async def first_move(begun: int) -> None:
    end = time.monotonic() + 10
    # Segments without live mail are emptied first: with nothing but freed records to repeat.
    while counted()["angarium_compaction_messages_total"] == begun:
        if time.monotonic() > end:
            raise RuntimeError("nothing is there to compact: more segments")
        await asyncio.sleep(0.002)


async def queue_of(shard: Shard, log_fd: int, options: QueueOptions) -> Scheduler:
    """With what the spool holds."""
    loop = asyncio.get_running_loop()
    shard.attach(loop)
    scheduler = Scheduler(
        loop,
        Wheel(loop),
        Journal(log_fd),
        Shares(1),
        router=NoRouter(),
        pool=EgressPool({Source("default", "", "relay.example"): 1}),
        shaping=ShapingOptions(),
        options=options,
        hostname="relay.example",
    )
    while recover(scheduler, shard) >= 0:
        await asyncio.sleep(0.002)
    return scheduler


async def run(directory: Path, seconds: float, is_compacting: bool) -> dict[str, float]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    log_fd = os.open(directory / "log", os.O_CREAT | os.O_WRONLY)
    shard = Shard(fd, "00", 0, segment_octets=SEGMENT_OCTETS)
    scheduler = await queue_of(shard, log_fd, QueueOptions())
    load = SpoolLoad(shard, WRITERS, MESSAGE_OCTETS)
    load.start()
    await asyncio.sleep(WARM_UP_S)
    compactor = Compactor(scheduler, shard)
    before = counted()["angarium_compaction_messages_total"]
    if is_compacting:
        compactor.start()
        await first_move(before)
        before = counted()["angarium_compaction_messages_total"]
    figures = await window(shard, load, seconds)
    figures["excess_segments"] = shard.statistics()["excess_segments"]
    figures["moved_messages"] = counted()["angarium_compaction_messages_total"] - before
    await compactor.stop()
    load.stop()
    while load.under_way:
        await asyncio.sleep(0.01)
    scheduler.close()
    shard.close()
    os.close(log_fd)
    os.close(fd)
    return figures


def forget(directory: Path) -> None:
    """A relay writes its segments past the page cache: what is read of them comes from the disk."""
    for path in directory.rglob("seg-*"):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def run_on_a_copy(filled: Path, seconds: float, is_compacting: bool) -> dict[str, float]:
    copy = filled.parent / "copy"
    shutil.copytree(filled, copy)
    os.sync()
    forget(copy)
    try:
        figures = uvloop.run(run(copy, seconds, is_compacting))
    finally:
        shutil.rmtree(copy)
    return {name: round(value, 2) for name, value in figures.items()}


def measure(filled: Path, pairs: int, seconds: float) -> list[dict[str, Any]]:
    results = []
    for number in range(pairs):
        order = (True, False) if number % 2 == 0 else (False, True)
        figures = {is_compacting: run_on_a_copy(filled, seconds, is_compacting) for is_compacting in order}
        ratio = figures[True]["messages_per_s"] / figures[False]["messages_per_s"]
        results.append({"with": figures[True], "without": figures[False], "ratio": round(ratio, 3)})
    return results


def report(pairs: list[dict[str, Any]]) -> float:
    ratios = sorted(each["ratio"] for each in pairs)
    median = statistics.median(ratios)
    quarters = statistics.quantiles(ratios, n=4)

    def middle(which: str, figure: str) -> float:
        return statistics.median(each[which][figure] for each in pairs)

    print(
        f"with {middle('with', 'messages_per_s'):,.0f}, without {middle('without', 'messages_per_s'):,.0f} messages/s; "
        f"{middle('with', 'cpu_us'):.2f} and {middle('without', 'cpu_us'):.2f} us of CPU for each; "
        f"{middle('with', 'messages_per_sync'):.1f} and {middle('without', 'messages_per_sync'):.1f} messages a sync; "
        f"{middle('with', 'moved_messages'):.0f} messages moved in a run\n"
        f"of the pairs: median {median:.1%}, half of them within {quarters[0]:.1%} - {quarters[2]:.1%}, "
        f"all within {ratios[0]:.1%} - {ratios[-1]:.1%}; bar {BAR:.0%}"
    )
    return median


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=12, help="fewer than twelve are kept nowhere")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--segments", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.12, help="deferred messages for each that passes")
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"), help="on the disk to be measured")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        facts = machine.describe(Path(directory))
        filled = Path(directory) / "filled"
        filled.mkdir()
        count = uvloop.run(fill(filled, chosen.segments, chosen.share))
        print(f"{chosen.segments} segments of {SEGMENT_OCTETS >> 20} MiB, {count} messages deferred", flush=True)
        pairs = measure(filled, chosen.pairs, chosen.seconds)
    median = report(pairs)
    if chosen.pairs >= 12:
        result = {
            "measured_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": facts,
            "load_average": os.getloadavg()[0],
            "segments": chosen.segments,
            "segment_octets": SEGMENT_OCTETS,
            "deferred_messages": count,
            "seconds": chosen.seconds,
            "pairs": pairs,
            "median_ratio": median,
            "bar": BAR,
            "is_met": median >= BAR,
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if median >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
