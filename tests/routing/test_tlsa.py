"""Which TLSA records hold for which host: every branch of RFC 7672 §2.2, from MX records to what a plan says."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from dns_table import DnsTable

from angarium.model.plan import Plan, Published, Site
from angarium.model.tlsa import TlsaRecord, TlsaState
from angarium.routing.options import RouteOptions
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router

A1 = "192.0.2.1"
DIGEST = "ab" * 32
EE = f"3 1 1 {DIGEST}"
TA = f"2 0 1 {DIGEST}"
USABLE, UNUSABLE, ABSENT, TROUBLE = TlsaState.USABLE, TlsaState.UNUSABLE, TlsaState.ABSENT, TlsaState.TROUBLE

ONE_MX = {"d.example MX": "10 mx.example", "mx.example A": A1}
ALIAS = {"d.example MX": "10 mx.example", "mx.example CNAME": "end.example", "end.example A": A1}


class Row(msgspec.Struct, frozen=True):
    """secure: what DNS vouches for, words apart by ";". state None: nobody looked."""

    reason: str
    rows: dict[str, str]
    secure: str
    state: TlsaState | None
    base: str = "mx.example"
    asked: tuple[str, ...] = ("_25._tcp.mx.example TLSA",)
    more_names: tuple[str, ...] = ()


ALL = "d.example;mx.example A;_25._tcp.mx.example TLSA"
NO_MX_SIG = ALL.replace("d.example;", "")
AT_END = "d.example;mx.example A;_25._tcp.end.example TLSA;_25._tcp.mx.example TLSA"
END_ONLY = ("_25._tcp.end.example TLSA",)
BOTH = ("_25._tcp.end.example TLSA", "_25._tcp.mx.example TLSA")
ALIAS_ITSELF = ("mx.example CNAME", "_25._tcp.mx.example TLSA")
MX_TLSA = "_25._tcp.mx.example TLSA"
END_TLSA = "_25._tcp.end.example TLSA"

ROWS = [
    Row("§2.2.1: all of it signed", {**ONE_MX, MX_TLSA: EE}, ALL, USABLE),
    Row("§2.2.1: MX records that nobody vouches for", {**ONE_MX, MX_TLSA: EE}, NO_MX_SIG, None,
        asked=()),
    Row("§2.2.1: no MX record, and that is signed: the domain is the host",
        {"mx.example A": A1, MX_TLSA: EE}, "mx.example;mx.example A;_25._tcp.mx.example TLSA", USABLE),
    Row("§2.2.2: addresses that are not signed: TLSA is not asked for", {**ONE_MX, MX_TLSA: EE},
        "d.example;_25._tcp.mx.example TLSA", ABSENT, asked=()),
    Row("§2.2: TLSA records that are not signed are none", {**ONE_MX, MX_TLSA: EE}, "d.example;mx.example A", ABSENT),
    Row("§2.2: no such name", ONE_MX, ALL, ABSENT),
    Row("§2.2: no such record", {**ONE_MX, "_25._tcp.mx.example TXT": "x"}, ALL, ABSENT),
    Row("§2.1.2: bogus, or a server that fails: not the host's chance to be spoken to in clear",
        {**ONE_MX, MX_TLSA: "SERVFAIL"}, ALL, TROUBLE),
    Row("§2.1.2: no answer", {**ONE_MX, MX_TLSA: "TIMEOUT"}, ALL, TROUBLE),
    Row("§3.1.3: PKIX usages have no meaning in SMTP",
        {**ONE_MX, MX_TLSA: f"0 0 1 {DIGEST}, 1 1 1 {DIGEST}"}, ALL, UNUSABLE),
    Row("RFC 7671 §10.1.1: a digest of another length", {**ONE_MX, MX_TLSA: "3 1 1 abcd"}, ALL, UNUSABLE),
    Row("a matching type of the future", {**ONE_MX, MX_TLSA: f"3 1 7 {DIGEST}"}, ALL, UNUSABLE),
    Row("a selector of the future", {**ONE_MX, MX_TLSA: f"3 7 1 {DIGEST}"}, ALL, UNUSABLE),
    Row("a whole certificate that is none", {**ONE_MX, MX_TLSA: "3 0 0 3003020101"}, ALL, UNUSABLE),
    Row("one of use among others", {**ONE_MX, MX_TLSA: f"0 0 1 {DIGEST}, {EE}, 3 1 9 00"}, ALL, USABLE),
    Row("§2.2.2: a signed alias: the end of it first",
        {**ALIAS, END_TLSA: EE, MX_TLSA: "SERVFAIL"}, AT_END, USABLE, "end.example", END_ONLY),
    Row("§2.2.2: nothing there: then the name in the MX record", {**ALIAS, MX_TLSA: EE}, AT_END, USABLE, asked=BOTH),
    Row("§2.2.2: not signed there: likewise",
        {**ALIAS, END_TLSA: EE, MX_TLSA: EE}, AT_END.replace(";_25._tcp.end.example TLSA", ""), USABLE, asked=BOTH),
    Row("§2.2.2: the end cannot be known: its alias does not help",
        {**ALIAS, END_TLSA: "SERVFAIL", MX_TLSA: EE}, AT_END, TROUBLE, "end.example", END_ONLY),
    Row("§2.2.2: neither has any", ALIAS, AT_END, ABSENT, asked=BOTH),
    Row("§2.2.2: a signed alias into a zone that is not: the name in the MX record",
        {**ALIAS, END_TLSA: EE, MX_TLSA: EE}, "d.example;mx.example CNAME;_25._tcp.mx.example TLSA", USABLE,
        asked=ALIAS_ITSELF),
    Row("§2.2.2: an alias that is not signed either",
        {**ALIAS, MX_TLSA: EE}, "d.example;_25._tcp.mx.example TLSA", ABSENT, asked=("mx.example CNAME",)),
    Row("§2.2.2: whether the alias is signed cannot be known",
        {**ALIAS, "mx.example CNAME itself": "SERVFAIL", MX_TLSA: EE}, "d.example", TROUBLE,
        asked=("mx.example CNAME",)),
    Row("§3.2.2: usage 2: the domain's name in the certificate will do",
        {**ONE_MX, MX_TLSA: f"{EE}, {TA}"}, ALL, USABLE, more_names=("d.example",)),
    Row("§3.2.2: and what its CNAME led to",
        {"a.example CNAME": "d.example", **ONE_MX, MX_TLSA: TA}, ALL + ";a.example", USABLE,
        more_names=("a.example", "d.example")),
]  # fmt: skip


def plan(
    rows: dict[str, str], secure: str, domain: str, *routes: RouteOptions, with_tlsa: bool = True
) -> tuple[Plan, DnsTable]:
    dns = DnsTable(rows)
    dns.secure = set(secure.split(";"))
    router = Router(routes, dns, Ourselves(["us.example"], []), with_tlsa=with_tlsa, clock=lambda: 0.0)
    return asyncio.run(router.plan(domain.encode())), dns


def name_is_in(row: Row, name: str) -> bool:
    return any(each.startswith(f"{name} ") for each in row.rows)


@pytest.mark.parametrize("row", ROWS, ids=[row.reason for row in ROWS])
def test_what_a_plan_says_of_a_host(row: Row) -> None:
    domain = next(name for name in ("a.example", "d.example", "mx.example") if name_is_in(row, name))
    found, dns = plan(row.rows, row.secure, domain)
    (host,) = found.site.hosts
    assert (host.tlsa and host.tlsa.state) is row.state
    assert host.tlsa is None or host.tlsa.base == row.base
    assert tuple(each for each in dns.asked if each.endswith(("TLSA", "CNAME"))) == row.asked
    assert found.site.more_names == row.more_names
    if row.state is USABLE:
        assert host.tlsa is not None
        assert TlsaRecord(3, 1, 1, bytes.fromhex(DIGEST)) in host.tlsa.records or row.more_names


def test_each_host_has_its_own() -> None:
    rows = {"d.example MX": "10 a.example, 20 b.example", "a.example A": A1, "b.example A": A1,
            "_25._tcp.a.example TLSA": "SERVFAIL", "_25._tcp.b.example TLSA": EE}
    secure = "d.example;a.example A;b.example A;_25._tcp.b.example TLSA"
    found, _ = plan(rows, secure, "d.example")
    assert [host.tlsa and host.tlsa.state for host in found.site.hosts] == [TROUBLE, USABLE]


def test_a_host_that_the_operator_names_needs_no_mx_record() -> None:
    rows = {"smart.example A": A1, "_587._tcp.smart.example TLSA": EE}
    route = RouteOptions(domain="*", next_hop="smtp://smart.example:587")
    found, _ = plan(rows, "smart.example A;_587._tcp.smart.example TLSA", "d.example", route)
    (host,) = found.site.hosts
    assert host.tlsa is not None
    assert (host.tlsa.state, host.tlsa.base) == (USABLE, "smart.example")


@pytest.mark.parametrize("is_routed", [False, True])
def test_records_are_asked_for_where_somebody_heeds_them(is_routed: bool) -> None:
    """Of a provider for which DANE is off not one more question is asked."""
    asked: list[tuple[str, bytes]] = []

    def published(site: Site, domain: bytes) -> Published:
        asked.append((site.name, domain))
        return Published(tlsa=site.hosts[0].name != "mx.example", sts=False)

    routes = [RouteOptions(domain="*", next_hop="smtp://mx.example:25")] if is_routed else []
    for is_heeded in (False, True):
        rows = {**ONE_MX, MX_TLSA: EE}
        if is_heeded:
            rows = {key.replace("mx.example", "m2.example"): value.replace("mx.", "m2.") for key, value in rows.items()}
            routes = [RouteOptions(domain="*", next_hop="smtp://m2.example:25")] if is_routed else []
        dns = DnsTable(rows)
        dns.secure = set(ALL.replace("mx.example", "m2.example" if is_heeded else "mx.example").split(";"))
        router = Router(routes, dns, Ourselves([], []), with_tlsa=True, published=published, clock=lambda: 0.0)
        (host,) = asyncio.run(router.plan(b"D.example")).site.hosts
        assert (host.tlsa is not None) == is_heeded
        assert any(each.endswith("TLSA") for each in dns.asked) == is_heeded
    assert {domain for _, domain in asked} == {b"d.example"}


def test_without_a_resolver_to_trust_nothing_is_asked() -> None:
    found, dns = plan({**ONE_MX, MX_TLSA: EE}, ALL, "d.example", with_tlsa=False)
    assert found.site.hosts[0].tlsa is None
    assert dns.asked == ["d.example MX", "mx.example A"]
