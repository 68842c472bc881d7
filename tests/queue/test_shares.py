"""Limits over all workers: the table in shared memory."""

import os

import pytest

from angarium.queue.shares import Shares


def in_child(work) -> int:
    """Runs work() in a forked process and gives its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work())
        except BaseException:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_connections_of_two_processes_count_together():
    shares = Shares(2)
    mine = shares.share("mx.example")
    assert [mine.try_connection(3), mine.try_connection(3)] == [True, True]

    def other() -> int:
        shares.attach(1)
        theirs = shares.share("mx.example")
        return int(theirs.try_connection(3)) * 10 + int(theirs.try_connection(3))

    assert in_child(other) == 10
    assert mine.machine_count == 3
    assert not mine.try_connection(3)
    mine.give_back()
    assert mine.machine_count == 2


def test_places_of_a_dead_worker_come_back():
    shares = Shares(2)

    def dies_with_places() -> int:
        shares.attach(1)
        share = shares.share("site")
        return int(share.try_connection(2) and share.try_connection(2))

    assert in_child(dies_with_places) == 1
    mine = shares.share("site")
    assert not mine.try_connection(2)
    shares.forget_worker(1)
    assert mine.try_connection(2)


def test_a_worker_that_asked_in_vain_is_seen_by_the_others_only():
    shares = Shares(2)
    mine = shares.share("site")
    mine.try_connection(1)

    def asks() -> int:
        shares.attach(1)
        share = shares.share("site")
        return int(share.try_connection(1)) + 2 * int(share.wanted)

    assert in_child(asks) == 0
    assert mine.wanted


def test_rate_lets_a_burst_go_and_then_spaces_messages():
    share = Shares(1).share("site")
    interval_ns = 10**12
    waits = [share.wait_ns(interval_ns, 3) for _ in range(4)]
    assert waits[:3] == [0, 0, 0]
    assert 0.99 * interval_ns < waits[3] <= interval_ns


def test_rate_holds_over_two_processes():
    shares = Shares(2)
    assert shares.share("site").wait_ns(10**12, 1) == 0

    def asks() -> int:
        shares.attach(1)
        return int(shares.share("site").wait_ns(10**12, 1) > 0)

    assert in_child(asks) == 1


def test_more_sites_than_slots_still_get_their_share():
    # 16 slots hold 16 busy sites; the 17th keeps to limit / workers by itself.
    shares = Shares(2, slots=16)
    busy = [shares.share(f"site {n}") for n in range(16)]
    assert all(share.try_connection(4) for share in busy)
    extra = shares.share("one more")
    assert [extra.try_connection(4) for _ in range(3)] == [True, True, False]
    # A slot whose site has gone quiet is given to another.
    busy[0].give_back()
    late = shares.share("late")
    assert late.try_connection(1)
    assert late.machine_count == 1


@pytest.mark.parametrize("workers", [0, 65])
def test_impossible_worker_counts_are_refused(workers):
    with pytest.raises(ValueError, match="workers"):
        Shares(workers)


def test_a_connection_counted_without_a_slot_is_not_given_back_to_one():
    # 65535 connections to a site that has none: the count ran below zero when a slot came free in between.
    shares = Shares(2, slots=16)
    busy = [shares.share(f"site {n}") for n in range(16)]
    assert all(share.try_connection(4) for share in busy)
    extra = shares.share("one more")
    assert extra.try_connection(4)
    busy[0].give_back()
    extra.wait_ns(1000, 1)
    extra.give_back()
    assert extra.machine_count == 0
    assert extra.try_connection(4)
    assert extra.machine_count == 1


def test_looking_at_a_rate_takes_nothing_of_it() -> None:
    share = Shares().share("looked at")
    hour_ns = 3600 * 10**9
    for taken in range(3):
        for _ in range(5):
            assert share.peek_ns(hour_ns, 3) == 0, taken
        assert share.wait_ns(hour_ns, 3) == 0
    assert 0 < share.peek_ns(hour_ns, 3) <= hour_ns
    assert share.wait_ns(hour_ns, 3) > 0
