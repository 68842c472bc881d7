"""Standing orders in a worker's queue: who is suspended, bounced, deleted, moved, for how long, over restarts too."""

from __future__ import annotations

import asyncio
import pathlib
import time
from typing import Any

import pytest
from queue_harness import NextHop, Queue, run, until

from angarium.model.plan import Plan, RoutingTrouble, Site, Source
from angarium.model.units import Duration
from angarium.queue import orders
from angarium.queue.automation import Engine
from angarium.queue.automation_options import AutomationRule
from angarium.queue.explain import message_facts
from angarium.queue.inspect import id_text
from angarium.queue.matching import Matcher
from angarium.queue.notices import Notice, Place
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.quiet import QuietHours
from angarium.queue.selection import ALL, Selection
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.standing import Order
from angarium.queue.steering import bounce_trouble
from angarium.queue.unplanned import look_up_unplanned
from angarium.routing.egress_pool import EgressPool
from angarium.routing.egress_rules import EgressPools
from angarium.spool.envelope import Attribute

DAY_MS = 86_400_000


def order(action: Any, where: Selection, **options: Any) -> Order:
    return Order(**{"name": action, "action": action, "where": where, "made_utc_s": time.time(), **options})


def suspended(queue: Queue) -> int:
    return sum("suspended" in each["places"] for each in _listed(queue))


def _listed(queue: Queue) -> list[dict[str, Any]]:
    from angarium.queue import inspect

    cursor, found = 0, []
    while cursor >= 0:
        cursor, more = inspect.list_slice(queue.scheduler, cursor, 1000, None)
        found += more
    return found


def of_tenant(tenant: str) -> dict[int, bytes]:
    return {Attribute.TENANT: tenant.encode()}


