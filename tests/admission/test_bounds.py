"""Places of a listener's sessions and memory, over workers that share a table; each object here plays one worker."""

from __future__ import annotations

import random

import pytest

from angarium.admission.bounds import Bounds, Places

NAME = b"192.0.2.1:25"


def workers(bounds: Bounds, limit: int) -> list[Places]:
    made = []
    for number in range(bounds.workers):
        bounds.attach(number)
        made.append(bounds.places(NAME, limit))
    return made


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 2000])
def test_no_more_places_are_taken_than_the_machine_has_whatever_the_order(limit: int) -> None:
    chance = random.Random(limit)
    made = workers(Bounds(4), limit)
    for _ in range(20 * limit + 1000):
        each = chance.choice(made)
        step = chance.random()
        if step < 0.6:
            each.try_take()
        elif step < 0.98:
            if each.used:
                each.give_back()
        else:
            each.look()
        assert sum(one.used for one in made) <= limit
        assert made[0].reserved == sum(one.held for one in made) <= limit
    for each in made:
        while each.used:
            each.give_back()
        each.look()
    assert made[0].reserved <= limit // 8, "what workers keep in reserve is little"


def test_what_a_worker_keeps_in_reserve_another_gets_once_it_has_looked() -> None:
    idle, busy = workers(Bounds(2), 2000)
    assert idle.try_take()
    assert idle.held > idle.used, "it has reserved a block"
    while busy.try_take():
        pass
    assert busy.used < 1999
    idle.look()
    assert idle.held == idle.used == 1
    while busy.try_take():
        pass
    assert busy.used == 1999
    assert not idle.try_take()
    busy.give_back()
    assert idle.try_take()


def test_a_small_limit_is_exact_at_once() -> None:
    one, other = workers(Bounds(2), 3)
    assert [each.try_take() for each in (one, other, one, other, one)] == [True] * 3 + [False] * 2
    one.give_back()
    assert other.try_take()
    assert not one.try_take()


def test_a_dead_workers_places_are_free_and_its_successor_begins_with_none() -> None:
    bounds = Bounds(2)
    dead, other = workers(bounds, 3)
    assert dead.try_take() and dead.try_take() and other.try_take()
    assert not other.try_take()
    bounds.forget_worker(0)
    bounds.attach(0)
    successor = bounds.places(NAME, 3)
    assert successor.used == 0
    assert successor.try_take() and other.try_take()
    assert not successor.try_take()


def test_a_reload_changes_the_limit_and_keeps_who_is_there() -> None:
    bounds = Bounds(1)
    places = bounds.places(NAME, 5)
    assert all(places.try_take() for _ in range(5))
    assert bounds.places(NAME, 3) is places
    places.give_back()
    places.give_back()
    assert not places.try_take()
    places.give_back()
    assert places.try_take()
    assert bounds.places(NAME, 4) is places
    assert places.try_take()
    assert bounds.places(b"192.0.2.2:25", 1).try_take(), "another listener has its own"


def test_the_load_is_that_of_all_workers() -> None:
    one, other = workers(Bounds(2), 40)
    for _ in range(20):
        assert one.try_take()
    for _ in range(12):
        assert other.try_take()
    other.look()
    assert one.look() == 80


def test_listeners_beyond_the_table_get_a_fixed_share_for_each_worker() -> None:
    bounds = Bounds(4)
    for number in range(1024):
        bounds.places(b"192.0.2.1:%d" % number, 1)
    beyond = bounds.places(b"192.0.2.2:25", 10)
    assert [beyond.try_take() for _ in range(4)] == [True, True, False, False]
    beyond.give_back()
    assert beyond.try_take()
    assert beyond.look() == 80


def test_memory_is_what_each_worker_said_last() -> None:
    bounds = Bounds(3)
    for number, octets in enumerate((1 << 33, 5, 7)):
        bounds.attach(number)
        bounds.memory_with(octets)
    assert bounds.memory_with(8) == (1 << 33) + 5 + 8
    bounds.forget_worker(0)
    assert bounds.memory_with(8) == 13
