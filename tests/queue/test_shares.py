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


def test_workers_make_no_more_leave_together_than_there_are_too_many():
    shares = Shares(2)
    mine = shares.share("site")
    assert all(mine.try_connection(20) for _ in range(8))

    def others() -> int:
        shares.attach(1)
        theirs = shares.share("site")
        assert all(theirs.try_connection(20) for _ in range(4))
        return sum(theirs.try_leaving(7) for _ in range(3))

    assert in_child(others) == 3
    assert [mine.try_leaving(7) for _ in range(3)] == [True, True, False]      # of five
    mine.has_left()
    assert (mine.machine_count, mine.try_leaving(7)) == (11, False)
    shares.forget_worker(1)                 # with its connections
    assert (mine.machine_count, mine.try_leaving(7)) == (7, False)
    assert mine.try_leaving(6)


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


def test_who_serves_is_seen_by_all_and_a_dead_worker_does_not():
    shares = Shares(3)
    assert shares.living == 0
    shares.set_living(True)

    def serves() -> int:
        shares.attach(2)
        shares.set_living(True)
        return shares.living

    assert in_child(serves) == shares.living == 0b101
    shares.forget_worker(2)
    assert shares.living == 0b001
    shares.set_living(False)
    assert shares.living == 0


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


HOUR_NS = 3600 * 10**9


def test_a_full_table_forgets_what_has_least_to_give_back_and_goes_on_counting() -> None:
    # Counts lapsed in a full table: whoever could make up names had only to make up enough of them.
    shares = Shares(slots=16)
    spent = shares.share("spent")
    for _ in range(5):
        assert spent.wait_ns(HOUR_NS, 5) == 0
    for number in range(1000):
        made_up = shares.share(f"made up {number}")
        assert made_up.wait_ns(HOUR_NS, 5) == 0
        assert shares.share(f"made up {number}").peek_ns(HOUR_NS, 1) > 0, "counted, though the table is full"
    assert shares.share("spent").peek_ns(HOUR_NS, 5) > 0
    assert spent.wait_ns(HOUR_NS, 5) > 0


def test_who_is_pushed_out_counts_anew_and_not_for_the_one_who_came() -> None:
    shares = Shares(slots=16)
    old = shares.share("old")
    assert old.wait_ns(HOUR_NS, 2) == 0
    others = [shares.share(f"site {number}") for number in range(16)]
    for share in others:
        for _ in range(2):
            assert share.wait_ns(HOUR_NS, 2) == 0
    assert old.peek_ns(HOUR_NS, 1) == 0, "forgotten"
    assert sum(share.peek_ns(HOUR_NS, 2) > 0 for share in others) == 16
    assert old.wait_ns(HOUR_NS, 2) == 0
    assert old.peek_ns(HOUR_NS, 1) > 0


def test_what_has_been_given_back_goes_before_what_has_not() -> None:
    shares = Shares(slots=16)
    kept = [shares.share(f"kept {number}") for number in range(15)]
    assert all(share.wait_ns(HOUR_NS, 1) == 0 for share in kept)
    assert shares.share("over at once").wait_ns(1, 1) == 0
    for number in range(100):
        assert shares.share(f"short {number}").wait_ns(1, 1) == 0
    assert all(share.peek_ns(HOUR_NS, 1) > 0 for share in kept)


def test_to_look_takes_no_place_and_pushes_nobody_out() -> None:
    shares = Shares(slots=16)
    kept = [shares.share(f"kept {number}") for number in range(16)]
    assert all(share.wait_ns(HOUR_NS, 1) == 0 for share in kept)
    for number in range(1000):
        assert shares.share(f"looked at {number}").peek_ns(HOUR_NS, 1) == 0
    assert all(share.peek_ns(HOUR_NS, 1) > 0 for share in kept)


def test_connections_are_never_pushed_out() -> None:
    shares = Shares(slots=16)
    site = shares.share("site")
    assert site.try_connection(1)
    for number in range(1000):
        shares.share(f"made up {number}").wait_ns(HOUR_NS, 1)
    assert shares.share("site").machine_count == 1
    assert not shares.share("site").try_connection(1)


def test_nobody_can_know_his_neighbours() -> None:
    """Keys depend on a secret of the table: names that push out one another here do not do so there."""

    def pushed_out(shares: Shares) -> set[int]:
        shared = [shares.share(f"site {number}") for number in range(64)]
        for share in shared:
            share.wait_ns(HOUR_NS, 1)
        return {number for number, share in enumerate(shared) if share.peek_ns(HOUR_NS, 1) == 0}

    assert len({frozenset(pushed_out(Shares(slots=32))) for _ in range(8)}) > 1


def test_a_message_that_was_not_sent_is_given_back_to_the_rate():
    shares = Shares(2)
    share = shares.share("site")
    interval_ns = 3_600_000_000_000
    assert share.wait_ns(interval_ns, 1) == 0
    assert share.peek_ns(interval_ns, 1) > 0
    share.give_message_back(interval_ns)
    assert share.peek_ns(interval_ns, 1) == 0
    assert share.wait_ns(interval_ns, 1) == 0
    assert share.wait_ns(interval_ns, 1) > 0
