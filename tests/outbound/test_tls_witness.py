"""What is counted of TLS for reports (RFC 8460 §4.3): by which policy, with which result, for whom."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from outbound.fault_server import CLOSE, FaultServer, fault_server
from outbound.outgoing import Outgoing, on_uvloop, outgoing, smtp_site
from outbound.tls_hops import TLS_OPTIONAL, one, server_tls, shaping

from angarium.model.plan import Site, StsRule
from angarium.model.tlsa import Tlsa, TlsaRecord, TlsaState
from angarium.outbound.tls_witness import SessionDomains, TlsWitness
from angarium.tls.report_outcome import TlsOutcome
from angarium.tls.sts_policy import StsPolicy

MX = "mx0.example.net"


@contextlib.asynccontextmanager
async def counted(
    folder: pathlib.Path,
    server: FaultServer,
    tls: str = "opportunistic",
    tlsa: Tlsa | None = None,
    *,
    dane: bool = True,
    **site: Any,
) -> AsyncIterator[tuple[Outgoing, list[TlsOutcome]]]:
    found: list[TlsOutcome] = []
    plain = smtp_site(server.port)
    hosts = tuple(msgspec.structs.replace(host, tlsa=tlsa) for host in plain.hosts)
    sites: dict[bytes, Site] = {b"*": msgspec.structs.replace(plain, name=MX, hosts=hosts, **site)}
    async with outgoing(folder, sites, shaping=shaping(folder, tls, dane=dane)) as relay:
        policy = StsPolicy("testing", ("*.example.net",), 86400)
        relay.dispatcher.dialer.witness = TlsWitness(found.append, lambda domain: policy)
        yield relay, found


def another_host() -> Any:
    return server_tls("other.example")


def tlsa_of(state: TlsaState, data: bytes = bytes(32)) -> Tlsa:
    records = (TlsaRecord(3, 0, 1, data),) if state is TlsaState.USABLE else ()
    return Tlsa(state, MX, records, "because")


@on_uvloop
async def test_a_message_that_heeds_no_policy_says_nothing_of_it(tmp_path: pathlib.Path) -> None:
    """Reports themselves do so: two relays would tell each other of their reports for ever."""
    tlsa = tlsa_of(TlsaState.USABLE)
    stranger = server_tls(MX, "stranger")
    async with fault_server(tls=stranger) as peer, counted(tmp_path, peer, tlsa=tlsa) as (relay, found):
        assert (await one(relay, flags=TLS_OPTIONAL))["event"] == "delivered"
        assert found == []


@on_uvloop
async def test_a_connection_counts_once_for_each_domain_whose_mail_goes_over_it(tmp_path: pathlib.Path) -> None:
    """RFC 8460 §4.2: by the policy's domain. It counted for the domain alone that it was dialled for."""
    async with fault_server(tls=server_tls()) as peer, counted(tmp_path, peer, sts=ENFORCED) as (relay, found):
        count = 0
        for recipients in ([b"b@y.example"], [b"b@z.example", b"c@Y.example"], [b"d@z.example"], [b"e@w.example"]):
            await relay.send(recipients)
            count += len(recipients)
            await relay.outcomes(count)
        assert peer.connections == 1
        assert [each.domain for each in found] == ["y.example", "z.example", "w.example"]
        assert [each.policy.domain for each in found] == [each.domain for each in found]
        assert {(each.policy.type, each.result) for each in found} == {("sts", "")}


def test_domains_of_one_connection_are_bounded() -> None:
    told: list[str] = []
    domains = SessionDomains("first.example", told.append, bytes.decode)
    for number in range(10_000):
        for _ in range(2):
            domains.carries(b"d%d.example" % number)
    assert told == [f"d{number}.example" for number in range(4096)]


TESTING = StsRule("testing", ("*.example.net",))
OF_OTHERS = StsRule("testing", ("*.other.example",))
ENFORCED = StsRule("enforce", ("*.example.net",))
ENFORCED_OF_OTHERS = StsRule("enforce", ("*.other.example",))


