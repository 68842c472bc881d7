"""The clock under which days are simulated."""

from __future__ import annotations

import sys
from pathlib import Path

from simulation.clock import run_simulated

A_WEEK = """
import asyncio, threading, time
import uvloop
from simulation import clock

clock.begin(1_000_000.0)

def work():
    until = time.monotonic() + 0.2          # the kernel's: this thread is not the loop's
    while time.monotonic() < until:
        pass
    return time.time()

async def main():
    loop = asyncio.get_running_loop()
    begin, then = time.monotonic(), time.time()
    assert 1_000_000 <= then < 1_000_001
    at_work = loop.run_in_executor(None, work)
    assert await at_work - then < 0.1, "no time passes while a thread is at work"
    await asyncio.sleep(7 * 86400)
    assert 0 <= time.monotonic() - begin - 7 * 86400 < 3
    assert abs((time.time() - then) - (time.monotonic() - begin)) < 0.01
    assert abs(loop.time() - time.monotonic()) < 3
    mine, theirs = await asyncio.open_connection(*server.sockets[0].getsockname())
    then = time.time()
    assert await mine.readline() == b"hello\\n"
    assert time.time() - then < 0.1, "no time passes while octets are under way"

async def greet(reader, writer):
    writer.write(b"hello\\n")

async def serve():
    global server
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    await main()

uvloop.run(serve())
print("a week has passed")
"""


def test_time_passes_when_there_is_nothing_to_do_and_only_then(tmp_path: Path) -> None:
    ended = run_simulated([sys.executable, "-c", A_WEEK], tmp_path, 60)
    assert (ended.stdout, ended.returncode) == ("a week has passed\n", 0), ended.stderr
