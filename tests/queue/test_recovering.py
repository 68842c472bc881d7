"""How what was held back comes back, and that each step is told once."""

from __future__ import annotations

import pytest

from angarium.queue.recovering import Progress, next_change, step_of, strength


@pytest.mark.parametrize(
    ("now", "step", "held"),
    [(0, 0, 1.0), (99.9, 0, 1.0), (100, 1, 0.8), (124.9, 1, 0.8), (125, 2, 0.6), (199.9, 4, 0.2), (200, 4, 0.0)],
)
def test_a_step_is_a_part_of_the_recovery(now: float, step: int, held: float) -> None:
    assert step_of(now, 100, 200, 4) == step
    assert strength(now, 100, 200, 4) == pytest.approx(held)


def test_what_ends_at_once_has_no_steps() -> None:
    assert step_of(99, 100, 100, 4) == step_of(100, 100, 100, 4) == 0


def test_who_looks_when_something_changes_tells_each_step_once_and_no_more() -> None:
    progress, told, now = Progress(), [], 0.0
    while now < 200:
        for _ in range(2):                      # whoever looks, and however often
            told.append((progress.news("x", step_of(now, 100, 200, 4)), step_of(now, 100, 200, 4)))
        now = next_change(now, 100, 200, 4)
    assert [each for each in told if each[0]] == [("recovering", 1), ("step", 2), ("step", 3), ("step", 4)]


def test_steps_that_nobody_looked_at_in_time_are_told_as_one() -> None:
    progress = Progress()
    assert [progress.news("x", step) for step in (0, 1, 4)] == [None, "recovering", "step"]


def test_what_holds_in_full_again_is_told_and_so_is_its_next_recovery() -> None:
    progress = Progress()
    told = [progress.news("x", step) for step in (1, 2, 0, 0, 1)]
    assert told == ["recovering", "step", "again", None, "recovering"]


def test_what_was_met_again_and_recovers_by_the_next_look_is_told_as_a_recovery() -> None:
    progress = Progress()
    assert [progress.news("x", step) for step in (3, 1)] == ["recovering", "recovering"]


def test_who_was_forgotten_begins_anew() -> None:
    progress = Progress()
    progress.news("x", 1)
    progress.forget("x")
    assert progress.news("x", 1) == "recovering"
    assert progress.news("y", 0) is None