@on_uvloop
@pytest.mark.parametrize(
    ("server", "more", "event", "policy", "result"),
    [
        ({"tls": lambda: server_tls(MX, "stranger")}, {}, "delivered", "no-policy-found", ""),
        ({}, {}, "delivered", "no-policy-found", "starttls-not-supported"),
        ({"faults": {"STARTTLS": b"454 4.7.0 no\r\n"}, "tls": server_tls}, {}, "delivered", "no-policy-found",
         "starttls-not-supported"),
        ({"faults": {"STARTTLS": CLOSE}, "tls": server_tls}, {}, "delivered", "no-policy-found", "validation-failure"),
        ({"tls": server_tls}, {"sts": TESTING}, "delivered", "sts", ""),
        ({"tls": lambda: server_tls(MX, "stranger")}, {"sts": TESTING}, "delivered", "sts", "certificate-not-trusted"),
        ({"tls": another_host}, {"sts": TESTING}, "delivered", "sts", "certificate-host-mismatch"),
        ({"tls": server_tls}, {"sts": OF_OTHERS}, "delivered", "sts", "validation-failure"),
        ({"tls": server_tls}, {"sts": ENFORCED}, "delivered", "sts", ""),
        ({"tls": another_host}, {"sts": ENFORCED}, "deferred", "sts", "certificate-host-mismatch"),
        ({}, {"sts": ENFORCED}, "deferred", "sts", "starttls-not-supported"),
        ({"tls": server_tls}, {"tlsa": tlsa_of(TlsaState.USABLE)}, "deferred", "tlsa", "validation-failure"),
        ({"tls": server_tls}, {"tlsa": tlsa_of(TlsaState.UNUSABLE)}, "delivered", "tlsa", "tlsa-invalid"),
        ({"tls": server_tls}, {"tlsa": tlsa_of(TlsaState.TROUBLE)}, "deferred", "tlsa", "dnssec-invalid"),
        ({"tls": server_tls}, {"tlsa": tlsa_of(TlsaState.ABSENT)}, "delivered", "no-policy-found", ""),
        # What shaping does not heed was not applied, and is not reported.
        ({"tls": server_tls}, {"tlsa": tlsa_of(TlsaState.USABLE), "dane": False}, "delivered", "no-policy-found", ""),
        ({"tls": another_host}, {"tlsa": tlsa_of(TlsaState.USABLE), "dane": False, "sts": ENFORCED}, "deferred", "sts",
         "certificate-host-mismatch"),
        # Nor was what the operator's own authorities stand in for: they were believed, not the records.
        ({"tls": server_tls}, {"tls": "required", "tlsa": tlsa_of(TlsaState.USABLE)}, "delivered", "no-policy-found",
         ""),
        ({"tls": server_tls}, {"tls": "required", "tlsa": tlsa_of(TlsaState.UNUSABLE)}, "delivered", "no-policy-found",
         ""),
        ({"tls": server_tls}, {"tls": "required", "tlsa": tlsa_of(TlsaState.TROUBLE)}, "delivered", "no-policy-found",
         ""),
        ({"tls": another_host}, {"tls": "required", "tlsa": tlsa_of(TlsaState.USABLE)}, "deferred", "no-policy-found",
         "certificate-host-mismatch"),
        ({"tls": server_tls}, {"tls": "required", "tlsa": tlsa_of(TlsaState.USABLE), "sts": ENFORCED}, "delivered",
         "sts", ""),
        # Records that cannot be used ask for any certificate; the domain's policy has asked for a good one.
        ({"tls": server_tls}, {"tlsa": tlsa_of(TlsaState.UNUSABLE), "sts": ENFORCED}, "delivered", "sts", ""),
        ({"tls": server_tls}, {"tlsa": tlsa_of(TlsaState.UNUSABLE), "sts": ENFORCED_OF_OTHERS}, "deferred", "sts",
         "validation-failure"),
        ({"tls": server_tls}, {"tlsa": tlsa_of(TlsaState.UNUSABLE), "sts": TESTING}, "delivered", "tlsa",
         "tlsa-invalid"),
        ({"tls": server_tls}, {"tls": "encrypt", "tlsa": tlsa_of(TlsaState.UNUSABLE)}, "delivered", "tlsa",
         "tlsa-invalid"),
    ],
)  # fmt: skip
async def test_each_result_and_whose_policy_it_was(
    *, tmp_path: pathlib.Path, server: dict[str, Any], more: dict[str, Any], event: str, policy: str, result: str
) -> None:
    settings = {key: value() if callable(value) else value for key, value in server.items()}
    async with fault_server(**settings) as peer, counted(tmp_path, peer, **more) as (relay, found):
        assert (await one(relay))["event"] == event
        assert {(each.policy.type, each.result) for each in found} == {(policy, result)}
        (outcome, *_) = found
        assert outcome.domain == "y.example"
        assert outcome.policy.domain == (MX if policy == "tlsa" else "y.example")
        if result and outcome.ip:
            assert (outcome.mx, outcome.ip) == (MX, "127.0.0.1")
        if policy == "sts" and more["sts"] == TESTING:
            assert outcome.policy.strings == ("version: STSv1", "mode: testing", "mx: *.example.net", "max_age: 86400")
        if policy == "tlsa" and more["tlsa"].records:
            assert outcome.policy.strings == (f"3 0 1 {'00' * 32}",)


@on_uvloop
@pytest.mark.parametrize(
    ("settings", "tls"), [({"faults": {"greeting": b"554 5.3.2 no\r\n"}}, "opportunistic"), ({}, "none")]
)
async def test_what_is_not_about_tls_is_not_counted(tmp_path: pathlib.Path, settings: Any, tls: str) -> None:
    async with fault_server(**settings) as peer, counted(tmp_path, peer, tls) as (relay, found):
        await one(relay)
        assert not found


@on_uvloop
async def test_messages_over_one_connection_are_one_session(tmp_path: pathlib.Path) -> None:
    async with fault_server(tls=server_tls()) as peer, counted(tmp_path, peer) as (relay, found):
        for _ in range(3):
            assert (await one(relay))["event"] == "delivered"
        assert len(found) == peer.connections == 1


def test_where_a_route_leads_to_a_host_that_host_is_told() -> None:
    witness = TlsWitness(lambda outcome: None)
    routed = smtp_site(25)
    assert witness.domain_of(routed, b"y.example") == MX
    numeric = msgspec.structs.replace(routed, hosts=(msgspec.structs.replace(routed.hosts[0], name="192.0.2.1"),))
    assert witness.domain_of(numeric, b"y.example") == ""
    by_mx = msgspec.structs.replace(routed, name="mx.y.example")
    assert witness.domain_of(by_mx, "bücher.example".encode()) == "xn--bcher-kva.example"
    assert witness.domain_of(by_mx, b"[192.0.2.1]") == ""
