"""Filters beside one another: whether there may be mail that two of them mean."""

from __future__ import annotations

import pytest

from angarium.queue.selection import ALL, Selection, may_meet


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (ALL, Selection(domain="y.example"), True),
        (Selection(domain="y.example"), Selection(domain="Y.example", tenant="shop"), True),
        (Selection(domain="y.example"), Selection(domain="z.example"), False),
        (Selection(domain="y.example"), Selection(domain=".y.example"), False),
        (Selection(domain="y.example"), Selection(domain="@y.example"), True),
        (Selection(domain="a.y.example"), Selection(domain=".y.example"), True),
        (Selection(domain=".a.y.example"), Selection(domain="@y.example"), True),
        (Selection(domain="@a.example"), Selection(domain="@b.example"), False),
        (Selection(domain="y.example"), Selection(provider="google"), True),       # who knows whose it is
        (Selection(provider="google"), Selection(provider="yahoo"), False),
        (Selection(tenant="shop"), Selection(without_tenant=True, campaign="spring"), False),
        (Selection(campaign="spring"), Selection(without_tenant=True, campaign="spring"), True),
        (Selection(id="02TR4P4JG0001"), Selection(id="02TR4P4JG0002"), False),
        (Selection(site="mx1.a"), Selection(site="mx2.a"), True),                   # hosts of one site, perhaps
        (Selection(site="MX1.a"), Selection(site="mx1.a,mx2.a"), True),
        (Selection(site="mx3.a"), Selection(site="mx1.a,mx2.a"), False),
        (Selection(site="mx1.a,mx3.a"), Selection(site="mx1.a,mx2.a"), False),
        (Selection(site="mx1.a", exact_site=True), Selection(site="mx1.a,mx2.a"), False),
        (Selection(site="mx1.a", exact_site=True), Selection(site="mx2.a"), False),
        (Selection(site="mx1.a", exact_site=True), Selection(site="MX1.a"), True),
        (Selection(site="mx1.a,mx2.a", exact_site=True), Selection(site="mx2.a"), True),
        (Selection(site="mx1.a,mx2.a", exact_site=True), Selection(site="mx2.a", exact_site=True), False),
        (Selection(older_than_s=60.0), Selection(younger_than_s=60.0), True),
    ],
    ids=str,
)
def test_filters_may_mean_the_same_mail_unless_they_exclude_one_another(
    one: Selection, other: Selection, verdict: bool
) -> None:
    assert may_meet(one, other) is verdict and may_meet(other, one) is verdict


def test_a_site_that_is_to_be_exact_is_none_without_a_name() -> None:
    """It would be a filter that means all mail."""
    with pytest.raises(ValueError, match="exact_site: of a site"):
        Selection(exact_site=True)
