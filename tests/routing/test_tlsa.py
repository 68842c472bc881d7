"""Which TLSA records hold for which host: every branch of RFC 7672 §2, from MX records to what a plan says."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from dns_table import DnsTable

from angarium.model.plan import Plan, Published, RoutingTrouble, Site
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
TWO_MX = {"d.example MX": "10 mx.example, 20 m2.example", "mx.example A": A1, "m2.example A": A1}
ALIAS = {"d.example MX": "10 mx.example", "mx.example CNAME": "end.example", "end.example A": A1}


class Row(msgspec.Struct, frozen=True):
    """secure: what DNS vouches for, words apart by ";". state None: nobody looked.

    hosts    those of the plan; their TLSA records are expected to be the same.
    records  those of use; by_way: the operator's route, where there is one.
    """

    reason: str
    rows: dict[str, str]
    secure: str
    state: TlsaState | None
    base: str = "mx.example"
    asked: tuple[str, ...] = ("_25._tcp.mx.example TLSA",)
    more_names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ("mx.example",)
    records: tuple[str, ...] = ()
    by_way: str = ""


ALL = "d.example;mx.example A;_25._tcp.mx.example TLSA"
NO_MX_SIG = ALL.replace("d.example;", "")
AT_END = "d.example;mx.example A;_25._tcp.end.example TLSA;_25._tcp.mx.example TLSA"
MX_TLSA = "_25._tcp.mx.example TLSA"
END_TLSA = "_25._tcp.end.example TLSA"
END_ONLY = (END_TLSA,)
BOTH = (END_TLSA, MX_TLSA)
ALIAS_ITSELF = ("mx.example CNAME", MX_TLSA)
INTO_UNSIGNED = "d.example;mx.example CNAME;_25._tcp.mx.example TLSA"
SMART = {"smart.example A": A1, "_587._tcp.smart.example TLSA": EE}
SMART_SIGNED = "smart.example A;_587._tcp.smart.example TLSA"
SMART_ASKED = ("_587._tcp.smart.example TLSA",)
TO_SMART = "smtp://smart.example:587"
PKIX = f"0 0 1 {DIGEST}, 1 1 1 {DIGEST}"

MX_ROWS = [
    Row("all of it signed", {**ONE_MX, MX_TLSA: EE}, ALL, USABLE, records=(EE,)),
    Row("MX records that nobody vouches for: no DANE, whatever the host has", {**ONE_MX, MX_TLSA: EE}, NO_MX_SIG, None,
        asked=()),
    Row("of several exchangers each is looked at",
        {**TWO_MX, MX_TLSA: EE, "_25._tcp.m2.example TLSA": EE}, f"{ALL};m2.example A;_25._tcp.m2.example TLSA", USABLE,
        asked=("_25._tcp.mx.example TLSA", "_25._tcp.m2.example TLSA"), hosts=("mx.example", "m2.example"),
        records=(EE,)),
    Row("the domain is an alias, signed all the way: that of its end",
        {"a.example CNAME": "d.example", **ONE_MX, MX_TLSA: EE}, f"{ALL};a.example", USABLE, records=(EE,)),
    Row("the domain is an alias that is not signed", {"a.example CNAME": "d.example", **ONE_MX, MX_TLSA: EE}, ALL, None,
        asked=()),
    Row("no MX record, and that is signed: the domain is the host",
        {"mx.example A": A1, MX_TLSA: EE}, "mx.example;mx.example A;_25._tcp.mx.example TLSA", USABLE, records=(EE,)),
    Row("no MX record, and nobody vouches for that: there may be some",
        {"mx.example A": A1, MX_TLSA: EE}, "mx.example A;_25._tcp.mx.example TLSA", None, asked=()),
    Row("no MX record at the end of an alias: that is the host",
        {"a.example CNAME": "mx.example", "mx.example A": A1, MX_TLSA: EE},
        "a.example;mx.example A;_25._tcp.mx.example TLSA", USABLE, records=(EE,)),
]
ADDRESS_ROWS = [
    Row("§2.1.2: addresses bogus, or of a server that fails: not that host, but the next",
        {**TWO_MX, "m2.example A": "SERVFAIL", MX_TLSA: EE}, ALL, USABLE, records=(EE,)),
    Row("§2.1.2: no answer: likewise", {**TWO_MX, "m2.example A": "TIMEOUT", MX_TLSA: EE}, ALL, USABLE, records=(EE,)),
    Row("§2.2.2: addresses that are not signed: TLSA is not asked for", {**ONE_MX, MX_TLSA: EE},
        "d.example;_25._tcp.mx.example TLSA", ABSENT, asked=()),
    Row("§2.2.2: a signed alias: the end of it first",
        {**ALIAS, END_TLSA: EE, MX_TLSA: "SERVFAIL"}, AT_END, USABLE, "end.example", END_ONLY, records=(EE,)),
    Row("§2.2.2: nothing there: then the name in the MX record", {**ALIAS, MX_TLSA: EE}, AT_END, USABLE, asked=BOTH,
        records=(EE,)),
    Row("§2.2.2: not signed there: likewise", {**ALIAS, END_TLSA: TA, MX_TLSA: EE},
        AT_END.replace(";_25._tcp.end.example TLSA", ""), USABLE, asked=BOTH, records=(EE,)),
    Row("§2.2.2: the end cannot be known: its alias does not help",
        {**ALIAS, END_TLSA: "SERVFAIL", MX_TLSA: EE}, AT_END, TROUBLE, "end.example", END_ONLY),
    Row("§2.2.2: nothing at the end, and the alias cannot be known", {**ALIAS, MX_TLSA: "TIMEOUT"}, AT_END, TROUBLE,
        asked=BOTH),
    Row("§2.2.2: none of use at the end: they are that host's word all the same",
        {**ALIAS, END_TLSA: PKIX, MX_TLSA: EE}, AT_END, UNUSABLE, "end.example", END_ONLY),
    Row("§2.2.2: neither has any", ALIAS, AT_END, ABSENT, asked=BOTH),
    Row("§2.2.2: a signed alias into a zone that is not: the name in the MX record alone",
        {**ALIAS, END_TLSA: TA, MX_TLSA: EE}, INTO_UNSIGNED, USABLE, asked=ALIAS_ITSELF, records=(EE,)),
    Row("§2.2.2: and that has none", {**ALIAS, END_TLSA: EE}, INTO_UNSIGNED, ABSENT, asked=ALIAS_ITSELF),
    Row("§2.2.2: and that cannot be known", {**ALIAS, MX_TLSA: "SERVFAIL"}, INTO_UNSIGNED, TROUBLE, asked=ALIAS_ITSELF),
    Row("§2.2.2: an alias that is not signed either",
        {**ALIAS, MX_TLSA: EE}, "d.example;_25._tcp.mx.example TLSA", ABSENT, asked=("mx.example CNAME",)),
    Row("§2.2.2: whether the alias is signed cannot be known",
        {**ALIAS, "mx.example CNAME itself": "SERVFAIL", MX_TLSA: EE}, "d.example", TROUBLE,
        asked=("mx.example CNAME",)),
]
ROUTE_ROWS = [
    Row("a host that the operator names needs no MX record, and the domain need not be signed",
        {"d.example MX": "10 mx.example", **SMART}, SMART_SIGNED, USABLE, "smart.example", SMART_ASKED,
        hosts=("smart.example",), records=(EE,), by_way=TO_SMART),
    Row("nor is it held to what the domain's own exchangers have",
        {**ONE_MX, MX_TLSA: EE, "smart.example A": A1}, f"{ALL};smart.example A", ABSENT, "smart.example", SMART_ASKED,
        hosts=("smart.example",), by_way=TO_SMART),
    Row("its zone is not signed", SMART, "_587._tcp.smart.example TLSA", ABSENT, "smart.example", (),
        hosts=("smart.example",), by_way=TO_SMART),
    Row("it cannot be known", {**SMART, "_587._tcp.smart.example TLSA": "SERVFAIL"}, SMART_SIGNED, TROUBLE,
        "smart.example", SMART_ASKED, hosts=("smart.example",), by_way=TO_SMART),
    Row("none of use", {**SMART, "_587._tcp.smart.example TLSA": PKIX}, SMART_SIGNED, UNUSABLE, "smart.example",
        SMART_ASKED, hosts=("smart.example",), by_way=TO_SMART),
    Row("it is an alias: the end of it first",
        {"smart.example CNAME": "end.example", "end.example A": A1, "_587._tcp.end.example TLSA": EE},
        "smart.example A;_587._tcp.end.example TLSA", USABLE, "end.example", ("_587._tcp.end.example TLSA",),
        hosts=("smart.example",), records=(EE,), by_way=TO_SMART),
    Row("LMTP is not what the records are about", {"smart.example A": A1, "_24._tcp.smart.example TLSA": EE},
        "smart.example A;_24._tcp.smart.example TLSA", None, asked=(), hosts=("smart.example",),
        by_way="lmtp://smart.example:24"),
    Row("an address has no name to look up", {MX_TLSA: EE}, ALL, None, asked=(), hosts=("192.0.2.1",),
        by_way="smtp://192.0.2.1:25"),
]
TLSA_ROWS = [
    Row("TLSA records that are not signed are none", {**ONE_MX, MX_TLSA: EE}, "d.example;mx.example A", ABSENT),
    Row("no such name", ONE_MX, ALL, ABSENT),
    Row("no such name, and nobody vouches for that", ONE_MX, "d.example;mx.example A", ABSENT),
    Row("no such record", {**ONE_MX, "_25._tcp.mx.example TXT": "x"}, ALL, ABSENT),
    Row("the records are an alias's, signed: the host is known by its own name",
        {**ONE_MX, "_25._tcp.mx.example CNAME": "dane.example", "dane.example TLSA": EE}, ALL, USABLE, records=(EE,)),
    Row("that alias is not signed", {**ONE_MX, "_25._tcp.mx.example CNAME": "dane.example", "dane.example TLSA": EE},
        "d.example;mx.example A", ABSENT),
    Row("§2.1.2: bogus, or a server that fails: not the host's chance to be spoken to in clear",
        {**ONE_MX, MX_TLSA: "SERVFAIL"}, ALL, TROUBLE),
    Row("§2.1.2: no answer", {**ONE_MX, MX_TLSA: "TIMEOUT"}, ALL, TROUBLE),
    Row("§3.1.3: PKIX usages have no meaning in SMTP", {**ONE_MX, MX_TLSA: PKIX}, ALL, UNUSABLE),
    Row("§3.1: a usage of the future", {**ONE_MX, MX_TLSA: f"4 1 1 {DIGEST}"}, ALL, UNUSABLE),
    Row("RFC 7671 §10.1.1: a digest of another length", {**ONE_MX, MX_TLSA: "3 1 1 abcd"}, ALL, UNUSABLE),
    Row("a matching type of the future", {**ONE_MX, MX_TLSA: f"3 1 7 {DIGEST}"}, ALL, UNUSABLE),
    Row("a selector of the future", {**ONE_MX, MX_TLSA: f"3 7 1 {DIGEST}"}, ALL, UNUSABLE),
    Row("a whole certificate that is none", {**ONE_MX, MX_TLSA: "3 0 0 3003020101"}, ALL, UNUSABLE),
    Row("one of use among others", {**ONE_MX, MX_TLSA: f"{PKIX}, {EE}, 3 1 9 00"}, ALL, USABLE, records=(EE,)),
    Row("§3.1.3: PKIX-TA beside DANE-TA: the latter alone", {**ONE_MX, MX_TLSA: f"{PKIX}, {TA}"}, ALL, USABLE,
        records=(TA,), more_names=("d.example",)),
    Row("§3.2.2: usage 2: the domain's name in the certificate will do",
        {**ONE_MX, MX_TLSA: f"{EE}, {TA}"}, ALL, USABLE, more_names=("d.example",), records=(EE, TA)),
    Row("§3.2.2: and what its CNAME led to",
        {"a.example CNAME": "d.example", **ONE_MX, MX_TLSA: TA}, ALL + ";a.example", USABLE,
        more_names=("a.example", "d.example"), records=(TA,)),
]


def under(section: str, rows: list[Row]) -> list[Row]:
    """Those whose reason names no section are of this one."""
    return [each if "§" in each.reason else msgspec.structs.replace(each, reason=f"{section}: {each.reason}")
            for each in rows]


ROWS = [
    *under("§2.2.1", MX_ROWS),
    *ADDRESS_ROWS,
    *under("§2.2.2", ROUTE_ROWS),
    *under("§2.2.3", TLSA_ROWS),
]  # fmt: skip


class Refused(msgspec.Struct, frozen=True):
    """There is no plan, and nobody is asked for TLSA records."""

    reason: str
    rows: dict[str, str]
    secure: str
    is_permanent: bool
    status: tuple[int, int, int]


REFUSED = [
    Refused("§2.1.2: MX records bogus, or of a server that fails: mail waits, and does not go to the addresses",
            {"d.example MX": "SERVFAIL", "d.example A": A1}, ALL, False, (4, 4, 3)),
    Refused("§2.1.2: no answer: likewise", {"d.example MX": "TIMEOUT", "d.example A": A1}, ALL, False, (4, 4, 3)),
    Refused("§2.1.2: the addresses of the only host bogus", {**ONE_MX, "mx.example A": "SERVFAIL", MX_TLSA: EE}, ALL,
            False, (4, 4, 3)),
    Refused("§2.1.2: no MX record, and the addresses cannot be known", {"d.example A": "TIMEOUT"}, "d.example", False,
            (4, 4, 3)),
    Refused("§2.2.1: no such domain", {}, "d.example", True, (5, 1, 2)),
    Refused("§2.2.1: no MX record, no address", {"d.example TXT": "x"}, "d.example", True, (5, 4, 4)),
    Refused("§2.2.1: the only host has no address", {"d.example MX": "10 mx.example", MX_TLSA: EE}, ALL, True,
            (5, 4, 4)),
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


def parsed(text: str) -> TlsaRecord:
    usage, selector, matching, data = text.split()
    return TlsaRecord(int(usage), int(selector), int(matching), bytes.fromhex(data))


@pytest.mark.parametrize("row", ROWS, ids=[row.reason for row in ROWS])
def test_what_a_plan_says_of_a_host(row: Row) -> None:
    names = [name for name in ("a.example", "d.example", "mx.example") if name_is_in(row, name)] or ["d.example"]
    domain = "d.example" if row.by_way else names[0]
    routes = [RouteOptions(domain="*", next_hop=row.by_way)] if row.by_way else []
    found, dns = plan(row.rows, row.secure, domain, *routes)
    assert tuple(host.name for host in found.site.hosts) == row.hosts
    for host in found.site.hosts:
        assert (host.tlsa and host.tlsa.state) is row.state
        if host.tlsa is not None:
            assert host.tlsa.base == (row.base if len(row.hosts) == 1 else host.name)
            assert set(host.tlsa.records) == set(map(parsed, row.records))
    assert tuple(each for each in dns.asked if each.endswith(("TLSA", "CNAME"))) == row.asked
    assert found.site.more_names == row.more_names


@pytest.mark.parametrize("row", REFUSED, ids=[row.reason for row in REFUSED])
def test_where_there_is_no_plan(row: Refused) -> None:
    dns = DnsTable(row.rows)
    dns.secure = set(row.secure.split(";"))
    router = Router([], dns, Ourselves(["us.example"], []), with_tlsa=True, clock=lambda: 0.0)
    with pytest.raises(RoutingTrouble) as caught:
        asyncio.run(router.plan(b"d.example"))
    assert (caught.value.is_permanent, caught.value.status) == (row.is_permanent, row.status)
    assert not [each for each in dns.asked if each.endswith("TLSA")]


def test_each_host_has_its_own() -> None:
    rows = {"d.example MX": "10 a.example, 20 b.example", "a.example A": A1, "b.example A": A1,
            "_25._tcp.a.example TLSA": "SERVFAIL", "_25._tcp.b.example TLSA": EE}
    secure = "d.example;a.example A;b.example A;_25._tcp.b.example TLSA"
    found, _ = plan(rows, secure, "d.example")
    assert [host.tlsa and host.tlsa.state for host in found.site.hosts] == [TROUBLE, USABLE]


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
