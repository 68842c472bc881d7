"""TLS to next hops: when it is used, what its failure means, and that messages only go where their policy lets them."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import pathlib
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from outbound.fault_server import CLOSE, GARBLE, RESET, FaultServer, fault_server
from outbound.outgoing import Outgoing, outgoing, run, smtp_site
from tls import authority

from angarium.model.plan import Site, StsRule
from angarium.model.tlsa import Tlsa, TlsaRecord, TlsaState
from angarium.model.units import Duration
from angarium.queue.shaping_options import ShapingOptions
from angarium.routing.egress_rules import egress_pools
from angarium.routing.options import SourceOptions
from angarium.tls.options import CertificateOptions

REQUIRETLS, TLS_OPTIONAL = 2048, 4096


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run(asyncio.wait_for(test(*args, **kwargs), 30))

    return wrapper


def server_tls(name: str = "mx0.example.net", ca: str = "authority") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.certificate(name, ca=ca).configure_cert(context)
    return context


def to_here(server: FaultServer, **changes: Any) -> dict[bytes, Site]:
    return {b"*": msgspec.structs.replace(smtp_site(server.port), **changes)}


def shaping(folder: pathlib.Path, tls: str, **options: Any) -> ShapingOptions:
    return ShapingOptions(tls=tls, tls_ca=authority.write_authority(folder), **options)  # type: ignore[arg-type]


async def one(relay: Outgoing, **message: Any) -> dict[str, Any]:
    """Sends one message; its first outcome."""
    before = len(relay.events("delivered", "deferred", "failed", "expired"))
    await relay.send(b"b@y.example", **message)
    return (await relay.outcomes(before + 1))[-1]


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
        relay.scheduler.reconfigure(
            router=relay.scheduler.router,
            pool=relay.scheduler.pool,
            shaping=shaping(tmp_path, "required"),
            options=relay.scheduler.options,
        )
        event = await one(relay)
        assert (event["event"], event["status"]) == ("deferred", "4.7.4")
        assert len(server.received) == 1


# ---- messages that have a say in it (RFC 8689) ----

UNDER_TLS = [b"PIPELINING", b"REQUIRETLS"]


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


def tlsa(name: str, usage: int = 3, ca: str = "authority") -> Tlsa:
    """USABLE: of the certificate that server_tls() shows, or of its authority."""
    issuer = authority.authority() if ca == "authority" else authority.stranger()
    if usage == 2:
        # Whole: the server does not send it (RFC 7671 §5.2.2).
        der = ssl.PEM_cert_to_DER_cert(issuer.cert_pem.bytes().decode())
        return Tlsa(TlsaState.USABLE, "mx0.example.net", (TlsaRecord(2, 0, 0, der),))
    der = authority.der(authority.certificate(name, ca=ca))
    return Tlsa(TlsaState.USABLE, "mx0.example.net", (TlsaRecord(usage, 0, 1, hashlib.sha256(der).digest()),))


def with_tlsa(server: FaultServer, *found: Tlsa | None, port: int = 0, **changes: Any) -> dict[bytes, Site]:
    here = smtp_site(server.port, *([port] if port else []))
    hosts = tuple(msgspec.structs.replace(host, tlsa=of) for host, of in zip(here.hosts, found, strict=True))
    return {b"*": msgspec.structs.replace(here, hosts=hosts, **changes)}


@on_uvloop
@pytest.mark.parametrize("policy", ["opportunistic", "encrypt"])
async def test_a_certificate_that_tlsa_records_vouch_for(tmp_path: pathlib.Path, policy: str) -> None:
    """Of another name, from an authority that nobody trusts: that is what usage 3 is for. It is resumed, too."""
    limits = shaping(tmp_path, policy, connections=1, messages_per_connection=1)
    async with (
        fault_server(tls=server_tls("other.example", "stranger")) as server,
        outgoing(tmp_path, with_tlsa(server, tlsa("other.example", ca="stranger")), shaping=limits) as relay,
    ):
        for _ in range(2):
            event = await one(relay)
            assert (event["event"], event["tls"]) == ("delivered", "TLSv1.3")
            assert (event["tls_policy"], event["tls_policy_from"]) == ("dane", "TLSA")
        assert server.resumed == 1


@on_uvloop
@pytest.mark.parametrize("is_offered", [True, False])
async def test_where_tlsa_records_do_not_match_mail_waits_and_says_whose_policy_it_was(
    tmp_path: pathlib.Path, is_offered: bool
) -> None:
    tls = server_tls() if is_offered else None
    async with (
        fault_server(tls=tls) as server,
        outgoing(
            tmp_path, with_tlsa(server, tlsa("other.example.net")), shaping=shaping(tmp_path, "opportunistic")
        ) as relay,
    ):
        event = await one(relay)
        assert (event["event"], event["status"]) == ("deferred", "4.7.5" if is_offered else "4.7.4")
        assert event["reply"].endswith("(TLS policy of mx0.example.net from TLSA says dane)")
        assert ("no matching DANE TLSA records" in event["reply"]) == is_offered
        assert not any(each.startswith(b"MAIL") for each in server.commands)
        assert not relay.events("tls-fallback")
        # TLS-Required: No sets it aside (RFC 8689 §4.2.2).
        assert (await one(relay, flags=TLS_OPTIONAL))["event"] == "delivered"


@on_uvloop
async def test_a_host_whose_tlsa_cannot_be_known_is_passed_over(tmp_path: pathlib.Path) -> None:
    """RFC 7672 §2.1.2: not spoken to at all; the next one may do, and takes no blame."""
    trouble = Tlsa(TlsaState.TROUBLE, "mx0.example.net", (), "SERVFAIL (dnssec bogus) from 127.0.0.1:53")
    async with fault_server(tls=server_tls()) as first, fault_server(tls=server_tls("mx1.example.net")) as second:
        both = with_tlsa(first, trouble, None, port=second.port)
        (tmp_path / "both").mkdir()
        async with outgoing(tmp_path / "both", both, shaping=shaping(tmp_path, "opportunistic")) as relay:
            assert (await one(relay))["remote"].startswith("mx1.example.net")
            assert (first.connections, len(second.received)) == (0, 1)
        (tmp_path / "one").mkdir()
        alone = with_tlsa(first, trouble)
        async with outgoing(tmp_path / "one", alone, shaping=shaping(tmp_path, "opportunistic")) as relay:
            event = await one(relay)
            assert (event["event"], event["status"]) == ("deferred", "4.4.3")
            assert event["reply"] == (
                "TLS policy of mx0.example.net from TLSA cannot be known: SERVFAIL (dnssec bogus) from 127.0.0.1:53"
            )
            assert first.connections == 0


@on_uvloop
async def test_tlsa_records_of_no_use_ask_for_encryption(tmp_path: pathlib.Path) -> None:
    """RFC 7672 §2.2: no certificate is wanted, and no clear text."""
    unusable = Tlsa(TlsaState.UNUSABLE, "mx0.example.net")
    async with fault_server(tls=server_tls("other.example", "stranger")) as server:
        sites = with_tlsa(server, unusable)
        async with outgoing(tmp_path, sites, shaping=shaping(tmp_path, "opportunistic")) as relay:
            event = await one(relay)
            assert (event["event"], event["tls_policy"], event["tls_policy_from"]) == ("delivered", "encrypt", "TLSA")
    async with fault_server() as server:
        (tmp_path / "clear").mkdir()
        sites = with_tlsa(server, unusable)
        async with outgoing(tmp_path / "clear", sites, shaping=shaping(tmp_path, "opportunistic")) as relay:
            assert (await one(relay))["status"] == "4.7.4"


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
async def test_domains_of_one_site_do_not_share_what_only_one_may_use(tmp_path: pathlib.Path) -> None:
    """Usage 2, and a certificate for the one domain's name: the other's mail does not travel over that connection."""
    async with fault_server(tls=server_tls("d.example")) as server:
        here = with_tlsa(server, tlsa("d.example", 2))[b"*"]
        sites = {
            b"d.example": msgspec.structs.replace(here, more_names=("d.example",)),
            b"e.example": msgspec.structs.replace(here, more_names=("e.example",)),
        }
        async with outgoing(tmp_path, sites, shaping=shaping(tmp_path, "opportunistic")) as relay:
            await relay.send([b"a@d.example", b"b@e.example"])
            events = {event["to"]: event for event in await relay.outcomes(2)}
            assert events["a@d.example"]["tls_policy"] == "dane"
            assert events["b@e.example"]["status"] == "4.7.5"
            assert "ostname mismatch" in events["b@e.example"]["reply"]


def with_rule(server: FaultServer, mode: str, *patterns: str, port: int = 0) -> Site:
    rule = StsRule(mode, patterns)  # type: ignore[arg-type]
    return msgspec.structs.replace(smtp_site(server.port, *([port] if port else [])), sts=rule)


@on_uvloop
@pytest.mark.parametrize(
    ("name", "ca", "patterns", "words"),
    [
        ("mx0.example.net", "authority", ("mx0.example.net",), ""),
        ("mx0.example.net", "authority", ("other.example", "*.example.net"), ""),
        ("mx0.example.net", "stranger", ("*.example.net",), "from MTA-STS says verify"),
        ("other.example.net", "authority", ("*.example.net",), "from MTA-STS says verify"),
        ("mx0.example.net", "authority", ("mx1.example.net",), "does not name its mail exchanger mx0.example.net"),
    ],
)
async def test_a_policy_that_is_to_be_enforced(
    tmp_path: pathlib.Path, name: str, ca: str, patterns: tuple[str, ...], words: str
) -> None:
    async with fault_server(tls=server_tls(name, ca)) as server:
        sites = {b"*": with_rule(server, "enforce", *patterns)}
        async with outgoing(tmp_path, sites, shaping=shaping(tmp_path, "opportunistic")) as relay:
            event = await one(relay)
            if words:
                assert (event["event"], event["status"]) == ("deferred", "4.7.5")
                assert words in event["reply"]
                assert not server.received
            else:
                assert (event["tls_policy"], event["tls_policy_from"]) == ("verify", "MTA-STS")
            # RFC 8689 §4.2.2
            assert (await one(relay, flags=TLS_OPTIONAL))["event"] == "delivered"


@on_uvloop
async def test_a_policy_in_testing_holds_nothing_up(tmp_path: pathlib.Path) -> None:
    async with fault_server(tls=server_tls("other.example.net", "stranger")) as server:
        sites = {b"*": with_rule(server, "testing", "mx7.example.net")}
        async with outgoing(tmp_path, sites, shaping=shaping(tmp_path, "opportunistic")) as relay:
            event = await one(relay)
            assert (event["event"], event["tls_policy_from"]) == ("delivered", "MTA-STS testing")


@on_uvloop
async def test_one_domains_policy_holds_up_no_other_domain_of_the_site(tmp_path: pathlib.Path) -> None:
    async with fault_server() as server:
        sites = {b"*": smtp_site(server.port), b"strict.example": with_rule(server, "enforce", "*.example.net")}
        async with outgoing(tmp_path, sites, shaping=shaping(tmp_path, "opportunistic")) as relay:
            await relay.send([b"a@strict.example", b"b@y.example"])
            events = {event["to"]: event for event in await relay.outcomes(2)}
            assert events["a@strict.example"]["status"] == "4.7.4"
            assert events["b@y.example"]["event"] == "delivered"
            await relay.send(b"c@y.example")
            assert (await relay.outcomes(3))[-1]["event"] == "delivered"


@on_uvloop
async def test_requiretls_may_follow_mail_exchangers_that_a_policy_names(tmp_path: pathlib.Path) -> None:
    """RFC 8689 §4.2.1 (2): found by DNSSEC, or held against MTA-STS."""
    async with fault_server(tls=server_tls(), tls_extensions=[b"REQUIRETLS"]) as server:
        for mode, expected in (("enforce", "delivered"), ("testing", "failed")):
            site = msgspec.structs.replace(with_rule(server, mode, "*.example.net"), is_located_securely=False)
            (tmp_path / mode).mkdir()
            async with outgoing(tmp_path / mode, {b"*": site}, shaping=shaping(tmp_path, "none")) as relay:
                assert (await one(relay, flags=REQUIRETLS))["event"] == expected


@on_uvloop
async def test_a_plan_that_asks_for_more_takes_no_older_connection(tmp_path: pathlib.Path) -> None:
    """TLSA records appear, are rolled over, and cannot be known: each time the open connection is judged anew."""
    tls = server_tls("mx0.example.net", "stranger")
    async with fault_server(tls=tls) as server:
        sites = to_here(server)
        mine = tlsa("mx0.example.net", ca="stranger")
        more = msgspec.structs.replace(mine, records=(*mine.records, TlsaRecord(3, 1, 1, bytes(32))))
        async with outgoing(tmp_path, sites, shaping=shaping(tmp_path, "opportunistic")) as relay:
            for found, policy, connections in (
                (None, "opportunistic", 1), (mine, "dane", 2), (mine, "dane", 2), (more, "dane", 3), (None, "dane", 3),
            ):  # fmt: skip
                sites[b"*"] = with_tlsa(server, found)[b"*"]
                relay.scheduler.reconfigure(
                    router=relay.scheduler.router,
                    pool=relay.scheduler.pool,
                    shaping=relay.scheduler.shaping,
                    options=relay.scheduler.options,
                )
                assert (await one(relay))["tls_policy"] == policy
                assert server.connections == connections
            sites[b"*"] = with_tlsa(server, Tlsa(TlsaState.TROUBLE, "mx0.example.net", (), "SERVFAIL"))[b"*"]
            relay.scheduler.reconfigure(
                router=relay.scheduler.router,
                pool=relay.scheduler.pool,
                shaping=relay.scheduler.shaping,
                options=relay.scheduler.options,
            )
            assert (await one(relay))["status"] == "4.4.3"
