"""When the queue of a worker takes much memory: who is told what."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from angarium.events.journal import Journal
from angarium.model.memory_limit import machine_octets
from angarium.model.units import Octets
from angarium.queue.memory_watch import SLOWEST_S, MemoryWatch
from angarium.queue.options import MemoryOptions

MIB = 1 << 20


class Pretended:
    """A queue that takes `octets`."""

    hot_limit_octets = 0
    octets = 0

    def memory_octets(self) -> int:
        return self.octets


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def test_mail_is_slowed_down_then_put_off_and_taken_again_with_some_room(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    fd = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)
    journal, queue = Journal(fd), Pretended()
    told: list[tuple[float, bool]] = []
    watch = MemoryWatch(loop, journal, queue, lambda wait_s, is_full: told.append((wait_s, is_full)), workers=2)
    watch.apply(MemoryOptions(limit=Octets(100 * MIB), slow_from_percent=80, bodies=Octets(MIB)))
    assert queue.hot_limit_octets == MIB and told == []
    for percent in (79, 80, 90, 99.9, 100, 120, 96, 94, 50):
        queue.octets = int(percent * MIB)
        watch.look()
    slow = [round(wait_s, 2) for wait_s, is_full in told if not is_full]
    # 80: the wait begins at nothing. 96 is full still, 94 is not.
    assert slow == [2.5, 4.97, 3.5, 0.0]
    assert [is_full for _, is_full in told] == [False, False, True, True, False, False]
    assert max(wait_s for wait_s, _ in told) == SLOWEST_S
    watch.stop()
    journal.flush()
    os.close(fd)
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events == ["queue-high", "queue-full", "queue-normal"]


def test_without_a_limit_each_worker_gets_its_part_of_half_the_machine(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    fd = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)
    watch = MemoryWatch(loop, Journal(fd), Pretended(), lambda wait_s, is_full: None, workers=4)
    watch.apply(MemoryOptions())
    assert watch.limit_octets == machine_octets() // 8
    watch.stop()
    os.close(fd)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"limit": Octets(1000)}, "limit: "),
        ({"slow_from_percent": 0}, "slow_from_percent: "),
        ({"slow_from_percent": 101}, "slow_from_percent: "),
        ({"limit": Octets(2 * MIB)}, "bodies: not more than limit"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MemoryOptions(**options)  # type: ignore[arg-type]
