"""What automation allows a tenant or a campaign: counted for it alone, besides what everybody may."""

from __future__ import annotations

import asyncio
import pathlib
from collections import Counter

from outbound.fault_server import SILENCE, fault_server
from outbound.outgoing import Outgoing, outgoing, until
from outbound.test_delivery import on_uvloop
from outbound.test_source_limits import sites

from angarium.model.units import Duration, Rate
from angarium.outbound.reasons import of_queue
from angarium.queue import explain
from angarium.queue.adjustments import Adjustment, Adjustments
from angarium.queue.facts import QueueFacts
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import AllSites, ShapingDefault, ShapingTables, SourceShaping, TenantShaping
from angarium.spool.envelope import Attribute


def limited(connections: int = 20, **tenants: TenantShaping) -> Shaping:
    return Shaping(
        ShapingTables(default=ShapingDefault(connections=connections, idle_time=Duration(30)), tenant=tenants)
    )


async def send(relay: Outgoing, count: int, site: int = 0, *, tenant: str = "", campaign: str = "") -> None:
    attributes: dict[int, bytes] = {}
    if tenant:
        attributes[Attribute.TENANT] = tenant.encode()
    if campaign:
        attributes[Attribute.CAMPAIGN] = campaign.encode()
    for _ in range(count):
        await relay.send(b"b@s%d.example" % site, attributes=attributes or None)


def adjust(relay: Outgoing, *adjustments: Adjustment) -> None:
    relay.scheduler.set_adjustments(Adjustments(adjustments) if adjustments else None)


def facts(relay: Outgoing, apart: str) -> list[QueueFacts]:
    found = [explain.queue_facts(ready) for ready in relay.scheduler.ready_queues()]
    return [each for each in found if each.apart == apart]


@on_uvloop
async def test_a_cap_of_a_tenant_is_over_all_sites_and_holds_up_nobody_else(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 2), shaping=limited()) as relay,
    ):
        adjust(relay, Adjustment(tenant="shop", connections=3))
        for site in (0, 1):
            await send(relay, 5, site, tenant="shop")
        await until(lambda: server.open_now == 3 and any(each.is_in_dial_line for each in facts(relay, "tenant shop")))
        await send(relay, 2, tenant="news")
        await send(relay, 2)
        await until(lambda: server.open_now >= 5)
        waiting = [each for each in facts(relay, "tenant shop") if each.is_in_dial_line]
        assert "all 3 connections that automation leaves tenant shop are in use" in {
            of_queue(each).text for each in waiting
        }
        adjust(relay)
        await until(lambda: not any(each.waiting for each in facts(relay, "tenant shop")))


@on_uvloop
async def test_what_is_slowed_down_has_its_part_however_much_others_send(tmp_path: pathlib.Path) -> None:
    """The others have more connections than a quarter of the site's all the time."""
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited(connections=12)) as relay,
    ):
        adjust(relay, Adjustment(tenant="shop", factor=4.0))
        for count in range(1, 5):
            await send(relay, 1)
            await until(lambda count=count: server.open_now == count)       # type: ignore[misc]
        await send(relay, 12, tenant="shop")        # more than its connections have in hand
        await until(lambda: server.open_now == 7 and any(each.is_in_dial_line for each in facts(relay, "tenant shop")))
        assert [each.restrained[0].connections_limit for each in facts(relay, "tenant shop")] == [3]


@on_uvloop
async def test_a_campaign_is_slowed_down_and_the_rest_of_its_tenants_mail_is_not(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited()) as relay,
    ):
        adjust(relay, Adjustment(tenant="shop", campaign="spring", connections=1))
        await send(relay, 4, tenant="shop", campaign="spring")
        await until(lambda: server.open_now == 1)
        for count, (tenant, campaign) in enumerate((("shop", "autumn"), ("news", "spring"), ("shop", ""))):
            await send(relay, 1, tenant=tenant, campaign=campaign)
            await until(lambda count=count: server.open_now == count + 2)   # type: ignore[misc]
        (apart,) = facts(relay, "tenant shop, campaign spring")
        assert [(each.connections, each.connections_limit) for each in apart.restrained] == [(1, 1)]


