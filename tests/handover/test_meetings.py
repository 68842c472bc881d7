"""Mail handed over where it meets what else there is: full ready queues, limits of a peer, recalls, sources."""

from __future__ import annotations

import asyncio
import itertools
import pathlib
import time

import pytest
from handover.pair import SOURCE, Pair, pair, sites_of_home
from handover.test_handover import OnceTooMany
from queue_harness import MESSAGE, NextHop, run, until

from angarium.metrics import counters
from angarium.model.outcome import Trouble
from angarium.model.plan import Site, Source, StsRule
from angarium.queue import orders
from angarium.queue.selection import Selection
from angarium.spool.envelope import Attribute

NOT_OURS = "198.51.100.9"     # TEST-NET-2: no machine has it


def order_of(hop: NextHop) -> list[str]:
    return [mailbox.split("@")[0] for _, mailboxes, _ in hop.messages for mailbox in mailboxes]


async def route_to(both: Pair, site: Site, domain: bytes = b"y.example") -> None:
    """A reload of the owner, after which the domain goes there."""
    both.owner.router.by_domain[domain] = site
    plan_anew(both)


def plan_anew(both: Pair) -> None:
    scheduler = both.owner.scheduler
    scheduler.plan_anew(router=both.owner.router, pool=scheduler.pool, shaping=scheduler.shaping)


def test_own_mail_of_the_home_has_its_places_whatever_is_handed_to_it(tmp_path: pathlib.Path) -> None:
    """max_ready counted guests: own mail went behind the queue, and was not drawn while they were there, nor after."""

    async def test(directory: pathlib.Path) -> None:
        async with pair(directory, max_ready=3) as (both, hop):
            hop.is_held = True
            for number in range(20):
                await both.owner.send(f"handed{number}@y.example")
            await until(lambda: both.incoming.guest_count == 20 and hop.transactions)
            for number in range(5):
                await both.home.send(f"own{number}@y.example")
            assert (both.home.depth["behind"], both.home.depth["ready"] >= 20) == (2, True)
            hop.release()
            await until(lambda: both.owner.is_empty and both.home.is_empty)
            order = order_of(hop)
            assert len(order) == 25
            assert order.index("own4") < order.index("handed12"), order

    run(test, tmp_path)


def test_guests_of_the_last_domain_go_while_own_mail_is_of_a_domain_too_many(tmp_path: pathlib.Path) -> None:
    """RCPTDOMAINMAX: it was the turn of our own mail, which might not go, and the connection idled."""

    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.extensions = [*hop.extensions, "LIMITS RCPTDOMAINMAX=1"]
            hop.is_held = True
            for number in range(5):
                await both.owner.send(f"handed{number}@z.example")
            await until(lambda: both.incoming.guest_count == 5 and hop.transactions)
            for number in range(5):
                await both.home.send(f"own{number}@y.example")
            hop.release()
            await until(lambda: both.owner.is_empty and both.home.is_empty)
            assert len(order_of(hop)) == 10

    run(test, tmp_path)


