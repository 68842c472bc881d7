"""Latencies in little memory: a histogram whose buckets grow by 1 %, so that every percentile is true
within 1 %.

As HdrHistogram's, but logarithmic throughout: one multiplication and one list index per value, 2,100
buckets for everything from 1 us to 20 minutes, whatever the number of values.
"""

from __future__ import annotations

from math import log

GROWTH = 1.01
_SCALE = 1 / log(GROWTH)
_SMALLEST_S = 1e-6
_BUCKETS = int(log(1200 / _SMALLEST_S) * _SCALE) + 2
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Histogram:
    """Counts durations in seconds. Values under a microsecond count as one, over 20 minutes as 20 minutes."""

    __slots__ = ("_counts", "count", "largest_s", "smallest_s", "sum_s")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.sum_s = 0.0
        self.smallest_s = float("inf")
        self.largest_s = 0.0

    def add(self, duration_s: float) -> None:
        """Counts one value."""
        index = int(log(duration_s / _SMALLEST_S) * _SCALE) + 1 if duration_s > _SMALLEST_S else 0
        self._counts[min(index, _BUCKETS - 1)] += 1
        self.count += 1
        self.sum_s += duration_s
        self.smallest_s = min(self.smallest_s, duration_s)
        self.largest_s = max(self.largest_s, duration_s)

    def percentile_s(self, percent: float) -> float:
        """The smallest value such that `percent` of all are at most as large; 0.0 when nothing was counted.
        """
        if not self.count:
            return 0.0
        wanted = max(1, -(-self.count * percent // 100))
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                # Middle of the bucket, geometrically, but never outside of what was really seen.
                middle = float(_SMALLEST_S * GROWTH ** (index - 0.5))
                return min(max(middle, self.smallest_s), self.largest_s)
        return self.largest_s

    def summary_ms(self) -> dict[str, float]:
        """mean, p50, p90, p99, p99.9, min and max in milliseconds; empty when nothing was counted."""
        if not self.count:
            return {}
        ms = {"mean": self.sum_s / self.count, "min": self.smallest_s}
        ms |= {f"p{percent:g}": self.percentile_s(percent) for percent in PERCENTILES}
        ms["max"] = self.largest_s
        return {name: round(value * 1000, 3) for name, value in ms.items()}