@on_uvloop
async def test_a_campaign_without_a_tenant_is_capped_and_those_of_tenants_are_not(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited()) as relay,
    ):
        adjust(relay, Adjustment(campaign="spring", connections=1))
        await send(relay, 4, campaign="spring")
        await until(lambda: server.open_now == 1)
        for count, (tenant, campaign) in enumerate((("shop", "spring"), ("", "autumn"), ("", ""))):
            await send(relay, 1, tenant=tenant, campaign=campaign)
            await until(lambda count=count: server.open_now == count + 2)   # type: ignore[misc]
        (apart,) = facts(relay, "campaign spring")
        assert apart.waiting and [(each.connections, each.connections_limit) for each in apart.restrained] == [(1, 1)]


@on_uvloop
async def test_what_holds_for_tenant_and_campaign_holds_both(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited()) as relay,
    ):
        adjust(
            relay,
            Adjustment(tenant="shop", connections=3),
            Adjustment(tenant="shop", campaign="spring", connections=2),
        )
        await send(relay, 4, tenant="shop", campaign="spring")
        await until(lambda: server.open_now == 2)
        await send(relay, 4, tenant="shop", campaign="autumn")
        await until(lambda: server.open_now == 3)
        await until(lambda: any(each.is_in_dial_line for each in facts(relay, "tenant shop")))
        assert server.peak == 3


@on_uvloop
async def test_a_tenants_own_limits_are_divided_too(tmp_path: pathlib.Path) -> None:
    shaping = limited(shop=TenantShaping(connections=8, share=True))
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 2), shaping=shaping) as relay,
    ):
        adjust(relay, Adjustment(tenant="shop", factor=4.0))
        for site in (0, 1):
            await send(relay, 5, site, tenant="shop")
        await until(lambda: server.open_now == 2 and any(each.is_in_dial_line for each in facts(relay, "tenant shop")))
        assert server.peak == 2


@on_uvloop
async def test_connections_end_that_a_stricter_cap_has_no_place_for(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, sites(server, 3), shaping=limited()) as relay:
        adjust(relay, Adjustment(tenant="shop", connections=3))
        for site in range(3):
            await send(relay, 1, site, tenant="shop")
        await until(lambda: len(relay.events("delivered")) == 3 and server.open_now == 3)       # idle for half a minute
        adjust(relay, Adjustment(tenant="shop", connections=1))
        for site in range(3):
            await send(relay, 2, site, tenant="shop")
        await until(lambda: len(relay.events("delivered")) == 9)
        await until(lambda: server.open_now <= 1)


@on_uvloop
async def test_a_cap_of_messages_a_second_is_one_for_all_sites(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, sites(server, 4), shaping=limited()) as relay:
        adjust(relay, Adjustment(tenant="shop", message_rate=20.0))
        begun = asyncio.get_running_loop().time()
        # All at once: one after the other, each with a sync of a slow disk, they might come no faster than they may go.
        await asyncio.gather(*(send(relay, 1, site, tenant="shop") for _ in range(4) for site in range(4)))
        await until(lambda: any(each.is_in_restrained_line for each in facts(relay, "tenant shop")))
        await send(relay, 5)
        await until(lambda: Counter(each["to"] for each in relay.events("delivered"))["b@s0.example"] >= 5)
        await until(lambda: len(relay.events("delivered")) == 21)
        assert asyncio.get_running_loop().time() - begun >= (16 - 3) / 20       # two at once, and one just now


