"""Standing orders in a worker's queue: who is suspended, bounced, deleted, moved, for how long, over restarts too."""

from __future__ import annotations

import asyncio
import pathlib
import time

import pytest
from queue_harness import NextHop, Queue, listed, order, run, suspended, until

from angarium.model.plan import RoutingTrouble
from angarium.model.units import Duration
from angarium.queue import orders
from angarium.queue.explain import message_facts
from angarium.queue.inspect import id_text
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.quiet import QuietHours
from angarium.queue.selection import ALL, Selection
from angarium.queue.steering import bounce_trouble
from angarium.spool.envelope import Attribute


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
        (message,) = listed(queue)
        assert 1500 < message["next_attempt_utc_s"] - time.time() < 5500
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
