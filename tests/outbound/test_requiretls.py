"""REQUIRETLS (RFC 8689) and TLS-Required: a message's own say in how it travels."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import msgspec
import pytest
from outbound.fault_server import CLOSE, fault_server
from outbound.outgoing import on_uvloop, outgoing
from outbound.tls_hops import (
    REQUIRETLS,
    TLS_OPTIONAL,
    UNDER_TLS,
    one,
    server_tls,
    shaping,
    tlsa,
    to_here,
    with_rule,
    with_tlsa,
)

from angarium.model.plan import Site


@on_uvloop
async def test_a_message_that_requires_tls_goes_where_requiretls_is_offered(tmp_path: pathlib.Path) -> None:
    """Whatever the site's policy is: RFC 8689 §4.2.1."""
    async with fault_server(tls=server_tls(), tls_extensions=UNDER_TLS) as server:
        for policy in ("none", "opportunistic", "required"):
            folder = tmp_path / policy
            folder.mkdir()
            async with outgoing(folder, to_here(server), shaping=shaping(folder, policy)) as relay:
                event = await one(relay, flags=REQUIRETLS)
                assert event["tls"] == "TLSv1.3"
        assert [each.mail for each in server.received] == [b"MAIL FROM:<a@x.example> REQUIRETLS"] * 3


@on_uvloop
@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, "5.7.10"),
        ({"tls": ("mx0.example.net", "authority")}, "5.7.30"),
        ({"tls": ("mx0.example.net", "stranger"), "tls_extensions": UNDER_TLS}, "5.7.10"),
        ({"tls": ("other.example.net", "authority"), "tls_extensions": UNDER_TLS}, "5.7.10"),
        ({"extensions": UNDER_TLS}, "5.7.10"),
    ],
    ids=["no STARTTLS", "no REQUIRETLS", "unknown authority", "other name", "REQUIRETLS in clear"],
)
async def test_a_message_that_requires_tls_fails_and_holds_up_no_other(
    tmp_path: pathlib.Path, settings: dict[str, Any], status: str
) -> None:
    if "tls" in settings:
        settings = {**settings, "tls": server_tls(*settings["tls"])}
    async with (
        fault_server(**settings) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "opportunistic")) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"       # leaves an idle connection that must not be taken
        event = await one(relay, flags=REQUIRETLS)
        assert (event["event"], event["status"]) == ("failed", status)
        assert (await one(relay))["event"] == "delivered"
        assert len(server.received) == 2


@on_uvloop
async def test_a_message_that_requires_tls_waits_for_a_host_that_is_not_there(tmp_path: pathlib.Path) -> None:
    """A refused STARTTLS for now, a lost connection: nothing that another attempt may not mend."""
    faults = {"STARTTLS": [b"454 4.7.0 not now\r\n"]}
    async with (
        fault_server(tls=server_tls(), tls_extensions=UNDER_TLS, faults=faults) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "opportunistic")) as relay,
    ):
        event = await one(relay, flags=REQUIRETLS)
        assert (event["event"], event["status"]) == ("deferred", "4.7.4")
        server.faults["STARTTLS"] = [CLOSE]
        relay.dispatcher.dialer.broken.clear()
        event = await one(relay, flags=REQUIRETLS)
        assert (event["event"], event["status"]) == ("deferred", "4.7.5")


@on_uvloop
async def test_a_message_that_requires_tls_does_not_follow_mx_records_that_nobody_vouches_for(
    tmp_path: pathlib.Path,
) -> None:
    async with (
        fault_server(tls=server_tls(), tls_extensions=UNDER_TLS) as server,
        outgoing(
            tmp_path, to_here(server, is_located_securely=False), shaping=shaping(tmp_path, "required")
        ) as relay,
    ):
        event = await one(relay, flags=REQUIRETLS)
        assert (event["event"], event["status"]) == ("failed", "5.7.10")
        assert server.connections == 0


