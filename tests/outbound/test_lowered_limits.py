"""Limits on connections that become lower while there are more: as many end as there are too many, and no more."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from outbound.fault_server import fault_server
from outbound.outgoing import Outgoing, on_uvloop, outgoing, until
from outbound.test_source_limits import DOMAINS, busy, sites

from angarium.model.units import Duration
from angarium.outbound.options import OutboundOptions
from angarium.queue.adjustments import Adjustment, Adjustments
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import (
    AllSites,
    ProviderShaping,
    ShapingDefault,
    ShapingTables,
    SourceShaping,
    TenantShaping,
)
from angarium.spool.envelope import Attribute

EIGHT = OutboundOptions(window_first=8)
WHOSE = [
    "site", "provider", "tenant", "tenant over all sites", "source",
    "measure", "measure for a source", "cap of a tenant", "slowed tenant",
]  # fmt: skip


def limited(whose: str, connections: int) -> Shaping:
    own: dict[str, Any] = {"tenant": {"shop": TenantShaping(bdat=True)}}
    if whose.startswith("tenant"):
        own["tenant"] = {"shop": TenantShaping(connections=connections, share="all sites" in whose)}
    if whose == "source":
        own["source"] = {"default": SourceShaping(all_sites=AllSites(connections=connections))}
    if whose == "provider":
        own["provider"] = {"p": ProviderShaping(domains=DOMAINS, connections=connections, share=True)}
    default = {"site": connections, "slowed tenant": 24}.get(whose, 40)
    return Shaping(ShapingTables(default=ShapingDefault(connections=default, idle_time=Duration(30)), **own))


def hold(relay: Outgoing, whose: str, connections: int) -> None:
    """From now on it has so many."""
    adjustment = {
        "measure": Adjustment(site="site 0", connections=connections),
        "measure for a source": Adjustment(site="site 0", source="default", connections=connections),
        "cap of a tenant": Adjustment(tenant="shop", connections=connections),
        "slowed tenant": Adjustment(tenant="shop", factor=24 / connections),
    }.get(whose)
    if adjustment is not None:
        relay.scheduler.set_adjustments(Adjustments([adjustment]))
    else:
        relay.reload(limited(whose, connections))


async def send(relay: Outgoing, count: int) -> None:
    shop = {Attribute.TENANT: b"shop"}
    await asyncio.gather(*(relay.send(b"b@s0.example", attributes=shop) for _ in range(count)))


@pytest.mark.parametrize("whose", WHOSE)
@on_uvloop
async def test_connections_at_work_end_behind_their_message(tmp_path: pathlib.Path, whose: str) -> None:
    """Once only new connections met the limit, and a queue that was busy kept all that it had."""
    async with (
        fault_server() as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited(whose, 8), options=EIGHT) as relay,
    ):
        hold(relay, whose, 8)
        await send(relay, 3000)
        await until(lambda: server.open_now == 8)
        (ready,) = busy(relay)
        hold(relay, whose, 3)
        await until(lambda: server.open_now <= 3)
        assert ready.count, "it was to give them up at work, not when all was done"
        await until(lambda: ready.delivered_count == 3000)
        assert (server.open_now, server.connections, ready.connections) == (3, 8, 3), "more ended than had to"


@pytest.mark.parametrize("whose", WHOSE)
@on_uvloop
async def test_idle_connections_end_at_once(tmp_path: pathlib.Path, whose: str) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, sites(server, 1), shaping=limited(whose, 8), options=EIGHT) as relay,
    ):
        hold(relay, whose, 8)
        await send(relay, 400)
        await until(lambda: server.open_now > 2 and len(server.received) == 400)
        hold(relay, whose, 2)
        await until(lambda: server.open_now == 2)
        (ready,) = busy(relay)
        await send(relay, 50)
        await until(lambda: ready.delivered_count == 450)
        assert (server.open_now, ready.connections) == (2, 2)


@on_uvloop
async def test_what_other_workers_have_counts(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server() as server,
        outgoing(
            tmp_path, sites(server, 1), shaping=limited("site", 40), options=OutboundOptions(window_first=4), workers=2
        ) as relay,
    ):
        elsewhere = relay.shares.share("site 0")
        assert [elsewhere.try_connection(40) for _ in range(3)] == [True] * 3
        await send(relay, 400)
        await until(lambda: len(server.received) == 400)
        here = server.open_now
        hold(relay, "site", here + 1)                  # two too many
        await until(lambda: server.open_now == here - 2)
        (ready,) = busy(relay)
        await send(relay, 200)
        await until(lambda: ready.delivered_count == 600)
        assert ready.connections == here + 1
        for _ in range(3):
            elsewhere.give_back()


@on_uvloop
async def test_a_cap_for_one_source_leaves_it_what_it_may_have_beside_others(tmp_path: pathlib.Path) -> None:
    """They are counted together, and those of the others must not be held against it."""
    async with (
        fault_server() as server,
        outgoing(
            tmp_path, sites(server, 1), shaping=limited("site", 40), options=OutboundOptions(window_first=6)
        ) as relay,
    ):
        others = relay.shares.share("site 0")
        assert [others.try_connection(40) for _ in range(20)] == [True] * 20
        await send(relay, 400)
        await until(lambda: server.open_now >= 4 and len(server.received) == 400)
        relay.scheduler.set_adjustments(Adjustments([Adjustment(site="site 0", source="default", connections=2)]))
        await until(lambda: server.open_now == 2)
        (ready,) = busy(relay)
        await send(relay, 100)
        await until(lambda: ready.delivered_count == 500)
        assert server.open_now == 2
        for _ in range(20):
            others.give_back()
