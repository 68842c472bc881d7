"""What domains publish about TLS, as plans carry it: TLSA records (RFC 7672) and MTA-STS policies (RFC 8461)."""

from __future__ import annotations

import pathlib

import msgspec
import pytest
from outbound.fault_server import fault_server
from outbound.outgoing import on_uvloop, outgoing, smtp_site
from outbound.tls_hops import TLS_OPTIONAL, one, server_tls, shaping, tlsa, to_here, with_rule, with_tlsa

from angarium.model.tlsa import Tlsa, TlsaRecord, TlsaState


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
