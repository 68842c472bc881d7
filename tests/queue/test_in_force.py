"""What is said to hold for some mail, and how surely."""

from __future__ import annotations

from typing import Any

import pytest

from angarium.model.units import Duration
from angarium.queue.automation import Engine
from angarium.queue.automation_options import AutomationRule
from angarium.queue.in_force import Facts, as_notes, concerns, in_force
from angarium.queue.notices import Notice, Place
from angarium.queue.quiet import QuietHours
from angarium.queue.selection import Selection
from angarium.queue.standing import Order

MAIL = Facts(domain="Sub.Y.example", site="mx1.y.example,mx2.y.example", provider="p", source="s", tenant="shop",
             sender="me@x.example")  # fmt: skip


@pytest.mark.parametrize(
    ("where", "verdict"),
    [
        (Selection(), True),
        (Selection(domain="sub.y.example"), True),
        (Selection(domain=".y.example"), True),
        (Selection(domain="@y.example"), True),
        (Selection(domain="y.example"), None),
        (Selection(site="mx2.y.example"), True),
        (Selection(site="mx3.y.example"), None),
        (Selection(site="mx2.y.example", exact_site=True), None),
        (Selection(site="MX1.y.example,mx2.y.example", exact_site=True), True),
        (Selection(sender="x.example"), True),
        (Selection(sender="<>"), None),
        (Selection(campaign="spring"), False),          # not known
        (Selection(domain=".y.example", older_than_s=60.0), False),
        (Selection(domain="z.example", older_than_s=60.0), None),
        (Selection(tenant="shop", provider="p", source="s"), True),
        (Selection(tenant="shop", provider="q"), None),
    ],
    ids=str,
)
def test_a_filter_is_about_mail_or_may_be_or_is_not(where: Selection, verdict: bool | None) -> None:
    assert concerns(where, MAIL) is verdict


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (Facts(campaign="spring"), [True]),
        (Facts(tenant="shop", campaign="spring"), []),
        (Facts(domain="y.example"), [False]),           # whose it is, is not known
        (Facts(campaign="autumn"), []),
    ],
)
def test_what_holds_for_a_campaign_without_a_tenant_is_told_of_its_mail_alone(facts: Facts, told: list[bool]) -> None:
    rule = AutomationRule(action="slow", text=["too fast"], scope="campaign")
    engine = Engine({"slow": rule}, lambda: 1000.0)
    engine.notice([Notice("slow", Place(campaign="spring"), 1, "421 too fast", "")], [])
    found = in_force(facts, measures=engine.in_force, now_utc_s=1000.0)
    assert [each.is_certain for each in found] == told


@pytest.mark.parametrize("action", ["suspend", "slow", "cap", "pool", "list-source", "treat-as-temporary"])
def test_what_holds_for_a_site_is_told_of_no_site_that_has_its_host_besides_others(action: str) -> None:
    more = {"cap": {"connections": 1}, "pool": {"pool": "bulk"}, "treat-as-temporary": {"duration": Duration(60)}}
    scope = "source-and-site" if action == "list-source" else "site"
    rule = AutomationRule(**{"action": action, "text": ["no"], "scope": scope} | more.get(action, {}))
    engine = Engine({"rule": rule}, lambda: 1000.0)
    source = "s" if action == "list-source" else ""
    engine.notice([Notice("rule", Place(site="mx1.y.example", source=source), 1, "421 no", "")], [])

    def told(site: str) -> list[str]:
        return [each.name for each in in_force(Facts(site=site), measures=engine.in_force, now_utc_s=1000.0)]

    assert told("mx1.y.example") == [engine.measures[0].name]
    assert told("mx1.y.example,mx2.y.example") == []


def order(name: str, **options: Any) -> Order:
    return Order(**{"name": name, "action": "suspend", "where": Selection(), "made_utc_s": 1.0, **options})


def test_only_what_is_sure_to_suspend_holds_mail_back() -> None:
    def held_by(*orders: Order) -> list[bool]:
        return [note.holds_back for note in as_notes(in_force(MAIL, orders=orders, now_utc_s=1000.0))]

    resumed = order("resumed", action="resume", made_utc_s=2.0)
    assert held_by(order("all")) == [True]
    assert held_by(order("all"), resumed) == [False, False]
    assert held_by(order("again", made_utc_s=3.0), resumed) == [True, False]
    assert held_by(order("large", where=Selection(larger_than_octets=1000))) == [False]
    assert held_by(order("moved", action="reroute", pool="bulk")) == [False]


def test_what_comes_back_and_what_some_replies_are_taken_for_hold_nothing_back() -> None:
    rules = {
        "soft": AutomationRule(action="treat-as-temporary", text=["moved"], providers=["p", "q"]),
        "hard": AutomationRule(action="treat-as-permanent", text=["for ever"], tenants=["news"]),
    }
    engine = Engine(rules, lambda: 1000.0)
    back = order("back", where=Selection(tenant="shop"), until_utc_s=900.0, recovery_s=400.0, steps=3)
    again = order("again", action="retry", until_utc_s=2000.0, every_s=90.0)
    found = in_force(MAIL, orders=[back, again], measures=engine.in_force, now_utc_s=1000.0)
    assert [(each.name, each.effect, each.until_utc_s, each.is_aside) for each in found] == [
        ("back", "recovering, 25 % of connections and rates", 1300.0, False),
        ("again", "what is deferred is tried again after 1m30s at the latest", 2000.0, False),
        ("soft", "such replies are taken as temporary", 0.0, True),
    ]
    notes = as_notes(found)
    assert not any(note.holds_back for note in notes)
    assert notes[2].text.startswith("automation soft (provider p or q): such replies are taken as temporary; by the")
    engine.cancel("soft")
    assert in_force(MAIL, measures=engine.in_force, now_utc_s=1000.0) == []


def test_all_that_holds_is_told_with_what_it_does() -> None:
    rules = {"slow": AutomationRule(action="slow", text=["slow"], factor=4.0)}
    engine = Engine(rules, lambda: 1000.0)
    engine.notice([Notice("slow", Place(provider="p"), 1, "421 slow down", "mx1.y.example[192.0.2.1]:25")], [])
    found = in_force(
        MAIL,
        orders=[
            order("old", reason="asked for"),
            order("over", until_utc_s=999.0),
            order("new", action="reroute", pool="bulk", made_utc_s=2.0, until_utc_s=2000.0),
            order("other", where=Selection(domain="z.example")),
        ],
        quiet=[
            QuietHours(Selection(domain=".y.example"), "00:00", "06:00", "UTC", ()),
            QuietHours(Selection(domain=".y.example"), "12:00", "13:00", "UTC", ()),
        ],
        measures=engine.measures,
        now_utc_s=1000.0,
    )
    assert [(each.kind, each.name, each.effect) for each in found] == [
        ("order", "new", "goes by pool bulk"),
        ("order", "old", "nothing is tried"),
        ("quiet", "00:00 to 06:00 UTC", "nothing is tried"),
        ("automation", "slow/p", "connections and rates divided by 4"),
    ]
    assert found[2].until_utc_s == 6 * 3600 and found[3].reason == "1 such reply in 10m; 421 slow down"
