"""Limits of egress sources: over all sites together, and towards each."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from outbound.fault_server import FaultServer, fault_server
from outbound.outgoing import Outgoing, on_uvloop, outgoing, until

from angarium.model.plan import Host, Site
from angarium.model.units import Duration, Rate
from angarium.queue import explain
from angarium.queue.adjustments import Adjustment, Adjustments
from angarium.queue.passage import Passage
from angarium.queue.ready import ReadyQueue
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import (
    AllSites,
    ProviderShaping,
    ShapingDefault,
    ShapingTables,
    SourceShaping,
    TenantShaping,
)
from angarium.routing.egress_rules import egress_pools
from angarium.routing.options import EgressOptions, PoolOptions, SourceOptions
from angarium.spool.envelope import Attribute


def sites(server: FaultServer, count: int) -> dict[bytes, Site]:
    """As many sites, all of them the same server."""
    host = Host("mx.example", ("127.0.0.1",), server.port)
    return {b"s%d.example" % number: Site(f"site {number}", "smtp", (host,)) for number in range(count)}


def limited(source: SourceShaping) -> Shaping:
    return Shaping(ShapingTables(default=ShapingDefault(idle_time=Duration(30)), source={"mail1": source}))


def in_all(**limits: Any) -> SourceShaping:
    return SourceShaping(all_sites=AllSites(**limits))


def relay_from(
    directory: pathlib.Path,
    server: FaultServer,
    source: SourceShaping,
    *,
    site_count: int = 5,
) -> AbstractAsyncContextManager[Outgoing]:
    pools = egress_pools({"mail1": SourceOptions(address="127.0.0.11")}, {}, [], "relay.example")
    return outgoing(directory, sites(server, site_count), pools=pools, shaping=limited(source))


WHOSE = ["source", "tenant", "provider", "automation"]
DOMAINS = [f"s{number}.example" for number in range(5)]


@contextlib.asynccontextmanager
async def relay_of(
    directory: pathlib.Path, server: FaultServer, whose: str, connections: int, **default: Any
) -> AsyncIterator[Outgoing]:
    """All mail leaves from the one source and is of the one tenant; one of them, or
    the provider whose all sites are, has a limit over all sites."""
    own: dict[str, Any] = {"tenant": {"shop": TenantShaping(bdat=True)}}
    if whose == "tenant":
        own = {"tenant": {"shop": TenantShaping(connections=connections, share=True)}}
    if whose == "source":
        own["source"] = {"default": in_all(connections=connections)}
    if whose == "provider":
        own["provider"] = {"p": ProviderShaping(domains=DOMAINS, connections=connections, share=True)}
    tables = ShapingTables(default=ShapingDefault(idle_time=Duration(30), **default), **own)
    async with outgoing(directory, sites(server, 5), shaping=Shaping(tables)) as relay:
        if whose == "automation":
            relay.scheduler.set_adjustments(Adjustments([Adjustment(tenant="shop", connections=connections)]))
        yield relay


async def backlogs(relay: Outgoing, server: FaultServer, *counts: int) -> list[ReadyQueue]:
    """So many messages for each site, none of which leaves before all are there; their ready queues."""
    server.may_greet.clear()
    for number, count in enumerate(counts):
        shop = {Attribute.TENANT: b"shop"}
        await asyncio.gather(*(relay.send(b"b@s%d.example" % number, attributes=shop) for _ in range(count)))
    server.may_greet.set()
    return sorted(busy(relay), key=lambda ready: ready.site.name)


def busy(relay: Outgoing) -> list[ReadyQueue]:
    """Ready queues that mail has gone through; who is kept apart has others, and its domain's stays empty."""
    return [ready for ready in relay.scheduler.ready_queues() if ready.count or ready.delivered_count]


def passage_of(ready: ReadyQueue, whose: str) -> Passage | None:
    """Where it passes the limits of its "source" or "tenant"."""
    return next((each for each in ready.way.passages if each.whose == whose), None) if ready.way else None


async def send_to_all(relay: Outgoing, site_count: int, each: int) -> None:
    for _ in range(each):
        for number in range(site_count):
            await relay.send(b"b@s%d.example" % number)


@on_uvloop
async def test_connections_of_a_source_are_shared_by_its_sites(tmp_path: pathlib.Path) -> None:
    """Idle connections, which would stay for 30 s, make room."""
    async with fault_server() as server:
        async with relay_from(tmp_path, server, in_all(connections=2)) as relay:
            await send_to_all(relay, 5, 4)
            events = await relay.outcomes(20)
            assert {event["event"] for event in events} == {"delivered"}
            assert server.peak <= 2
        assert server.connections >= 5


