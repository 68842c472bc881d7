"""What [shaping] says, seen from the other side of the connection; and how concurrency follows what a site shows."""

from __future__ import annotations

import asyncio
import pathlib
import time
from typing import Any

from outbound.fault_server import SILENCE, Fault, fault_server
from outbound.outgoing import MESSAGE, Outgoing, lateness, on_uvloop, outgoing, smtp_site, until

from angarium.model.plan import Host, Site, Source
from angarium.model.units import Duration, Rate
from angarium.outbound.connection import Connection
from angarium.outbound.options import OutboundOptions
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import (
    DomainShaping,
    ProviderShaping,
    ShapingDefault,
    ShapingOptions,
    ShapingTables,
    SiteShaping,
    SourceShaping,
    TenantShaping,
)
from angarium.spool.envelope import Attribute


def to_here(port: int) -> dict[bytes, Site]:
    return {b"*": smtp_site(port)}


async def send(relay: Outgoing, count: int, domain: bytes = b"y.example", tenant: bytes = b"") -> None:
    attributes = {int(Attribute.TENANT): tenant} if tenant else None
    await asyncio.gather(*(relay.send(b"r%d@%s" % (i, domain), attributes=attributes) for i in range(count)))


@on_uvloop
async def test_a_domain_with_a_table_has_connections_of_its_own(tmp_path: pathlib.Path) -> None:
    shaping = ShapingTables(
        default=ShapingDefault(connections=2), domain={"slow.example": DomainShaping(messages_per_connection=1)}
    )
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), shaping=Shaping(shaping)) as relay:
        await send(relay, 5, b"slow.example")
        await send(relay, 5)
        await relay.outcomes(10)
        domains: dict[int, set[bytes]] = {}
        for each in server.received:
            domains.setdefault(each.connection, set()).update(rcpt.rpartition(b"@")[2] for rcpt in each.rcpts)
        slow = [found for found in domains.values() if any(b"slow" in domain for domain in found)]
        assert len(slow) == 5 and all(len(found) == 1 for found in domains.values())


@on_uvloop
async def test_connections_of_a_shared_provider_are_counted_over_its_sites(tmp_path: pathlib.Path) -> None:
    peak = 0

    def came(_: bytes) -> Fault:
        nonlocal peak
        peak = max(peak, first.open_now + second.open_now)
        return None

    async with fault_server(faults={"MAIL": came}) as first, fault_server(faults={"MAIL": came}) as second:
        sites = {b"a.example": smtp_site(first.port), b"b.example": smtp_site(second.port)}
        shaping = ShapingTables(
            provider={"p": ProviderShaping(domains=["a.example", "b.example"], connections=3, share=True)}
        )
        async with outgoing(tmp_path, sites, shaping=Shaping(shaping)) as relay:
            await asyncio.gather(send(relay, 60, b"a.example"), send(relay, 60, b"b.example"))
            await relay.outcomes(120)
    assert 1 < peak <= 3
    assert len(first.received) == len(second.received) == 60


@on_uvloop
async def test_an_idle_connection_makes_room_for_another_site_that_counts_with_it(tmp_path: pathlib.Path) -> None:
    """It would have kept the only place for a minute."""
    async with fault_server() as first, fault_server() as second:
        sites = {b"a.example": smtp_site(first.port), b"b.example": smtp_site(second.port)}
        provider = ProviderShaping(mx=["*.example.net"], connections=1, share=True, idle_time=Duration(60))
        async with outgoing(tmp_path, sites, shaping=Shaping(ShapingTables(provider={"p": provider}))) as relay:
            for number in range(3):
                await send(relay, 1, b"a.example")
                await relay.outcomes(number * 2 + 1)
                await send(relay, 1, b"b.example")
                await relay.outcomes(number * 2 + 2)
            assert first.connections == second.connections == 3


