"""What a short duplicate window costs: deliveries end, no mail comes in, and each says so to the spool.

    python benchmarks/macro/spool/windows.py [DIRECTORY]        results/windows.json

A writer is an outbound connection: it ends a delivery every 5 ms. What it does not show: connections, and mail coming
in at the same time. With that the window does not matter, since what was delivered rides on the commits of new mail.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import machine
import uvloop

from angarium.spool.shard import Shard

SECONDS = 4.0
EVERY_S = 0.005
WINDOWS_MS = (0, 10, 100, 1000)
WRITERS = (1, 64)
AT_ONCE = 500
RESULTS = Path(__file__).resolve().parents[2] / "results" / "windows.json"


async def deliver(directory: Path, writers: int, window_ms: int) -> tuple[float, float, float, float]:
    """Deliveries, commits and octets written per second, and CPU in microseconds per delivery."""
    loop = asyncio.get_running_loop()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, "00", 0, duplicate_window_ms=window_ms)
    shard.attach(loop)
    while shard.recover() is not None:
        await asyncio.sleep(0.01)
    waiting: list[tuple[int, int]] = []
    while len(waiting) < writers * SECONDS / EVERY_S:
        stored = await asyncio.gather(*(shard.append(b"", [b"b@y.example"], b"x\r\n") for _ in range(AT_ONCE)))
        waiting += [(each.id, each.place[0]) for each in stored]
    delivered = 0

    def end_delivery() -> None:
        nonlocal delivered
        if waiting:
            shard.settle(*waiting.pop())
            delivered += 1
            loop.call_later(EVERY_S, end_delivery)

    before, start, cpu = shard.statistics(), time.perf_counter(), cpu_s()
    for number in range(writers):
        loop.call_later(EVERY_S * number / writers, end_delivery)
    await asyncio.sleep(SECONDS - 0.5)
    took, after, used = time.perf_counter() - start, shard.statistics(), cpu_s() - cpu
    counted = delivered
    waiting.clear()
    shard.close()
    os.close(fd)
    commits = after["commits"] - before["commits"]
    octets = after["octets_written"] - before["octets_written"]
    return counted / took, commits / took, octets / took, used / counted * 1e6


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    where = sys.argv[1] if len(sys.argv) > 1 else "/var/tmp"
    runs = []
    print("| writers | window, ms | deliveries/s | commits/s | KiB/s written | CPU us per delivery |")
    print("|---|---|---|---|---|---|")
    for writers in WRITERS:
        for window_ms in WINDOWS_MS:
            with tempfile.TemporaryDirectory(dir=where) as directory:
                deliveries, commits, octets, cpu_us = uvloop.run(deliver(Path(directory), writers, window_ms))
            print(
                f"| {writers} | {window_ms} | {deliveries:,.0f} | {commits:,.1f} | {octets / 1024:,.1f} "
                f"| {cpu_us:,.1f} |",
                flush=True,
            )
            runs.append(
                {
                    "writers": writers,
                    "window_ms": window_ms,
                    "deliveries_per_s": round(deliveries, 1),
                    "commits_per_s": round(commits, 1),
                    "octets_per_s": round(octets, 1),
                    "cpu_us_per_delivery": round(cpu_us, 1),
                }
            )
    result = {
        "measured_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine.describe(Path(where)),
        "load_average": os.getloadavg()[0],
        "seconds": SECONDS - 0.5,
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
