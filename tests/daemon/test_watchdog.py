"""The watchdog names what holds the loop, and says nothing while all is well."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import uvloop

from angarium.events.journal import Journal
from angarium.process.watchdog import Watchdog, stalls


def a_slow_hook(watchdog: Watchdog, seconds: float) -> None:
    """And until it has been looked at: the watchdog's thread gets to run when the machine lets it."""
    time.sleep(seconds)
    end = time.monotonic() + 10
    while not watchdog._holder and time.monotonic() < end:
        time.sleep(0.01)


def events_of(directory: Path, *calls: Any) -> list[dict[str, Any]]:
    """Runs the calls on a watched loop, with quiet time around each."""
    path = directory / "log"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)

    async def body() -> None:
        watchdog = Watchdog(asyncio.get_running_loop(), Journal(fd))
        for call in calls:
            await asyncio.sleep(0.1)
            call(watchdog)
        await asyncio.sleep(0.1)
        watchdog.stop()

    uvloop.run(body())
    os.close(fd)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_holds_the_loop_is_named(tmp_path: Path) -> None:
    before = stalls.value
    found = [
        event for event in events_of(tmp_path, lambda dog: a_slow_hook(dog, 0.4)) if "a_slow_hook" in event["holder"]
    ]
    assert len(found) == 1
    assert found[0]["event"] == "stall"
    assert 0.3 < found[0]["duration_s"] < 20
    assert found[0]["cpu_s"] < 0.2, "it slept"
    assert found[0]["holder"].startswith("a_slow_hook (")
    assert stalls.value > before


def test_a_computation_is_told_from_a_wait(tmp_path: Path) -> None:
    def compute(watchdog: Watchdog) -> None:
        end = time.thread_time() + 0.3
        while time.thread_time() < end or not watchdog._holder:
            pass

    (found,) = [event for event in events_of(tmp_path, compute) if "compute" in event["holder"]]
    assert found["cpu_s"] > 0.1


def test_two_stalls_are_two_events(tmp_path: Path) -> None:
    found = events_of(tmp_path, *[lambda dog: a_slow_hook(dog, 0.3)] * 2)
    assert len([event for event in found if "a_slow_hook" in event["holder"]]) == 2
