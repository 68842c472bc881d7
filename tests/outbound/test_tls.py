"""TLS to next hops: when it is used, what its failure means, and that messages only go where their policy lets them."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import ssl

import msgspec
import pytest
from outbound.fault_server import CLOSE, GARBLE, RESET, fault_server
from outbound.outgoing import on_uvloop, outgoing, smtp_site
from outbound.tls_hops import one, server_tls, shaping, to_here
from tls import authority

from angarium.model.units import Duration
from angarium.queue.shaping_options import ShapingOptions
from angarium.routing.egress_rules import egress_pools
from angarium.routing.options import SourceOptions
from angarium.tls.options import CertificateOptions


@on_uvloop
async def test_a_reply_in_front_of_a_record_that_is_broken_counts(tmp_path: pathlib.Path) -> None:
    """It is authentic: who takes it for nothing says the message again."""
    async with (
        fault_server(tls=server_tls(), faults={"END": [GARBLE]}) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "required")) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        assert (await one(relay))["event"] == "delivered"
        assert len(server.received) == 1 and server.connections == 2


@on_uvloop
@pytest.mark.parametrize("policy", ["opportunistic", "encrypt", "required"])
async def test_where_it_is_offered_mail_goes_under_tls(tmp_path: pathlib.Path, policy: str) -> None:
    async with (
        fault_server(tls=server_tls()) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, policy)) as relay,
    ):
        event = await one(relay, body=b"x" * 900 + b"\r\n" + b"y" * 300_000 + b"\r\n")
        assert event["event"] == "delivered"
        assert event["tls"] == "TLSv1.3"
        assert event["cipher"].startswith("TLS_")
        assert server.hellos == ["", "TLSv1.3"]
        assert [each.tls for each in server.received] == ["TLSv1.3"]
        assert len(server.received[0].message) == 300_904
        (status,) = relay.dispatcher.status()
        assert (status["tls"], status["encrypted"]) == (policy, 1)


@on_uvloop
async def test_many_messages_and_sizes_over_one_connection(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(tls=server_tls(), extensions=[b"PIPELINING", b"CHUNKING"]) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "required", connections=1)) as relay,
    ):
        sizes = [1, 100, 16_000, 16_384, 20_000, 70_000, 1_200_000]
        for size in sizes:
            await relay.send(b"r@y.example", b"z" * size + b"\r\n")
        await relay.outcomes(len(sizes))
        assert sorted(len(each.message) for each in server.received) == [size + 2 for size in sizes]
        assert server.connections == 1


@on_uvloop
@pytest.mark.parametrize("policy", ["opportunistic", "none"])
async def test_where_it_is_not_offered_mail_goes_in_clear(tmp_path: pathlib.Path, policy: str) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, policy)) as relay,
    ):
        event = await one(relay)
        assert event["event"] == "delivered"
        assert "tls" not in event


@on_uvloop
async def test_none_does_not_even_ask(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server(tls=server_tls()) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "none")) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        assert b"STARTTLS" not in server.commands


@on_uvloop
@pytest.mark.parametrize("policy", ["encrypt", "required"])
async def test_where_it_is_needed_and_not_offered_mail_waits(tmp_path: pathlib.Path, policy: str) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, policy)) as relay,
    ):
        event = await one(relay)
        assert (event["event"], event["status"]) == ("deferred", "4.7.4")
        assert "does not offer STARTTLS" in event["reply"]
        assert not any(each.startswith(b"MAIL") for each in server.commands)


@on_uvloop
@pytest.mark.parametrize(("name", "ca"), [("other.example.net", "authority"), ("mx0.example.net", "stranger")])
async def test_a_certificate_that_is_not_the_hosts(tmp_path: pathlib.Path, name: str, ca: str) -> None:
    """Opportunistic and "encrypt" take it, still better than clear text; "required" says which it was and waits."""
    async with fault_server(tls=server_tls(name, ca)) as server:
        for policy in ("opportunistic", "encrypt", "required"):
            folder = tmp_path / policy
            folder.mkdir()
            async with outgoing(folder, to_here(server), shaping=shaping(folder, policy)) as relay:
                event = await one(relay)
                if policy == "required":
                    assert (event["event"], event["status"]) == ("deferred", "4.7.5")
                    assert "certificate verify failed" in event["reply"]
                else:
                    assert event["tls"] == "TLSv1.3"
        assert [each.tls for each in server.received] == ["TLSv1.3", "TLSv1.3"]


def broken_tls() -> ssl.SSLContext:
    """Has nothing in common with any client: TLS 1.2 with a cipher for a kind of key that it has not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.certificate("mx0.example.net").configure_cert(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    return context


@on_uvloop
async def test_opportunistic_goes_in_clear_once_a_handshake_fails_and_remembers_it(tmp_path: pathlib.Path) -> None:
    limits = shaping(tmp_path, "opportunistic", idle_time=Duration(0.1))
    async with (
        fault_server(tls=broken_tls()) as server,
        outgoing(tmp_path, to_here(server), shaping=limits) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        assert server.connections == 2
        (event,) = relay.events("tls-fallback")
        assert "TLS handshake failed" in event["reason"]
        while server.open_now:
            await asyncio.sleep(0.01)
        assert (await one(relay))["event"] == "delivered"
        assert server.connections == 3          # no second try of TLS
        assert server.commands.count(b"STARTTLS") == 1
        relay.dispatcher.dialer.without_tls.clear()
        while server.open_now:
            await asyncio.sleep(0.01)
        assert (await one(relay))["event"] == "delivered"
        assert server.commands.count(b"STARTTLS") == 2


@on_uvloop
@pytest.mark.parametrize(
    "fault", [CLOSE, RESET, b"220 go\r\n250 injected\r\n", b"220 go\r\n", b"354 what\r\n", b"421 no\r\n"]
)
async def test_opportunistic_never_fails_closed(tmp_path: pathlib.Path, fault: bytes | str) -> None:
    """Whatever happens at STARTTLS: lost, octets in clear behind the 220, no TLS behind it, nonsense."""
    async with (
        fault_server(tls=server_tls(), faults={"STARTTLS": [fault]}) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "opportunistic")) as relay,
    ):
        if fault == b"220 go\r\n":
            server.tls = broken_tls()
        event = await one(relay)
        assert event["event"] == "delivered"
        assert [each.tls for each in server.received] == [""]
        assert len(relay.events("tls-fallback")) == 1


