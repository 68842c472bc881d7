"""What going through a large queue costs, and what mail does meanwhile.

    .venv/bin/python benchmarks/micro/queue_walk.py [--messages 10000] [--recipients 100]

Fills a worker's queue with suspended mail, then sends messages one after the other to a next hop of its own, for as
long as each walk takes and, for comparison, without one. Printed: seconds of each walk, and messages a second before
it and during it. It shows no latency of a relay, and one connection only.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from queue_harness import NextHop, Queue

from angarium.queue import orders
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.selection import ALL, Selection
from angarium.queue.standing import Order

WALKS = (
    ("count all", "count", ALL),
    ("count, by a domain that has little", "count", Selection(domain="z.example")),
    ("count, by sender (reads envelopes back)", "count", Selection(sender="nobody@x.example")),
    ("release (asks standing orders again)", "release", ALL),
)


async def measure(directory: Path, messages: int, recipients: int) -> None:
    hop = NextHop()
    options = QueueOptions(retry=RetryOptions(first=3600, max=3600))
    queue = Queue(directory, await hop.start(), options=options, hot_limit_octets=0, segment_octets=64 << 20)
    suspend = Order(name="bench", action="suspend", where=Selection(domain="y.example"), made_utc_s=time.time())
    queue.scheduler.set_rules([suspend])
    for start in range(0, messages, 100):
        await asyncio.gather(
            *(queue.send(*(f"{n}-{k}@y.example" for k in range(recipients))) for n in range(start, start + 100))
        )
    print(f"{queue.depth['recipients']} recipients of {queue.depth['messages']} messages are suspended")

    async def send(until: asyncio.Event) -> int:
        count = 0
        while not until.is_set():
            await queue.send(f"{count}@z.example")
            count += 1
        return count

    async def rate(seconds: float) -> float:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        return await send(stop) / seconds

    for name, action, where in WALKS:
        alone = await rate(1.0)
        stop = asyncio.Event()
        sending = asyncio.create_task(send(stop))
        begun = time.perf_counter()
        walk = await orders.carry_out(queue.scheduler, action, where)
        took = time.perf_counter() - begun
        stop.set()
        beside = await sending / took
        print(f"{name:42} {walk.recipients:9} met {took:7.2f} s   {alone:6.0f}/s alone {beside:6.0f}/s beside it")
    await queue.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=10000)
    parser.add_argument("--recipients", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        uvloop.run(measure(Path(directory), args.messages, args.recipients))


if __name__ == "__main__":
    main()