@on_uvloop
async def test_a_ready_queue_is_forgotten_though_another_site_of_its_provider_is_busy(tmp_path: pathlib.Path) -> None:
    async with fault_server() as first, fault_server() as second:
        sites = {b"a.example": smtp_site(first.port), b"b.example": smtp_site(second.port)}
        provider = ProviderShaping(mx=["*.example.net"], share=True)
        tables = ShapingTables(
            provider={"p": provider}, site={sites[b"a.example"].name: SiteShaping(idle_time=Duration(0.1))}
        )
        async with outgoing(tmp_path, sites, shaping=Shaping(tables)) as relay:
            await send(relay, 1, b"a.example")
            await send(relay, 1, b"b.example")
            await relay.outcomes(2)
            await until(lambda: first.open_now == 0)
            assert second.open_now == 1
            scheduler = relay.scheduler     # plans that never expire keep their ready queues
            anew = Shaping(tables)
            scheduler.reconfigure(router=scheduler.router, pool=scheduler.pool, shaping=anew, options=QueueOptions())

            def is_forgotten() -> bool:
                relay.scheduler.sweep()
                return [ready.site for ready in relay.scheduler.ready_queues()] == [sites[b"b.example"]]

            await until(is_forgotten)


@on_uvloop
async def test_connections_begun_keep_to_their_rate(tmp_path: pathlib.Path) -> None:
    begun: list[float] = []
    shaping = ShapingOptions(connection_rate=Rate.decode("20/s"), messages_per_connection=1)
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay,
        lateness() as lost_s,
    ):
        dial = relay.dispatcher.dialer.dial

        async def dial_and_tell(*arguments: Any, **named: Any) -> Connection:
            begun.append(time.monotonic())
            return await dial(*arguments, **named)

        relay.dispatcher.dialer.dial = dial_and_tell    # type: ignore[method-assign]
        asked = time.monotonic()
        await send(relay, 12)
        stored = time.monotonic()
        await relay.outcomes(12)
        assert server.connections == 12
        # A burst of two, then one in each 50 ms; a task begins a moment behind the decision.
        assert begun[-1] - asked >= 10 * 0.05 - 0.01
        assert begun[-1] - stored - lost_s() < 2.0


@on_uvloop
async def test_the_rate_of_a_tenant_holds_up_nobody_else(tmp_path: pathlib.Path) -> None:
    shaping = Shaping(
        ShapingTables(
            default=ShapingDefault(message_rate=Rate.decode("200/s")),
            tenant={"shop": TenantShaping(message_rate=Rate.decode("1/m"))},
        )
    )
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay:
        await send(relay, 3, tenant=b"shop")
        await send(relay, 10, tenant=b"else")
        await send(relay, 10)
        await until(lambda: len(relay.events("delivered")) >= 21)
        assert len(server.received) == 21       # the burst of the tenant is one
        # A new limit holds at once, and for who waits already.
        relay.scheduler.reconfigure(
            router=relay.scheduler.router, pool=relay.scheduler.pool, shaping=ShapingOptions(), options=QueueOptions()
        )
        await relay.outcomes(23)


@on_uvloop
async def test_a_tenants_rate_and_the_sites_hold_together(tmp_path: pathlib.Path) -> None:
    """Once one of them is used up nothing is taken of the other."""
    shaping = Shaping(
        ShapingTables(
            default=ShapingDefault(message_rate=Rate.decode("40/s")),
            tenant={"shop": TenantShaping(message_rate=Rate.decode("10/s"))},
        )
    )
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay,
        lateness() as lost_s,
    ):
        begin = time.monotonic()
        await asyncio.gather(send(relay, 10, tenant=b"shop"), send(relay, 30))
        stored = time.monotonic()
        await relay.outcomes(40)
        end = time.monotonic()
        assert end - begin >= 0.85 and end - stored - lost_s() < 2.0
        assert len(server.received) == 40


@on_uvloop
async def test_sources_have_limits_of_their_own(tmp_path: pathlib.Path) -> None:
    shaping = Shaping(ShapingTables(source={"new": SourceShaping(connections=1, messages_per_connection=2)}))
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server.port), shaping=shaping, source=Source("new")) as relay,
    ):
        await send(relay, 6)
        await relay.outcomes(6)
        assert server.connections == 3