@on_uvloop
async def test_a_busy_site_lets_others_have_a_turn_of_the_only_connection(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, relay_from(tmp_path, server, in_all(connections=1), site_count=2) as relay:
        for _ in range(600):
            await relay.send(b"b@s0.example")
        await relay.send(b"b@s1.example")
        await until(lambda: [each for each in relay.events("delivered") if each["to"] == "b@s1.example"])
        await relay.outcomes(601)
        assert server.peak == 1


@pytest.mark.parametrize("whose", WHOSE)
@on_uvloop
async def test_who_wants_one_connection_more_stands_behind_who_has_none(tmp_path: pathlib.Path, whose: str) -> None:
    """Once a site that gave up its connection was first in line, for the second that it wanted, and took it back."""
    async with fault_server() as server, relay_of(tmp_path, server, whose, connections=1) as relay:
        busy, other = await backlogs(relay, server, 2000, 1)
        await until(lambda: other.delivered_count)
        assert busy.count, "the other's one message waited for all that was there before"


@pytest.mark.parametrize("whose", WHOSE)
@on_uvloop
async def test_sites_with_backlogs_take_turns_at_few_connections(tmp_path: pathlib.Path, whose: str) -> None:
    async with fault_server() as server, relay_of(tmp_path, server, whose, connections=2) as relay:
        queues = await backlogs(relay, server, 1000, 1000, 1000, 1000)
        await until(lambda: sum(ready.delivered_count for ready in queues) >= 2000)
        assert min(ready.delivered_count for ready in queues) >= 100, [ready.delivered_count for ready in queues]
        assert server.peak == 2


@on_uvloop
async def test_who_passes_two_busy_gates_gets_through_both(tmp_path: pathlib.Path) -> None:
    """Once it lost its turn at the one while it waited at the other, and neither had a place when it came back."""
    tables = ShapingTables(
        default=ShapingDefault(idle_time=Duration(30)),
        source={"mail1": in_all(connections=1)},
        tenant={"shop": TenantShaping(connections=1, share=True)},
    )
    pools = egress_pools(
        {"mail1": SourceOptions(address="127.0.0.11"), "mail2": SourceOptions(address="127.0.0.12")},
        {"p1": PoolOptions(sources={"mail1": 1}), "p2": PoolOptions(sources={"mail2": 1})},
        [EgressOptions(pool="p2", domain="s1.example"), EgressOptions(pool="p1", domain="*")],
        "relay.example",
    )
    async with (
        fault_server() as server,
        outgoing(tmp_path, sites(server, 3), shaping=Shaping(tables), pools=pools) as relay,
    ):
        shop = {Attribute.TENANT: b"shop"}
        server.may_greet.clear()            # until all of it waits
        for domain, attributes, count in (
            (b"s1.example", shop, 5000), (b"s2.example", None, 5000), (b"s0.example", shop, 5)
        ):  # fmt: skip
            await asyncio.gather(*(relay.send(b"b@" + domain, attributes=attributes) for _ in range(count)))
        server.may_greet.set()
        both, tenants, sources = sorted(relay.scheduler.ready_queues(), key=lambda ready: ready.site.name)
        await until(lambda: both.delivered_count == 5)
        assert tenants.count and sources.count, "it was to have its turn, not what the others left"
        await until(lambda: not tenants.count and not sources.count)
        assert {each.held for ready in (both, tenants, sources) for each in ready.way.passages} <= {0, 1}


@pytest.mark.parametrize("whose", WHOSE)
@on_uvloop
async def test_a_place_that_is_given_back_is_taken_at_once(tmp_path: pathlib.Path, whose: str) -> None:
    """Once who waited looked for it ten times a second: these messages would take forty seconds."""
    async with (
        fault_server() as server,
        relay_of(tmp_path, server, whose, connections=1, messages_per_connection=1) as relay,
    ):
        queues = await backlogs(relay, server, 200, 200)
        await until(lambda: sum(ready.delivered_count for ready in queues) == 400)
        assert (server.connections, server.peak) == (400, 1)


@on_uvloop
async def test_connections_towards_each_site_have_a_limit_besides_that_of_all(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server:
        source = SourceShaping(connections=1, all_sites=AllSites(connections=2))
        async with relay_from(tmp_path, server, source, site_count=3) as relay:
            await send_to_all(relay, 3, 50)
            await relay.outcomes(150)
            assert server.peak == 2
            assert {ready.connections for ready in relay.scheduler.ready_queues()} <= {0, 1}


@pytest.mark.parametrize("is_per_site", [False, True])
@on_uvloop
async def test_the_rate_of_messages_holds(tmp_path: pathlib.Path, *, is_per_site: bool) -> None:
    source = SourceShaping(message_rate=Rate(50.0)) if is_per_site else in_all(message_rate=Rate(50.0))
    count = 1 if is_per_site else 5
    async with fault_server() as server, relay_from(tmp_path, server, source, site_count=count) as relay:
        begun = asyncio.get_running_loop().time()
        await send_to_all(relay, count, 60 // count)
        await relay.outcomes(60)
        # A burst of a tenth of a second goes at once.
        assert asyncio.get_running_loop().time() - begun >= (60 - 5 - 1) / 50


@on_uvloop
async def test_sites_take_turns_at_the_rate_of_their_source(tmp_path: pathlib.Path) -> None:
    source = in_all(message_rate=Rate(50.0))
    async with fault_server() as server, relay_from(tmp_path, server, source, site_count=3) as relay:
        server.may_greet.clear()            # until all of it waits
        for number in (0, 1, 2):
            for _ in range(30):
                await relay.send(b"b@s%d.example" % number)
        server.may_greet.set()
        await until(lambda: len(relay.events("delivered")) >= 45)
        first = Counter(event["to"] for event in relay.events("delivered")[:45])
        assert min(first.values()) >= 8 and len(first) == 3, first
        await relay.outcomes(90)


@on_uvloop
async def test_the_rate_of_new_connections_holds(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server:
        source = SourceShaping(messages_per_connection=1, all_sites=AllSites(connection_rate=Rate(10.0)))
        async with relay_from(tmp_path, server, source, site_count=2) as relay:
            begun = asyncio.get_running_loop().time()
            await send_to_all(relay, 2, 6)
            await relay.outcomes(12)
            assert server.connections == 12
            assert asyncio.get_running_loop().time() - begun >= (12 - 1) / 10


@on_uvloop
async def test_a_reload_takes_limits_away_and_brings_them(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, relay_from(tmp_path, server, SourceShaping(), site_count=1) as relay:
        await send_to_all(relay, 1, 1)
        await relay.outcomes(1)
        for source in (in_all(connections=1), SourceShaping(), in_all(connections=1), SourceShaping()):
            queue = relay.scheduler
            queue.reconfigure(router=queue.router, pool=queue.pool, shaping=limited(source), options=queue.options)
            count = len(relay.events("delivered"))
            await send_to_all(relay, 1, 30)
            await relay.outcomes(count + 30)
            (ready,) = relay.scheduler.ready_queues()
            passage = passage_of(ready, "source")
            assert (passage is not None) == (source.all_sites is not None)
            assert passage is None or passage.held <= ready.connections


@on_uvloop
async def test_a_site_without_a_place_uses_up_nothing_of_its_source(tmp_path: pathlib.Path) -> None:
    """Once each of its tries took one of the connections that the source may begin, and other sites were not called."""
    source = SourceShaping(connections=1, all_sites=AllSites(connection_rate=Rate(1 / 3600)))
    async with fault_server() as server, relay_from(tmp_path, server, source, site_count=2) as relay:
        elsewhere = relay.shares.share("site 0\n source mail1")
        assert elsewhere.try_connection(1)
        await relay.send(b"b@s0.example")
        (ready,) = relay.scheduler.ready_queues()
        assert not ready.may_connect()
        await relay.send(b"b@s1.example")
        (event,) = await relay.outcomes(1)
        assert event["to"] == "b@s1.example"
        elsewhere.give_back()


@on_uvloop
async def test_who_waits_for_a_rate_goes_on_when_a_reload_takes_it_away(tmp_path: pathlib.Path) -> None:
    """Once it came when the rate that it had begun to wait for would have let it, an hour later."""
    async with (
        fault_server() as server,
        relay_from(tmp_path, server, in_all(connection_rate=Rate(1 / 3600)), site_count=2) as relay,
    ):
        await send_to_all(relay, 2, 1)
        await relay.outcomes(1)
        (other,) = (ready for ready in relay.scheduler.ready_queues() if ready.count)
        await until(lambda: explain.queue_facts(other).is_in_dial_line)
        elsewhere = relay.shares.share("\0\n source mail1")
        assert elsewhere.try_connection(9)              # another worker has the only place when the rate goes
        relay.reload(limited(in_all(connections=1)))
        await until(lambda: elsewhere.machine_count == 1)
        for _ in range(3):
            await asyncio.sleep(0)                      # who stands in line has been told of our own
        elsewhere.give_back()
        await relay.outcomes(2)


@on_uvloop
async def test_who_stands_in_line_for_a_rate_goes_on_when_a_reload_takes_it_away(tmp_path: pathlib.Path) -> None:
    """Likewise; the source keeps another limit, so that its line stays."""
    source = in_all(message_rate=Rate(1 / 3600), connections=5)
    async with fault_server() as server, relay_from(tmp_path, server, source, site_count=1) as relay:
        await send_to_all(relay, 1, 3)
        await relay.outcomes(1)
        (ready,) = relay.scheduler.ready_queues()
        await until(lambda: explain.queue_facts(ready).is_in_line)
        relay.reload(limited(in_all(connections=5)))
        await relay.outcomes(3)
