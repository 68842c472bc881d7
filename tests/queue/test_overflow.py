"""Ready queues that are full (max_ready): who waits behind them, and how they come in. Real queue and spool."""

from __future__ import annotations

import asyncio
import pathlib
import random
import time
from collections import Counter

import pytest
from queue_harness import NextHop, Queue, Router, run, until

from angarium.model.outcome import Trouble
from angarium.model.plan import Plan, Source
from angarium.outbound.options import OutboundOptions
from angarium.queue import inspect, orders
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.selection import Selection
from angarium.queue.shaping_options import ShapingOptions
from angarium.queue.standing import Order
from angarium.routing.egress_pool import EgressPool
from angarium.routing.source_health import SourceHealth, Suspension
from angarium.spool.envelope import Attribute

OPENER = "opener@y.example"


def capped(most: int) -> ShapingOptions:
    return ShapingOptions(connections=1, max_ready=most)


async def kept_busy(hop: NextHop, queue: Queue) -> None:
    """The one connection has a message in hand until hop.release()."""
    hop.is_held = True
    await queue.send(OPENER)
    await until(lambda: hop.transactions == 1)


def in_order(hop: NextHop) -> list[str]:
    """Local parts of what came behind the opener."""
    return [each.partition("@")[0] for _, mailboxes, _ in hop.messages for each in mailboxes if each != OPENER]


def places(queue: Queue) -> Counter[str]:
    """Of messages with one recipient."""
    cursor, found = 0, []
    while cursor >= 0:
        cursor, more = inspect.list_slice(queue.scheduler, cursor, 1000, None)
        found += more
    return Counter(place for each in found for place in each["places"])


def reconfigure(queue: Queue, shaping: ShapingOptions) -> None:
    queue.scheduler.reconfigure(
        router=queue.router,
        pool=EgressPool({Source("default", "", "relay.example"): 1}),
        shaping=shaping,
        options=queue.scheduler.options,
    )


async def let_everything_run(queue: Queue) -> None:
    """As many turns of the loop as anything here has steps: what was to be drawn in has been."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_stalled_site_keeps_its_queue_at_the_cap_and_bodies_of_no_more(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(10))
        queue.router.by_domain[b"z.example"] = await other.start()
        await kept_busy(hop, queue)
        body = b"Subject: x\r\n\r\n" + 1000 * b"x" + b"\r\n"
        for number in range(60):
            await queue.send(f"{number}@y.example", body=body)
            assert queue.depth["ready"] <= 10
        assert (queue.depth["ready"], queue.depth["behind"], queue.depth["deferred"]) == (10, 50, 0)
        assert places(queue) == {"in hand": 1, "ready": 10, "behind": 50}
        # What waits behind has neither envelope nor body in memory.
        assert queue.depth["hot_octets"] <= 12 * 1400

        for number in range(20):                        # of another site
            await queue.send(f"{number}@z.example")
        await until(lambda: len(other.messages) == 20)
        assert queue.depth["behind"] == 50

        hop.release()
        await until(lambda: queue.is_empty)
        assert in_order(hop) == [str(number) for number in range(60)]
        assert {event["attempt"] for event in queue.events("delivered")} == {1}
        assert not queue.events("deferred")
        await queue.close()

    run(test, tmp_path)


def test_who_waited_for_a_look_up_gives_its_body_back_behind_a_full_queue(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(2))
        queue.router.slow.add(b"slow.example")
        await kept_busy(hop, queue)
        for number in range(30):
            await queue.send(f"{number}@slow.example", body=b"Subject: x\r\n\r\n" + 1000 * b"x" + b"\r\n")
        assert queue.depth["hot_octets"] > 30 * 1000
        queue.router.go_on.set()
        await until(lambda: queue.depth["behind"] == 28)
        assert queue.depth["hot_octets"] <= 4 * 1400
        hop.release()
        await until(lambda: queue.is_empty)
        assert in_order(hop) == [str(number) for number in range(30)]
        await queue.close()

    run(test, tmp_path)


@pytest.mark.parametrize("most", [1, 2, 7])
def test_priorities_hold_over_queue_and_who_is_behind(tmp_path, most):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(most))
        await kept_busy(hop, queue)
        for number in range(most):                      # have their places
            await queue.send(f"first{number}@y.example")
        for priority in (0, 4, -3, 4, 0):
            await queue.send(f"p{priority}@y.example", attributes={Attribute.PRIORITY: b"%d" % priority})
        hop.release()
        await until(lambda: queue.is_empty)
        order = in_order(hop)
        behind = [each for each in order if each[0] == "p"]
        assert behind == ["p4", "p4", "p0", "p0", "p-3"]
        # Drawn in when the first place was free, and before all who had one but were still to go.
        assert order.index("p4") <= 2
        await queue.close()

    run(test, tmp_path)


def test_a_single_message_of_another_tenant_does_not_wait_for_all_behind(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(5))
        await kept_busy(hop, queue)
        for number in range(50):
            await queue.send(f"{number}@y.example", attributes={Attribute.TENANT: b"bulk"})
        await queue.send("single@y.example", attributes={Attribute.TENANT: b"shop"})
        assert queue.depth["behind"] == 46
        hop.release()
        await until(lambda: queue.is_empty)
        assert in_order(hop).index("single") <= 3
        await queue.close()

    run(test, tmp_path)


def test_who_comes_does_not_pass_those_who_wait_behind(tmp_path):
    """Between a message's leaving and the next one's coming in there is room, and others may arrive just then."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(1))
        await kept_busy(hop, queue)
        for number in range(20):
            await queue.send(f"{number}@y.example")
        hop.release()
        for begin in range(20, 1020, 50):
            await asyncio.gather(*(queue.send(f"{number}@y.example") for number in range(begin, begin + 50)))
        await until(lambda: queue.is_empty)
        assert in_order(hop) == [str(number) for number in range(1020)]
        await queue.close()

    run(test, tmp_path)