def test_a_suspended_domain_waits_and_others_do_not(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        queue.scheduler.set_rules([order("suspend", Selection(domain="y.example"))])
        await queue.send("a@y.example", "b@z.example")
        await queue.send("c@sub.y.example")
        await until(lambda: hop.recipients() == ["b@z.example", "c@sub.y.example"] and queue.depth["messages"] == 1)
        assert suspended(queue) == 1
        assert queue.depth["hot_octets"] == 0           # it needs no more memory than deferred mail
        assert queue.scheduler.set_rules([])
        assert await orders.release(queue.scheduler) == 1
        await until(lambda: queue.is_empty)
        assert "a@y.example" in hop.recipients()
        (line,) = [each for each in queue.events("delivered") if each["to"] == "a@y.example"]
        assert line["attempt"] == 1                     # waiting was no attempt
        await queue.close()

    run(test, tmp_path)


def test_who_was_resumed_is_suspended_again_when_that_ends(tmp_path):
    """Also who is ready then."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.is_held = True
        queue = Queue(directory, await hop.start())
        now = time.time()
        wide = order("suspend", ALL, made_utc_s=now - 1)
        queue.scheduler.set_rules([wide])
        await queue.send("a@y.example")
        await until(lambda: suspended(queue) == 1)
        exception = order("resume", Selection(domain="y.example"), until_utc_s=now + 3600)
        assert queue.scheduler.set_rules([wide, exception])
        await orders.release(queue.scheduler)
        await until(lambda: hop.transactions == 1)
        (ready,) = queue.scheduler.ready_queues()
        ready.pause(60)
        await queue.send("b@y.example")
        await queue.send("c@z.example")
        await until(lambda: queue.depth["ready"] == 1 and suspended(queue) == 1)
        queue.scheduler.set_rules([wide])
        await until(lambda: queue.depth["ready"] == 0 and suspended(queue) == 2)
        hop.release()
        await until(lambda: queue.events("delivered"))
        await queue.close()

    run(test, tmp_path)


def next_attempts(queue: Queue, *ids: int) -> list[float]:
    """In how many seconds, of the first recipient of each."""
    found = [message_facts(queue.scheduler, id_, 1) for id_ in ids]
    return [each.recipients[0].next_attempt_utc_s - time.time() for each in found]      # type: ignore[union-attr,operator]


def test_a_retry_that_goes_on_brings_deferrals_back_sooner_while_it_holds(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {f"{name}@{domain}.example": "450 4.2.1 busy" for name in "abcd" for domain in "yz"}
        queue = Queue(directory, await hop.start())         # deferrals are tried again after ten minutes
        of_shop = of_tenant("shop")
        again = order("retry", Selection(tenant="shop"), until_utc_s=time.time() + 3600, every_s=45.0)
        assert not queue.scheduler.set_rules([again])
        ids = [await queue.send("a@y.example", attributes=of_shop), await queue.send("b@y.example")]
        await until(lambda: queue.depth["deferred"] == 2)
        sooner, usual = next_attempts(queue, *ids)
        assert 0 < sooner <= 46 and usual > 500
        # As often as it is tried: the longer waits of later attempts come when the order is over.
        for count in (2, 3, 4):
            await orders.carry_out(queue.scheduler, "retry", Selection(recipient="a@y.example"))
            await until(lambda count=count: len(queue.events("deferred")) == count + 1)
        assert next_attempts(queue, ids[0])[0] <= 46
        assert not queue.scheduler.set_rules([])
        ids.append(await queue.send("c@y.example", attributes=of_shop))
        await until(lambda: queue.depth["deferred"] == 3)
        assert next_attempts(queue, ids[2])[0] > 500

        over = order("retry", ALL, until_utc_s=time.time() - 1, every_s=45.0)
        queue.scheduler.set_rules([over])
        ids.append(await queue.send("d@z.example"))
        await until(lambda: queue.depth["deferred"] == 4)
        assert next_attempts(queue, ids[3])[0] > 500
        await queue.close()

    run(test, tmp_path)


def test_a_retry_that_goes_on_heeds_what_a_failure_asks_for_and_suspends_nobody(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        later = RoutingTrouble(False, (4, 4, 3), "no answer")
        queue.router.by_domain[b"down.example"] = later
        again = order("retry", ALL, until_utc_s=time.time() + 3600, every_s=45.0)
        held = order("suspend", Selection(domain="y.example"))
        queue.scheduler.set_rules([again, held])
        ids = [await queue.send("a@down.example"), await queue.send("a@y.example")]
        await until(lambda: queue.depth["deferred"] == 2 and suspended(queue) == 1)
        assert next_attempts(queue, ids[0])[0] <= 46
        await orders.carry_out(queue.scheduler, "retry", ALL)
        assert suspended(queue) == 1 and hop.messages == []
        await orders.carry_out(queue.scheduler, "delete", ALL)
        await queue.close()

    run(test, tmp_path)


def test_a_suspension_ends_by_itself(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        for lasts_s in (0.5, 10.0):     # the longer one where the shorter is over before a message is on the disk
            over_utc_s = time.time() + lasts_s
            queue.scheduler.set_rules([order("suspend", ALL, until_utc_s=over_utc_s)])
            await queue.send("a@y.example")
            await until(lambda: suspended(queue) == 1 or hop.messages)
            if not hop.messages:
                break
            await until(lambda: queue.is_empty)
            hop.messages.clear()
        assert suspended(queue) == 1 and hop.messages == []
        await until(lambda: queue.is_empty)
        assert time.time() >= over_utc_s and len(hop.messages) == 1
        await queue.close()

    run(test, tmp_path)


def test_who_is_moved_is_suspended_too_and_who_is_in_hand_is_not(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.is_held = True
        queue = Queue(directory, await hop.start())
        queue.scheduler.ready_queues()
        await queue.send("first@y.example")
        await until(lambda: hop.transactions == 1)
        (ready,) = queue.scheduler.ready_queues()
        ready.pause(60)
        for number in range(1200):                      # more than one slice
            await queue.send(f"{number}@y.example")
        await until(lambda: queue.depth["ready"] >= 1199)
        queue.scheduler.set_rules([order("suspend", Selection(domain="y.example"), meets_later=False)])
        await until(lambda: queue.depth["ready"] == 0)
        assert queue.depth["deferred"] >= 1199
        hop.release()
        await until(lambda: queue.events("delivered"))
        await queue.close()

    run(test, tmp_path)


@pytest.mark.parametrize(
    ("where", "met"),
    [
        (Selection(tenant="shop"), ["1", "2"]),
        (Selection(sender="news@x.example"), ["3"]),
        (Selection(sender=".example"), ["0", "1", "2", "3", "4"]),
        (Selection(recipient="3@y.example"), ["3"]),
        (Selection(tenant="shop", campaign="spring"), ["2"]),
        (Selection(tenant="none"), []),
        (Selection(campaign="spring"), ["2", "4"]),
        (Selection(campaign="spring", without_tenant=True), ["4"]),
        (Selection(without_tenant=True), ["0", "4"]),
        (Selection(larger_than_octets=1), ["0", "1", "2", "3", "4"]),
        (Selection(larger_than_octets=1 << 20), []),
        (Selection(older_than_s=3600), []),
        (Selection(younger_than_s=3600), ["0", "1", "2", "3", "4"]),
        (Selection(source="default"), ["0", "1", "2", "3", "4"]),
        (Selection(source="other"), []),
        (Selection(pool="default"), ["0", "1", "2", "3", "4"]),
        (Selection(domain="@example"), ["0", "1", "2", "3", "4"]),
        (Selection(domain="y.example"), ["0", "1", "2", "3", "4"]),
        (Selection(domain=".y.example"), []),
        (Selection(domain="[192.0.2.1]"), []),
    ],
    ids=str,
)
@pytest.mark.parametrize("hot_limit_octets", [1 << 20, 0])
def test_filters_mean_who_they_say(tmp_path, where, met, hot_limit_octets):
    """As a standing order and as a walk; with envelopes in memory, and read back."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), hot_limit_octets=hot_limit_octets)
        queue.scheduler.set_rules([order("suspend", where)])
        spring = of_tenant("shop") | {Attribute.CAMPAIGN: b"spring"}
        await queue.send("0@y.example")
        await queue.send("1@y.example", attributes=of_tenant("shop"))
        await queue.send("2@y.example", attributes=spring)
        await queue.send("3@y.example", sender="news@x.example", attributes=of_tenant("shopping"))
        await queue.send("4@y.example", attributes={Attribute.CAMPAIGN: b"spring"})
        # The next hop has a message before the queue hears its reply: until then it is counted as queued.
        await until(lambda: queue.depth["messages"] == len(met) and suspended(queue) == len(met))
        assert hop.recipients() == [f"{each}@y.example" for each in "01234" if each not in met]
        assert (await orders.carry_out(queue.scheduler, "count", where)).recipients == len(met)
        assert (await orders.carry_out(queue.scheduler, "count", ALL)).messages == len(met)
        assert len(await orders.sample(queue.scheduler, where, 1)) == min(1, len(met))
        await queue.close()

    run(test, tmp_path)


def test_a_one_off_leaves_later_mail_alone(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["old@y.example"] = "450 4.2.1 busy"
        queue = Queue(directory, await hop.start())
        await queue.send("old@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        hop.rcpt.clear()
        made = time.time()
        queue.scheduler.set_rules([order("suspend", ALL, meets_later=False, made_utc_s=made)])
        await until(lambda: time.time() > made + 0.05)      # times of messages are those of a coarse clock
        await queue.send("new@y.example")
        await until(lambda: hop.recipients() == ["new@y.example"])
        queue.wheel.advance_by_ms(4_000_000)
        await until(lambda: suspended(queue) == 1)
        assert await orders.retry(queue.scheduler) == 0          # a retry does not end a suspension
        await queue.close()

    run(test, tmp_path)


def test_the_newest_of_suspend_and_resume_wins(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        now = time.time()
        queue.scheduler.set_rules(
            [
                order("resume", Selection(tenant="shop"), made_utc_s=now - 1),
                order("suspend", Selection(domain="y.example"), made_utc_s=now - 2),
                order("suspend", Selection(recipient="late@y.example"), name="late", made_utc_s=now),
            ]
        )
        await queue.send("a@y.example", attributes=of_tenant("shop"))
        await queue.send("late@y.example", attributes=of_tenant("shop"))
        await queue.send("b@y.example")
        await until(lambda: hop.recipients() == ["a@y.example"] and suspended(queue) == 2)
        await queue.close()

    run(test, tmp_path)


def test_a_bounce_meets_queued_and_later_mail_and_is_reported(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["old@y.example"] = "450 4.2.1 busy"
        queue = Queue(directory, await hop.start())
        await queue.send("old@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        where = Selection(domain="y.example")
        trouble = bounce_trouble("The shop has closed", 550, "5.1.6")
        assert (await orders.carry_out(queue.scheduler, "bounce", where, trouble=trouble)).recipients == 1
        queue.scheduler.set_rules([order("bounce", where, reason="The shop has closed", code=550, status="5.1.6")])
        await queue.send("new@y.example")
        await queue.send("quiet@y.example", notify=1)                # NOTIFY=NEVER
        await queue.send("other@z.example")
        await until(lambda: queue.is_empty)
        failed = queue.events("failed")
        assert sorted(each["to"] for each in failed) == ["new@y.example", "old@y.example", "quiet@y.example"]
        said = {(each["code"], each["status"], each["reply"]) for each in failed}
        assert said == {(550, "5.1.6", "The shop has closed")}
        reports = [body.decode() for sender, _, body in hop.messages if sender == ""]
        assert len(reports) == 2 and all("Status: 5.1.6" in each for each in reports)
        await queue.close()

    run(test, tmp_path)


def test_deleted_mail_is_gone_without_a_report(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        queue.scheduler.set_rules([order("delete", Selection(sender="spam@x.example"))])
        await queue.send("a@y.example", sender="spam@x.example")
        await queue.send("b@y.example")
        await until(lambda: queue.is_empty)
        assert [each["to"] for each in queue.events("deleted")] == ["a@y.example"]
        assert hop.recipients() == ["b@y.example"]
        await queue.close()

    run(test, tmp_path)


def test_an_order_about_one_message_asks_the_rest_of_its_filter_too(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["a@y.example"] = "450 4.2.1 busy"
        queue = Queue(directory, await hop.start())
        id_ = id_text(await queue.send("a@y.example"))
        await until(lambda: queue.depth["deferred"] == 1)
        for action in ("delete", "bounce"):
            where = Selection(id=id_, older_than_s=86400)
            done = await orders.carry_out(queue.scheduler, action, where, trouble=bounce_trouble("gone", 550, "5.1.1"))
            assert (done.recipients, done.messages) == (0, 0)
        assert queue.depth["messages"] == 1
        await queue.close()

    run(test, tmp_path)


def test_envelopes_that_a_filter_asks_for_do_not_stay_in_memory(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), hot_limit_octets=0)
        await queue.send("first@y.example")
        await until(lambda: queue.is_empty)
        (ready,) = queue.scheduler.ready_queues()
        ready.pause(60)
        for number in range(100):
            await queue.send(f"{number}@y.example")
        queue.scheduler.set_rules([order("suspend", Selection(sender="x@other.example"))])
        await until(lambda: queue.depth["ready"] == 100)
        assert queue.depth["hot_octets"] == 0
        await queue.close()

    run(test, tmp_path)


def test_a_report_that_was_deleted_is_not_made_after_a_restart(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt |= {"bad@y.example": "550 5.1.1 nobody", "busy@z.example": "450 4.2.1 busy"}
        queue = Queue(directory, await hop.start())
        queue.scheduler.reporter = None
        await queue.send("bad@y.example", "busy@z.example")
        await until(lambda: queue.depth["deferred"] == 1 and queue.events("failed"))
        await orders.carry_out(queue.scheduler, "delete", Selection(domain="y.example"))
        await until(lambda: queue.scheduler.states_in_flight == 0)
        await queue.close()

        queue = Queue(directory, queue.router.default)
        await queue.recover()
        await queue.send("other@y.example")
        await until(lambda: "other@y.example" in hop.recipients() and queue.depth["deferred"] == 1)
        assert [sender for sender, _, _ in hop.messages] == ["a@x.example"], "no report"
        await queue.close()

    run(test, tmp_path)


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


def test_after_a_restart_orders_of_then_are_asked(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt["a@y.example"] = "450 4.2.1 busy"
        site = await hop.start()
        queue = Queue(directory, site, options=QueueOptions(retry=RetryOptions(first=1, max=3600)))
        await queue.send("a@y.example")
        await queue.send("b@y.example", "c@z.example")
        await until(lambda: len(hop.messages) == 1 and queue.depth["deferred"] == 1)
        hop.rcpt.clear()
        suspend = order("suspend", Selection(domain="y.example"))
        queue.scheduler.set_rules([suspend])
        await orders.retry(queue.scheduler)
        await until(lambda: suspended(queue) == 1)
        await queue.close()

        queue = Queue(directory, site)
        queue.scheduler.set_rules([suspend])
        await queue.recover()
        await until(lambda: suspended(queue) == 1)
        await queue.close()

        queue = Queue(directory, site)
        await queue.recover()
        await until(lambda: queue.is_empty)
        assert "a@y.example" in hop.recipients()
        await queue.close()

    run(test, tmp_path)


def test_suspended_mail_expires(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        options = QueueOptions(max_age=0.3, retry=RetryOptions(first=0.1, max=0.2))
        queue = Queue(directory, await hop.start(), options=options)
        queue.scheduler.set_rules([order("suspend", Selection(domain="y.example"), name="closed")])
        await queue.send("a@y.example")
        await until(lambda: queue.events("expired"))
        (line,) = queue.events("expired")
        assert line["reply"] == "suspended by order closed"
        await queue.close()

    run(test, tmp_path)


def test_quiet_hours_hold_back_who_is_due_in_them(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        now = time.gmtime()
        begin, end = f"{now.tm_hour:02}:00", f"{(now.tm_hour + 1) % 24:02}:30"
        here = QuietHours(Selection(domain="y.example"), begin, end, "UTC", ())
        queue.scheduler.set_rules([], [here])
        await queue.send("a@y.example", "b@z.example")
        await until(lambda: hop.recipients() == ["b@z.example"] and suspended(queue) == 1)
        (listed,) = _listed(queue)
        assert 1500 < listed["next_attempt_utc_s"] - time.time() < 5500
        await queue.close()

    run(test, tmp_path)


def test_mail_goes_on_while_a_large_queue_is_walked(tmp_path):
    """A walk leaves the loop to others: between any two of its slices other callbacks run."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        queue.scheduler.set_rules([order("suspend", Selection(domain="y.example"))])
        await asyncio.gather(*(queue.send(*(f"{n}-{k}@y.example" for k in range(100))) for n in range(300)))
        await until(lambda: queue.depth["deferred"] == 30000)
        hop.is_held = True
        await queue.send("a@z.example")
        await until(lambda: hop.transactions == 1)
        walking = asyncio.create_task(orders.carry_out(queue.scheduler, "count", ALL))
        hop.release()
        while queue.depth["messages"] > 300:        # it needs some turns of the loop, and no disk
            await asyncio.sleep(0)
        assert hop.messages and not walking.done()
        assert (await walking).recipients >= 30000
        await queue.close()

    run(test, tmp_path)


def test_a_hold_longer_than_max_age_may_end_in_a_suspension(tmp_path):
    """Age counts from the end of the hold for who is suspended, too: it was deferred again and again, each time as if
    it had been tried, and went hours after the suspension was over."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        for max_age_s in (2, 8):        # the longer one where the shorter was over before the suspension was taken back
            queue = Queue(directory / f"{max_age_s}", site, options=QueueOptions(max_age=Duration(max_age_s)))
            queue.scheduler.set_rules([order("suspend", ALL)])
            hold = {Attribute.HOLD_UNTIL: b"%d" % (time.time() + 2 * max_age_s)}
            await queue.send("b@y.example", attributes=hold)
            await until(lambda queue=queue: suspended(queue) or queue.events("deferred", "expired"))
            assert not queue.events("deferred")
            queue.scheduler.set_rules([])
            await orders.release(queue.scheduler)
            await until(lambda queue=queue: queue.is_empty)
            delivered = [line["attempt"] for line in queue.events("delivered") if line["to"] == "b@y.example"]
            await queue.close()
            if delivered:
                break
        assert delivered == [1]

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
