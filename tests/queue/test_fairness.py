"""Who goes first in a ready queue: order on the wire of a next hop with one connection, over the real queue.

Costs are those of csrc/queue/fair.h: a message's octets and 4096. `opener` is a message that keeps the connection busy
until all others wait.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import tempfile
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queue_harness import NextHop, Queue, run, until

from angarium.model.plan import RoutingTrouble, Source
from angarium.queue import orders
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.shaping_options import ShapingOptions
from angarium.routing.egress_pool import EgressPool
from angarium.spool.envelope import Attribute

ONE = ShapingOptions(connections=1)
MESSAGE_OCTETS = 4096


@dataclasses.dataclass(frozen=True)
class Mail:
    """One message of one recipient, told from others by its number."""

    tenant: str = ""
    campaign: str = ""
    domain: str = "y.example"
    octets: int = 200
    priority: int = 0

    @property
    def attributes(self) -> dict[int, bytes] | None:
        found = {
            Attribute.TENANT: self.tenant.encode(),
            Attribute.CAMPAIGN: self.campaign.encode(),
            Attribute.PRIORITY: b"%d" % self.priority if self.priority else b"",
        }
        return {key: text for key, text in found.items() if text} or None

    @property
    def cost(self) -> int:
        return self.octets + MESSAGE_OCTETS


async def send_all(queue: Queue, mails: list[Mail], begin: int = 0) -> None:
    await asyncio.gather(
        *(
            queue.send(
                f"u{begin + number}@{mail.domain}",
                body=b"Subject: x\r\n\r\n".ljust(mail.octets - 2, b"x") + b"\r\n",
                attributes=mail.attributes,
            )
            for number, mail in enumerate(mails)
        )
    )


async def kept_busy(hop: NextHop, queue: Queue) -> None:
    hop.is_held = True
    await queue.send("opener@y.example")
    await until(lambda: hop.transactions == 1)


def numbers(hop: NextHop) -> list[int]:
    """Of the messages that came behind the opener, in their order."""
    return [int(mailbox[1 : mailbox.index("@")]) for _, (mailbox,), _ in hop.messages if mailbox != "opener@y.example"]


async def order_of(directory: pathlib.Path, mails: list[Mail], weights: dict[bytes, int] | None = None) -> list[int]:
    """In which order they leave when all of them wait."""
    hop = NextHop()
    queue = Queue(directory, await hop.start(), shaping=ONE)
    queue.scheduler.flows.weigh(weights or {})
    await kept_busy(hop, queue)
    await send_all(queue, mails)
    hop.release()
    await until(lambda: queue.is_empty)
    assert len(queue.scheduler.flows) == 1, "no flow outlives its mail"
    await queue.close()
    hop.stop()
    return numbers(hop)


def in_order(tmp_path: pathlib.Path, mails: list[Mail], weights: dict[bytes, int] | None = None) -> list[Mail]:
    found: list[int] = []

    async def test(directory: pathlib.Path) -> None:
        found.extend(await order_of(directory, mails, weights))

    run(test, tmp_path)
    assert sorted(found) == list(range(len(mails)))
    return [mails[number] for number in found]


# ---- shares ----


@pytest.mark.parametrize(
    ("bulk", "single"),
    [
        (Mail(tenant="bulk"), Mail(tenant="shop")),
        (Mail(tenant="bulk"), Mail()),
        (Mail(), Mail(tenant="shop")),
        (Mail(tenant="shop", campaign="spring"), Mail(tenant="shop", campaign="reset")),
        (Mail(tenant="shop", campaign="spring"), Mail(tenant="shop")),
        (Mail(campaign="spring"), Mail()),
        (Mail(), Mail(domain="z.example")),
        (Mail(), Mail(priority=3)),
    ],
    ids=["tenant", "no tenant", "a tenant", "campaign", "no campaign", "a campaign", "domain", "priority"],
)
def test_a_single_message_goes_before_a_backlog_of(tmp_path, bulk, single):
    order = in_order(tmp_path, [bulk] * 60 + [single])
    assert order.index(single) <= 1, "one of the backlog may go before it"


def test_a_tenant_with_many_campaigns_and_domains_has_one_share(tmp_path):
    bulk = [Mail(tenant="bulk", campaign=f"c{i % 7}", domain=f"d{i % 11}.example") for i in range(120)]
    shop = [Mail(tenant="shop")] * 20
    order = in_order(tmp_path, bulk + shop)
    last = max(place for place, mail in enumerate(order) if mail.tenant == "shop")
    assert last <= 41


def test_weights_divide_octets(tmp_path):
    mails = [Mail(tenant="big")] * 60 + [Mail(tenant="small")] * 60
    order = in_order(tmp_path, mails, {b"big": 3})
    assert Counter(mail.tenant for mail in order[:40]) == {"big": 30, "small": 10}


def test_octets_are_shared_and_not_messages(tmp_path):
    mails = [Mail(tenant="images", octets=8 * MESSAGE_OCTETS)] * 20 + [Mail(tenant="notes", octets=50)] * 90
    order = in_order(tmp_path, mails)
    counts = Counter(mail.tenant for mail in order[:50])
    assert counts["images"] == pytest.approx(5, abs=1)


# ---- inside one domain ----


def test_first_attempts_go_before_old_retries(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        hop.rcpt = {f"u{number}@y.example": "450 4.2.1 busy" for number in range(40)}
        queue = Queue(directory, await hop.start(), shaping=ONE, options=QueueOptions(retry=RetryOptions(jitter=0.0)))
        await send_all(queue, [Mail()] * 40)
        await until(lambda: queue.depth["deferred"] == 40)
        hop.rcpt.clear()
        await queue.send("opener@y.example")
        await until(lambda: hop.messages)
        hop.messages.clear()
        hop.transactions = 0
        await kept_busy(hop, queue)
        queue.wheel.advance_by_ms(301_000)
        await until(lambda: queue.depth["ready"] == 40)
        await send_all(queue, [Mail()] * 40, begin=100)
        hop.release()
        await until(lambda: queue.is_empty)
        order = numbers(hop)
        firsts = [number for number in order if number >= 100]
        retries = [number for number in order if number < 100]
        assert firsts == sorted(firsts)
        assert sorted(retries) == list(range(40))
        assert [number < 100 for number in order[:32]].count(True) == 2, "every sixteenth is a retry"
        await queue.close()

    run(test, tmp_path)


# ---- transactions ----


class AtMost(dict[str, str]):
    """NextHop.rcpt of a host that takes no more than so many recipients in a transaction."""

    def __init__(self, hop: NextHop, most: int) -> None:
        self.hop = hop
        self.most = most
        self.counted = (0, 0)

    def get(self, mailbox: str, default: str = "") -> str:      # type: ignore[override]
        transaction, count = self.counted
        count = count + 1 if transaction == self.hop.transactions else 1
        self.counted = (self.hop.transactions, count)
        return default if count <= self.most else "452 4.5.3 too many recipients"


def test_recipients_of_one_message_travel_together_whatever_their_domains(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=ONE)
        await kept_busy(hop, queue)
        await send_all(queue, [Mail(domain=f"d{number % 5}.example") for number in range(20)])
        many = [f"m{number}@d{number % 7}.example" for number in range(50)]
        await queue.send(*many)
        hop.release()
        await until(lambda: queue.is_empty)
        together = [mailboxes for _, mailboxes, _ in hop.messages if mailboxes[0].startswith("m")]
        assert [sorted(mailboxes) for mailboxes in together] == [sorted(many)]
        await queue.close()

    run(test, tmp_path)


def test_what_comes_back_untried_goes_first(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=ONE)
        await kept_busy(hop, queue)
        many = [f"m{number}@d{number % 3}.example" for number in range(6)]
        hop.rcpt = AtMost(hop, 2)
        await queue.send(*many)
        await send_all(queue, [Mail(domain=f"d{number % 3}.example") for number in range(12)])
        hop.release()
        await until(lambda: queue.is_empty)
        places = [place for place, (_, mailboxes, _) in enumerate(hop.messages) if mailboxes[0].startswith("m")]
        assert len(places) == 3
        assert places[-1] - places[0] <= 6, "before others of its domains"
        assert sorted(mailbox for _, mailboxes, _ in hop.messages for mailbox in mailboxes) == sorted(
            [*many, "opener@y.example", *(f"u{number}@d{number % 3}.example" for number in range(12))]
        )
        await queue.close()

    run(test, tmp_path)


# ---- what else happens to a ready queue ----


def test_deleting_a_domain_leaves_the_shares_of_others(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start(), shaping=ONE)
        await kept_busy(hop, queue)
        mails = [Mail(tenant=f"t{number % 3}", domain=f"d{number % 5}.example") for number in range(60)]
        await send_all(queue, mails)
        assert await orders.delete(queue.scheduler, None, "d1.example") == 12
        hop.release()
        await until(lambda: queue.is_empty)
        assert sorted(numbers(hop)) == [number for number in range(60) if number % 5 != 1]
        assert queue.depth["ready"] == 0
        await queue.close()

    run(test, tmp_path)


@pytest.mark.parametrize("reloads", [1, 3])
def test_a_reload_routes_each_recipient_anew_once(tmp_path, reloads):
    """Those of one domain go to another host then, and the rest stays where it is: nobody is missed."""

    async def test(directory: pathlib.Path) -> None:
        hop, other = NextHop(), NextHop()
        queue = Queue(directory, await hop.start(), shaping=ONE)
        site = await other.start()
        await kept_busy(hop, queue)
        mails = [Mail(tenant=f"t{number % 4}", domain=f"d{number % 6}.example") for number in range(1200)]
        await send_all(queue, mails)
        queue.router.by_domain[b"d3.example"] = site
        for _ in range(reloads):
            queue.scheduler.reconfigure(
                router=queue.router,
                pool=EgressPool({Source("default", "", "relay.example"): 1}),
                shaping=ONE,
                options=queue.scheduler.options,
            )
            await asyncio.sleep(0)
        await until(lambda: len(other.messages) == 200)
        assert queue.depth["ready"] == 1000
        hop.release()
        await until(lambda: queue.is_empty)
        assert sorted(numbers(hop)) == [number for number in range(1200) if number % 6 != 3]
        await queue.close()

    run(test, tmp_path)


def test_a_site_that_fails_defers_everybody_in_it(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        hop.stop()
        queue = Queue(directory, site, shaping=ONE)
        mails = [Mail(f"t{number % 4}", domain=f"d{number % 6}.example", priority=number % 3) for number in range(100)]
        await send_all(queue, mails)
        await until(lambda: queue.depth["deferred"] == 100)
        assert queue.depth["ready"] == 0
        await queue.close()

    run(test, tmp_path)


def test_cold_domains_of_one_tenant_do_not_hold_up_those_of_another(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory, await hop.start())
        cold = [b"cold%d.example" % number for number in range(600)]
        queue.router.slow.update(cold)
        await send_all(queue, [Mail(tenant="bulk", domain=domain.decode()) for domain in cold])
        await until(lambda: len(queue.router.asked) >= 100)
        queue.router.by_domain[b"new.example"] = RoutingTrouble(True, (5, 1, 2), "no such domain")
        await queue.send("a@new.example", attributes={Attribute.TENANT: b"shop"})
        await until(lambda: b"new.example" in queue.router.asked)
        assert len(queue.router.asked) < 256
        queue.router.go_on.set()
        await until(lambda: queue.is_empty)
        assert len(queue.router.asked) == 601
        await queue.close()

    run(test, tmp_path)


# ---- invariants ----

MAILS = st.lists(
    st.builds(
        Mail,
        tenant=st.sampled_from(["", "a", "b"]),
        campaign=st.sampled_from(["", "x", "y"]),
        domain=st.sampled_from(["y.example", "z.example"]),
        octets=st.sampled_from([60, 3000, 40_000]),
        priority=st.sampled_from([0, 0, 0, 4]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MAILS, st.integers(1, 5))
def test_shares_and_order_hold_for_any_mail(mails, weight):
    """Everybody goes once; of one flow and domain by priority, but for turns of lower ones, and then as it came; of two
    tenants who both wait, what they had over their weights is no further apart than the largest message of each."""
    weights = {"": 1, "a": weight, "b": 1}
    found: list[int] = []

    async def test(directory: pathlib.Path) -> None:
        found.extend(await order_of(directory, mails, {b"a": weight}))

    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        run(test, pathlib.Path(directory))
    assert sorted(found) == list(range(len(mails)))
    by_flow: dict[tuple[str, str, str, int], list[int]] = {}
    for number in found:
        mail = mails[number]
        by_flow.setdefault((mail.tenant, mail.campaign, mail.domain, mail.priority), []).append(number)
    for taken in by_flow.values():
        assert taken == sorted(taken)
    # Priorities: whoever of the lower one goes before one of the higher had one of sixteen turns.
    priorities = [mails[number].priority for number in found]
    last = max((place for place, priority in enumerate(priorities) if priority), default=-1)
    assert priorities[: last + 1].count(0) <= (last + 1) // 16
    for priority in (0, 4):
        left = Counter(mail.tenant for mail in mails if mail.priority == priority)
        largest = {
            tenant: max((mail.cost for mail in mails if mail.tenant == tenant), default=0) / weights[tenant]
            for tenant in weights
        }
        had = dict.fromkeys(weights, 0.0)
        for number in found:
            mail = mails[number]
            if mail.priority != priority:
                continue
            had[mail.tenant] += mail.cost / weights[mail.tenant]
            left[mail.tenant] -= 1
            for other in weights:
                if left[other] and left[mail.tenant]:
                    assert had[mail.tenant] - had[other] <= largest[mail.tenant] + largest[other] + 1