@on_uvloop
async def test_a_phase_may_take_no_longer_than_is_set(tmp_path: pathlib.Path) -> None:
    for verb, key, text in (
        ("greeting", "greeting_timeout", "waiting for the greeting"),
        ("EHLO", "hello_timeout", "saying EHLO"),
        ("MAIL", "mail_timeout", "at MAIL"),
        ("RCPT", "rcpt_timeout", "at RCPT"),
        ("DATA", "data_timeout", "at DATA"),
        ("END", "end_timeout", "at end of data"),
    ):
        folder = tmp_path / verb
        folder.mkdir()
        shaping = ShapingOptions(**{key: Duration(0.2)})
        async with (
            fault_server(faults={verb: SILENCE}) as server,
            outgoing(folder, to_here(server.port), shaping=shaping) as relay,
        ):
            await relay.send(b"r@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "deferred"
            assert "timed out" in event["reply"] and text in event["reply"]


@on_uvloop
async def test_pipelining_and_bdat_are_left_alone_where_they_are_switched_off(tmp_path: pathlib.Path) -> None:
    shaping = Shaping(ShapingTables(site={"mx0.example.net": SiteShaping(pipelining=False, bdat=False)}))
    extensions = [b"PIPELINING", b"CHUNKING", b"8BITMIME"]
    async with (
        fault_server(extensions=extensions) as server,
        outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay,
    ):
        await relay.send([b"r@y.example", b"s@y.example"])
        await relay.outcomes(2)
        assert [each.by for each in server.received] == ["DATA"]
        behind_hello = server.reads[0][1:]
        assert all(read.count(b"\r\n") == 1 for read in behind_hello if not read.startswith(MESSAGE[:8]))


@on_uvloop
async def test_a_family_that_is_insisted_on_or_preferred(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server:
        hosts = (Host("mx.example.net", ("::1", "127.0.0.1"), server.port),)
        site = Site("mx.example.net", "smtp", hosts)
        for family, remote in (("ipv4", "127.0.0.1"), ("prefer-ipv4", "127.0.0.1")):
            folder = tmp_path / family
            folder.mkdir()
            shaping = ShapingOptions(address_family=family)  # type: ignore[arg-type]
            async with outgoing(folder, {b"*": site}, shaping=shaping) as relay:
                await relay.send(b"r@y.example")
                (event,) = await relay.outcomes(1)
                assert (event["event"], f"[{remote}]" in event["remote"]) == ("delivered", True)
        only = Site("mx4.example.net", "smtp", (Host("mx4.example.net", ("127.0.0.1",), server.port),))
        folder = tmp_path / "ipv6"
        folder.mkdir()
        async with outgoing(folder, {b"*": only}, shaping=ShapingOptions(address_family="ipv6")) as relay:
            await relay.send(b"r@y.example")
            (event,) = await relay.outcomes(1)
            assert "over IPv6 only" in event["reply"] and event["status"] == "4.4.4"


@on_uvloop
async def test_a_domain_with_a_schedule_of_its_own_is_tried_again_by_that(tmp_path: pathlib.Path) -> None:
    shaping = Shaping(
        ShapingTables(domain={"quick.example": DomainShaping(retry=RetryOptions(first=Duration(0.2), jitter=0.0))})
    )
    faults: dict[str, Fault | list[Fault]] = {"RCPT": [b"450 4.2.0 later\r\n"] * 2}
    async with (
        fault_server(faults=faults) as server,  # type: ignore[arg-type]
        outgoing(tmp_path, to_here(server.port), shaping=shaping) as relay,
    ):
        await relay.send(b"a@y.example")            # an hour (outgoing.py)
        await relay.outcomes(1)
        await relay.send(b"b@quick.example")
        found = await relay.outcomes(3)
        assert [event["event"] for event in found] == ["deferred", "deferred", "delivered"]
        assert found[2]["to"] == "b@quick.example"


@on_uvloop
async def test_places_taken_before_a_reload_are_given_back_where_they_are_counted_now(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), shaping=ShapingOptions()) as relay:
        await send(relay, 5)
        await relay.outcomes(5)
        (ready,) = relay.scheduler.ready_queues()
        await until(lambda: ready.connections == server.open_now > 0)       # dials may be under way still
        provider = ProviderShaping(mx=["mx0.example.net", "*.example.net"], connections=1, share=True)
        site = smtp_site(server.port)
        shared = ShapingTables(provider={"p": provider}, site={site.name: SiteShaping(idle_time=Duration(60))})
        relay.scheduler.reconfigure(
            router=relay.scheduler.router, pool=relay.scheduler.pool, shaping=Shaping(shared), options=QueueOptions()
        )
        await until(lambda: ready.connection_limit == 1)
        assert relay.shares.share(site.name).machine_count == 0
        await until(lambda: ready.connections == server.open_now > 0)       # some are too many, and on their way out
        relay.wheel.advance_by_ms(61_000)
        await until(lambda: server.open_now == 0)
        await until(lambda: ready.connections == 0)
        await send(relay, 3)
        await relay.outcomes(8)
        assert ready.connections == 1


# ---- feedback


def window(relay: Outgoing) -> int:
    return int(relay.dispatcher.status()[0]["window"])


@on_uvloop
async def test_the_window_grows_with_successes_up_to_the_limit(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server.port), shaping=ShapingOptions(connections=12)) as relay,
    ):
        await send(relay, 100)
        await relay.outcomes(100)
        assert window(relay) == 12


