"""Connections to a site: how many, how long they are kept, and how they end."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from outbound.fault_server import CLOSE, SILENCE, Fault, fault_server
from outbound.outgoing import ONE_CONNECTION, Outgoing, on_uvloop, outgoing, smtp_site, to_here, until

from angarium.model.plan import Site
from angarium.model.units import Duration
from angarium.queue.shaping_options import ShapingOptions


@on_uvloop
async def test_connection_is_kept_for_the_next_message_and_left_with_quit(tmp_path: pathlib.Path) -> None:
    shaping = ShapingOptions(idle_time=Duration(60))
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay:
        for i in range(3):
            await relay.send(b"b@y.example")
            await relay.outcomes(i + 1)
        relay.wheel.advance_by_ms(50_000)
        assert (server.connections, server.quits, server.open_now) == (1, 0, 1)
        relay.wheel.advance_by_ms(20_000)
        await until(lambda: server.quits == 1 and server.open_now == 0)
        await until(lambda: relay.dispatcher.status()[0]["idle"] == 0)
        await relay.send(b"b@y.example")
        await relay.outcomes(4)
        assert server.connections == 2


@on_uvloop
async def test_messages_per_connection_is_kept(tmp_path: pathlib.Path) -> None:
    shaping = ShapingOptions(connections=1, messages_per_connection=3)
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay:
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(10)))
        await relay.outcomes(10)
        per_connection = [
            sum(each.connection == number for each in server.received) for number in range(1, 5)
        ]
        assert per_connection == [3, 3, 3, 1]
        await until(lambda: server.quits == 3)


@on_uvloop
async def test_connections_stay_below_the_limit(tmp_path: pathlib.Path) -> None:
    shaping = ShapingOptions(connections=3)
    most = 0

    def slow(_: bytes) -> Fault:
        nonlocal most
        most = max(most, server.open_now)
        return None

    async with (
        fault_server(faults={"END": slow}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(60)))
        await relay.outcomes(60)
        assert 1 <= most <= 3
        assert server.connections <= 3


@on_uvloop
async def test_draining_finishes_what_is_in_hand_and_says_quit(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port)) as relay:
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(20)))
        await until(lambda: server.received)
        assert await relay.dispatcher.drain(20.0)
        # A connection that was still being greeted is given up without QUIT; of the others it may still be on its way.
        await until(lambda: server.open_now == 0)
        used = {each.connection for each in server.received}
        assert used
        assert all(b"QUIT\r\n" in b"".join(server.reads[number - 1]) for number in used)
        delivered = len(relay.events("delivered"))
        assert delivered == len(server.received)
        await until(lambda: relay.scheduler.depth()["messages"] == 20 - delivered)


@on_uvloop
async def test_draining_ends_at_its_deadline_and_loses_nothing(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(faults={"END": SILENCE}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(3)))
        await until(lambda: any(line.startswith(b"DATA") for line in server.commands))
        await asyncio.sleep(0.05)
        assert not await relay.dispatcher.drain(0.2)
        outcomes = relay.events("delivered", "deferred", "failed")
        assert [event["event"] for event in outcomes] == ["deferred"], (
            "the one whose body was out; the others wait"
        )
        assert relay.scheduler.depth()["messages"] == 3


async def warm(relay: Outgoing, count: int) -> None:
    for i in range(count):
        await relay.send(b"warm@y.example")
        await relay.outcomes(i + 1)


@on_uvloop
async def test_a_kept_connection_that_the_peer_has_closed_costs_no_attempt(tmp_path: pathlib.Path) -> None:
    """The peer closes idle connections sooner than we do: the message that meets that takes a new one."""
    async with (
        fault_server(faults={"MAIL": [None, CLOSE]}) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await warm(relay, 1)
        await relay.send(b"b@y.example")
        assert [event["event"] for event in await relay.outcomes(2)] == ["delivered", "delivered"]
        assert server.connections == 2


async def another_worker_takes_two_places(relay: Outgoing, site: Site) -> None:
    """Worker 1 asks for places of the site, as one with mail does, until it has its half of the four."""
    relay.shares.attach(1)
    share = relay.shares.share(site.name)
    relay.shares.attach(0)

    def ask() -> object:
        relay.shares.attach(1)
        if share.own < 2:
            share.try_connection(4)
        relay.shares.attach(0)
        return share.own == 2

    await until(ask)


@on_uvloop
async def test_idle_surplus_goes_when_another_worker_asks(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={"END": b"250 ok\r\n"}) as server:
        site = smtp_site(server.port)
        shaping = ShapingOptions(connections=4, idle_time=Duration(60))
        async with outgoing(tmp_path, {b"*": site}, shaping=shaping, workers=2) as relay:
            await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(100)))
            await relay.outcomes(100)
            (pool,) = relay.dispatcher.status()
            if pool["idle"] < 4:
                pytest.skip("the burst was over before four connections stood")
            await another_worker_takes_two_places(relay, site)
            assert relay.dispatcher.status()[0]["idle"] == 2
            assert server.quits == 2


@on_uvloop
async def test_busy_surplus_goes_behind_its_transaction(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server:
        site = smtp_site(server.port)
        async with outgoing(
            tmp_path, {b"*": site}, shaping=ShapingOptions(connections=4), workers=2
        ) as relay:
            done = False

            async def keep_sending() -> None:
                while not done:
                    await relay.send(b"b@y.example")

            senders = [asyncio.create_task(keep_sending()) for _ in range(20)]
            await until(lambda: server.open_now == 4)
            await another_worker_takes_two_places(relay, site)
            await until(lambda: server.open_now == 2)
            done = True
            await asyncio.gather(*senders)
            await until(lambda: relay.scheduler.depth()["messages"] == 0)
            assert not relay.events("deferred", "failed")
