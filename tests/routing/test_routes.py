"""First match wins, whatever the table looks like inside."""

from __future__ import annotations

import random

import msgspec
import pytest

from angarium.routing.options import RouteOptions
from angarium.routing.route_key import RouteKey, SenderPatterns, route_text
from angarium.routing.routes import RouteTable, names_domain

A, B, C = "smtp://192.0.2.1:25", "smtp://192.0.2.2:25", "smtp://192.0.2.3:25"

ROWS: list[tuple[list[tuple[str, str]], str, str, str]] = [
    ([], "example.com", "mx", "without a route: MX"),
    ([("*", A)], "example.com", A, "any domain"),
    ([("*", A)], "[192.0.2.9]", A, "a literal is a domain too"),
    ([("example.com", A)], "example.com", A, "the domain itself"),
    ([("example.com", A)], "sub.example.com", "mx", "not its subdomains"),
    ([(".example.com", A)], "sub.example.com", A, "a subdomain"),
    ([(".example.com", A)], "a.b.example.com", A, "at any depth"),
    ([(".example.com", A)], "example.com", "mx", "not the domain itself"),
    ([(".example.com", A)], "notexample.com", "mx", "labels count, not characters"),
    ([("example.com", A), ("*", B)], "example.com", A, "first match wins"),
    ([("*", B), ("example.com", A)], "example.com", B, "also when it is the wider one"),
    ([(".com", B), (".example.com", A)], "x.example.com", B, "nor does the longer suffix win"),
    ([("example.com", A), ("example.com", B)], "example.com", A, "of the same twice the first"),
    ([("example.com", "mx"), ("*", A)], "example.com", "mx", "MX as an exception"),
    ([("EXAMPLE.com", A)], "example.com", A, "case does not count"),
    ([("bücher.example", A)], "xn--bcher-kva.example", A, "U-labels in the file"),
    ([("[192.0.2.9]", A)], "[192.0.2.9]", A, "a literal"),
    ([("[IPv6:2001:DB8::1]", A)], "[ipv6:2001:db8::1]", A, "an IPv6 literal in any case"),
]


def routes(pairs: list[tuple[str, str]]) -> list[RouteOptions]:
    return [RouteOptions(domain=domain, next_hop=next_hop) for domain, next_hop in pairs]


@pytest.mark.parametrize(("pairs", "domain", "next_hop", "reason"), ROWS, ids=[row[3] for row in ROWS])
def test_domain_takes_its_first_route(
    pairs: list[tuple[str, str]], domain: str, next_hop: str, reason: str
) -> None:
    assert RouteTable(routes(pairs)).match(domain).text == next_hop


def first_match(pairs: list[tuple[str, str]], domain: str) -> str:
    """The oracle: one route after the other."""
    for pattern, next_hop in pairs:
        if pattern in ("*", domain) or (pattern.startswith(".") and domain.endswith(pattern)):
            return next_hop
    return "mx"


def test_table_says_what_a_walk_over_the_routes_says() -> None:
    chance = random.Random(5321)
    names = ["a", "b", "a.a", "b.a", "a.b", "a.a.a", "b.a.b", "a.b.a"]
    for _ in range(500):
        patterns = chance.choices(["*", *names, *("." + name for name in names)], k=chance.randint(0, 6))
        pairs = [(pattern, f"smtp://192.0.2.{i}:25") for i, pattern in enumerate(patterns)]
        table = RouteTable(routes(pairs))
        for name in names:
            assert table.match(name).text == first_match(pairs, name), (pairs, name)