@on_uvloop
async def test_octets_in_clear_behind_the_220_are_never_taken_for_replies(tmp_path: pathlib.Path) -> None:
    """CVE-2011-0411, reply side: a whole dialogue is put behind the 220. No mail goes to who put it there."""
    injected = b"220 go\r\n250-evil\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"
    async with (
        fault_server(tls=server_tls(), faults={"STARTTLS": injected}) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "required")) as relay,
    ):
        event = await one(relay)
        assert (event["event"], event["status"]) == ("deferred", "4.7.5")
        assert "behind the reply to STARTTLS" in event["reply"]
        assert not any(each.startswith(b"MAIL") for each in server.commands)


@on_uvloop
@pytest.mark.parametrize("reply", [b"454 4.7.0 not now\r\n", b"501 5.5.4 no\r\n", b"502 5.5.1 what\r\n"])
async def test_starttls_refused(tmp_path: pathlib.Path, reply: bytes) -> None:
    """Opportunistic goes on in clear on the same connection; what is required waits, with the host's words."""
    async with fault_server(tls=server_tls(), faults={"STARTTLS": reply}) as server:
        for policy in ("opportunistic", "required"):
            folder = tmp_path / policy
            folder.mkdir()
            async with outgoing(folder, to_here(server), shaping=shaping(folder, policy)) as relay:
                event = await one(relay)
                if policy == "opportunistic":
                    assert event["event"] == "delivered"
                    assert "tls" not in event
                    assert server.connections == 1
                else:
                    assert (event["event"], event["status"]) == ("deferred", "4.7.4")
                    assert reply[:3].decode() in event["reply"]


@on_uvloop
async def test_sessions_are_resumed_with_the_same_host(tmp_path: pathlib.Path) -> None:
    limits = shaping(tmp_path, "required", connections=1, messages_per_connection=1)
    async with (
        fault_server(tls=server_tls()) as server,
        outgoing(tmp_path, to_here(server), shaping=limits) as relay,
    ):
        for count in range(1, 5):
            await relay.send(b"b@y.example")
            await relay.outcomes(count)
        assert server.connections == 4
        assert server.resumed == 3


@on_uvloop
async def test_sessions_of_one_source_tell_nothing_of_another(tmp_path: pathlib.Path) -> None:
    """A ticket that came to one address and is shown from another says that both are one sender."""
    limits = shaping(tmp_path, "required", connections=1, messages_per_connection=1)
    sources = {name: SourceOptions(address=f"127.0.0.{number}") for number, name in ((1, "a"), (2, "b"))}
    pools = egress_pools(sources, {}, [], "relay.example.org")
    async with (
        fault_server(tls=server_tls()) as server,
        outgoing(tmp_path, to_here(server), shaping=limits, pools=pools) as relay,
    ):
        for count in range(1, 21):
            await relay.send(b"b@y.example")
            await relay.outcomes(count)
        assert set(server.peers) == {"127.0.0.1", "127.0.0.2"}
        assert server.resumed == server.connections - 2