class SlowServer:
    """Takes every message, 30 ms after its end; the first only once it is told to go on."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.open_now = 0
        self.peak = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.peak = max(self.peak, self.open_now)
        writer.write(b"220 slow.example ESMTP\r\n")
        while line := await reader.readline():
            if line == b"DATA\r\n":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                await self.go_on.wait()
                await asyncio.sleep(0.03)       # a slow receiver; nothing is judged by it
            writer.write(b"250 ok\r\n")
        self.open_now -= 1
        writer.close()


@on_uvloop
async def test_connections_to_a_backlog_grow_though_nothing_new_comes(tmp_path: pathlib.Path) -> None:
    server = SlowServer()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        site = to_here(listening.sockets[0].getsockname()[1])
        options = OutboundOptions(window_first=1)
        async with outgoing(tmp_path, site, shaping=ShapingOptions(connections=6), options=options) as relay:
            await send(relay, 100)
            await until(lambda: relay.dispatcher.status()[0]["busy"] == 1)
            server.go_on.set()
            await until(lambda: server.peak == 6, timeout_s=20)
            await relay.outcomes(100, timeout_s=20)


@on_uvloop
async def test_a_421_halves_what_is_in_use_at_once_and_successes_bring_it_back_slowly(tmp_path: pathlib.Path) -> None:
    """Once the window had grown far beyond the connections that there were: halving it meant nothing."""
    is_busy = False

    def end(_: bytes) -> Fault:
        nonlocal is_busy
        if is_busy:
            is_busy = False
            return b"421 4.7.0 too much\r\n"
        return None

    async with (
        fault_server(faults={"END": end}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ShapingOptions(connections=8)) as relay,
    ):
        await send(relay, 500)
        await relay.outcomes(500)
        assert window(relay) == 8
        is_busy = True
        await relay.send(b"busy@y.example")
        await relay.outcomes(501)
        narrowed = window(relay)
        assert narrowed <= 4
        await send(relay, narrowed)
        await relay.outcomes(501 + narrowed)
        assert window(relay) <= narrowed + 1, "one more for each round, not for each success"
        await send(relay, 200)
        await relay.outcomes(701 + narrowed)
        assert window(relay) == 8


@on_uvloop
async def test_one_trouble_that_ends_all_connections_counts_once(tmp_path: pathlib.Path) -> None:
    options = OutboundOptions(window_first=8, site_pause_first_s=0.2)
    async with (
        fault_server(faults={"MAIL": [b"421 4.3.2 going down\r\n"] * 8}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ShapingOptions(), options=options) as relay,
    ):
        server.may_greet.clear()        # until all are there: what comes a second later is another trouble
        await send(relay, 8)
        await until(lambda: server.open_now == 8)
        server.may_greet.set()
        await until(lambda: server.struck == 8 and relay.events("deferred"))
        assert window(relay) >= 3
        await send(relay, 1)
        await until(lambda: relay.events("delivered"))


@on_uvloop
async def test_a_dead_site_is_asked_by_one_connection(tmp_path: pathlib.Path) -> None:
    options = OutboundOptions(site_pause_first_s=60)
    async with (
        fault_server(faults={"greeting": b"421 4.3.2 too busy\r\n"}) as server,
        outgoing(tmp_path, to_here(server.port), options=options) as relay,
    ):
        await send(relay, 8)
        await until(lambda: len(relay.events("deferred")) == 8)
        assert window(relay) == 1
