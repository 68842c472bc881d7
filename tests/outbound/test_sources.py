"""Mail leaves from the addresses of its pool, and goes around those that this machine does not have."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from outbound.fault_server import FaultServer, fault_server
from outbound.outgoing import Outgoing, on_uvloop, outgoing, smtp_site, until

from angarium.model.plan import Host, Site
from angarium.model.tlsa import Tlsa, TlsaState
from angarium.outbound.egress_socket import SourceUnusable
from angarium.outbound.options import OutboundOptions
from angarium.queue import orders
from angarium.queue.inspect import id_text
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ShapingTables, TenantShaping
from angarium.routing.egress_pool import source_of
from angarium.routing.egress_rules import egress_pools
from angarium.routing.options import EgressOptions, PoolOptions, SourceOptions
from angarium.routing.source_health import SourceHealth
from angarium.spool.envelope import Attribute, decode_id

NOT_OURS = "198.51.100.9"     # TEST-NET-2: no machine has it
QUICK = OutboundOptions(source_retry_first_s=0.05, site_pause_first_s=0.1)
SOURCES = {
    "mail1": SourceOptions(address="127.0.0.11", ehlo="mail1.example"),
    "mail2": SourceOptions(address="127.0.0.12", ehlo="mail2.example"),
    "lost": SourceOptions(address=NOT_OURS, ehlo="lost.example"),
}


@contextlib.asynccontextmanager
async def relay_by(
    directory: pathlib.Path,
    server: FaultServer,
    pools: Mapping[str, Mapping[str, int]],
    *rules: EgressOptions,
    sources: Mapping[str, SourceOptions] = SOURCES,
    site: Site | None = None,
    settings: OutboundOptions = QUICK,
    **more: Any,
) -> AsyncIterator[Outgoing]:
    health = SourceHealth()
    options = {name: PoolOptions(sources=dict(weights)) for name, weights in pools.items()}
    made = egress_pools(sources, options, rules, "relay.example", health=health)
    sites = {b"*": site or smtp_site(server.port)}
    async with outgoing(directory, sites, pools=made, health=health, options=settings, **more) as relay:
        yield relay


def reload(relay: Outgoing, sources: Mapping[str, SourceOptions]) -> None:
    """As the relay does it: other sources, all of them in the one pool."""
    queue, watch = relay.scheduler, relay.dispatcher.sources
    pools = egress_pools(sources, {"default": PoolOptions()}, (), "relay.example", health=watch.health)
    queue.reconfigure(router=queue.router, pool=pools, shaping=queue.shaping, options=queue.options)
    watch.keep([source_of(name, each, "relay.example") for name, each in sources.items()])


@on_uvloop
async def test_mail_leaves_from_the_addresses_of_its_pool_by_their_weight(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, relay_by(tmp_path, server, {"default": {"mail1": 3, "mail2": 1}}) as relay:
        for _ in range(200):
            await relay.send(b"b@y.example")
        sources = Counter(event["source"] for event in await relay.outcomes(200))
        assert 120 <= sources["mail1"] <= 180 and sources["mail1"] + sources["mail2"] == 200
        assert set(server.peers) == {"127.0.0.11", "127.0.0.12"}
        assert {line for line in server.commands if line.startswith(b"EHLO")} == {
            b"EHLO mail1.example", b"EHLO mail2.example"
        }  # fmt: skip


@on_uvloop
async def test_a_message_keeps_its_source_at_each_attempt(tmp_path: pathlib.Path) -> None:
    pools = {"default": {"mail1": 1, "mail2": 1}}
    later = {"RCPT": lambda _: b"450 4.2.0 later\r\n"}
    async with fault_server(faults=later) as server, relay_by(tmp_path, server, pools) as relay:
        ids = [await relay.send(b"b@y.example") for _ in range(20)]
        first = {event["id"]: event["source"] for event in await relay.outcomes(20)}
        assert set(first.values()) == {"mail1", "mail2"}
        for round_ in (2, 3):
            for id_ in ids:
                await orders.retry(relay.scheduler, id_text(id_))
            for event in await relay.outcomes(20 * round_):
                assert event["source"] == first[event["id"]]


@on_uvloop
async def test_a_source_that_a_site_turns_away_is_not_the_one_of_the_next_attempts(tmp_path: pathlib.Path) -> None:
    """The greeting is all that the site says: it has seen nothing but our address."""
    async with fault_server() as server:
        server.faults["greeting"] = lambda _: b"554 5.7.1 blocked\r\n" if server.peers[-1] == "127.0.0.11" else None
        async with relay_by(tmp_path, server, {"default": {"mail1": 1, "mail2": 1}}) as relay:
            ids = [await relay.send(b"b@y.example") for _ in range(10)]
            await relay.outcomes(10)
            for _ in range(200):
                left = set(ids) - {decode_id(event["id"]) for event in relay.events("delivered")}
                if not left:
                    break
                for id_ in left:
                    await orders.retry(relay.scheduler, id_text(id_))
                await asyncio.sleep(0.05)
            assert len(relay.events("delivered")) == 10


@on_uvloop
async def test_mail_goes_by_the_other_members_while_a_source_is_not_plumbed(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, relay_by(tmp_path, server, {"default": {"lost": 9, "mail2": 1}}) as relay:
        for _ in range(50):
            await relay.send(b"b@y.example")
        events = await relay.outcomes(50)
        assert {(event["event"], event["source"], event["attempt"]) for event in events} == {("delivered", "mail2", 1)}
        (told,) = relay.events("source-suspended")
        assert (told["source"], told["address"]) == ("lost", NOT_OURS)
        assert told["reason"] == f"{NOT_OURS} is not an address of this machine"
        assert set(server.peers) == {"127.0.0.12"}


@on_uvloop
async def test_a_message_leaves_by_its_pool_under_the_limits_of_its_tenant(tmp_path: pathlib.Path) -> None:
    """Both are in the key of its domain queue; neither hides the other."""
    shaping = Shaping(ShapingTables(tenant={"shop": TenantShaping(recipients_per_transaction=1)}))
    pools = {"default": {"mail1": 1}, "bulk": {"mail2": 1}, "ads": {"mail3": 1}}
    sources = {**SOURCES, "mail3": SourceOptions(address="127.0.0.13")}
    rule = EgressOptions(pool="ads", tenant="shop", campaign="spring")
    both = [b"b@y.example", b"c@y.example"]
    of_shop = {int(Attribute.TENANT): b"shop"}
    async with (
        fault_server() as server,
        relay_by(tmp_path, server, pools, rule, sources=sources, shaping=shaping) as relay,
    ):
        for attributes, source, transactions in (
            (of_shop, "mail1", 2),
            ({**of_shop, Attribute.POOL: b"bulk"}, "mail2", 2),
            ({**of_shop, Attribute.CAMPAIGN: b"spring"}, "mail3", 2),
            ({Attribute.TENANT: b"other", Attribute.POOL: b"bulk"}, "mail2", 1),
        ):
            told, taken = len(relay.events("delivered")), len(server.received)
            await relay.send(both, attributes=attributes)
            events = await relay.outcomes(told + 2)
            assert {event["source"] for event in events[told:]} == {source}
            assert len(server.received) - taken == transactions


@on_uvloop
async def test_tls_against_one_host_does_not_hide_that_the_source_is_down(tmp_path: pathlib.Path) -> None:
    """The other members of the pool are asked: of the host that mail may go to nothing is known."""
    unknown = Tlsa(TlsaState.TROUBLE, "mx1.example", (), "SERVFAIL")
    async with fault_server() as server:
        hosts = (
            Host("mx1.example", ("127.0.0.1",), server.port, 10, unknown),
            Host("mx2.example", ("127.0.0.1",), server.port, 20),
        )
        site = Site("mx1.example,mx2.example", "smtp", hosts)
        async with relay_by(tmp_path, server, {"default": {"lost": 9, "mail2": 1}}, site=site) as relay:
            for _ in range(20):
                await relay.send(b"b@y.example")
            events = await relay.outcomes(20)
            assert {(each["event"], each["source"], each["attempt"]) for each in events} == {("delivered", "mail2", 1)}


@on_uvloop
async def test_mail_waits_and_says_why_when_all_members_are_down(tmp_path: pathlib.Path) -> None:
    sources = {"mail2": SourceOptions(address=NOT_OURS), "mail3": SourceOptions(address="198.51.100.10")}
    async with fault_server() as server, relay_by(tmp_path, server, {"default": {}}, sources=sources) as relay:
        for _ in range(20):
            await relay.send(b"b@y.example")
        events = await relay.outcomes(20)
        assert {event["event"] for event in events} == {"deferred"}
        assert {event["status"] for event in events} == {"4.3.5"}
        assert {event["reply"] for event in events} <= {
            f"source mail2 {NOT_OURS} is not an address of this machine",
            "source mail3 198.51.100.10 is not an address of this machine",
        }
        assert server.connections == 0


@on_uvloop
async def test_a_source_that_comes_back_is_used_again(tmp_path: pathlib.Path) -> None:
    """With the only source of the pool: mail that comes meanwhile waits in its ready queue for the next dial."""
    sources = {"mail1": SOURCES["mail1"]}
    async with fault_server() as server, relay_by(tmp_path, server, {"default": {}}, sources=sources) as relay:
        watch = relay.dispatcher.sources
        is_there = asyncio.Event()

        async def look(source: Any, address: str) -> None:
            if not is_there.is_set():
                raise SourceUnusable(f"{address} is not an address of this machine")

        watch._look_at = look
        (source,) = relay.scheduler.pool.default.sources
        watch.suspend(source, "127.0.0.11", "127.0.0.11 is not an address of this machine")
        await relay.send(b"b@y.example")
        (event,) = await relay.outcomes(1)
        assert event["event"] == "deferred"
        await until(lambda: watch.shown()[0]["tries"] >= 2)
        is_there.set()
        await until(lambda: relay.events("source-resumed"))
        assert not watch.shown()
        await relay.send(b"c@y.example")
        assert (await relay.outcomes(2))[1]["event"] == "delivered"
        assert len(relay.events("source-suspended")) == 1


@on_uvloop
async def test_a_reload_that_adds_or_takes_an_address_decides_anew_whether_the_source_is_down(
    tmp_path: pathlib.Path,
) -> None:
    """With one more it stayed down as a whole for as long as the first one was."""
    one, both = SourceOptions(address=NOT_OURS), SourceOptions(address=["127.0.0.11", "::1"])
    mixed = SourceOptions(address=["::1", NOT_OURS])
    async with fault_server() as server, relay_by(tmp_path, server, {"default": {}}, sources={"mail1": one}) as relay:
        watch = relay.dispatcher.sources
        await relay.send(b"b@y.example")
        assert (await relay.outcomes(1))[0]["event"] == "deferred"
        assert list(watch.health.down) == ["mail1"]
        reload(relay, {"mail1": mixed})
        assert not watch.health.down and [each["address"] for each in watch.shown()] == [NOT_OURS]
        reload(relay, {"mail1": one})
        assert list(watch.health.down) == ["mail1"]
        reload(relay, {"mail1": both})
        assert not watch.health.down and not watch.shown()
        await relay.send(b"c@y.example")
        assert (await relay.outcomes(2))[1]["event"] == "delivered"


@on_uvloop
async def test_the_other_family_is_used_when_one_address_of_a_source_is_down(tmp_path: pathlib.Path) -> None:
    sources = {"both": SourceOptions(address=[NOT_OURS, "::1"], ehlo="both.example")}
    async with fault_server() as server:
        try:
            v6 = await asyncio.start_server(server.serve, "::1", server.port)
        except OSError:
            pytest.skip("no IPv6 here")
        host = Host("mx.example", ("127.0.0.1", "::1"), server.port)
        site = Site("mx.example", "smtp", (host,))
        async with relay_by(tmp_path, server, {"default": {}}, sources=sources, site=site) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "delivered" and server.peers == ["::1"]
            assert not relay.scheduler.pool.default._health.down
        v6.close()


@on_uvloop
async def test_members_that_a_site_has_no_address_for_are_not_drawn(tmp_path: pathlib.Path) -> None:
    sources = {"four": SourceOptions(address="127.0.0.11"), "six": SourceOptions(address="::1")}
    async with fault_server() as server, relay_by(tmp_path, server, {"default": {}}, sources=sources) as relay:
        for _ in range(20):
            await relay.send(b"b@y.example")
        assert {(each["event"], each["source"]) for each in await relay.outcomes(20)} == {("delivered", "four")}


@on_uvloop
async def test_the_pool_is_the_messages_own_or_that_of_the_first_rule_that_matches(tmp_path: pathlib.Path) -> None:
    pools = {"default": {"mail1": 1}, "second": {"mail2": 1}}
    rules = [
        EgressOptions(pool="default", tenant="acme", campaign="quiet"),
        EgressOptions(pool="second", tenant="acme"),
        EgressOptions(pool="second", sender=".news.example"),
        EgressOptions(pool="second", domain="bulk.example"),
    ]
    async with fault_server() as server, relay_by(tmp_path, server, pools, *rules) as relay:
        cases: list[tuple[bytes, bytes, dict[int, bytes], str]] = [
            (b"a@y.example", b"x@x.example", {}, "mail1"),
            (b"b@bulk.example", b"x@x.example", {}, "mail2"),
            (b"c@y.example", b"x@a.news.example", {}, "mail2"),
            (b"d@y.example", b"x@x.example", {Attribute.TENANT: b"acme"}, "mail2"),
            (b"e@y.example", b"x@x.example", {Attribute.TENANT: b"acme", Attribute.CAMPAIGN: b"quiet"}, "mail1"),
            (b"f@bulk.example", b"x@x.example", {Attribute.TENANT: b"other"}, "mail2"),
            (b"g@bulk.example", b"x@x.example", {Attribute.POOL: b"default"}, "mail1"),
        ]
        for to, sender, attributes, _ in cases:
            await relay.send(to, reverse_path=sender, attributes=attributes)
        found = {event["to"]: event["source"] for event in await relay.outcomes(len(cases))}
        assert found == {to.decode(): source for to, _, _, source in cases}


@on_uvloop
async def test_mail_for_a_pool_that_does_not_exist_waits(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server, relay_by(tmp_path, server, {"default": {"mail1": 1}}) as relay:
        await relay.send(b"b@y.example", attributes={Attribute.POOL: b"defualt"})
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.3.5")
        assert event["reply"] == 'The message\'s own pool: there is no [pool.defualt]; did the hook mean "default"?'
