"""Joining the busiest sites of several workers."""

from __future__ import annotations

from angarium.queue.facts import Reply, SiteRow, SitesPart
from angarium.queue.top_sites import added_up


def test_a_site_of_two_workers_is_one_and_ranks_by_its_sum() -> None:
    of_first = [SiteRow("a", waiting=5), SiteRow("b", waiting=4, rate=1.0, deferral=1.0, last=Reply(1.0, "older"))]
    of_second = [SiteRow("b", waiting=3, rate=3.0, deferral=0.0, delivered=2, last=Reply(2.0, "newer"))]
    parts = [SitesPart(of_first, 2, 9, 0, 1.0), SitesPart(of_second, 1, 3, 4, 3.0)]
    found = added_up(parts, of_first + of_second, "depth", 2)
    assert [(row.site, row.waiting) for row in found.rows] == [("b", 7), ("a", 5)]
    assert (found.sites, found.waiting, found.connections, found.rate) == (2, 12, 4, 4.0)
    b = found.rows[0]
    assert (b.rate, b.deferral, b.delivered) == (4.0, 0.25, 2)
    assert b.last is not None and b.last.text == "newer"
    by_rate = added_up(parts, [SiteRow("a", rate=1.0), SiteRow("c", rate=2.0)], "rate", 1)
    assert [row.site for row in by_rate.rows] == ["c"]
