"""Router: every branch of RFC 5321 §5.1, configured next hops, and what is remembered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import pytest
import uvloop
from dns_server import DnsServer
from dns_table import DnsTable

from angarium.model.plan import Host, Plan, RoutingTrouble, Site
from angarium.model.units import Duration
from angarium.resolver.caching_resolver import CachingResolver
from angarium.resolver.options import ResolverOptions
from angarium.routing.options import RouteOptions
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router

OURSELVES = Ourselves(["us.example"], [("203.0.113.1", 25)])
A1, A2, A3 = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def router(dns: DnsTable, routes: Mapping[str, str] | None = None, clock: Clock | None = None) -> Router:
    options = [RouteOptions(domain=domain, next_hop=hop) for domain, hop in (routes or {}).items()]
    return Router(options, dns, OURSELVES, clock=clock or Clock())


def plan(rows: Mapping[str, str], domain: str, routes: Mapping[str, str] | None = None) -> Plan:
    return asyncio.run(router(DnsTable(rows), routes).plan(domain.encode()))


def hosts_text(site: Site) -> str:
    """ "10 a.example 192.0.2.1 192.0.2.2; ..." """
    return "; ".join(f"{host.preference} {host.name} {' '.join(host.addresses)}" for host in site.hosts)


FOUND: list[tuple[dict[str, str], str, str, str, str]] = [
    ({"d.example MX": "10 a.example", "a.example A": A1}, "d.example",
     "a.example", f"10 a.example {A1}", "one MX"),
    ({"d.example MX": "20 b.example, 10 c.example, 10 a.example",
      "a.example A": A1, "b.example A": A2, "c.example A": A3}, "d.example",
     "a.example,c.example,b.example", f"10 a.example {A1}; 10 c.example {A3}; 20 b.example {A2}",
     "lowest preference number first"),
    ({"d.example A": A1}, "d.example", "d.example", f"0 d.example {A1}", "no MX: implicit MX"),
    ({"d.example A": A1}, "D.Example", "d.example", f"0 d.example {A1}", "case does not count"),
    ({"xn--bcher-kva.example A": A1}, "bücher.example",
     "xn--bcher-kva.example", f"0 xn--bcher-kva.example {A1}", "U-labels become A-labels"),
    ({"d.example CNAME": "e.example", "e.example MX": "5 a.example", "a.example A": A1}, "d.example",
     "a.example", f"5 a.example {A1}", "CNAME: as if the name it leads to had been given"),
    ({"d.example CNAME": "e.example", "e.example A": A1}, "d.example",
     "e.example", f"0 e.example {A1}", "CNAME, then implicit MX"),
    ({"d.example MX": "5 a.example", "a.example CNAME": "b.example", "b.example A": A1}, "d.example",
     "a.example", f"5 a.example {A1}", "an MX that is an alias: forbidden, and seen"),
    ({"d.example MX": "5 a.example", "a.example A": f"2001:db8::1 {A1}"}, "d.example",
     "a.example", f"5 a.example 2001:db8::1 {A1}", "IPv6 and IPv4"),
    ({"d.example MX": "10 a.example, 20 b.example", "b.example A": A2}, "d.example",
     "a.example,b.example", f"20 b.example {A2}", "an MX that does not exist is passed over"),
    ({"d.example MX": "10 a.example, 20 b.example", "a.example A": "SERVFAIL", "b.example A": A2},
     "d.example",
     "a.example,b.example", f"20 b.example {A2}", "so is one whose address cannot be found out now"),
    ({"d.example MX": "10 a.example, 20 a.example", "a.example A": A1}, "d.example",
     "a.example", f"10 a.example {A1}", "the same host twice counts once"),
    ({"d.example MX": "0 ., 10 a.example", "a.example A": A1}, "d.example",
     "a.example", f"10 a.example {A1}", "RFC 7505 §3: a null MX beside others is none"),
    ({"d.example MX": "0 192.0.2.9, 10 a.example", "a.example A": A1}, "d.example",
     "a.example", f"10 a.example {A1}", "an MX must be a name, not an address"),
    ({"d.example MX": "0 a\\032b.example, 10 a.example", "a.example A": A1}, "d.example",
     "a.example", f"10 a.example {A1}", "an MX with a space in its name"),
    ({"d.example MX": "10 a.example", "a.example A": f"0.0.0.0 224.0.0.1 255.255.255.255 :: {A1}"},
     "d.example",
     "a.example", f"10 a.example {A1}", "addresses that are no host's"),
    ({"d.example MX": "10 a.example, 20 us.example, 30 b.example", "a.example A": A1, "us.example A": A2,
      "b.example A": A3}, "d.example",
     "a.example", f"10 a.example {A1}", "we are an MX: only better ones are left"),
    ({"d.example MX": "10 a.example, 10 b.example, 10 us.example, 5 c.example", "a.example A": A1,
      "b.example A": A2, "c.example A": A3}, "d.example",
     "c.example", f"5 c.example {A3}", "equal to ours is not better"),
    ({"d.example MX": "10 a.example, 20 nat.example, 30 b.example", "a.example A": A1,
      "nat.example A": "203.0.113.1", "b.example A": A3}, "d.example",
     "a.example", f"10 a.example {A1}", "we are an MX under another name: known by address"),
    ({"d.example MX": "10 a.example, 20 alias.example", "alias.example CNAME": "us.example",
      "us.example A": A2, "a.example A": A1}, "d.example",
     "a.example", f"10 a.example {A1}", "known by canonical name"),
    ({"d.example MX": "10 a.example, 20 x.example, 30 b.example, 40 y.example", "a.example A": A1,
      "x.example A": "203.0.113.1", "b.example A": A2, "y.example A": "203.0.113.1"}, "d.example",
     "a.example", f"10 a.example {A1}", "we are an MX twice: the better one counts"),
]


@pytest.mark.parametrize(("rows", "domain", "site_name", "hosts", "reason"), FOUND,
                         ids=[row[4] for row in FOUND])
def test_mail_exchangers_are_found(
    rows: dict[str, str], domain: str, site_name: str, hosts: str, reason: str
) -> None:
    site = plan(rows, domain).site
    assert (site.name, site.protocol, hosts_text(site)) == (site_name, "smtp", hosts)
    assert {host.port for host in site.hosts} == {25}


TROUBLE: list[tuple[dict[str, str], str, bool, tuple[int, int, int], str]] = [
    ({}, "d.example", True, (5, 1, 2), "NXDOMAIN"),
    ({"d.example MX": "SERVFAIL", "d.example A": A1}, "d.example", False, (4, 4, 3),
     "MX unknown: mail waits and does not go to the domain's address"),
    ({"d.example MX": "TIMEOUT"}, "d.example", False, (4, 4, 3), "name servers silent"),
    ({"d.example MX": "0 ."}, "d.example", True, (5, 1, 10), "RFC 7505: null MX"),
    ({"d.example MX": "0 ., 10 ."}, "d.example", True, (5, 1, 10), "null MX said twice"),
    ({"d.example TXT": "x"}, "d.example", True, (5, 4, 4), "neither MX nor address"),
    ({"d.example MX": "NODATA", "d.example A": "NXDOMAIN"}, "d.example", True, (5, 1, 2),
     "implicit MX, NXDOMAIN"),
    ({"d.example MX": "NODATA", "d.example A": "SERVFAIL"}, "d.example", False, (4, 4, 3),
     "implicit MX, failure"),
    ({"d.example A": "0.0.0.0"}, "d.example", True, (5, 4, 4), "implicit MX without an address to dial"),
    ({"d.example MX": "10 a.example"}, "d.example", True, (5, 4, 4), "the only MX does not exist"),
    ({"d.example MX": "10 a.example", "a.example TXT": "x", "d.example A": A1}, "d.example", True, (5, 4, 4),
     "MX unusable: the domain's address is no substitute (§5.1)"),
    ({"d.example MX": "10 192.0.2.1"}, "d.example", True, (5, 4, 4), "the only MX is an address"),
    ({"d.example MX": "10 a.example, 2 b.example", "b.example A": "TIMEOUT"}, "d.example", False, (4, 4, 3),
     "one MX is gone and of the other nobody knows: mail waits"),
    ({"d.example MX": "10 us.example, 20 b.example", "us.example A": A1, "b.example A": A2},
     "d.example", True,
     (5, 4, 6), "we are the best MX: a loop"),
    ({"d.example MX": "10 us.example", "us.example A": "SERVFAIL"}, "d.example", True, (5, 4, 6),
     "our name is enough, no address is looked up"),
    ({"d.example MX": "10 x.example", "x.example A": "203.0.113.1"}, "d.example", True, (5, 4, 6),
     "the best MX has our address"),
    ({"us.example A": A1}, "us.example", True, (5, 4, 6), "mail for our own name without a route"),
    ({"d.example A": "203.0.113.1"}, "d.example", True, (5, 4, 6), "implicit MX is ourselves"),
    ({"d.example CNAME": "us.example", "us.example A": A1}, "d.example", True, (5, 4, 6), "an alias of ours"),
    ({"d.example MX": "10 a.example, 20 us.example", "us.example A": A1}, "d.example", True, (5, 4, 6),
     "the better MX does not exist, the next is ours"),
    ({"d.example MX": "10 a.example, 20 us.example", "a.example A": "TIMEOUT"}, "d.example", False, (4, 4, 3),
     "the better MX cannot be found out now: we are the backup, mail waits"),
    ({"d.example MX": "10 x.example, 20 b.example", "x.example A": "203.0.113.1", "b.example A": "TIMEOUT"},
     "d.example", True, (5, 4, 6), "a failure behind ourselves does not matter"),
    ({}, "a..b", True, (5, 1, 2), "not a domain name"),
    ({}, "[192.0.2.256]", True, (5, 1, 2), "a literal that is no address"),
    ({}, "[X-tag:192.0.2.1]", True, (5, 1, 2), "a General-address-literal nobody registered"),
    ({}, "[0.0.0.0]", True, (5, 1, 2), "a literal that is no host's"),
    ({}, "[203.0.113.1]", True, (5, 4, 6), "a literal that is ours"),
]


@pytest.mark.parametrize(("rows", "domain", "is_permanent", "status", "reason"), TROUBLE,
                         ids=[row[4] for row in TROUBLE])
def test_domain_without_a_plan_fails_or_waits(
    rows: dict[str, str], domain: str, is_permanent: bool, status: tuple[int, int, int], reason: str
) -> None:
    with pytest.raises(RoutingTrouble) as caught:
        plan(rows, domain)
    assert (caught.value.is_permanent, caught.value.status) == (is_permanent, status)
    assert caught.value.text.isascii()
    assert caught.value.text.isprintable()
    assert not caught.value.text.rstrip().endswith(":")


LITERALS = [
    ("[192.0.2.1]", "[192.0.2.1]", Host("192.0.2.1", ("192.0.2.1",), 25)),
    ("[IPv6:2001:DB8::1]", "[2001:db8::1]", Host("2001:db8::1", ("2001:db8::1",), 25)),
]


@pytest.mark.parametrize(("domain", "site_name", "host"), LITERALS)
def test_address_literal_is_dialled_without_dns(domain: str, site_name: str, host: Host) -> None:
    dns = DnsTable({})
    found = asyncio.run(router(dns).plan(domain.encode()))
    assert found.site == Site(site_name, "smtp", (host,))
    assert dns.asked == []


FIXED = [
    ("smtp://192.0.2.1:26", Site("smtp://192.0.2.1:26", "smtp", (Host("192.0.2.1", ("192.0.2.1",), 26),))),
    ("lmtp://[::1]:24", Site("lmtp://[::1]:24", "lmtp", (Host("::1", ("::1",), 24),))),
    ("lmtp+unix:/run/lmtp", Site("lmtp+unix:/run/lmtp", "lmtp+unix", path="/run/lmtp")),
    ("maildir:/m/{local}", Site("maildir:/m/{local}", "maildir", path="/m/{local}")),
]


@pytest.mark.parametrize(("next_hop", "site"), FIXED)
def test_numeric_next_hop_needs_no_look_up_and_holds_for_ever(next_hop: str, site: Site) -> None:
    dns = DnsTable({})
    found = router(dns, {"*": next_hop}).plan_now(b"example.com")
    assert found == Plan(site, float("inf"))
    assert dns.asked == []


def test_smarthost_by_name_is_looked_up_by_address_not_by_mx() -> None:
    dns = DnsTable({"relay.example A": A1, "relay.example MX": "10 other.example"})
    routed = router(dns, {"*": "smtp://relay.example:587"})
    assert routed.plan_now(b"example.com") is None
    found = asyncio.run(routed.plan(b"example.com"))
    assert found.site == Site("smtp://relay.example:587", "smtp", (Host("relay.example", (A1,), 587),))
    assert dns.asked == ["relay.example A"]


NOT_FOUND = [("NXDOMAIN", (4, 4, 4)), ("NODATA", (4, 4, 4)), ("TIMEOUT", (4, 4, 3))]


@pytest.mark.parametrize(("answer", "status"), NOT_FOUND)
def test_mail_waits_for_a_smarthost_that_is_not_found(answer: str, status: tuple[int, int, int]) -> None:
    with pytest.raises(RoutingTrouble) as caught:
        plan({"relay.example A": answer}, "d.example", {"*": "smtp://relay.example"})
    assert (caught.value.is_permanent, caught.value.status) == (False, status)


def test_route_to_mx_is_an_exception_from_a_smarthost() -> None:
    rows = {"d.example MX": "10 a.example", "a.example A": A1}
    assert plan(rows, "d.example", {"d.example": "mx", "*": "smtp://192.0.2.9"}).site.name == "a.example"
    assert plan(rows, "e.example", {"d.example": "mx",
     "*": "smtp://192.0.2.9"}).site.name == "smtp://192.0.2.9:25"


def test_domains_with_the_same_mx_set_share_one_site() -> None:
    dns = DnsTable({"d.example MX": "10 a.example", "e.example MX": "20 a.example, 30 us.example",
                    "f.example MX": "10 a.example", "a.example A": A1})
    routed = router(dns)
    d, e, f = (asyncio.run(routed.plan(name)) for name in (b"d.example", b"e.example", b"f.example"))
    assert d.site is f.site
    assert e.site.name == d.site.name


def test_plan_is_remembered_until_its_records_expire() -> None:
    clock = Clock()
    dns = DnsTable({"d.example MX": "10 a.example", "a.example A": A1})
    routed = router(dns, clock=clock)
    first = asyncio.run(routed.plan(b"d.example"))
    assert first.expires_mono_s == 300.0
    clock.now = 299.9
    assert routed.plan_now(b"d.example") is first
    clock.now = 300.0
    assert routed.plan_now(b"d.example") is None


def test_plan_of_records_about_to_expire_holds_long_enough_to_be_used() -> None:
    clock = Clock()
    clock.now = 299.99
    routed = router(DnsTable({"d.example A": A1}), clock=clock)
    assert asyncio.run(routed.plan(b"d.example")).expires_mono_s == pytest.approx(304.99)


def test_trouble_is_not_remembered_by_the_router() -> None:
    dns = DnsTable({"d.example MX": "SERVFAIL"})
    routed = router(dns)
    with pytest.raises(RoutingTrouble):
        asyncio.run(routed.plan(b"d.example"))
    dns.rows = {"d.example A": A1}
    assert asyncio.run(routed.plan(b"d.example")).site.name == "d.example"


def test_number_of_exchangers_and_addresses_is_bounded() -> None:
    rows = {"d.example MX": ", ".join(f"{i} h{i}.example" for i in range(100))}
    rows |= {f"h{i}.example A": " ".join(f"192.0.2.{j}" for j in range(1, 100)) for i in range(100)}
    dns = DnsTable(rows)
    site = asyncio.run(router(dns).plan(b"d.example")).site
    assert [host.name for host in site.hosts] == [f"h{i}.example" for i in range(20)]
    assert {len(host.addresses) for host in site.hosts} == {8}
    assert len(dns.asked) == 21


def test_our_own_exchangers_and_those_behind_us_are_not_looked_up() -> None:
    dns = DnsTable({"d.example MX": "10 a.example, 20 us.example, 30 b.example", "a.example A": A1})
    asyncio.run(router(dns).plan(b"d.example"))
    assert dns.asked == ["d.example MX", "a.example A"]


def test_through_real_dns() -> None:
    async def main(nameserver: str) -> Plan:
        resolver = CachingResolver(ResolverOptions(nameservers=[nameserver], timeout=Duration(20)))
        try:
            return await Router([], resolver, OURSELVES).plan(b"alias.example")
        finally:
            await resolver.close()

    records = {
        "alias.example": {"CNAME": ["d.example."]},
        "d.example": {"MX": ["20 b.example.", "10 A.example.", "30 us.example."]},
        "a.example": {"A": [A1], "AAAA": ["2001:db8::1"]},
        "b.example": {"A": [A2]},
    }
    with DnsServer(records, {"b.example AAAA": "servfail"}) as dns:
        site = uvloop.run(main(dns.address)).site
    assert site.name == "a.example,b.example"
    assert hosts_text(site) == f"10 a.example 2001:db8::1 {A1}; 20 b.example {A2}"


def test_a_route_of_the_message_stands_before_all_others() -> None:
    routed = router(DnsTable({"d.example MX": "5 a.example", "a.example A": A1}), {"*": f"smtp://{A2}:25"})
    fixed = routed.plan_now(b"d.example\0>smtp://192.0.2.3:2525")
    assert fixed is not None and fixed.site.name == "smtp://192.0.2.3:2525"
    assert asyncio.run(routed.plan(b"d.example\0>mx")).site.name == "a.example"
    assert asyncio.run(routed.plan(b"d.example")).site.name == f"smtp://{A2}:25"


def test_a_route_of_the_message_says_what_it_asks_of_tls() -> None:
    routed = router(DnsTable({"d.example MX": "5 a.example", "a.example A": A1}))
    fixed = routed.plan_now(b"d.example\0>smtp://192.0.2.3:2525 tls=required")
    assert fixed is not None
    assert (fixed.site.name, fixed.site.tls) == ("smtp://192.0.2.3:2525", "required")
    by_mx = asyncio.run(routed.plan(b"d.example\0>mx tls=encrypt")).site
    assert (by_mx.name, by_mx.tls) == ("a.example", "encrypt")
    assert asyncio.run(routed.plan(b"d.example\0>mx")).site.tls == ""
    path = routed.plan_now(b"d.example\0>maildir:/m tls=none/{local}")
    assert path is not None and path.site.path == "/m tls=none/{local}"


@pytest.mark.parametrize("route", [b"carrier pigeon", b"mx tls=perhaps", b"smtps://192.0.2.3:465 tls=none"])
def test_a_route_of_the_message_that_is_none_keeps_it_waiting(route: bytes) -> None:
    with pytest.raises(RoutingTrouble) as caught:
        asyncio.run(router(DnsTable({})).plan(b"d.example\0>" + route))
    assert not caught.value.is_permanent and caught.value.status == (4, 3, 5)


def test_only_routes_that_look_at_senders_have_the_queue_ask() -> None:
    assert router(DnsTable({}), {"*": f"smtp://{A2}:25"}).route_of_sender is None
    options = [RouteOptions(sender="x.example", next_hop=f"smtp://{A1}:25")]
    routed = Router(options, DnsTable({}), OURSELVES)
    assert routed.route_of_sender is not None
    assert routed.route_of_sender(b"a@y.example") is None
    route = routed.route_of_sender(b"a@x.example")
    assert route is not None
    plan = routed.plan_now(b"d.example\0" + route)
    assert plan is not None and plan.site.name == f"smtp://{A1}:25"


def test_what_a_route_asks_of_tls_comes_with_the_site() -> None:
    routes = [
        RouteOptions(domain="bank.example", next_hop="mx", tls="required"),
        RouteOptions(domain="host.example", next_hop=f"smtps://{A2}", tls="encrypt"),
        RouteOptions(domain="named.example", next_hop="smtp://a.example:2525", tls="none"),
    ]
    dns = DnsTable({f"{name}.example MX": "10 a.example" for name in ("bank", "other")} | {"a.example A": A1})
    here = Router(routes, dns, OURSELVES, clock=Clock())

    def site(domain: bytes) -> Site:
        return asyncio.run(here.plan(domain)).site

    assert site(b"bank.example").tls == "required"
    assert site(b"other.example").tls == ""
    assert site(b"bank.example").name == site(b"other.example").name, "one site: its limits hold for both together"
    assert (site(b"host.example").tls, site(b"host.example").begins_with_tls) == ("encrypt", True)
    assert site(b"host.example").hosts == (Host(A2, (A2,), 465),)
    assert (site(b"named.example").tls, site(b"named.example").begins_with_tls) == ("none", False)


def test_only_mx_records_that_dns_vouches_for_locate_a_site_securely() -> None:
    """RFC 8689 §4.2.1 (2); what the operator has named needs nobody's word."""
    dns = DnsTable({f"{name}.example MX": "10 a.example" for name in ("d", "e")} | {"a.example A": A1})
    dns.secure.add("d.example")
    here = router(dns, {"route.example": f"smtp://{A1}:25"})
    found = {
        domain: asyncio.run(here.plan(domain)).site.is_located_securely
        for domain in (b"d.example", b"e.example", b"route.example", b"[192.0.2.1]")
    }
    assert found == {b"d.example": True, b"e.example": False, b"route.example": True, b"[192.0.2.1]": True}


@pytest.mark.parametrize(
    ("next_hop", "tls", "reason"),
    [
        ("lmtp+unix:/run/lmtp", "required", "tls: lmtp+unix leaves this machine by no network"),
        ("maildir:/srv/{local}", "none", "tls: maildir leaves this machine by no network"),
        ("smtps://a.example", "none", 'tls: "none", and the next hop begins with TLS'),
    ],
)
def test_a_route_that_asks_for_what_cannot_be_is_refused(next_hop: str, tls: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        RouteOptions(next_hop=next_hop, tls=tls)  # type: ignore[arg-type]
