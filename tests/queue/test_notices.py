"""What automation sees of a worker's queue, and what of its decisions a worker obeys by itself."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import msgspec
from queue_harness import NextHop, Queue, run, until

from angarium.bounces.classifier import Classifier
from angarium.model.plan import Source
from angarium.model.units import decode_unit
from angarium.queue import orders
from angarium.queue.adjustments import Adjustment, Adjustments
from angarium.queue.automation_options import AutomationRule
from angarium.queue.explain import message_facts, queue_facts
from angarium.queue.notices import Notice, Notices, Place, Tally, Treated, Treatments
from angarium.queue.selection import Selection
from angarium.queue.shaping_options import ShapingOptions
from angarium.routing.egress_pool import EgressPool
from angarium.spool.envelope import Attribute


class Supervisor:
    """Takes what a queue notices."""

    def __init__(self, queue: Queue, **rules: dict[str, Any]) -> None:
        self.notices: list[Notice] = []
        self.tallies: list[Tally] = []
        made = {name: msgspec.convert(each, AutomationRule, dec_hook=decode_unit) for name, each in rules.items()}
        loop = asyncio.get_running_loop()
        self.worker = Notices(loop, made, Classifier(), self._take, queue.scheduler.take_tallies)
        queue.scheduler.notice_by(self.worker)

    @property
    def attempts(self) -> dict[Place, tuple[int, int, int]]:
        """Delivered, deferred and failed; told at once or in parts."""
        sums: dict[Place, tuple[int, int, int]] = {}
        for each in self.tallies:
            delivered, deferred, failed = sums.get(each.place, (0, 0, 0))
            sums[each.place] = delivered + each.delivered, deferred + each.deferred, failed + each.failed
        return sums

    def flushed(self, *, delivered: int) -> bool:
        """What is to be told is, and that many were delivered."""
        self.worker.flush()
        return sum(each.delivered for each in self.tallies) == delivered

    def _take(self, notices: list[Notice], tallies: list[Tally]) -> None:
        self.notices += notices
        self.tallies += tallies


def test_replies_are_noticed_and_a_greeting_that_turns_many_away_once(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {f"{n}@y.example": "451 4.7.0 Slow down" for n in range(3)}
        hop.rcpt["other@y.example"] = "450 4.2.1 busy"
        site = await hop.start()
        queue = Queue(directory, site)
        seen = Supervisor(queue, slow={"action": "suspend", "text": ["slow down"]})
        await queue.send(*hop.rcpt)
        await until(lambda: queue.depth["deferred"] == 4)
        seen.worker.flush()
        (notice,) = seen.notices
        assert (notice.rule, notice.count, notice.place) == ("slow", 3, Place(site.name, source="default"))
        assert notice.reply == "451 4.7.0 Slow down" and notice.remote.startswith("[127.0.0.1]")
        # All of a message by one reply: once.
        hop.rcpt.clear()
        hop.end_of_data = "451 4.7.0 slow down"
        await queue.send(*(f"{n}@z.example" for n in range(50)))
        await until(lambda: queue.depth["deferred"] == 54)
        seen.worker.flush()
        assert seen.notices[1].count == 1 and seen.tallies == []
        await queue.close()

    run(test, tmp_path)


def test_attempts_are_counted_for_rates(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {"later@y.example": "450 4.2.1 busy", "never@y.example": "550 5.1.1 unknown"}
        site = await hop.start()
        queue = Queue(directory, site)
        seen = Supervisor(queue, rate={"action": "suspend", "bounce_rate": 0.5})
        await queue.send("a@y.example", "b@y.example", *hop.rcpt, notify=1)
        await until(lambda: queue.depth["deferred"] == 1)
        await until(lambda: seen.flushed(delivered=2))
        assert seen.attempts == {Place(site.name, source="default"): (2, 1, 1)}
        known = len(seen.tallies)
        seen.worker.flush()
        assert len(seen.tallies) == known
        await queue.close()

    run(test, tmp_path)


def test_a_tenants_replies_are_its_own(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {f"{name}@y.example": "550 5.7.1 spam" for name in ("a", "b", "c")}
        queue = Queue(directory, await hop.start())
        seen = Supervisor(queue, spam={"action": "suspend", "scope": "tenant", "text": ["spam"]})
        await queue.send("a@y.example", attributes={Attribute.TENANT: b"shop"}, notify=1)
        await queue.send("b@y.example", attributes={Attribute.TENANT: b"news"}, notify=1)
        await queue.send("c@y.example", notify=1)           # nobody's
        await until(lambda: queue.is_empty)
        seen.worker.flush()
        assert {each.place for each in seen.notices} == {Place(tenant="shop"), Place(tenant="news")}
        await queue.close()

    run(test, tmp_path)


def test_a_reply_is_taken_for_the_other_kind(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {"a@y.example": "550 5.2.0 being moved", "b@y.example": "450 4.7.0 go away for ever"}
        queue = Queue(directory, await hop.start())
        Supervisor(
            queue,
            soft={"action": "treat-as-temporary", "code": [550], "text": ["being moved"]},
            hard={"action": "treat-as-permanent", "code": ["4xx"], "text": ["for ever"]},
        )
        await queue.send("a@y.example", "b@y.example", notify=1)
        await until(lambda: queue.events("failed"))
        assert [each["to"] for each in queue.events("failed")] == ["b@y.example"]
        assert [each["to"] for each in queue.events("deferred")] == ["a@y.example"]
        await queue.close()

    run(test, tmp_path)


def test_attempts_of_tenants_and_campaigns_are_counted_for_rates_of_theirs(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {"later@y.example": "450 4.2.1 busy", "never@y.example": "550 5.1.1 unknown"}
        site = await hop.start()
        queue = Queue(directory, site)
        seen = Supervisor(queue, rate={"action": "slow", "bounce_rate": 0.5, "scope": "tenant"})
        shop = {Attribute.TENANT: b"shop"}
        await queue.send("a@y.example", "b@y.example", attributes=shop | {Attribute.CAMPAIGN: b"spring"})
        await queue.send(*hop.rcpt, attributes=shop, notify=1)
        await queue.send("nobodys@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        await until(lambda: seen.flushed(delivered=5))      # three at the site, two of the tenant's
        assert seen.attempts == {
            Place(site.name, source="default"): (3, 1, 1),
            Place(tenant="shop", campaign="spring"): (2, 0, 0),
            Place(tenant="shop"): (0, 1, 1),
        }
        known = len(seen.tallies)
        seen.worker.flush()
        assert len(seen.tallies) == known
        await queue.close()

    run(test, tmp_path)


def test_attempts_of_tenants_are_not_counted_where_no_rule_asks(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site)
        seen = Supervisor(queue, rate={"action": "suspend", "bounce_rate": 0.5})
        await queue.send("a@y.example", attributes={Attribute.TENANT: b"shop"})
        await until(lambda: seen.flushed(delivered=1))
        assert list(seen.attempts) == [Place(site.name, source="default")]
        await queue.close()

    run(test, tmp_path)


def test_a_rule_that_is_cancelled_takes_no_reply_for_the_other_kind(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {f"{n}@y.example": "550 5.2.0 being moved" for n in range(3)}
        queue = Queue(directory, await hop.start())
        soft = {"action": "treat-as-temporary", "text": ["being moved"]}
        seen = Supervisor(queue, soft=soft, trial=soft | {"dry_run": True, "action": "treat-as-permanent"})
        await queue.send("0@y.example", notify=1)
        await until(lambda: queue.events("deferred"))
        seen.worker.flush()
        assert {(each.rule, each.place, each.count) for each in seen.notices} == {
            ("soft", Place(), 1), ("trial", Place(), 1)
        }  # fmt: skip
        seen.worker.set_treatments(Treatments(off=["soft"]))
        await queue.send("1@y.example", notify=1)
        await until(lambda: queue.events("failed"))
        seen.worker.set_treatments(Treatments())
        await queue.send("2@y.example", notify=1)
        await until(lambda: len(queue.events("deferred")) == 2)
        assert [each["to"] for each in queue.events("failed")] == ["1@y.example"]
        await queue.close()

    run(test, tmp_path)


def test_a_rule_with_a_duration_takes_replies_for_the_other_kind_while_it_is_in_force(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {f"{n}@y.example": "550 5.7.1 we are under maintenance" for n in range(3)}
        site = await hop.start()
        queue = Queue(directory, site)
        soft = {"action": "treat-as-temporary", "text": ["maintenance"], "count": 5, "scope": "site", "duration": "1h"}
        seen = Supervisor(queue, soft=soft)
        await queue.send("0@y.example", notify=1)
        await until(lambda: queue.events("failed"))         # one of the five
        seen.worker.set_treatments(Treatments(now=[Treated("soft", Place("another site"))]))
        await queue.send("1@y.example", notify=1)
        await until(lambda: len(queue.events("failed")) == 2)
        seen.worker.set_treatments(Treatments(now=[Treated("soft", Place(site.name))]))
        await queue.send("2@y.example", notify=1)
        await until(lambda: queue.events("deferred"))
        seen.worker.flush()
        assert sum(each.count for each in seen.notices) == 3
        await queue.close()

    run(test, tmp_path)


def test_limits_shrink_and_come_back(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site, shaping=ShapingOptions(connections=20))
        await queue.send("a@y.example")
        await until(lambda: queue.is_empty)
        (ready,) = queue.scheduler.ready_queues()
        for adjustments, limit in (
            ([Adjustment(site=site.name, connections=3)], 3),
            ([Adjustment(site=site.name, factor=1000.0)], 1),
            ([Adjustment(site=site.name.upper(), factor=4.0, by_host=True)], 5),
            ([Adjustment(site="another", factor=4.0), Adjustment(site=site.name, source="other", factor=4.0)], 20),
        ):
            queue.scheduler.set_adjustments(Adjustments(adjustments))
            assert ready.connection_limit == limit
        # Of one source alone, besides what all of them may.
        queue.scheduler.set_adjustments(Adjustments([Adjustment(site=site.name, source="default", factor=4.0)]))
        assert [each.connections_limit for each in queue_facts(ready).restrained] == [5]
        queue.scheduler.set_adjustments(None)
        assert (ready.connection_limit, queue_facts(ready).restrained) == (20, [])
        await queue.close()

    run(test, tmp_path)


def test_a_site_has_a_cap_of_messages_where_it_had_none(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site)
        queue.scheduler.set_adjustments(Adjustments([Adjustment(site=site.name, message_rate=0.001)]))
        for number in range(3):
            await queue.send(f"{number}@y.example")
        await until(lambda: queue.depth["recipients"] == 2)
        (ready,) = queue.scheduler.ready_queues()
        await until(lambda: queue_facts(ready).is_paced)
        queue.scheduler.set_adjustments(None)
        ready.pause(0.0)
        await queue.close()

    run(test, tmp_path)


def test_a_source_on_their_list_is_not_chosen_while_there_is_another(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory, site)
        pool = EgressPool({Source(name, "", "relay.example"): 1 for name in ("mail1", "mail2")})
        queue.scheduler.plan_anew(router=queue.router, pool=pool, shaping=ShapingOptions())
        queue.scheduler.set_adjustments(Adjustments([Adjustment(site=site.name, source="mail1", is_listed=True)]))
        for number in range(12):
            await queue.send(f"{number}@y.example")
        await until(lambda: queue.is_empty)
        assert {each["source"] for each in queue.events("delivered")} == {"mail2"}
        hop.rcpt["busy@y.example"] = "450 4.2.1 busy"
        ids = [await queue.send("busy@y.example") for _ in range(6)]
        await until(lambda: queue.depth["deferred"] == 6)
        for id_ in ids:
            facts = message_facts(queue.scheduler, id_, 1)
            assert facts is not None and facts.recipients[0].source == "mail2", "as it is told to people, too"
        del hop.rcpt["busy@y.example"]
        await orders.carry_out(queue.scheduler, "delete", Selection(domain="y.example"))
        queue.scheduler.set_adjustments(None)
        for number in range(12):
            await queue.send(f"{number}@y.example")
        await until(lambda: queue.is_empty)
        assert {each["source"] for each in queue.events("delivered")} == {"mail1", "mail2"}
        await queue.close()

    run(test, tmp_path)
