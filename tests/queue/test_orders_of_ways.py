"""Standing orders and the way of mail: those that change it, and those that ask for site, source or pool."""

from __future__ import annotations

import asyncio
import pathlib
import time
from typing import Any

import pytest
from queue_harness import NextHop, Queue, order, run, suspended, until

from angarium.model.plan import Plan, RoutingTrouble, Site, Source
from angarium.queue import orders
from angarium.queue.automation import Engine
from angarium.queue.automation_options import AutomationRule
from angarium.queue.inspect import id_text
from angarium.queue.matching import Matcher
from angarium.queue.notices import Notice, Place
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.selection import Selection
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.unplanned import look_up_unplanned
from angarium.routing.egress_pool import EgressPool
from angarium.routing.egress_rules import EgressPools


def test_a_reroute_goes_around_a_domain_that_has_no_way_and_back(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        site, other_site = await hop.start(), await other.start()
        queue = Queue(directory, site)
        queue.router.by_domain[b"y.example"] = RoutingTrouble(False, (4, 4, 3), "no name server answers")
        queue.router.by_domain[b"y.example\0>smtp://other:25"] = other_site
        await queue.send("a@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        reroute = order("reroute", Selection(domain="y.example"), next_hop="smtp://other:25")
        queue.scheduler.set_rules([reroute])
        assert await orders.retry(queue.scheduler) == 1
        await until(lambda: other.recipients() == ["a@y.example"])
        other.rcpt["b@y.example"] = "450 4.2.1 busy"
        id_ = await queue.send("b@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        shown = await orders.show(queue.scheduler, id_text(id_))
        assert shown["recipients"][0]["route"] == "smtp://other:25"
        # The order ends: back to where the message was to go.
        queue.scheduler.set_rules([])
        queue.router.by_domain[b"y.example"] = site
        await orders.retry(queue.scheduler)
        await until(lambda: queue.is_empty)
        assert hop.recipients() == ["b@y.example"]
        await queue.close()

    run(test, tmp_path)


def test_a_reroute_by_site_holds_although_the_new_site_is_another(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        hop.rcpt["a@y.example"] = "450 4.2.1 busy"
        site, other_site = await hop.start(), await other.start()
        queue = Queue(directory, site)
        queue.router.by_domain[b"y.example\0>smtp://other:25"] = other_site
        await queue.send("a@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        other.rcpt["a@y.example"] = "450 4.2.1 busy"
        queue.scheduler.set_rules([order("reroute", Selection(site=site.name), next_hop="smtp://other:25")])
        for count in (1, 2, 3):
            await orders.retry(queue.scheduler)
            await until(lambda count=count: other.transactions == count and queue.depth["deferred"] == 1)
        assert hop.transactions == 1
        await queue.close()

    run(test, tmp_path)


@pytest.mark.parametrize("is_moved", [True, False])
def test_whom_a_reroute_means_is_counted_after_it_has_moved_them(tmp_path, is_moved):
    """The order holds before it is counted: by then what was ready is on its way to another site, by another source."""

    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        site, other_site = await hop.start(), await other.start()
        (other if is_moved else hop).rcpt = {f"{name}@{at}.example": "450 4.2.1 busy" for name in "ab" for at in "yz"}
        queue = Queue(directory, site)
        queue.router.by_domain[b"y.example\0>smtp://other:25"] = other_site
        queue.router.by_domain[b"z.example"] = other_site
        reroute = order("reroute", Selection(site=site.name), next_hop="smtp://other:25")
        if is_moved:
            queue.scheduler.set_rules([reroute])
        await queue.send("a@y.example", "a@z.example")
        await queue.send("b@y.example")
        await until(lambda: queue.depth["deferred"] >= (3 if is_moved else 2))
        queue.scheduler.set_rules([reroute])
        for where, count in (
            (Selection(site=site.name), 2),
            (Selection(site=site.name, source="default"), 2),
            (Selection(site=site.name, sender="a@x.example"), 2),
            (Selection(site=other_site.name, domain="y.example"), 0),
            (Selection(domain="y.example"), 2),
            (Selection(site=site.name, domain="z.example"), 0),
        ):
            walk = await orders.carry_out(queue.scheduler, "count-origins", where)
            assert (walk.recipients, walk.messages) == (count, count), where
        await queue.close()

    run(test, tmp_path)


def test_whom_a_reroute_by_source_means_is_counted_while_they_are_ready_for_another(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.is_held = True
        pools = {
            name: EgressPool({Source(source, "", "relay.example"): 1}, name=name)
            for name, source in (("default", "mail1"), ("bulk", "mail2"))
        }
        limits = ShapingOptions(connections=1)
        queue = Queue(directory, await hop.start(), pool=EgressPools(pools), shaping=limits)
        queue.scheduler.set_rules([order("reroute", Selection(source="mail1"), pool="bulk")])
        for name in "abc":
            await queue.send(f"{name}@y.example")
        await until(lambda: hop.transactions == 1 and queue.depth["ready"] == 1)     # one in hand, one behind it there
        assert (await orders.carry_out(queue.scheduler, "count", Selection(source="mail2"))).recipients == 3
        assert (await orders.carry_out(queue.scheduler, "count-origins", Selection(source="mail1"))).recipients == 3
        hop.release()
        await until(lambda: queue.is_empty)
        await queue.close()

    run(test, tmp_path)


class SlowDns:
    """Knows nothing at once; domains of `missing` cannot be looked up."""

    def __init__(self, site: Any, missing: tuple[bytes, ...] = ()) -> None:
        self.site, self.missing = site, missing
        self.asked: list[bytes] = []

    def plan_now(self, domain: bytes) -> Plan | None:
        return None

    async def plan(self, domain: bytes) -> Plan:
        self.asked.append(domain)
        await asyncio.sleep(0)
        if domain in self.missing:
            raise RoutingTrouble(False, (4, 4, 3), "no answer")
        return Plan(self.site, time.monotonic() + 600)


def test_an_order_by_site_meets_mail_that_waits_since_before_a_restart(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        hop.rcpt = {f"a@{name}.example": "451 4.2.1 not now" for name in "xyz"}
        later = QueueOptions(retry=RetryOptions(first=3600, max=3600, jitter=0.1))
        queue = Queue(directory, site, options=later)
        await queue.send("a@x.example", "a@y.example", "a@z.example")
        await until(lambda: queue.depth["deferred"] == 3)
        await queue.close()

        dns = SlowDns(site, missing=(b"z.example",))
        again = Queue(directory, site, options=later, router=dns)
        await again.recover()
        assert not dns.asked, "nobody is due"
        walk = await orders.carry_out(again.scheduler, "count", Selection(site=site.name, domain="x.example"))
        assert (walk.recipients, walk.missed_domains, dns.asked) == (1, 0, [b"x.example"])
        assert (await orders.carry_out(again.scheduler, "count", Selection(site="mx.other.example"))).recipients == 0
        hop.rcpt.clear()
        walk = await orders.carry_out(again.scheduler, "retry", Selection(site=site.name))
        assert (walk.recipients, walk.missed_domains) == (2, 1)
        await until(lambda: hop.recipients() == ["a@x.example", "a@y.example"])
        await again.close()
        hop.stop()

    run(test, tmp_path)


@pytest.mark.parametrize("names", [["default"], ["default", "bulk"]])
def test_an_order_by_pool_means_mail_of_the_pool_where_nothing_chooses_one(tmp_path, names):
    """All mail leaves by the default pool, and no message says otherwise: an order by pool was an error for each."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {"a@y.example": "450 4.2.1 busy", "a@z.example": "450 4.2.1 busy"}
        pools = EgressPools({name: EgressPool({Source(name, "", "relay.example"): 1}, name=name) for name in names})
        later = QueueOptions(retry=RetryOptions(first=3600, max=3600, jitter=0.1))
        queue = Queue(directory, await hop.start(), pool=pools, options=later)
        assert pools.is_simple
        await queue.send("a@y.example", "a@z.example")
        await until(lambda: queue.depth["deferred"] == 2)
        await queue.close()

        again = Queue(directory, await hop.start(), pool=pools, options=later)
        await again.recover()
        again.router.by_domain[b"z.example"] = RoutingTrouble(False, (4, 4, 3), "no name server answers")
        walk = await orders.carry_out(again.scheduler, "count", Selection(pool="default"))
        assert (walk.recipients, walk.missed_domains) == (1, 1)
        assert (await orders.carry_out(again.scheduler, "count", Selection(pool="bulk"))).recipients == 0
        again.scheduler.set_rules([order("suspend", Selection(pool="default"))])
        await again.send("b@y.example")
        await until(lambda: suspended(again) == 1)
        again.scheduler.set_rules([order("suspend", Selection(pool="bulk"))])
        await again.send("c@y.example")
        await until(lambda: hop.recipients() == ["c@y.example"])
        assert again.events("no-such-event") == []      # and no error
        await again.close()

    run(test, tmp_path)


@pytest.mark.parametrize("action", ["suspend", "pool", "list-source"])
def test_what_automation_does_to_a_site_leaves_another_alone_that_has_its_host_besides_others(tmp_path, action):
    """An order of the operator may name a host of a site; automation has heard one site, and counts for that."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        at = (await hop.start()).hosts
        pools = {name: EgressPool({Source(name, "", "relay.example"): 1}, name=name) for name in ("default", "bulk")}
        queue = Queue(directory, Site("mx1.a", "smtp", at), pool=EgressPools(pools))
        queue.router.by_domain[b"many.example"] = Site("mx1.a,mx2.a", "smtp", at)
        hop.rcpt = {f"{name}@{at}.example": "450 4.2.1 busy" for name in "abc" for at in ("one", "many")}
        scope, pool = ("source-and-site" if action == "list-source" else "site"), ("bulk" if action == "pool" else "")
        rule = AutomationRule(action=action, text=["no"], scope=scope, pool=pool)
        engine = Engine({"rule": rule}, time.time)
        source = "default" if action == "list-source" else ""
        engine.notice([Notice("rule", Place(site="mx1.a", source=source), 1, "421 no", "")], [])
        (made,) = engine.orders()
        queue.scheduler.set_rules([made])
        await queue.send("a@one.example", "a@many.example")
        await until(lambda: queue.depth["deferred"] == 2)
        await queue.send("b@one.example", "b@many.example")
        await until(lambda: queue.depth["deferred"] == 4)
        counted = await orders.carry_out(queue.scheduler, "count-origins", made.where)
        assert counted.recipients == 2
        by_bulk = (await orders.carry_out(queue.scheduler, "count", Selection(pool="bulk"))).recipients
        assert (by_bulk, suspended(queue)) == ((2, 0) if action == "pool" else (0, 2))
        # The operator's means both.
        queue.scheduler.set_rules([order("suspend", Selection(site="mx1.a"))])
        await queue.send("c@one.example", "c@many.example")
        await until(lambda: queue.depth["deferred"] == 6)
        assert hop.transactions == (4 if action == "pool" else 2)
        await queue.close()

    run(test, tmp_path)


def test_a_look_up_that_hangs_holds_an_order_up_no_longer_than_it_may(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        hop.rcpt = {"a@x.example": "451 4.2.1 not now", "a@y.example": "451 4.2.1 not now"}
        later = QueueOptions(retry=RetryOptions(first=3600, max=3600, jitter=0.1))
        queue = Queue(directory, site, options=later)
        await queue.send("a@x.example", "a@y.example")
        await until(lambda: queue.depth["deferred"] == 2)
        await queue.close()

        class Hanging(SlowDns):
            async def plan(self, domain: bytes) -> Plan:
                if domain == b"y.example":
                    await asyncio.get_running_loop().create_future()
                return await super().plan(domain)

        again = Queue(directory, site, options=later, router=Hanging(site))
        await again.recover()
        assert await look_up_unplanned(again.scheduler, Matcher(Selection(site=site.name)), 0.2) == 1
        found = {each.domain: each.site_name for each in again.scheduler.domain_queues()}
        assert found == {b"x.example": site.name, b"y.example": None}
        await again.close()
        hop.stop()

    run(test, tmp_path)
