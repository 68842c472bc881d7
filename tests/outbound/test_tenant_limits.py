"""Limits of tenants on connections: at each site or over all of them, besides what the sites allow."""

from __future__ import annotations

import asyncio
import pathlib
from collections import Counter
from typing import Any

import pytest
from outbound.fault_server import SILENCE, fault_server
from outbound.outgoing import Outgoing, outgoing, until
from outbound.test_delivery import on_uvloop
from outbound.test_source_limits import passage_of, sites

from angarium.model.units import Duration, Rate
from angarium.outbound.reasons import of_queue
from angarium.queue import explain, orders
from angarium.queue.facts import QueueFacts
from angarium.queue.ready import ReadyQueue
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import AllSites, ShapingDefault, ShapingTables, SourceShaping, TenantShaping
from angarium.spool.envelope import Attribute


def limited(tenant: TenantShaping | None, **default: Any) -> Shaping:
    tables = {"shop": tenant} if tenant is not None else {}
    return Shaping(ShapingTables(default=ShapingDefault(idle_time=Duration(30), **default), tenant=tables))


async def send(relay: Outgoing, count: int, site: int = 0, tenant: bytes = b"shop") -> None:
    for _ in range(count):
        await relay.send(b"b@s%d.example" % site, attributes={Attribute.TENANT: tenant} if tenant else None)


def in_line(relay: Outgoing) -> list[QueueFacts]:
    """Ready queues that wait for a place of their source or tenant."""
    found = [explain.queue_facts(ready) for ready in relay.scheduler.ready_queues()]
    return [each for each in found if each.is_in_dial_line]


def waiting(relay: Outgoing) -> int:
    """How many recipients without a tenant no connection has taken."""
    return sum(ready.count for ready in relay.scheduler.ready_queues() if ready.kind is None)


def held_of(ready: ReadyQueue, whose: str) -> int:
    passage = passage_of(ready, whose)
    assert passage is not None
    return passage.held


@on_uvloop
async def test_connections_of_a_tenant_are_counted_at_each_site_and_hold_up_nobody_else(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={"END": SILENCE}) as server:
        shaping = limited(TenantShaping(connections=2), connections=20)
        async with outgoing(tmp_path, sites(server, 2), shaping=shaping) as relay:
            for site in (0, 1):
                await send(relay, 10, site)
            await until(lambda: len(in_line(relay)) == 2 and server.peak == 4)
            await send(relay, 3, tenant=b"")
            # Who waits is let look again now and then, and stands in no line for that turn of the loop. A connection
            # may have taken the third, to send it behind the end of another.
            await until(lambda: server.open_now in (6, 7) and waiting(relay) == 0 and len(in_line(relay)) == 2)
            ways = {ready.kind: ready.way for ready in relay.scheduler.ready_queues()}
            assert ways[None] is None


@on_uvloop
async def test_connections_of_a_tenant_over_all_sites_are_shared_by_them(tmp_path: pathlib.Path) -> None:
    """Idle connections, which would stay for 30 s, make room."""
    async with fault_server() as server:
        shaping = limited(TenantShaping(connections=2, share=True))
        async with outgoing(tmp_path, sites(server, 5), shaping=shaping) as relay:
            for _ in range(4):
                for site in range(5):
                    await send(relay, 1, site)
            await relay.outcomes(20)
            assert server.peak == 2
            assert Counter(each["to"] for each in relay.events("delivered")) == {
                f"b@s{site}.example": 4 for site in range(5)
            }


@on_uvloop
async def test_what_the_site_and_the_source_allow_holds_besides(tmp_path: pathlib.Path) -> None:
    tables = ShapingTables(
        default=ShapingDefault(connections=3),
        source={"default": SourceShaping(all_sites=AllSites(connections=4))},
        tenant={"shop": TenantShaping(connections=9)},
    )
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 2), shaping=Shaping(tables)) as relay,
    ):
        await send(relay, 20, 0)
        await until(lambda: server.open_now == 3)
        await send(relay, 20, 1)
        await until(lambda: any(each.site == "site 1" for each in in_line(relay)))
        assert server.peak == 4
        used = {ready.site.name: held_of(ready, "tenant") for ready in relay.scheduler.ready_queues()}
        assert used == {"site 0": 3, "site 1": 1}


