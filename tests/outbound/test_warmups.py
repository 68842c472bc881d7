"""Sources that are warmed up: what they may not send goes by warm ones, or waits."""

from __future__ import annotations

import pathlib
from collections import Counter
from contextlib import AbstractAsyncContextManager
from typing import Any

from outbound.fault_server import FaultServer, fault_server
from outbound.outgoing import Outgoing, on_uvloop, outgoing, until

from angarium.model.plan import Host, Site
from angarium.outbound.options import OutboundOptions
from angarium.queue.rations import Rations
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ProviderShaping, ShapingDefault, ShapingTables
from angarium.routing.egress_rules import egress_pools
from angarium.routing.options import PoolOptions, SourceOptions
from angarium.routing.warmup import WarmupOptions, Warmups

SOURCES = {"warm": SourceOptions(address="127.0.0.11"), "new": SourceOptions(address="127.0.0.12")}
PROVIDERS = {"big": ProviderShaping(mx=["*.big.example"]), "own": ProviderShaping(domains=["own.example"])}


class Clock:
    day = 20000.0

    def __call__(self) -> float:
        return self.day * 86400


def relay_of(
    directory: pathlib.Path,
    server: FaultServer,
    clock: Clock,
    weights: dict[str, int],
    *,
    connections: int = 32,
    **plan: Any,
) -> AbstractAsyncContextManager[Outgoing]:
    options = WarmupOptions(sources=["new"], begins="2024-10-04", **plan)       # day 20000
    warmups = Warmups({"new": options}, PROVIDERS, Rations(clock))
    pools = egress_pools(SOURCES, {"default": PoolOptions(sources=weights)}, [], "relay.example", warmups=warmups)

    def site(name: str) -> Site:
        return Site(name, "smtp", (Host(name, ("127.0.0.1",), server.port),))

    shared = site("mx.shared.example")
    sites = {b"b.example": site("mx1.big.example"), b"own.example": shared, b"*": shared}
    shaping = Shaping(ShapingTables(default=ShapingDefault(connections=connections), provider=PROVIDERS))
    return outgoing(directory, sites, pools=pools, shaping=shaping, options=OutboundOptions(site_pause_first_s=0.1))


def by_source(events: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((event["source"], event["to"].partition("@")[2]) for event in events)


@on_uvloop
async def test_what_a_new_source_may_not_send_goes_by_a_warm_one(tmp_path: pathlib.Path) -> None:
    """And providers count apart, by their exchangers or by the recipients' domains."""
    clock = Clock()
    plan = {"schedule": [10, 20], "providers": {"big": [4, 8]}}
    async with fault_server() as server, relay_of(tmp_path, server, clock, {"warm": 1, "new": 9}, **plan) as relay:
        for to in (b"x@b.example", b"x@own.example", b"x@y.example"):
            for _ in range(60):
                await relay.send(to)
        events = await relay.outcomes(180)
        assert {event["event"] for event in events} == {"delivered"}
        sent = by_source(events)
        assert [sent["new", domain] for domain in ("b.example", "own.example", "y.example")] == [4, 10, 10]
        assert [sent["warm", domain] for domain in ("b.example", "own.example", "y.example")] == [56, 50, 50]

        clock.day += 1
        for _ in range(60):
            await relay.send(b"x@b.example")
        assert by_source(await relay.outcomes(240))["new", "b.example"] == 4 + 8
        clock.day += 1      # behind the schedule it is warm
        for _ in range(60):
            await relay.send(b"x@b.example")
        assert by_source(await relay.outcomes(300))["new", "b.example"] > 12 + 40


@on_uvloop
async def test_without_a_warm_source_mail_waits_and_says_why(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, relay_of(tmp_path, server, Clock(), {"new": 1}, schedule=[5]) as relay:
        for _ in range(12):
            await relay.send(b"x@b.example")
        events = await relay.outcomes(12)
        assert Counter(event["event"] for event in events) == {"delivered": 5, "deferred": 7}
        assert {(event["status"], event["reply"]) for event in events if event["event"] == "deferred"} == {
            ("4.4.5", "source new is warmed up, and has sent its 5 messages of today to big")
        }
        assert len(server.received) == 5
        (ready,) = relay.scheduler.ready_queues()
        await until(lambda: ready.connections == server.open_now)       # begun for the twelve, and under way still
        connections = server.connections
        await relay.send(b"x@b.example")
        await relay.outcomes(13)
        assert server.connections == connections, "nobody is called without a message to bring"


@on_uvloop
async def test_what_a_host_has_not_looked_at_does_not_count(tmp_path: pathlib.Path) -> None:
    """A host that takes two messages a connection and closes: each third one is given back untried, and of the plan
    nothing is lost."""
    enough = b"421 4.3.2 enough for one connection\r\n"
    async with (
        fault_server(faults={"MAIL": [None, None, enough] * 20}) as server,
        relay_of(tmp_path, server, Clock(), {"new": 1}, connections=1, schedule=[12]) as relay,
    ):
        for _ in range(20):
            await relay.send(b"x@b.example")
        assert Counter(event["event"] for event in await relay.outcomes(20)) == {"delivered": 12, "deferred": 8}
        assert len(server.received) == 12