@on_uvloop
async def test_a_message_that_requires_tls_is_delivered_on_this_machine(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lmtp")
    site = Site(f"lmtp+unix:{path}", "lmtp+unix", path=path)
    async with (
        fault_server(path=path, is_lmtp=True) as server,
        outgoing(tmp_path, {b"*": site}, shaping=shaping(tmp_path, "required")) as relay,
    ):
        assert (await one(relay, flags=REQUIRETLS))["event"] == "delivered"
        assert server.received[0].mail == b"MAIL FROM:<a@x.example>"


@on_uvloop
async def test_tls_required_no_goes_where_the_policy_would_hold_it(tmp_path: pathlib.Path) -> None:
    """RFC 8689 §4.2.2; over TLS all the same where it is to be had, whatever the certificate."""
    async with fault_server(tls=server_tls("mx0.example.net", "stranger")) as server:
        for policy in ("required", "none"):
            folder = tmp_path / policy
            folder.mkdir()
            async with outgoing(folder, to_here(server), shaping=shaping(folder, policy)) as relay:
                event = await one(relay, flags=TLS_OPTIONAL)
                assert event.get("tls") == ("TLSv1.3" if policy == "required" else None)
    async with fault_server() as server:
        folder = tmp_path / "clear"
        folder.mkdir()
        async with outgoing(folder, to_here(server), shaping=shaping(folder, "required")) as relay:
            await relay.send(b"b@y.example")
            await relay.send(b"c@y.example", flags=TLS_OPTIONAL)
            events = {event["to"]: event["event"] for event in await relay.outcomes(2)}
            assert events == {"b@y.example": "deferred", "c@y.example": "delivered"}


@on_uvloop
async def test_a_message_that_requires_tls_gets_its_turn_beside_a_busy_queue(tmp_path: pathlib.Path) -> None:
    """One connection is allowed, and other mail for the site never ends: it has a queue and a connection of its own."""
    limits = shaping(tmp_path, "opportunistic", connections=1)
    async with (
        fault_server(tls=server_tls(), tls_extensions=UNDER_TLS) as server,
        outgoing(tmp_path, to_here(server), shaping=limits) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"       # the one connection is theirs
        others = [asyncio.ensure_future(relay.send(b"r%d@y.example" % i)) for i in range(1500)]
        await relay.send(b"b@y.example", flags=REQUIRETLS)
        await asyncio.gather(*others)
        await relay.outcomes(1502, 25)
        place = [b"REQUIRETLS" in each.mail for each in server.received].index(True)
        assert place < 1000, "behind all others"
        assert len(server.received) == 1502
        assert len({each.connection for each in server.received}) >= 3


@on_uvloop
async def test_requiretls_knows_certificates_by_tlsa_too(tmp_path: pathlib.Path) -> None:
    """RFC 8689 §4.2.1 (4): by RFC 6125 or RFC 7672."""
    tls = server_tls("mx0.example.net", "stranger")
    async with fault_server(tls=tls, tls_extensions=[b"REQUIRETLS"]) as server:
        (tmp_path / "good").mkdir()
        sites = with_tlsa(server, tlsa("mx0.example.net", 3, "stranger"))
        async with outgoing(tmp_path / "good", sites, shaping=shaping(tmp_path, "none")) as relay:
            event = await one(relay, flags=REQUIRETLS)
            assert event["event"] == "delivered"
            assert (event["tls_policy"], event["tls_policy_from"]) == ("requiretls", "TLSA")
        (tmp_path / "bad").mkdir()
        sites = with_tlsa(server, tlsa("other.example.net"))
        async with outgoing(tmp_path / "bad", sites, shaping=shaping(tmp_path, "none")) as relay:
            event = await one(relay, flags=REQUIRETLS)
            assert (event["event"], event["status"]) == ("failed", "5.7.10")


@on_uvloop
async def test_requiretls_may_follow_mail_exchangers_that_a_policy_names(tmp_path: pathlib.Path) -> None:
    """RFC 8689 §4.2.1 (2): found by DNSSEC, or held against MTA-STS."""
    async with fault_server(tls=server_tls(), tls_extensions=[b"REQUIRETLS"]) as server:
        for mode, expected in (("enforce", "delivered"), ("testing", "failed")):
            site = msgspec.structs.replace(with_rule(server, mode, "*.example.net"), is_located_securely=False)
            (tmp_path / mode).mkdir()
            async with outgoing(tmp_path / mode, {b"*": site}, shaping=shaping(tmp_path, "none")) as relay:
                assert (await one(relay, flags=REQUIRETLS))["event"] == expected