@on_uvloop
async def test_the_rate_of_a_tenants_new_connections_holds(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server:
        shaping = limited(TenantShaping(connection_rate=Rate(10.0), messages_per_connection=1))
        async with outgoing(tmp_path, sites(server, 1), shaping=shaping) as relay:
            begun = asyncio.get_running_loop().time()
            await send(relay, 12)
            await relay.outcomes(12)
            assert server.connections == 12
            assert asyncio.get_running_loop().time() - begun >= (12 - 1) / 10


@on_uvloop
async def test_a_tenant_for_which_a_limit_is_unset_gets_past_that_of_the_site(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={"END": SILENCE}) as server:
        tenant = TenantShaping(unset=("connections", "message_rate"))
        shaping = limited(tenant, connections=1, message_rate=Rate(0.01))
        async with outgoing(tmp_path, sites(server, 1), shaping=shaping) as relay:
            await send(relay, 3, tenant=b"")
            await until(lambda: server.open_now == 1)
            await send(relay, 10)
            await until(lambda: server.open_now == 5)       # those of the first window
            (plain,) = (ready for ready in relay.scheduler.ready_queues() if ready.kind is None)
            assert plain.connections == 1


@pytest.mark.parametrize("is_shared", [False, True])
@on_uvloop
async def test_a_reload_takes_limits_away_and_brings_them_and_counts_elsewhere(
    tmp_path: pathlib.Path, *, is_shared: bool
) -> None:
    async with fault_server() as server, outgoing(tmp_path, sites(server, 1), shaping=limited(None)) as relay:
        for table in (
            TenantShaping(connections=1, share=is_shared), TenantShaping(retry=None, idle_time=Duration(20)),
            TenantShaping(connections=2, share=is_shared), TenantShaping(connections=2, share=not is_shared), None,
            TenantShaping(connections=1, share=is_shared),
        ):  # fmt: skip
            queue = relay.scheduler
            queue.reconfigure(router=queue.router, pool=queue.pool, shaping=limited(table), options=queue.options)
            count = len(relay.events("delivered"))
            await send(relay, 30)
            await relay.outcomes(count + 30)
        for ready in relay.scheduler.ready_queues():
            if ready.kind is not None and ready.way is not None:
                facts = explain.queue_facts(ready)
                assert facts.tenant_used is not None and facts.tenant_used.connections_limit == 1
                assert facts.tenant_used.connections == held_of(ready, "tenant") <= ready.connections


@on_uvloop
async def test_a_table_that_a_reload_adds_holds_for_what_is_ready(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited(None, connections=1)) as relay,
    ):
        await send(relay, 1, tenant=b"")
        await until(lambda: b"DATA" in server.commands)
        await send(relay, 5)
        await send(relay, 5, tenant=b"")
        # Its own count at the site, so that it is seen to be its own: others wait for the one connection.
        relay.reload(limited(TenantShaping(unset=("connections",)), connections=1))
        await until(lambda: {ready.kind: ready.count for ready in relay.scheduler.ready_queues()}[None] == 5)
        await until(lambda: server.open_now > 1)
        late = [ready for ready in relay.scheduler.ready_queues() if ready.kind == ("", "", "shop")]
        assert len(late) == 1 and late[0].connections
        await send(relay, 1)
        assert len(relay.scheduler.ready_queues()) == 2, "later mail of it waits in the same"


