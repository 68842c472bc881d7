"""Counters live in memory that forked processes share."""

import os

import pytest

from angarium.metrics import counters

seen = counters.counter("test_seen_total", "For this test.")
held = counters.gauge("test_held", "For this test.")


def test_what_a_child_counts_is_read_by_its_parent_after_it_died():
    pid = os.fork()
    if pid == 0:
        counters.attach(7)
        seen.add(5)
        held.set(3)
        os._exit(0)
    os.waitpid(pid, 0)
    seen.add(1)
    assert seen.of_row(7) == 5
    assert seen.total() == 6
    counters.forget_gauges(7)
    assert held.total() == 0
    assert seen.total() == 6


def test_a_name_is_declared_once():
    with pytest.raises(ValueError, match="test_seen_total"):
        counters.counter("test_seen_total", "Again.")


def test_rows_are_bounded():
    with pytest.raises(IndexError):
        counters.attach(256)
