"""The choice of homes: the same for everybody, even, and as little as possible moves when a worker comes or goes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angarium.handover.rendezvous import home_of

NAMES = [f"mx{number}.example" for number in range(2000)]
MASKS = st.integers(min_value=1, max_value=2**64 - 1)


@given(st.text(), MASKS)
def test_a_home_lives_and_is_the_same_for_whoever_asks(name: str, living: int) -> None:
    home = home_of(name, living)
    assert living >> home & 1
    assert home_of(name, living) == home


@given(st.text(), MASKS, st.integers(0, 63))
def test_a_worker_that_goes_moves_no_home_but_its_own(name: str, living: int, gone: int) -> None:
    rest = living & ~(1 << gone)
    if rest and home_of(name, living) != gone:
        assert home_of(name, rest) == home_of(name, living)


@pytest.mark.parametrize("count", [2, 3, 8, 64])
def test_homes_are_spread_over_the_workers(count: int) -> None:
    found = Counter(home_of(name, (1 << count) - 1) for name in NAMES)
    assert len(found) == count
    assert max(found.values()) < 2 * len(NAMES) / count + 20


def test_the_choice_depends_on_nothing_of_the_process() -> None:
    """Workers ask each for himself: a hash with a process's own seed would give each another home."""
    assert [home_of(name, 0b1111) for name in NAMES[:8]] == [0, 2, 3, 2, 0, 3, 2, 0]