@on_uvloop
async def test_who_stands_in_line_at_a_rate_goes_on_when_it_ends(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, sites(server, 1), shaping=limited()) as relay:
        adjust(relay, Adjustment(tenant="shop", message_rate=0.001))
        await send(relay, 5, tenant="shop")
        await until(lambda: any(each.is_in_restrained_line for each in facts(relay, "tenant shop")))
        adjust(relay)
        await until(lambda: len(relay.events("delivered")) == 5)
        adjust(relay, Adjustment(tenant="shop", message_rate=0.001))
        await send(relay, 5, tenant="shop")
        await until(lambda: any(each.is_in_restrained_line for each in facts(relay, "tenant shop")))
        adjust(relay, Adjustment(tenant="shop", factor=2.0))                    # of the same queue, and no rate
        await until(lambda: len(relay.events("delivered")) == 10)


@on_uvloop
async def test_what_is_left_of_a_site_is_told_as_its_ready_queue_has_it(tmp_path: pathlib.Path) -> None:
    """Also by a worker that has no ready queue for it."""
    shaping = ShapingDefault(connections=20, connection_rate=Rate(40.0), message_rate=Rate(100.0))
    async with (
        fault_server() as server,
        outgoing(tmp_path, sites(server, 1), shaping=Shaping(ShapingTables(default=shaping))) as relay,
    ):
        await send(relay, 1)
        await relay.outcomes(1)
        (ready,) = relay.scheduler.ready_queues()

        def told() -> tuple[int, tuple[int, float, float] | None]:
            used = explain.used_now(relay.scheduler, ready.site, ready.source, ready.kind)
            left = used.left
            assert used.connections_limit == explain.queue_facts(ready).connections_limit
            assert left is None or (left.whose, left.connections) == ("everybody", used.connections)
            return used.connections_limit, left and (left.connections_limit, left.connection_rate, left.rate)

        site = ready.site.name
        assert told() == (20, None)
        for change, limit, left in (
            (Adjustment(site=site, connections=3), 3, (3, 0.0, 0.0)),
            (Adjustment(site=site, connections=30), 20, None),
            (Adjustment(site=site, factor=4.0), 5, (5, 10.0, 25.0)),
            (Adjustment(site=site, factor=100.0, connections=7), 1, (1, 0.4, 1.0)),
            (Adjustment(site=site, factor=2.0, message_rate=30.0), 10, (10, 20.0, 30.0)),
            (Adjustment(site=site, message_rate=200.0), 20, None),
            (Adjustment(site="another", connections=1), 20, None),
        ):
            adjust(relay, change)
            await until(lambda limit=limit: ready.connection_limit == limit)        # type: ignore[misc]
            assert told() == (limit, left), change
        adjust(relay, Adjustment(site=site, factor=1000.0))
        await send(relay, 20)
        await until(lambda: explain.queue_facts(ready).is_paced)
        used = explain.used_now(relay.scheduler, ready.site, ready.source, ready.kind)
        assert used.left is not None and used.left.rate_wait_s == used.message_rate_wait_s > 1.0


@on_uvloop
async def test_who_waits_at_one_rate_keeps_its_turn_at_the_other(tmp_path: pathlib.Path) -> None:
    """Others want the source's all the time: a turn there that is lost while waiting for the tenant's would be waited
    for behind all of them once more."""
    source = SourceShaping(all_sites=AllSites(message_rate=Rate(10.0)))
    shaping = Shaping(ShapingTables(source={"default": source}))
    async with fault_server() as server, outgoing(tmp_path, sites(server, 4), shaping=shaping) as relay:
        adjust(relay, Adjustment(tenant="shop", message_rate=2.0))
        await send(relay, 40, 3, tenant="shop")
        for site in range(3):
            await send(relay, 40, site)
        (shop,) = (ready for ready in relay.scheduler.ready_queues() if ready.site.name == "site 3" and ready.count)
        assert shop.way is not None
        of_source, of_tenant = shop.way.passages
        assert (of_source.whose, of_tenant.whose) == ("source", "automation")
        await until(lambda: of_tenant.is_in_line and of_source.turns > 1)
        adjust(relay)
        relay.reload(limited())
        await relay.outcomes(160)