def test_guests_of_the_last_domain_do_not_keep_own_mail_of_another_for_ever(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.extensions = [*hop.extensions, "LIMITS RCPTDOMAINMAX=1"]
            hop.is_held = True
            large = MESSAGE + (b"x" * 70 + b"\r\n") * 1000
            for number in range(30):
                await both.owner.send(f"handed{number}@z.example", body=large)
            await until(lambda: both.incoming.guest_count == 30 and hop.transactions)
            for number in range(5):
                await both.home.send(f"own{number}@y.example")
            hop.release()
            await until(lambda: both.owner.is_empty and both.home.is_empty)
            order = order_of(hop)
            assert order.index("own0") < order.index("handed29"), order
            assert hop.sessions < 10, "and a connection takes more than one of a domain"

    run(test, tmp_path)


def test_a_policy_that_changes_meets_mail_that_is_all_handed_over(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            for number in range(10):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.incoming.guest_count == 10 and hop.transactions)
            assert both.owner.depth["ready"] == 0
            other = NextHop()
            both.owner.router.by_domain[b"y.example"] = await other.start()
            both.owner.scheduler.policy_changed(b"y.example", StsRule("testing", ("*.example",)))
            await until(lambda: len(other.messages) >= 8)       # two at the most were in hand of the connection
            hop.release()
            await until(lambda: both.owner.is_empty)
            other.stop()

    run(test, tmp_path)


def test_who_was_in_hand_at_a_recall_and_comes_back_untried_takes_the_new_route(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.rcpt = OnceTooMany({f"r{number}@y.example" for number in range(3, 6)})
            hop.is_held = True
            await both.owner.send(*(f"r{number}@y.example" for number in range(6)))
            await until(lambda: hop.transactions and not hop.rcpt)
            other = NextHop()
            await route_to(both, await other.start())
            # Committed, routed and delivered after the recall went out: by then the home has heard it.
            await both.owner.send("more@y.example")
            await until(lambda: other.recipients() == ["more@y.example"])
            hop.release()
            await until(lambda: both.owner.is_empty)
            assert hop.recipients() == [f"r{number}@y.example" for number in range(3)]
            assert other.recipients() == ["more@y.example", *(f"r{number}@y.example" for number in range(3, 6))]
            assert not both.owner.events("deferred")
            other.stop()

    run(test, tmp_path)


def test_what_is_called_back_does_not_go_behind_those_that_wait_for_a_place(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory, max_ready=3) as (both, hop):
            hop.is_held = True
            for number in range(60):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.incoming.guest_count == 32 and hop.transactions)
            assert both.owner.depth["behind"] == 25
            returned = next(each for each in counters.registry() if each.name == "angarium_handover_returned_total")
            before = returned.value
            plan_anew(both)
            await until(lambda: returned.value >= before + 30)      # all but what the connection has in hand
            hop.release()
            await until(lambda: both.owner.is_empty)
            order = order_of(hop)
            assert len(order) == 60
            assert max(order.index(f"r{number}") for number in range(32)) < order.index("r59"), order

    run(test, tmp_path)


def test_queues_that_do_not_move_leave_slots_of_the_link_for_others(tmp_path: pathlib.Path) -> None:
    """32 held sites had all 1024."""

    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            domains = []
            for site in itertools.islice(sites_of_home(both.owner.router.default), 40):
                name = f"d{len(domains)}.example"
                both.owner.router.by_domain[name.encode()] = site
                domains.append(name)
            for name in domains:
                await asyncio.gather(*(both.owner.send(f"r{number}@{name}") for number in range(34)))
            await until(lambda: hop.transactions == 40)
            assert both.outgoing.out_count <= 1024
            hop.release()
            await until(lambda: both.owner.is_empty)
            assert len(hop.messages) == 40 * 34

    run(test, tmp_path)


def test_a_source_that_is_down_at_the_home_is_gone_around_by_the_owner(tmp_path: pathlib.Path) -> None:
    """The owner knew nothing of it, chose it again and deferred everybody."""

    async def test(directory: pathlib.Path) -> None:
        async with pair(directory, sources=(SOURCE, Source("lost", NOT_OURS, "lost.example"))) as (both, hop):
            for number in range(20):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.owner.is_empty)
            assert not both.owner.events("deferred")
            assert len(hop.messages) == 20
            (line,) = both.owner.events("source-suspended")
            assert (line["source"], line["address"]) == ("lost", NOT_OURS)
            assert line["reason"] == f"{NOT_OURS} is not an address of this machine"

    run(test, tmp_path)


def test_what_waits_is_shown_whoever_sends_it(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory, max_ready=3) as (both, hop):
            hop.is_held = True
            for number in range(50):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.incoming.guest_count == 32 and hop.transactions)
            (shown,) = both.outgoing.status()
            assert (shown["handed"], shown["waiting"]) == (32, 18)

    run(test, tmp_path)


@pytest.mark.parametrize("action", ["delete", "bounce"])
def test_an_order_carried_out_once_meets_what_the_home_has_not_begun(tmp_path: pathlib.Path, action: str) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            await both.owner.send("first@y.example")
            await until(lambda: hop.transactions)
            for number in range(10):
                await both.owner.send(f"a{number}@y.example", f"b{number}@y.example")
            await both.owner.send("other@z.example")
            await until(lambda: both.incoming.guest_count == 12)
            trouble = Trouble(0, (5, 0, 0), "not wanted", phase="order")
            where = Selection(domain="y.example")
            walk = await orders.carry_out(both.owner.scheduler, action, where, trouble=trouble)
            assert walk.recipients >= 18, "one message more may be in hand of the connection"
            assert walk.messages * 2 == walk.recipients
            hop.release()
            await until(lambda: both.owner.is_empty)
            told = both.owner.events("deleted" if action == "delete" else "failed")
            assert len(told) == walk.recipients
            delivered = both.owner.events("delivered")
            assert {"first@y.example", "other@z.example"} <= {line["to"] for line in delivered}
            assert not {line["to"] for line in delivered} & {line["to"] for line in told}

    run(test, tmp_path)


def test_a_by_time_meets_what_the_home_has_not_begun(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.extensions = [*hop.extensions, "DELIVERBY"]
            hop.is_held = True
            for number in range(3):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: hop.transactions)
            await both.owner.send("late@y.example", attributes={Attribute.DELIVER_BY: b"%d;R" % (time.time() + 600)})
            await until(lambda: both.incoming.guest_count == 4)
            both.owner.wheel.advance_by_ms(605_000)
            await until(lambda: both.owner.events("expired", "failed"))
            hop.release()
            await until(lambda: both.owner.is_empty)
            assert [mailbox for mailbox in order_of(hop) if mailbox != "a"] == ["r0", "r1", "r2"]

    run(test, tmp_path)
