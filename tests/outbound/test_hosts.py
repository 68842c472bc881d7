"""Which host of a site is spoken to, and what becomes of its mail when none will talk."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from outbound.fault_server import CLOSE, Fault, fault_server
from outbound.outgoing import HOSTNAME, ONE_CONNECTION, on_uvloop, outgoing, smtp_site, to_here, until

from angarium.model.plan import Host, Site, Source
from angarium.outbound.options import OutboundOptions
from angarium.queue.shaping_options import ShapingOptions


@on_uvloop
async def test_when_all_hosts_fail_the_line_says_so(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={"greeting": b"554 5.7.1 blocked using dnsbl.example\r\n"}) as refusing:
        sites = {b"*": smtp_site(1, refusing.port)}
        async with outgoing(tmp_path, sites, shaping=ONE_CONNECTION) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "deferred"
            assert event["reply"] == "all 2 addresses failed, the last with: 5.7.1 blocked using dnsbl.example"
            assert event["class"] == "spam-source"


@on_uvloop
async def test_next_host_takes_the_mail_when_the_first_will_not(tmp_path: pathlib.Path) -> None:
    """RFC 5321 §5.1: by preference, and on to the next when one cannot be reached or will not talk."""
    async with fault_server(faults={"greeting": b"554 no\r\n"}) as refusing, fault_server() as good:
        sites = {b"*": smtp_site(refusing.port, 1, good.port)}
        async with outgoing(tmp_path, sites, shaping=ONE_CONNECTION) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "delivered"
            assert event["remote"].startswith("mx2.example.net[")
            assert len(relay.dispatcher.dialer.broken) == 2
        assert refusing.connections == 1


@pytest.mark.parametrize(
    "fault", [b"421 4.3.2 too busy\r\n", b"450 later\r\n", b"554 never\r\n", CLOSE, b"???\r\n"]
)
@on_uvloop
async def test_a_site_that_will_not_talk_defers_everything_with_one_dial(
    tmp_path: pathlib.Path, fault: Fault
) -> None:
    options = OutboundOptions(site_pause_first_s=60)
    async with (
        fault_server(faults={"greeting": fault}) as server,
        outgoing(tmp_path, to_here(server.port), options=options, shaping=ONE_CONNECTION) as relay,
    ):
        await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(10)))
        await until(lambda: relay.events("deferred"))
        deferred = len(relay.events("deferred"))
        assert all(event["status"].startswith("4.") for event in relay.events("deferred"))
        await relay.send(b"later@y.example")
        assert server.connections == 1, "one dial an interval, not one a message"
        assert len(relay.events("deferred")) == deferred


@on_uvloop
async def test_a_site_that_comes_back_is_found_after_the_pause(tmp_path: pathlib.Path) -> None:
    options = OutboundOptions(site_pause_first_s=0.2)
    async with (
        fault_server(faults={"greeting": [CLOSE]}) as server,
        outgoing(tmp_path, to_here(server.port), options=options, shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send(b"first@y.example")
        await relay.outcomes(1)
        await relay.send(b"second@y.example")
        assert [event["event"] for event in await relay.outcomes(2)] == ["deferred", "delivered"]


@on_uvloop
async def test_host_that_does_not_accept_mail_at_all_fails(tmp_path: pathlib.Path) -> None:
    """RFC 7504 §4: 521 from every host of the site is for good."""
    async with (
        fault_server(faults={"greeting": b"521 5.3.2 no mail here\r\n"}) as server,
        outgoing(tmp_path, to_here(server.port), shaping=ONE_CONNECTION) as relay,
    ):
        await relay.send(b"b@y.example")
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["code"], event["status"]) == ("failed", 521, "5.3.2")


@on_uvloop
async def test_source_address_is_bound_and_its_name_said(tmp_path: pathlib.Path) -> None:
    source = Source("ip-2", "127.0.0.2", "out2.example.org")
    peers: list[str] = []
    async with fault_server() as server:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peers.append(writer.get_extra_info("peername")[0])
            await server.serve(reader, writer)

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with outgoing(tmp_path, to_here(port), source=source) as relay:
            await relay.send(b"b@y.example")
            (event,) = await relay.outcomes(1)
            assert event["event"] == "delivered"
            assert event["source"] == "ip-2"
        assert peers == ["127.0.0.2"]
        assert server.commands[0] == b"EHLO out2.example.org"
        listening.close()


@on_uvloop
async def test_no_address_of_the_family_of_the_source(tmp_path: pathlib.Path) -> None:
    source = Source("v6", "::1")
    async with fault_server() as server, outgoing(tmp_path, to_here(server.port), source=source) as relay:
        await relay.send(b"b@y.example")
        (event,) = await relay.outcomes(1)
        assert (event["event"], event["status"]) == ("deferred", "4.4.4")
        assert server.connections == 0


@on_uvloop
async def test_greeting_with_our_own_name_is_a_loop_on_port_25_only(tmp_path: pathlib.Path) -> None:
    greeting = f"220 {HOSTNAME} ESMTP\r\n".encode()
    async with (
        fault_server(faults={"greeting": greeting}) as server,
        outgoing(tmp_path, to_here(server.port)) as relay,
    ):
        await relay.send(b"b@y.example")
        (event,) = await relay.outcomes(1)
        assert event["event"] == "delivered", "another port may well be a filter of ours"


@on_uvloop
async def test_hosts_of_equal_preference_share_the_connections(tmp_path: pathlib.Path) -> None:
    async with fault_server(faults={}) as one, fault_server(faults={}) as two:
        hosts = (
            Host("a.example", ("127.0.0.1",), one.port, 10),
            Host("b.example", ("127.0.0.1",), two.port, 10),
        )
        shaping = ShapingOptions(connections=40, messages_per_connection=1)
        async with outgoing(tmp_path, {b"*": Site("both", "smtp", hosts)}, shaping=shaping) as relay:
            await asyncio.gather(*(relay.send(b"r%d@y.example" % i) for i in range(40)))
            await relay.outcomes(40)
            assert len(one.received) > 4
            assert len(two.received) > 4