SENT: list[tuple[list[tuple[str, str, str]], str, str, str]] = [
    ([("a@x.example", "*", A)], "a@x.example", A, "an address"),
    ([("a@x.example", "*", A)], "A@X.example", A, "in any case"),
    ([("a@x.example", "*", A)], "b@x.example", "mx", "and no other"),
    ([("x.example", "*", A)], "b@x.example", A, "a domain"),
    ([("x.example", "*", A)], "b@sub.x.example", "mx", "not its subdomains"),
    ([(".x.example", "*", A)], "b@sub.x.example", A, "a subdomain"),
    ([(".x.example", "*", A)], "b@x.example", "mx", "not the domain itself"),
    ([("<>", "*", A)], "", A, "reports"),
    ([("<>", "*", A)], "b@x.example", "mx", "and nothing else"),
    ([("x.example", "*", A), ("*", "*", B)], "b@x.example", A, "first match wins"),
    ([("*", "*", B), ("x.example", "*", A)], "b@x.example", B, "also when it is the wider one"),
    ([("x.example", "d.example", A), ("*", "*", B)], "b@x.example", A, "sender and recipient together"),
    ([("x.example", "e.example", A), ("*", "*", B)], "b@x.example", B, "both must match"),
    ([("x.example", "*", A), ("b@x.example", "*", B)], "b@x.example", A, "nor does the closer one win"),
    ([("x.example", "d.example", B), ("b@x.example", "*", A), ("*", "d.example", C)], "b@x.example", B, "by place"),
    ([("bücher.example", "*", A)], "b@xn--bcher-kva.example", A, "U-labels in the file"),
]


@pytest.mark.parametrize(("triples", "sender", "next_hop", "reason"), SENT, ids=[row[3] for row in SENT])
def test_sender_and_domain_take_their_first_route(
    triples: list[tuple[str, str, str]], sender: str, next_hop: str, reason: str
) -> None:
    options = [RouteOptions(sender=of, domain=domain, next_hop=hop) for of, domain, hop in triples]
    table = RouteTable(options)
    patterns = SenderPatterns(table.senders).matching(sender.encode())
    assert table.match("d.example", patterns).text == next_hop


def test_a_key_says_what_was_put_into_it() -> None:
    assert RouteKey.parse(b"d.example") == RouteKey(b"d.example")
    assert RouteKey.parse(b"d.example\0>mx") == RouteKey(b"d.example", next_hop="mx")
    both = RouteKey(b"d.example", senders=("a@x.example", ".example"))
    assert RouteKey.parse(b"d.example\0<a@x.example\0.example") == both
    assert route_text(b"<a@x.example\0.example") == "from a@x.example .example"
    assert route_text(b">mx") == "mx"


REFUSED = [
    ({"sender": "no domain", "next_hop": "mx"}, "sender: "),
    ({"sender": "@x.example", "next_hop": "mx"}, "sender: "),
    ({"sender": "a\nb@x.example", "next_hop": "mx"}, "sender: "),
    ({"domain": "exa mple", "next_hop": "mx"}, "domain: "),
    ({"domain": "*.example.com", "next_hop": "mx"}, "domain: "),
    ({"domain": "", "next_hop": "mx"}, "domain: "),
    ({"domain": "*", "next_hop": "smtp://"}, "next_hop: "),
    ({"domain": "*"}, "`next_hop`"),
    ({"domain": "*", "next_hop": "mx", "via": "mx"}, "`via`"),
    ({"domain": "*", "next_hop": 25}, "`$.next_hop`"),
]


@pytest.mark.parametrize(("table", "key"), REFUSED)
def test_bad_route_is_refused_with_its_key(table: dict[str, object], key: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(table, RouteOptions)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("routes", "does", "reason"),
    [
        ([], False, "no route"),
        ([{"domain": "*"}], False, "a smarthost for everything need not know of us"),
        ([{"domain": "mx.example.net"}], True, "the name itself"),
        ([{"domain": "MX.Example.NET"}], True, "in any case"),
        ([{"domain": ".example.net"}], True, "those that it is among"),
        ([{"domain": ".mx.example.net"}], False, "those below it"),
        ([{"domain": "example.net"}], False, "the domain above"),
        ([{"domain": "mx.example.net", "sender": "<>"}], False, "of some senders only"),
        ([{"domain": "other.example"}, {"domain": "mx.example.net"}], True, "one of many"),
        ([{"domain": "*"}, {"domain": "mx.example.net"}], False, "the first counts"),
        ([{"domain": "mx.example.net"}, {"domain": "*"}], True, "and it is the first"),
        ([{"domain": ".example.net", "next_hop": "mx"}, {"domain": "*"}], False, "to whoever DNS names"),
        ([{"domain": "*", "sender": "<>"}, {"domain": "mx.example.net"}], True, "reports go elsewhere"),
    ],
)
def test_a_route_names_a_domain(routes: list[dict[str, str]], does: bool, reason: str) -> None:
    made = [RouteOptions(**{"next_hop": A, **each}) for each in routes]
    assert names_domain(made, "mx.example.net") is does, reason
