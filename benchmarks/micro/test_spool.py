"""Append and commit through the spool's slow API: futures and bytes; the Cython interface itself is faster.

    python -m pytest benchmarks/micro/test_spool.py -n 0
Every message is durable when its future is done. The spool lies in ANGARIUM_BENCH_DIR (default: the temporary
directory): on tmpfs the figures mean nothing.
"""

import asyncio
import os
import shutil
import tempfile

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from angarium.spool.shard import Shard

MESSAGES = 1024


@pytest.mark.parametrize("size", [1024, 4096, 102400])
@pytest.mark.parametrize("writers", [1, 16, 64])
def test_append_and_commit(benchmark: BenchmarkFixture, writers: int, size: int) -> None:
    directory = tempfile.mkdtemp(prefix="spool-bench-", dir=os.environ.get("ANGARIUM_BENCH_DIR"))
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, "00", 0)
    os.close(fd)
    body = b"x" * size
    count = MESSAGES if size < 100000 else MESSAGES // 8

    async def write_and_settle(messages: int) -> None:
        for _ in range(messages):
            stored = await shard.append(b"a@x.example", [b"b@y.example"], body)
            shard.settle(stored.id, stored.place[0])

    async def all_writers() -> None:
        shard.expect_transactions(writers)
        await asyncio.gather(*(write_and_settle(count // writers) for _ in range(writers)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        shard.attach(runner.get_loop())
        runner.run(all_writers())
        benchmark.pedantic(lambda: runner.run(all_writers()), rounds=8)
        benchmark.extra_info["messages_per_s"] = round(count / benchmark.stats["median"])
        shard.close()
    shutil.rmtree(directory)
