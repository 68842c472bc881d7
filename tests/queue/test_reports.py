"""Reports of a backlog that ends at once: all are made, and few in one turn of the loop."""

from __future__ import annotations

import asyncio
import pathlib

from queue_harness import NextHop, Queue, run, until

from angarium.queue import orders, reports
from angarium.queue.selection import Selection
from angarium.queue.steering import bounce_trouble


def test_of_many_that_end_at_once_few_are_reported_at_once(tmp_path, monkeypatch):
    """Their envelopes are in memory, or read back together: each that has begun may be composed in the same turn."""
    begun, ended, most = [], [], 0

    async def slow(reporter, scheduler, pointer) -> None:
        nonlocal most
        begun.append(pointer)
        most = max(most, len(begun) - len(ended))
        await asyncio.sleep(0)
        ended.append(pointer)

    async def test(directory: pathlib.Path) -> None:
        monkeypatch.setattr(reports.Reporter, "_report", slow)
        queue = Queue(directory, await NextHop().start())
        for number in range(200):
            queue.reporter.report(queue.scheduler, number)
        await queue.reporter.drain()
        assert ended == list(range(200))
        assert most == 16
        await queue.close()

    run(test, tmp_path)


def test_a_stop_waits_for_reports_that_have_not_begun(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        for number in range(50):
            hop.rcpt[f"{number}@y.example"] = "450 4.2.1 busy"
            await queue.send(f"{number}@y.example")
        await until(lambda: queue.depth["deferred"] == 50)
        await orders.carry_out(
            queue.scheduler, "bounce", Selection(domain="y.example"), trouble=bounce_trouble("Closed", 550, "5.1.6")
        )
        await until(lambda: len(queue.events("failed")) == 50)
        await queue.reporter.drain()
        assert len(queue.events("report")) == 50
        await queue.close()

    run(test, tmp_path)
