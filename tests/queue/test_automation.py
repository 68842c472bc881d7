"""Rules on replies: when they begin something, for how long, how it goes back. The clock is the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from angarium.config.files import Tree
from angarium.config.schema import Config
from angarium.config.shaping_files import add_shaping_files
from angarium.model.units import decode_unit
from angarium.queue.adjustments import Adjustment, Adjustments, Held
from angarium.queue.automation import MEASURES_MAX, Engine
from angarium.queue.automation_options import AutomationRule
from angarium.queue.measure import Measure
from angarium.queue.notices import Notice, Place, Tally, Treated
from angarium.queue.selection import Selection

MAIL1 = Place(site="mx.y.example", source="mail1")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def rule(**options: Any) -> AutomationRule:
    given = {"action": "suspend", "text": ["too fast"], "within": "10m", "duration": "30m"} | options
    if "bounce_rate" in given or "deferral_rate" in given:
        del given["text"]
    return msgspec.convert(given, AutomationRule, dec_hook=decode_unit)


def seen(name: str = "r", count: int = 1, place: Place = MAIL1, reply: str = "421 too fast") -> Notice:
    return Notice(name, place, count, reply, "mx.y.example[192.0.2.1]:25")


def test_a_rule_begins_something_when_its_count_is_reached_over_all_workers() -> None:
    clock = Clock()
    engine = Engine({"r": rule(count=5)}, clock)
    assert engine.notice([seen(count=2)], []) == []         # of one worker
    assert engine.notice([seen(count=2)], []) == []         # of another
    clock.now += 300
    (measure,) = engine.notice([seen(count=1)], [])
    assert (measure.name, measure.count, measure.why) == ("r/mx.y.example/mail1", 5, "5 such replies in 10m")
    assert measure.replies[-1].reply == "421 too fast"
    (order,) = engine.orders()
    assert order.action == "suspend" and order.where == Selection(
        site="mx.y.example", exact_site=True, source="mail1"
    )
    assert order.by == "automation r"


@pytest.mark.parametrize("options", [{"count": 10}, {"deferral_rate": 0.5, "minimum": 10}], ids=["count", "rate"])
def test_a_clock_that_is_set_back_does_not_make_a_window_longer(options: dict[str, Any]) -> None:
    def one() -> list[Measure]:
        if "count" in options:
            return engine.notice([seen()], [])
        return engine.notice([], [Tally(MAIL1, delivered=0, deferred=1, failed=0)])

    clock = Clock()
    engine = Engine({"r": rule(within="1m", **options)}, clock)
    assert one() == []
    clock.now -= 86400
    for _ in range(30):         # one an hour
        assert one() == []
        clock.now += 3600
    begun = [measure for _ in range(10) for measure in one()]
    assert len(begun) == 1, "and goes on counting"


def test_replies_of_before_the_window_do_not_count() -> None:
    clock = Clock()
    engine = Engine({"r": rule(count=5)}, clock)
    engine.notice([seen(count=4)], [])
    clock.now += 601
    assert engine.notice([seen(count=4)], []) == []
    assert len(engine.notice([seen()], [])) == 1


def test_places_are_counted_apart() -> None:
    engine = Engine({"r": rule(count=2)}, Clock())
    assert engine.notice([seen(), seen(place=Place(site="mx.y.example", source="mail2"))], []) == []


def test_it_ends_in_time_and_a_further_match_begins_its_time_anew() -> None:
    clock = Clock()
    engine = Engine({"r": rule()}, clock)
    engine.notice([seen()], [])
    (orders,) = engine.orders()
    clock.now += 1200
    engine.notice([seen()], [])
    assert engine.orders() == [orders]                      # for workers nothing has changed
    assert engine.measures[0].count == 2
    clock.now += 1799
    assert engine.expire() == [] and engine.next_change_s() == 1
    clock.now += 1
    assert [each.name for each in engine.expire()] == ["r/mx.y.example/mail1"]
    assert engine.orders() == [] and engine.next_change_s() is None


def test_a_factor_returns_in_steps() -> None:
    clock = Clock()
    engine = Engine({"r": rule(action="slow", factor=16.0, duration="1h", recovery="3h", steps=3)}, clock)
    engine.notice([seen()], [])
    seen_factors = []
    while engine.next_change_s() is not None:
        seen_factors.append((round(engine.adjustments()[0].factor, 3), clock.now - 1_000_000.0))
        clock.now += engine.next_change_s() or 0
        engine.expire()
    assert [factor for factor, _ in seen_factors] == [16.0, 8.0, 4.0, 2.0]
    assert [round(at) for _, at in seen_factors] == [0, 3600, 7200, 10800]
    assert round(clock.now - 1_000_000.0) == 4 * 3600
    assert engine.adjustments() == [] and engine.orders() == []


def test_a_cap_widens_in_steps() -> None:
    clock = Clock()
    engine = Engine({"r": rule(action="cap", connections=2, duration="1h", recovery="1h", steps=1)}, clock)
    engine.notice([seen()], [])
    assert engine.adjustments() == [Adjustment(site="mx.y.example", source="mail1", connections=2)]
    clock.now += 3600
    assert engine.adjustments()[0].connections == 4
    engine.notice([seen()], [])                             # in the middle of going back: in full again
    assert engine.adjustments()[0].connections == 2


def test_a_rate_needs_its_sample_and_its_part() -> None:
    clock = Clock()
    engine = Engine({"r": rule(bounce_rate=0.5, minimum=100, scope="site")}, clock)
    assert engine.notice([], [Tally(MAIL1, 10, 0, 80)]) == []
    assert engine.notice([], [Tally(MAIL1, 80, 0, 0)]) == []            # 80 of 170
    assert engine.notice([], [Tally(MAIL1, 0, 20, 0)]) == []            # deferrals are none
    (measure,) = engine.notice([], [Tally(Place(site="mx.y.example", source="mail2"), 0, 0, 120)])
    assert measure.place == Place(site="mx.y.example")                  # of all sources
    assert measure.why == "200 of 310 attempts failed in 10m"
    assert engine.notice([], [Tally(MAIL1, 0, 0, 99)]) == []            # a new sample


def test_a_rate_forgets_what_is_older_than_its_window() -> None:
    clock = Clock()
    engine = Engine({"r": rule(deferral_rate=0.5, minimum=100)}, clock)
    engine.notice([], [Tally(MAIL1, 1000, 0, 0)])
    clock.now += 601
    assert len(engine.notice([], [Tally(MAIL1, 40, 60, 0)])) == 1


def test_a_suspension_comes_back_in_steps() -> None:
    clock = Clock()
    engine = Engine({"r": rule(duration="1h", recovery="4h", steps=4)}, clock)
    engine.notice([seen()], [])
    assert len(engine.orders()) == 1 and engine.adjustments() == []
    told = []
    clock.now += 3600
    while engine.measures:
        assert engine.orders() == []
        (back,) = engine.adjustments()
        assert (back.site, back.source) == ("mx.y.example", "mail1")
        told.append((round(back.factor, 3), engine.measures[0].effect(clock.now)))
        clock.now += engine.next_change_s() or 0
        engine.expire()
    assert [factor for factor, _ in told] == [5.0, 2.5, 1.667, 1.25]
    assert told[1][1] == "recovering, 40 % of connections and rates"
    assert round(clock.now - 1_000_000.0) == 5 * 3600 and engine.adjustments() == []


def test_a_suspension_that_comes_back_can_be_cancelled_begins_anew_and_is_kept() -> None:
    clock = Clock()
    rules = {"r": rule(scope="tenant", duration="1h", recovery="1h", steps=1)}
    engine = Engine(rules, clock)
    shop = Place(tenant="shop")
    engine.notice([seen(place=shop)], [])
    clock.now += 3600
    assert engine.adjustments() == [Adjustment(tenant="shop", factor=2.0)]
    again = Engine(rules, clock)
    again.restore(msgspec.json.decode(msgspec.json.encode(engine.in_force), type=list[Measure]))
    assert again.adjustments() == engine.adjustments() and again.orders() == []
    engine.notice([seen(place=shop)], [])
    assert engine.adjustments() == [] and [each.where for each in engine.orders()] == [Selection(tenant="shop")]
    clock.now += 3600
    assert engine.cancel("r/shop") is not None
    assert engine.adjustments() == [] and engine.orders() == []


def test_rates_of_tenants_and_campaigns_are_counted_for_each_of_them() -> None:
    engine = Engine(
        {
            "of-tenant": rule(bounce_rate=0.1, minimum=100, scope="tenant", action="slow", tenants=["shop", "news"]),
            "of-campaign": rule(deferral_rate=0.5, minimum=100, scope="campaign", action="cap", connections=2),
            "of-site": rule(bounce_rate=0.1, minimum=1, scope="site"),
        },
        Clock(),
    )
    spring, autumn = Place(tenant="shop", campaign="spring"), Place(tenant="shop", campaign="autumn")
    assert engine.notice([], [Tally(spring, 50, 0, 5), Tally(Place(tenant="other"), 0, 0, 1000)]) == []
    (measure,) = engine.notice([], [Tally(autumn, 40, 0, 6)])       # of all the tenant's mail
    assert (measure.name, measure.why) == ("of-tenant/shop", "11 of 101 attempts failed in 10m")
    assert engine.notice([], [Tally(autumn, 0, 50, 0)]) == []       # 50 of 96
    (measure,) = engine.notice([], [Tally(autumn, 4, 10, 0)])
    assert (measure.name, measure.why) == ("of-campaign/shop/autumn", "60 of 110 attempts deferred in 10m")
    assert engine.adjustments() == [
        Adjustment(tenant="shop", factor=2.0), Adjustment(tenant="shop", campaign="autumn", connections=2)
    ]  # fmt: skip


def test_a_campaign_of_no_tenant_is_not_that_of_a_tenant_that_is_called_alike() -> None:
    clock = Clock()
    rules = {"stop": rule(scope="campaign"), "slow": rule(scope="campaign", action="slow", text=["too much"])}
    engine = Engine(rules, clock)
    (stop,) = engine.notice([seen("stop", place=Place(campaign="spring"))], [])
    assert stop.name == "stop/spring"
    (order,) = engine.orders()
    assert order.where == Selection(campaign="spring", without_tenant=True)
    assert str(order.where) == "campaign spring, without a tenant"
    engine.notice([seen("slow", place=Place(campaign="spring"))], [])
    held = Adjustments(engine.adjustments())
    assert held.apart_of(b"", b"spring") == ("", "spring") and held.apart_of(b"shop", b"spring") is None
    assert [each.factor for _, each in held.of_whom(("", "spring"))] == [2.0]
    assert held.apart_of(b"", b"") is None and held.apart_of(b"", b"autumn") is None


def test_a_cap_may_be_of_messages_and_widens_in_steps() -> None:
    clock = Clock()
    options = {"action": "cap", "scope": "tenant", "message_rate": "10/s", "recovery": "1h", "steps": 1}
    engine = Engine({"r": rule(**options)}, clock)
    engine.notice([seen(place=Place(tenant="shop"))], [])
    assert engine.adjustments() == [Adjustment(tenant="shop", message_rate=10.0)]
    assert engine.measures[0].effect(clock.now) == "at most 10 messages a second"
    clock.now += 1800
    assert engine.adjustments() == [Adjustment(tenant="shop", message_rate=20.0)]


def test_a_rule_that_always_takes_a_reply_for_the_other_kind_is_in_force_and_can_be_cancelled() -> None:
    clock = Clock()
    soft = {"action": "treat-as-temporary", "duration": None, "providers": ["p", "q"]}
    engine = Engine({"soft": rule(**soft)}, clock)
    (held,) = engine.in_force
    assert held.is_permanent and held.whom == {"provider": ["p", "q"]} and engine.measures == []
    assert held.effect(clock.now) == "such replies are taken as temporary"
    assert engine.next_change_s() is None and engine.expire() == []
    assert engine.notice([seen("soft", 3, Place())], []) == []
    assert (engine.in_force[0].count, engine.in_force[0].replies[0].reply) == (3, "421 too fast")

    assert engine.cancel("soft") is not None and engine.cancel("soft") is None
    assert engine.treatments().off == ["soft"]
    kept = msgspec.json.decode(msgspec.json.encode(engine.in_force), type=list[Measure])
    engine.set_rules({"soft": rule(**soft)})
    assert engine.treatments().off == ["soft"]                      # a reload that changes nothing about it
    again = Engine({"soft": rule(**soft)}, clock)
    again.restore(kept)
    assert again.treatments().off == ["soft"]
    assert again.in_force[0].effect(clock.now) == "cancelled: such replies are taken as temporary no more"
    assert again.restore_permanent("soft") is not None and again.treatments().off == []
    assert again.restore_permanent("soft") is None

    changed = Engine({"soft": rule(**soft, code=["550"])}, clock)
    changed.restore(kept)
    assert changed.treatments().off == []                           # it is another rule
    engine.set_rules({})
    assert engine.in_force == [] and engine.treatments().off == []


def test_replies_are_taken_for_the_other_kind_for_a_time_and_their_retries_do_not_prolong_it() -> None:
    clock = Clock()
    engine = Engine({"soft": rule(action="treat-as-temporary", count=3, duration="1h", scope="site")}, clock)
    place = Place(site="mx.y.example")
    assert engine.notice([seen("soft", 2, place)], []) == [] and engine.treatments().now == []
    assert [each.name for each in engine.notice([seen("soft", 1, place)], [])] == ["soft/mx.y.example"]
    assert engine.treatments().now == [Treated("soft", place)]
    assert engine.orders() == [] and engine.adjustments() == []
    clock.now += 3100
    assert engine.notice([seen("soft", 2, place)], []) == []
    assert engine.measures[0].count == 5
    clock.now += 500
    assert [each.name for each in engine.expire()] == ["soft/mx.y.example"] and engine.treatments().now == []
    assert engine.notice([seen("soft", 1, place)], []) != []        # three within ten minutes of before


def test_a_dry_run_is_counted_and_told_and_does_nothing() -> None:
    rules = {
        "r": rule(dry_run=True),
        "s": rule(dry_run=True, action="slow", factor=4.0),
        "t": rule(dry_run=True, action="treat-as-temporary"),
    }
    engine = Engine(rules, Clock())
    assert len(engine.notice([seen("r"), seen("s"), seen("t")], [])) == 3
    assert [each.effect(1_000_000.0) for each in engine.measures] == [
        "dry run: nothing is tried",
        "dry run: connections and rates divided by 4",
        "dry run: such replies are taken as temporary",
    ]
    assert engine.orders() == [] and engine.adjustments() == [] and engine.treatments().now == []


def test_what_is_in_force_goes_on_after_a_restart_and_ends_as_it_would_have() -> None:
    clock = Clock()
    rules = {"r": rule(), "s": rule(action="slow", factor=4.0, recovery="30m")}
    engine = Engine(rules, clock)
    engine.notice([seen("r"), seen("s")], [])
    kept = msgspec.json.decode(msgspec.json.encode(engine.measures), type=list[Measure])
    clock.now += 1700
    again = Engine(rules, clock)
    again.restore(kept)
    assert again.orders() == engine.orders() and again.adjustments() == engine.adjustments()
    clock.now += 200
    late = Engine(rules, clock)
    late.restore(kept)                                      # it was down when one ended
    assert [each.rule for each in late.measures] == ["s"]


def test_what_is_cancelled_ends_at_once_and_begins_only_by_new_replies() -> None:
    engine = Engine({"r": rule(count=3)}, Clock())
    engine.notice([seen(count=3)], [])
    cancelled = engine.cancel("r/mx.y.example/mail1")
    assert cancelled is not None and engine.orders() == []
    assert engine.cancel("r/mx.y.example/mail1") is None
    assert engine.notice([seen(count=2)], []) == []
    assert len(engine.notice([seen()], [])) == 1


def test_a_rule_that_a_reload_took_away_counts_no_more_and_what_it_began_stays() -> None:
    engine = Engine({"r": rule(count=2), "s": rule()}, Clock())
    engine.notice([seen("r"), seen("s")], [])
    engine.set_rules({})
    assert engine.notice([seen("r", count=5)], []) == []
    assert [each.rule for each in engine.measures] == ["s"]
    engine.expire()


def test_hosts_with_long_names_are_suspended_like_others_and_a_name_that_no_order_takes_stops_nobody() -> None:
    engine = Engine({"r": rule()}, Clock())
    site = ",".join(f"{number}.{'x' * 60}.{'y' * 60}.{'z' * 60}.{'w' * 60}.example" for number in range(20))
    engine.notice([seen(place=Place(site=site)), seen(place=Place(tenant="a\nb")), seen()], [])
    assert [order.where for order in engine.orders()] == [
        Selection(site=site, exact_site=True), Selection(site="mx.y.example", exact_site=True, source="mail1")
    ]  # fmt: skip


def test_there_is_an_end_to_measures() -> None:
    engine = Engine({"r": rule()}, Clock())
    engine.notice([seen(place=Place(site=f"{n}.example")) for n in range(MEASURES_MAX + 10)], [])
    assert len(engine.measures) == MEASURES_MAX


def test_the_strictest_adjustment_holds() -> None:
    adjustments = Adjustments(
        [
            Adjustment(site="a", factor=2.0),
            Adjustment(provider="p", source="s", factor=8.0, connections=5),
            Adjustment(site="a", connections=3),
            Adjustment(provider="p", source="listed", is_listed=True),
        ]
    )
    assert adjustments.of("a", "p") == (2.0, 3, 0.0)
    assert adjustments.of("b", "p") == (1.0, 0, 0.0)
    assert adjustments.of_source("a", "p", "s") == Held(8.0, 5, 0.0)
    assert adjustments.of_source("b", "", "s") == adjustments.of_source("a", "p", "other") == Held()
    assert adjustments.is_listed("b", "p", "listed") and not adjustments.is_listed("b", "", "listed")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"text": []}, "which replies?"),
        ({"code": ["9xx"]}, 'code: "9xx" is neither'),
        ({"match": ["("]}, "match:"),
        ({"classes": ["bad-luck"]}, 'there is no class "bad-luck"'),
        ({"action": "pool"}, "pool: which one?"),
        ({"pool": "bulk"}, "pool: of action pool only"),
        ({"action": "pool", "pool": "bulk", "recovery": "1h"}, "recovery: of suspend, slow, cap only"),
        ({"action": "slow", "factor": 1.0}, "factor: more than 1"),
        ({"action": "cap"}, "connections, message_rate: how many?"),
        ({"connections": 3}, "connections, message_rate: of action cap only"),
        ({"action": "cap", "message_rate": "none"}, 'message_rate: "none" is no cap'),
        ({"action": "list-source", "scope": "site"}, "scope: list-source is about"),
        ({"bounce_rate": 0.5, "code": ["550"]}, "a rate is of all attempts"),
        ({"bounce_rate": 0.5, "scope": "campaign", "sources": ["mail1"]}, "no providers and sources"),
        ({"bounce_rate": 0.5, "scope": "site", "tenants": ["shop"]}, "no tenants and campaigns"),
        ({"action": "treat-as-temporary", "count": 2, "duration": None}, "without a duration is for each such reply"),
        ({"bounce_rate": 0.5, "deferral_rate": 0.5}, "either this or deferral_rate"),
        ({"bounce_rate": 1.5}, "bounce_rate: a part of 1"),
        ({"bounce_rate": 0.5, "action": "treat-as-temporary"}, "is about a reply, not a rate"),
        ({"duration": "0s"}, "duration: 1s to 31d"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        rule(**options)
    assert reason in str(refused.value)


YAHOO, GMAIL = "mta7.am0.yahoodns.net", "gmail-smtp-in.l.google.com"
OUTLOOK = "hotmail-com.olc.protection.outlook.com"
SHIPPED = [
    (YAHOO, "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user "
     "complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes", "yahoo-volume"),
    (YAHOO, "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred", "yahoo-listed"),
    (GMAIL, "421 4.7.28 Our system has detected an unusual rate of\n4.7.28 unsolicited mail originating from your IP "
     "address.", "google-rate"),
    (OUTLOOK, "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)",
     "outlook-reputation"),
    (OUTLOOK, "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service "
     "provider since part of their network is on our block list (S3150).", "outlook-listed"),
    ("x.mail.protection.outlook.com", "550 5.7.606 Access denied, banned sending IP [192.0.2.1].",
     "microsoft365-listed"),
    ("smtp-in.orange.fr", "421 mwinf5c50 ME Trop de connexions, veuillez verifier votre configuration. Too many "
     "connections, slow down. OFR004_104 [104]", "orange-connections"),
    ("mx.other.example", "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", None),
    (GMAIL, "550 5.1.1 The email account that you tried to reach does not exist.", None),
]  # fmt: skip


@pytest.mark.parametrize(("host", "reply", "name"), SHIPPED, ids=[str(each[2]) for each in SHIPPED])
def test_the_shipped_rules_know_the_replies_that_they_are_for(host: str, reply: str, name: str | None) -> None:
    from angarium.bounces.classifier import Classifier
    from angarium.model.outcome import Trouble
    from angarium.queue.notices import Notices

    class Loop:
        def call_later(self, *_: object) -> object:
            return object()

    tree = Tree()
    tree.merge({"automation": {"files": ["@shipped"]}}, Path("angarium.toml"))
    add_shaping_files(tree)
    config = msgspec.convert(tree.tables, Config, dec_hook=decode_unit)
    sent: list[Notice] = []
    notices = Notices(Loop(), config.automation.rules, Classifier(), lambda some, _: sent.extend(some), list)  # type: ignore[arg-type]
    code, text = reply.split(" ", 1)
    status = tuple(int(part) for part in text.split()[0].split(".")) if text[1] == "." else (int(code[0]), 0, 0)
    trouble = Trouble(int(code), status, text, f"{host}[192.0.2.7]:25", phase="mail")  # type: ignore[arg-type]
    notices.failed(trouble, is_permanent=code[0] == "5", place=Place(site=host, provider="p", source="mail1"))
    notices.flush()
    assert [each.rule for each in sent] == ([] if name is None else [name])
    if name:
        assert sent[0].place == Place(provider="p", source="mail1")