@on_uvloop
async def test_our_certificate_is_shown_to_who_asks(tmp_path: pathlib.Path) -> None:
    leaf = authority.certificate("relay.example.org")
    tls = server_tls()
    authority.authority().configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    options = CertificateOptions(**authority.write(tmp_path, leaf, "relay"))
    async with (
        fault_server(tls=tls) as server,
        outgoing(
            tmp_path, to_here(server), shaping=shaping(tmp_path, "required", tls_certificate=options)
        ) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        assert [hashlib.sha256(each).hexdigest() for each in server.shown] == [authority.fingerprint(leaf)]


@on_uvloop
async def test_files_that_cannot_be_read_hold_only_what_needs_them(tmp_path: pathlib.Path) -> None:
    async with fault_server(tls=server_tls()) as server:
        for policy in ("opportunistic", "required"):
            folder = tmp_path / policy
            folder.mkdir()
            missing = ShapingOptions(tls=policy, tls_ca="/nowhere/ca.pem")  # type: ignore[arg-type]
            async with outgoing(folder, to_here(server), shaping=missing) as relay:
                event = await one(relay)
                assert event["event"] == ("delivered" if policy == "opportunistic" else "deferred")
                if policy == "required":
                    assert event["status"] == "4.3.5"
                assert len(relay.events("certificates-refused")) == 1


@on_uvloop
@pytest.mark.parametrize("policy", ["opportunistic", "required"])
async def test_a_next_hop_that_begins_with_tls(tmp_path: pathlib.Path, policy: str) -> None:
    async with (
        fault_server(tls=server_tls(), begins_with_tls=True) as server,
        outgoing(
            tmp_path, to_here(server, begins_with_tls=True), shaping=shaping(tmp_path, policy)
        ) as relay,
    ):
        event = await one(relay)
        assert event["tls"] == "TLSv1.3"
        assert server.hellos == ["TLSv1.3"]
        assert b"STARTTLS" not in server.commands


@on_uvloop
async def test_a_next_hop_that_begins_with_tls_is_never_spoken_to_in_clear(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server() as server,
        outgoing(
            tmp_path, to_here(server, begins_with_tls=True), shaping=shaping(tmp_path, "opportunistic")
        ) as relay,
    ):
        event = await one(relay)
        assert (event["event"], event["status"]) == ("deferred", "4.7.5")
        assert not server.hellos


@on_uvloop
async def test_a_routes_policy_overrides_the_one_for_all_and_keeps_to_its_domains(tmp_path: pathlib.Path) -> None:
    """Two domains of one site: what is required for one is never sent over the connection of the other."""
    async with fault_server() as server:
        here = smtp_site(server.port)
        sites = {b"*": here, b"bank.example": msgspec.structs.replace(here, tls="required")}
        async with outgoing(tmp_path, sites, shaping=shaping(tmp_path, "opportunistic")) as relay:
            await relay.send([b"a@y.example", b"b@bank.example"])
            events = {event["to"]: event for event in await relay.outcomes(2)}
            assert events["a@y.example"]["event"] == "delivered"
            assert events["b@bank.example"]["status"] == "4.7.4"
            await relay.send(b"c@y.example")        # the site as such is not held against anybody
            assert (await relay.outcomes(3))[-1]["event"] == "delivered"


@on_uvloop
async def test_a_reload_that_asks_for_more_takes_no_older_connection(tmp_path: pathlib.Path) -> None:
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "opportunistic")) as relay,
    ):
        assert (await one(relay))["event"] == "delivered"
        relay.reload(shaping(tmp_path, "required"))
        event = await one(relay)
        assert (event["event"], event["status"]) == ("deferred", "4.7.4")
        assert len(server.received) == 1


@on_uvloop
async def test_where_a_reload_wants_tls_no_connection_goes_on_that_never_asked_for_it(tmp_path: pathlib.Path) -> None:
    idle = {"idle_time": Duration(30)}
    async with (
        fault_server(tls=server_tls()) as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "none", **idle)) as relay,
    ):
        assert "tls" not in await one(relay)
        relay.reload(shaping(tmp_path, "opportunistic", **idle))
        event = await one(relay)
        assert (event["tls_policy"], event["tls"], server.connections) == ("opportunistic", "TLSv1.3", 2)


@on_uvloop
async def test_what_went_on_in_clear_is_tried_with_the_certificate_that_a_reload_brings(tmp_path: pathlib.Path) -> None:
    idle = {"idle_time": Duration(30)}
    async with (
        fault_server() as server,
        outgoing(tmp_path, to_here(server), shaping=shaping(tmp_path, "opportunistic", **idle)) as relay,
    ):
        assert "tls" not in await one(relay)
        server.tls = server_tls()
        relay.reload(shaping(tmp_path, "opportunistic", **idle))
        assert "tls" not in await one(relay), "nothing has changed, as far as is known here"
        more = msgspec.structs.replace(shaping(tmp_path, "opportunistic", **idle), tls_ca=None)
        relay.reload(more)
        assert (await one(relay))["tls"] == "TLSv1.3"
        assert server.connections == 2


@on_uvloop
async def test_a_host_that_a_plan_does_not_name_any_more_gets_no_further_mail(tmp_path: pathlib.Path) -> None:
    """What is published about it is not known then: TLSA records, say, that a policy asks for."""
    asked = shaping(tmp_path, "opportunistic", idle_time=Duration(30))
    async with fault_server() as server, fault_server() as other:
        sites = to_here(server)
        async with outgoing(tmp_path, sites, shaping=asked) as relay:
            assert (await one(relay))["event"] == "delivered"
            host = msgspec.structs.replace(sites[b"*"].hosts[0], name="mx1.example.net", port=other.port)
            sites[b"*"] = msgspec.structs.replace(sites[b"*"], hosts=(host,))
            relay.reload(asked)
            assert (await one(relay))["event"] == "delivered"
            assert (len(server.received), len(other.received)) == (1, 1)
