"""Counts of warm-ups: over processes, days and restarts."""

from __future__ import annotations

import os
import pathlib

import pytest

from angarium.queue.ration_file import NAME, RationFile
from angarium.queue.rations import Rations

DAY = 86400.0


class Clock:
    def __init__(self, day: float) -> None:
        self.day = day

    def __call__(self) -> float:
        return self.day * DAY


def test_each_day_has_its_volume_and_behind_the_schedule_there_is_no_limit() -> None:
    clock = Clock(99.9)
    ration = Rations(clock).ration("ip gmail", 100, [2, 3])
    taken = []
    for clock.day in (99.9, 100.0, 101.5, 102.0):
        taken.append(sum(ration.try_message() for _ in range(10)))
    assert taken == [0, 2, 3, 10]
    assert ration.limit_today() is None and not ration.is_spent


def test_a_clock_that_is_set_back_gives_no_day_twice() -> None:
    clock = Clock(101.0)
    ration = Rations(clock).ration("ip ", 100, [5, 2])
    assert [ration.try_message() for _ in range(3)] == [True, True, False]
    clock.day = 100.5
    assert ration.is_spent and not ration.try_message()
    clock.day = 101.2
    assert ration.is_spent and ration.count() == 2


def test_what_is_given_back_may_go_again_on_its_day_and_adds_nothing_to_another() -> None:
    clock = Clock(100.0)
    ration = Rations(clock).ration("ip ", 100, [3, 3])
    assert [ration.try_message() for _ in range(4)] == [True, True, True, False]
    ration.give_message_back(100)
    assert ration.count() == 2 and [ration.try_message() for _ in range(2)] == [True, False]
    clock.day = 101.0
    ration.give_message_back(100)               # before the day's first message
    assert [ration.try_message() for _ in range(4)] == [True, True, True, False]
    ration.give_message_back(100)
    assert ration.is_spent
    for _ in range(5):
        ration.give_message_back(101)
    assert ration.count() == 0


def test_processes_count_together() -> None:
    rations = Rations(Clock(100.0))
    ration = rations.ration("ip gmail", 100, [1000])
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            mine = rations.ration("ip gmail", 100, [1000])
            os._exit(sum(mine.try_message() for _ in range(2000)) // 8)
        children.append(pid)
    taken = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert ration.count() == 1000 and not ration.try_message()
    assert 1000 - 4 * 8 <= sum(taken) * 8 <= 1000


def test_counts_are_kept_over_restarts_and_end_with_their_day(tmp_path: pathlib.Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    clock = Clock(100.0)
    rations = Rations(clock)
    old = rations.ration("ip gmail", 100, [10, 10])
    for _ in range(7):
        old.try_message()
    RationFile(fd).save(rations.day, [old])

    for day, left in ((100.9, 3), (101.0, 10)):
        new = Rations(Clock(day)).ration("ip gmail", 100, [10, 10])
        RationFile(fd).restore([new])
        assert sum(new.try_message() for _ in range(20)) == left
    assert os.listdir(tmp_path) == [NAME]
    os.close(fd)


NOT_OURS = ["", "{", '{"version":2,"day":1,"sent":{}}', '{"version":1,"day":-1,"sent":{}}', "\0" * 99]


@pytest.mark.parametrize("text", NOT_OURS)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    fd = os.open(tmp_path, os.O_RDONLY)
    ration = Rations(Clock(100.0)).ration("ip gmail", 100, [10])
    with pytest.raises(ValueError):
        RationFile(fd).restore([ration])
    assert ration.count() == 0
    os.close(fd)
