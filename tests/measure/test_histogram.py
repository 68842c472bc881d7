"""Percentiles of the histogram against a sorted list, which is the slow and obvious way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angarium.measure.histogram import PERCENTILES, Histogram


@given(st.lists(st.floats(min_value=2e-6, max_value=1000), min_size=1, max_size=300))
def test_percentiles_are_within_one_percent_of_the_sorted_values(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    ordered = sorted(values)
    for percent in PERCENTILES:
        exact = ordered[max(1, int(-(-len(ordered) * percent // 100))) - 1]
        assert histogram.percentile_s(percent) == pytest.approx(exact, rel=0.0101)


def test_nothing_counted_has_no_summary() -> None:
    assert Histogram().summary_ms() == {}
    assert Histogram().percentile_s(99) == 0.0


def test_extremes_are_kept_exactly_and_odd_values_counted() -> None:
    histogram = Histogram()
    for value in (0.0, 1e-9, 5000.0, 0.25):
        histogram.add(value)
    summary = histogram.summary_ms()
    assert (summary["min"], summary["max"], histogram.count) == (0.0, 5_000_000.0, 4)