@on_uvloop
async def test_a_table_that_a_reload_adds_holds_for_what_is_deferred_at_its_next_attempt(
    tmp_path: pathlib.Path,
) -> None:
    async with (
        fault_server(faults={"RCPT": b"450 4.2.0 later\r\n"}) as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited(None)) as relay,
    ):
        await send(relay, 3)
        await send(relay, 2, tenant=b"other")
        await send(relay, 1, tenant=b"")
        await relay.outcomes(6)
        relay.reload(limited(TenantShaping(connections=1)))
        assert await orders.retry(relay.scheduler) == 6
        await relay.outcomes(12)
        tried = {ready.kind: explain.queue_facts(ready).deferred for ready in relay.scheduler.ready_queues()}
        assert tried == {None: 6 + 3, ("", "", "shop"): 3}
        # Taken away, and brought again: nothing is lost, and nothing is asked when nobody's mail is there.
        relay.reload(limited(None))
        relay.reload(limited(TenantShaping(connections=2)))
        assert await orders.retry(relay.scheduler) == 6
        await relay.outcomes(18)
        assert await orders.delete(relay.scheduler) == 6
        await until(lambda: relay.scheduler.depth()["messages"] == 0)


@pytest.mark.parametrize("whose", ["tenant", "tenant over all sites", "source"])
@on_uvloop
async def test_a_limit_that_a_reload_brings_counts_the_connections_that_there_are(
    tmp_path: pathlib.Path, whose: str
) -> None:
    """Once they were counted for nobody, and when one was replaced the new one was the first."""
    tenant = TenantShaping(connections=3, share="all sites" in whose) if whose != "source" else TenantShaping(bdat=True)
    source = {"default": SourceShaping(all_sites=AllSites(connections=3))} if whose == "source" else {}
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited(TenantShaping(bdat=True))) as relay,
    ):
        await send(relay, 10)
        await until(lambda: server.open_now == 4)       # those of the first window
        (ready,) = relay.scheduler.ready_queues()
        relay.reload(Shaping(ShapingTables(source=source, tenant={"shop": tenant})))
        assert held_of(ready, "source" if whose == "source" else "tenant") == 4
        facts = explain.queue_facts(ready)
        used = facts.source_used if whose == "source" else facts.tenant_used
        assert used is not None and (used.connections, used.connections_limit) == (4, 3)


@on_uvloop
async def test_who_waits_for_a_place_of_its_tenant_says_so(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={"END": SILENCE}) as server:
        shaping = limited(TenantShaping(connections=1, share=True))
        async with outgoing(tmp_path, sites(server, 2), shaping=shaping) as relay:
            await send(relay, 1, 0)
            await until(lambda: b"DATA" in server.commands)
            await send(relay, 1, 1)

            await until(lambda: in_line(relay))
            (facts,) = in_line(relay)
            assert facts.site == "site 1" and facts.tenant_used is not None
            assert (facts.tenant_used.connections, facts.tenant_used.connections_limit) == (1, 1)
            reason = of_queue(facts)
            assert (reason.text, reason.limit) == ("all 1 connections of its tenant are in use", "tenant.connections")
            used = explain.used_now(relay.scheduler, *of_site(relay, "site 0"))
            assert used.tenant_used is not None and used.tenant_used.connections == 1


def of_site(relay: Outgoing, name: str) -> tuple[Any, Any, Any]:
    (ready,) = (each for each in relay.scheduler.ready_queues() if each.site.name == name)
    return ready.site, ready.source, ready.kind


@on_uvloop
async def test_what_counts_a_tenant_at_a_site_goes_with_its_last_queue(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server:
        shaping = limited(TenantShaping(connections=1, idle_time=Duration(0.05)))
        async with outgoing(tmp_path, sites(server, 1), shaping=shaping) as relay:
            await send(relay, 2)
            await relay.outcomes(2)
            await until(lambda: server.open_now == 0)
            queue = relay.scheduler
            queue.reconfigure(router=queue.router, pool=queue.pool, shaping=limited(None), options=queue.options)

            def is_forgotten() -> bool:
                relay.scheduler.sweep()
                return not relay.scheduler.ready_queues()

            await until(is_forgotten)
            queue.reconfigure(router=queue.router, pool=queue.pool, shaping=shaping, options=queue.options)
            await send(relay, 3)
            await relay.outcomes(5)
