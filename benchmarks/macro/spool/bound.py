"""How much disk a spool takes while mail pours through it and some of it stays.

    python benchmarks/macro/spool/bound.py                 two minutes; results/bound.json

64 writers commit 4 KiB messages as fast as they can, each over at once; beside them a share of as many messages goes
through the queue and is deferred for hours, so that every segment is left with a few that hold it. Twenty times a
second the octets of all segments in use are compared with twice what lives in them: what they are beyond that is given
in segments, at most and at the end. Bar: never more than 24 segments (1.5 GiB by default), in every run. With it the
messages a second, which compaction shares the disk with. Exit status: 0 when it is met, 1 when not.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import compaction
import machine
import uvloop

from angarium.measure.spool_load import SpoolLoad
from angarium.queue.compaction import Compactor
from angarium.queue.injection import inject
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.scheduler import Scheduler
from angarium.spool.shard import Shard

BAR_SEGMENTS = 24
DOMAINS = 1000
LOOK_S = 0.05
RESULTS = Path(__file__).resolve().parents[2] / "results" / "bound.json"


class Staying:
    """Puts messages into the queue, whose domains cannot be looked up now: so many for each that passes."""

    def __init__(self, scheduler: Scheduler, shard: Shard, load: SpoolLoad, share: float) -> None:
        self._scheduler, self._shard, self._load, self._share = scheduler, shard, load, share
        self._numbers = itertools.count()
        self.begun = self.failed = self.under_way = 0

    def _done(self, error: int, message_id: int) -> None:
        self.under_way -= 1
        self.failed += error != 0

    async def run(self, end: float) -> None:
        body = b"x" * compaction.MESSAGE_OCTETS
        while time.monotonic() < end:
            while self.begun < self._load.messages * self._share and self.under_way < compaction.WRITERS:
                recipient = b"user%d@busy%d.example" % (self.begun, next(self._numbers) % DOMAINS)
                self.begun += 1
                self.under_way += 1
                inject(self._scheduler, self._shard, b"a@source.example", [recipient], body, 0, self._done)
            await asyncio.sleep(0.0005)


async def run(directory: Path, seconds: float, share: float, is_compacting: bool) -> dict[str, float]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    log_fd = os.open(os.devnull, os.O_WRONLY)
    shard = Shard(fd, "00", 0, segment_octets=compaction.SEGMENT_OCTETS)
    options = QueueOptions(retry=RetryOptions(first=compaction.LATER_S, max=compaction.LATER_S))
    scheduler = await compaction.queue_of(shard, log_fd, options)
    load = SpoolLoad(shard, compaction.WRITERS, compaction.MESSAGE_OCTETS)
    load.start()
    compactor = Compactor(scheduler, shard)
    if is_compacting:
        compactor.start()
    begun = compaction.counted()["angarium_compaction_messages_total"]
    beyond: list[float] = []
    staying = Staying(scheduler, shard, load, share)
    start = time.monotonic()
    task = asyncio.ensure_future(staying.run(start + seconds))
    while not task.done():
        await asyncio.sleep(LOOK_S)
        used = shard.statistics()["segments"] * compaction.SEGMENT_OCTETS
        beyond.append((used - 2 * scheduler_live(shard, staying)) / compaction.SEGMENT_OCTETS)
    await task
    took = time.monotonic() - start
    figures = {
        "messages_per_s": load.messages / took,
        "staying_per_s": staying.begun / took,
        "moved_per_s": (compaction.counted()["angarium_compaction_messages_total"] - begun) / took,
        "segments_at_end": shard.statistics()["segments"],
        "beyond_at_most": max(beyond),
        "beyond_second_half": max(beyond[len(beyond) // 2 :]),
        "beyond_at_end": beyond[-1],
    }
    await compactor.stop()
    load.stop()
    while load.under_way or staying.under_way:
        await asyncio.sleep(0.01)
    if staying.failed or load.error:
        raise RuntimeError("messages were not stored: is the disk full?")
    scheduler.close()
    shard.close()
    os.close(log_fd)
    os.close(fd)
    return {name: round(value, 2) for name, value in figures.items()}


def scheduler_live(shard: Shard, staying: Staying) -> int:
    """Octets of what stays, as counted here: the spool's own count is what its compaction goes by."""
    return (staying.begun - staying.under_way) * compaction.MESSAGE_OCTETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run; fewer than twenty are kept nowhere")
    parser.add_argument("--shares", default="0.005,0.02,0.1", help="of mail that stays")
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"), help="on the disk to be measured")
    chosen = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        facts = machine.describe(Path(directory))
        for share in map(float, chosen.shares.split(",")):
            for is_compacting in (True, False):
                spool = Path(directory) / "spool"
                spool.mkdir()
                figures = uvloop.run(run(spool, chosen.seconds, share, is_compacting))
                shutil.rmtree(spool)
                os.sync()
                runs.append({"share": share, "is_compacting": is_compacting, **figures})
                print(runs[-1], flush=True)
    worst = max(each["beyond_at_most"] for each in runs if each["is_compacting"])
    print(f"at most {worst:.1f} segments beyond twice what stays; bar {BAR_SEGMENTS}")
    if chosen.seconds >= parser.get_default("seconds"):
        result = {
            "measured_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": facts,
            "load_average": os.getloadavg()[0],
            "segment_octets": compaction.SEGMENT_OCTETS,
            "seconds": chosen.seconds,
            "runs": runs,
            "bar_segments": BAR_SEGMENTS,
            "is_met": worst <= BAR_SEGMENTS,
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if worst <= BAR_SEGMENTS else 1


if __name__ == "__main__":
    sys.exit(main())