def test_first_attempts_go_before_old_retries(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        options = QueueOptions(retry=RetryOptions(first=60, factor=1.0, max=60, jitter=0.0))
        queue = Queue(directory, await hop.start(), shaping=capped(3), options=options)
        for number in range(8):
            hop.rcpt[f"old{number}@y.example"] = "450 4.2.0 later"
            await queue.send(f"old{number}@y.example")
        await until(lambda: queue.depth["deferred"] == 8)
        hop.rcpt.clear()
        hop.transactions = 0
        await kept_busy(hop, queue)
        queue.wheel.advance_by_ms(61_000)
        await until(lambda: queue.depth["ready"] + queue.depth["behind"] == 8)
        assert queue.depth["ready"] == 3
        for number in range(8):
            await queue.send(f"new{number}@y.example")
        hop.release()
        await until(lambda: queue.is_empty)
        order = in_order(hop)
        # One of the three that had places went at once; then the new ones, as they came, go first.
        news = [each for each in order if each.startswith("new")]
        assert news == [f"new{number}" for number in range(8)]
        assert order.index("new7") <= 9
        told = Counter((event["to"].partition("@")[0][:3], event["attempt"]) for event in queue.events("delivered"))
        assert told == {("new", 1): 8, ("old", 2): 8, ("ope", 1): 1}
        await queue.close()

    run(test, tmp_path)


def test_recipients_of_one_message_come_in_together(tmp_path):
    """Those of all its domains."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(1))
        await kept_busy(hop, queue)
        await queue.send("alone@y.example")
        for number in range(6):
            await queue.send(*(f"m{number}-{each}@{'yz'[each % 2]}.example" for each in range(7)))
        assert (queue.depth["ready"], queue.depth["behind"]) == (1, 42)
        hop.release()
        await until(lambda: queue.is_empty)
        assert [len(mailboxes) for _, mailboxes, _ in hop.messages] == [1, 1, 7, 7, 7, 7, 7, 7]
        await queue.close()

    run(test, tmp_path)


def test_a_message_that_has_begun_to_come_in_does_so_whole(tmp_path):
    """As many as a transaction takes; else each queue that fills would cost one more."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        shaping = ShapingOptions(connections=1, max_ready=10, recipients_per_transaction=8)
        queue = Queue(directory, await hop.start(), shaping=shaping)
        await kept_busy(hop, queue)
        for number in range(4):
            await queue.send(*(f"m{number}-{each}@y.example" for each in range(7)))
        assert (queue.depth["ready"], queue.depth["behind"]) == (14, 14)
        await queue.send(*(f"many{each}@y.example" for each in range(30)))
        hop.release()
        await until(lambda: queue.is_empty)
        assert [len(mailboxes) for _, mailboxes, _ in hop.messages] == [1, 7, 7, 7, 7, 8, 8, 8, 6]
        await queue.close()

    run(test, tmp_path)


def test_a_large_message_does_not_come_in_whole(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        shaping = ShapingOptions(connections=1, max_ready=10, recipients_per_transaction=8)
        queue = Queue(directory, await hop.start(), shaping=shaping)
        await kept_busy(hop, queue)
        await queue.send(*(f"{each}@y.example" for each in range(1000)))
        assert (queue.depth["ready"], queue.depth["behind"]) == (18, 982)
        hop.release()
        await until(lambda: queue.is_empty)
        assert in_order(hop) == [str(each) for each in range(1000)]
        await queue.close()

    run(test, tmp_path)


def test_who_waited_behind_and_fails_is_reported_and_others_are_not_waited_for(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(2))
        queue.router.by_domain[b"x.example"] = queue.router.by_domain[b"z.example"] = await other.start()
        await kept_busy(hop, queue)
        for number in range(4):
            await queue.send(f"{number}@y.example")
        for number in range(4, 8):
            hop.rcpt[f"{number}@y.example"] = "550 5.1.1 nobody"
            await queue.send(f"{number}@y.example")
        other.rcpt["gone@z.example"] = "550 5.1.1 nobody"
        await queue.send("8@y.example", "gone@z.example")
        # Nobody is about to try the other one: the report does not wait for it, nor for who is deferred.
        await until(lambda: len(other.messages) == 1)
        assert b"gone@z.example" in other.messages[0][2]
        assert queue.depth["behind"] == 7
        hop.release()
        await until(lambda: queue.is_empty)
        assert len(other.messages) == 5 and in_order(hop) == ["0", "1", "2", "3", "8"]
        await queue.close()

    run(test, tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_nobody_is_lost_or_tried_twice_whatever_happens(tmp_path, seed):
    """Mail of all kinds for three domains, deletions, reloads with other caps and hosts, pauses; then all must go."""

    async def test(directory: pathlib.Path) -> None:
        chance = random.Random(seed)
        hop, other = NextHop(), NextHop()
        sites = [await hop.start(), await other.start()]
        queue = Queue(directory, sites[0], shaping=capped(chance.randint(1, 20)))
        sent: set[str] = set()
        deleted = 0
        for number in range(400):
            match chance.choice("mmmmmmmmmmmmtttdrp"):
                case "m":
                    count = chance.choice((1, 1, 3, 9))
                    to = {f"{number}-{each}@{chance.choice('yzw')}.example" for each in range(count)}
                    sent |= to
                    attributes = {Attribute.PRIORITY: b"%d" % chance.choice((0, 0, 3, -3))}
                    if chance.random() < 0.4:
                        attributes[Attribute.TENANT] = chance.choice((b"shop", b"bulk"))
                    await queue.send(*sorted(to), attributes=attributes)
                case "t":
                    await let_everything_run(queue)
                case "d":
                    deleted += await orders.delete(queue.scheduler, None, f"{chance.choice('yzw')}.example")
                case "r":
                    queue.router.by_domain[chance.choice((b"y.example", b"z.example"))] = chance.choice(sites)
                    reconfigure(queue, capped(chance.randint(1, 20)))
                case "p":
                    for ready in queue.scheduler.ready_queues():
                        ready.pause(chance.random() / 5)
            depth = queue.depth
            assert depth["ready"] + depth["behind"] <= depth["recipients"] and depth["deferred"] == 0
        await until(lambda: queue.is_empty)
        assert (queue.depth["ready"], queue.depth["behind"], queue.depth["hot_octets"]) == (0, 0, 0)
        told = Counter(event["to"] for event in queue.events("delivered"))
        assert set(told.values()) <= {1} and told.keys() <= sent
        assert len(told) == len(sent) - deleted
        assert sorted(hop.recipients() + other.recipients()) == sorted(told)
        await queue.close()

    run(test, tmp_path)


def test_a_dead_site_is_told_once_to_each_who_had_a_place_and_then_to_the_next(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        quick = OutboundOptions(site_pause_first_s=0.05, site_pause_max_s=0.05)
        queue = Queue(directory, site, shaping=capped(10), outbound=quick)
        await kept_busy(hop, queue)
        for number in range(35):
            await queue.send(f"{number}@y.example")
        hop.stop()
        hop.end_of_data = "421 4.3.2 going down"
        hop.release()
        await until(lambda: queue.depth["deferred"] == 36)
        told = Counter((event["to"], event["attempt"]) for event in queue.events("deferred"))
        assert len(told) == 36 and set(told.values()) == {1}, "one attempt each"
        assert {attempt for _, attempt in told} == {1}
        assert (queue.depth["ready"], queue.depth["behind"]) == (0, 0)
        await queue.close()

    run(test, tmp_path)


@pytest.mark.parametrize("most", [5, 200])
def test_a_reload_sends_who_waits_behind_where_it_says_now(tmp_path, most):
    """More than a slice, of two domains; those of one go to another host then, whoever had a place."""

    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(most))
        site = await other.start()
        await kept_busy(hop, queue)
        for number in range(600):
            # All places are taken by mail that stays.
            await queue.send(f"{number}@{'y' if number < 200 or number % 2 else 'z'}.example")
        queue.router.by_domain[b"z.example"] = site
        reconfigure(queue, capped(most))
        await until(lambda: len(other.messages) == 200)
        assert (queue.depth["ready"], queue.depth["behind"]) == (most, 400 - most)
        hop.release()
        await until(lambda: queue.is_empty)
        assert in_order(hop) == [str(number) for number in range(600) if number < 200 or number % 2]
        await queue.close()

    run(test, tmp_path)


def test_a_reload_makes_room(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(3))
        await kept_busy(hop, queue)
        for number in range(20):
            await queue.send(f"{number}@y.example")
        assert (queue.depth["ready"], queue.depth["behind"]) == (3, 17)
        reconfigure(queue, capped(15))
        await until(lambda: queue.depth["ready"] == 15)
        assert queue.depth["behind"] == 5
        reconfigure(queue, capped(2))
        await let_everything_run(queue)
        assert queue.depth["ready"] + queue.depth["behind"] == 20, "who has a place keeps it"
        assert queue.depth["behind"] == 5
        hop.release()
        await until(lambda: queue.is_empty)
        assert in_order(hop) == [str(number) for number in range(20)]
        await queue.close()

    run(test, tmp_path)


def last_for(router: Router, time_s: float) -> None:
    """From now on plans end so long after the first of them."""
    router.plans_end_mono_s = float("inf")

    def plan_now(domain: bytes) -> Plan | None:
        router.plans_end_mono_s = min(router.plans_end_mono_s, time.monotonic() + time_s)
        return Router.plan_now(router, domain)

    router.plan_now = plan_now


async def with_a_plan_that_is_over(directory: pathlib.Path, most: int, mailboxes: list[str]) -> tuple[NextHop, Queue]:
    """A queue in which a message for each waits behind the opener: with a plan that held when it came."""
    for lasts_s in (0.5, 10.0):         # the longer one where the shorter is over before all of them are on the disk
        hop = NextHop()
        queue = Queue(directory / f"{lasts_s}", await hop.start(), shaping=capped(most))
        last_for(queue.router, lasts_s)
        await kept_busy(hop, queue)
        await asyncio.gather(*(queue.send(each) for each in mailboxes))
        if time.monotonic() < queue.router.plans_end_mono_s:
            break
        last_for(queue.router, float("inf"))
        hop.release()
        await until(lambda queue=queue: queue.is_empty)
        await queue.close()
    assert queue.router.asked == []
    await until(lambda: time.monotonic() > queue.router.plans_end_mono_s)
    return hop, queue


def test_a_plan_that_is_over_sends_nobody_behind_to_the_dns(tmp_path):
    """They would all leave for the domain's line, and be deferred when there is no DNS."""

    async def test(directory: pathlib.Path) -> None:
        hop, queue = await with_a_plan_that_is_over(directory, 2, [f"{number}@y.example" for number in range(50)])
        assert queue.depth["behind"] == 48
        queue.router.slow.add(b"y.example")
        hop.release()
        await until(lambda: queue.is_empty)
        assert in_order(hop) == [str(number) for number in range(50)]
        assert queue.router.asked == []
        await queue.close()

    run(test, tmp_path)


def test_an_order_meets_who_waits_behind_when_its_plan_is_over(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        # More than a slice.
        mailboxes = [f"{number}@{'y' if number % 2 else 'z'}.example" for number in range(700)]
        hop, queue = await with_a_plan_that_is_over(directory, 5, mailboxes)
        last_for(queue.router, float("inf"))
        where = Selection(domain="z.example")
        queue.scheduler.set_rules([Order(name="o1", action="suspend", where=where, made_utc_s=time.time())])
        hop.release()
        await until(lambda: queue.depth["ready"] == queue.depth["behind"] == 0 and places(queue)["in hand"] == 0)
        assert places(queue) == {"suspended": 350}
        assert sorted(in_order(hop), key=int) == [str(number) for number in range(1, 700, 2)]
        await queue.close()

    run(test, tmp_path)


def test_orders_meet_who_waits_behind(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(4))
        await kept_busy(hop, queue)
        for number in range(40):
            await queue.send(f"{number}@{'yz'[number % 2]}.example")
        assert await orders.delete(queue.scheduler, None, "z.example") == 20
        await until(lambda: (queue.depth["ready"], queue.depth["behind"]) == (4, 16))
        hop.release()
        await until(lambda: queue.is_empty)
        assert in_order(hop) == [str(number) for number in range(0, 40, 2)]
        await queue.close()

    run(test, tmp_path)


def test_a_restart_finds_all_who_waited_behind(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        options = QueueOptions(retry=RetryOptions(first=60, factor=1.0, max=60, jitter=0.0))
        queue = Queue(directory, await hop.start(), shaping=capped(2), options=options)
        hop.rcpt["tried@y.example"] = "450 4.2.0 later"
        await queue.send("tried@y.example")
        await until(lambda: queue.depth["deferred"] == 1)
        hop.rcpt.clear()
        hop.transactions = 0
        await kept_busy(hop, queue)
        for number in range(12):
            await queue.send(f"{number}@y.example")
        queue.wheel.advance_by_ms(61_000)
        await until(lambda: queue.depth["behind"] == 11)
        hop.end_of_data = "451 4.3.0 gone"
        hop.release()
        hop.stop()
        await queue.close()

        hop = NextHop()
        again = Queue(directory, await hop.start(), shaping=capped(2), options=options)
        await again.recover()
        await orders.retry(again.scheduler)             # who was tried before the end
        await until(lambda: again.is_empty)
        expected = [*(f"{number}@y.example" for number in range(12)), "tried@y.example", OPENER]
        assert sorted(hop.recipients()) == sorted(expected)
        attempts = {event["to"]: event["attempt"] for event in again.events("delivered")}
        assert attempts.pop("tried@y.example") >= 2
        await again.close()

    run(test, tmp_path)


def test_who_waits_behind_a_source_that_goes_down_leaves_by_another(tmp_path):
    """All of them, not only who had a place, and it is nobody's attempt."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=capped(3))
        health, sources = SourceHealth(), [Source(name, "", f"{name}.example") for name in ("one", "two")]
        queue.scheduler.reconfigure(
            router=queue.router,
            pool=EgressPool(dict.fromkeys(sources, 1), health=health),
            shaping=capped(3),
            options=queue.scheduler.options,
        )
        hop.is_held = True
        for number in range(40):
            await queue.send(f"{number}@y.example")
        await until(lambda: hop.transactions == 1)
        one, two = sorted(queue.scheduler.ready_queues(), key=lambda each: each.source.name)
        await until(lambda: one.count == two.count == 3)
        assert queue.depth["behind"] >= 30
        health.suspend(sources[0], "", Suspension("it is elsewhere", 0.0))
        queue.scheduler.leave_source(one, Trouble(0, (4, 4, 5), "it is elsewhere", phase="route", is_of_source=True))
        await until(lambda: one.count == 0 and queue.depth["ready"] == 3)
        in_hand = places(queue)["in hand"]      # of a connection that may be the first one's: it is left alone
        assert queue.depth["behind"] == 40 - in_hand - 3
        hop.release()
        await until(lambda: queue.is_empty)
        events = queue.events("delivered")
        assert Counter(event["source"] for event in events)["two"] >= 40 - in_hand
        assert len(events) == 40 and {event["attempt"] for event in events} == {1}
        await queue.close()

    run(test, tmp_path)
