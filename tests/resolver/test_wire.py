"""Reading responses without dnspython: wherever it says something, dnspython says the same."""

from __future__ import annotations

import random

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest

from angarium.resolver import wire
from angarium.resolver.answer import Answer
from angarium.resolver.interpretation import TtlBounds, interpret_addresses, interpret_mx, interpret_reply

BOUNDS = TtlBounds(5, 86_400)
TYPES = {"MX": wire.MX, "A": wire.A, "AAAA": wire.AAAA}
NAMES = ["www.example", "alias.example", "other.test", "a.b.c.example", "x_y.example", "example"]
HOSTS = [*NAMES, "MX.Example", "", "odd\\.name.example"]


def asked(name: str, of: str, number: int = 7) -> tuple[bytes, bytes]:
    question = wire.question(name, TYPES[of])
    assert question is not None
    return question, wire.query(number, question, payload_octets=1232, asks_ad=True)


def by_dnspython(octets: bytes, query: bytes, name: str, of: str) -> Answer[object] | None:
    """None: it is no response to the query that could be used as it is."""
    try:
        response = dns.message.from_wire(octets, raise_on_truncation=True)
    except Exception:
        return None
    rcode = response.rcode()
    if not dns.message.from_wire(query).is_response(response) or rcode not in (0, 3):
        return None
    if not response.answer and not response.flags & (dns.flags.RA | dns.flags.AA):
        return None
    interpret = interpret_mx if of == "MX" else interpret_addresses
    return interpret(name, response, BOUNDS, 100.0)     # type: ignore[return-value]


def by_us(octets: bytes, name: str, of: str, number: int = 7) -> Answer[object] | None:
    question, _ = asked(name, of)
    reply = wire.read(octets, number, question, name)
    return None if reply is None else interpret_reply(name, dns.rdatatype.from_text(of), reply, BOUNDS, 100.0)


def rdata(chance: random.Random, of: str) -> str:
    match of:
        case "A":
            return f"192.0.{chance.randrange(3)}.{chance.randrange(3)}"
        case "AAAA":
            return chance.choice(["2001:db8::1", "::", "::1", "::ffff:192.0.2.1", "2001:db8:0:1:0:0:0:1", "fe80::"])
        case "MX":
            return f"{chance.randrange(30)} {chance.choice(HOSTS)}."
    return f"{chance.choice(NAMES)}."


def response(chance: random.Random, query: bytes) -> dns.message.Message:
    """Mostly as name servers make them, and everything that may be in it besides."""
    made = dns.message.make_response(dns.message.from_wire(query), recursion_available=chance.random() < 0.9)
    of = dns.rdatatype.to_text(made.question[0].rdtype)
    owner = made.question[0].name
    while chance.random() < 0.3:
        target = dns.name.from_text(chance.choice(NAMES))
        made.answer.append(dns.rrset.from_text(owner, chance.randrange(900), "IN", "CNAME", target.to_text()))
        owner = target
    if chance.random() < 0.7:
        texts = [rdata(chance, of) for _ in range(chance.randint(1, 4))]
        made.answer.append(dns.rrset.from_text(owner, chance.randrange(9000), "IN", of, *dict.fromkeys(texts)))
    elif chance.random() < 0.5:
        made.set_rcode(3)
    if chance.random() < 0.1:
        kind = chance.choice(["A", "MX", "CNAME"])
        made.answer.append(dns.rrset.from_text(chance.choice(NAMES) + ".", 60, "IN", kind, rdata(chance, kind)))
    if chance.random() < 0.6:
        zone = chance.choice(["example.", ".", "test.", "www.example."])
        soa = f"ns.{zone} host.{zone} 1 2 3 4 {chance.randrange(20_000)}".replace("..", ".")
        made.authority.append(dns.rrset.from_text(zone, chance.randrange(9000), "IN", "SOA", soa))
    if chance.random() < 0.2:
        made.authority.append(dns.rrset.from_text("example.", 60, "IN", "NS", "ns.example."))
        made.additional.append(dns.rrset.from_text("ns.example.", 60, "IN", "A", "192.0.2.53"))
    if chance.random() < 0.3:
        made.flags |= dns.flags.AD
    if chance.random() < 0.1:
        made.use_edns(0, ednsflags=chance.choice([0, 0x8000, 1 << 24]))
    return made


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_read_is_read_as_dnspython_does(seed: int) -> None:
    chance = random.Random(seed)
    read = 0
    for _ in range(150):
        name, of = chance.choice(NAMES), chance.choice(list(TYPES))
        _, query = asked(name, of)
        octets = bytearray(response(chance, query).to_wire())
        if chance.random() < 0.4:
            for _ in range(chance.randint(1, 3)):
                octets[chance.randrange(len(octets))] = chance.randrange(256)
        if chance.random() < 0.1:
            octets = octets[: chance.randrange(len(octets))]
        ours = by_us(bytes(octets), name, of)
        if ours is not None:
            read += 1
            assert ours == by_dnspython(bytes(octets), query, name, of)
    assert read > 15, "the test would say nothing"


@pytest.mark.parametrize("of", TYPES)
def test_usual_answers_need_no_dnspython(of: str) -> None:
    name = "www.example"
    _, query = asked(name, of)
    made = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    made.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "CNAME", "alias.example."))
    texts = {"MX": ["20 b.example.", "10 A.example."], "A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}[of]
    made.answer.append(dns.rrset.from_text("alias.example.", 90, "IN", of, *texts))
    ours = by_us(made.to_wire(), name, of)
    assert ours is not None
    assert ours.name == "alias.example"
    assert ours.expires_mono_s == 160.0
    negative = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    soa = "ns.example. host.example. 1 2 3 4 30"
    negative.authority.append(dns.rrset.from_text("example.", 900, "IN", "SOA", soa))
    ours = by_us(negative.to_wire(), name, of)
    assert ours is not None
    assert ours.expires_mono_s == 130.0
    assert ours.detail == f"www.example {of}: no such record"


def test_a_response_to_another_question_or_number_is_none() -> None:
    question, query = asked("www.example", "A")
    made = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    made.answer.append(dns.rrset.from_text("www.example.", 60, "IN", "A", "192.0.2.1"))
    octets = made.to_wire()
    assert wire.read(octets, 7, question, "www.example") is not None
    assert wire.read(octets, 8, question, "www.example") is None
    other, _ = asked("www.exampla", "A")
    assert wire.read(octets, 7, other, "www.exampla") is None
    assert wire.read(query, 7, question, "www.example") is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "a.", ".a", "x" * 64 + ".example", ".".join(["x" * 63] * 4), "a b.example", "a\\046b.example",
     "ü.example", "A.example"],
)
def test_what_is_not_plainly_a_name_is_not_asked_for(name: str) -> None:
    assert wire.question(name, wire.A) is None


@pytest.mark.parametrize(
    "name", ["a", "_25._tcp.mx.example", "x" * 63 + ".example", ".".join(["x" * 63] * 3 + ["y" * 61])]
)
def test_a_question_is_as_dnspython_writes_it(name: str) -> None:
    made = dns.message.make_query(name, "MX")
    assert wire.question(name, wire.MX) == made.to_wire()[12:]
    assert dns.message.from_wire(asked(name, "MX")[1]).edns == 0
