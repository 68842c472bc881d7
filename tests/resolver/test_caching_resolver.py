"""CachingResolver against a name server with faults, on uvloop as in a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
import uvloop
from dns_server import DnsServer
from relay_process import wait_for

from angarium.model.tlsa import TlsaRecord
from angarium.model.units import Duration
from angarium.resolver.answer import Kind, MxRecord
from angarium.resolver.caching_resolver import CachingResolver
from angarium.resolver.options import ResolverOptions

T = TypeVar("T")

RECORDS = {
    "example.com": {"MX": ["20 mx2.example.com.", "10 MX1.Example.com.", "10 mx0.example.com."]},
    "mx1.example.com": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
    "many.example.com": {"A": ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
                         "AAAA": ["2001:db8::1", "2001:db8::2"]},
    "v4.example.com": {"A": ["192.0.2.4"]},
    "v6.example.com": {"AAAA": ["2001:db8::6"]},
    "text.example.com": {"TXT": ['"no mail here"']},
    "null.example.com": {"MX": ["0 ."]},
    "alias.example.com": {"CNAME": ["example.com."]},
    "hostalias.example.com": {"CNAME": ["mx1.example.com."]},
    "chain1.example.com": {"CNAME": ["chain2.example.com."]},
    "chain2.example.com": {"CNAME": ["v4.example.com."]},
    "loop1.example.com": {"CNAME": ["loop2.example.com."]},
    "loop2.example.com": {"CNAME": ["loop1.example.com."]},
    "dangling.example.com": {"CNAME": ["nowhere.example."]},
    "short.example.com": {"A": (0, ["192.0.2.7"])},
    "long.example.com": {"A": (10_000_000, ["192.0.2.8"])},
    "odd.example.com": {"MX": ["10 a\\032b\\010c.example.com."]},
}
MX1 = ("2001:db8::1", "192.0.2.1")


class Clock:
    """A monotonic clock that stands still until told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(nameservers: list[str], ask: Callable[[CachingResolver, Clock], Awaitable[T]], **options: Any) -> T:
    async def main() -> T:
        clock = Clock()
        chosen = {"timeout": Duration(20), **options}
        resolver = CachingResolver(ResolverOptions(nameservers=nameservers, **chosen), clock=clock)
        try:
            return await ask(resolver, clock)
        finally:
            await resolver.close()

    return uvloop.run(main())


def closed_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_mx_records_come_sorted_in_lower_case() -> None:
    with DnsServer(RECORDS) as dns:
        answer = run([dns.address], lambda resolver, _: resolver.mx("example.com"))
    assert answer.kind is Kind.FOUND
    assert answer.records == (
        MxRecord(10, "mx0.example.com"), MxRecord(10, "mx1.example.com"), MxRecord(20, "mx2.example.com"))
    assert answer.expires_mono_s == 1300.0


@pytest.mark.parametrize("trusts", [False, True])
def test_what_dns_vouches_for_counts_only_where_it_is_trusted_with_that(trusts: bool) -> None:
    """RFC 4035 §3.2.3: AD means something only from a server, and over a way, that one trusts."""
    with DnsServer(RECORDS, {"example.com": "secure"}) as dns:
        answer = run([dns.address], lambda resolver, _: resolver.mx("example.com"), trust_ad=trusts)
        other = run([dns.address], lambda resolver, _: resolver.mx("alias.example.com"), trust_ad=trusts)
    assert answer.is_secure is trusts
    assert not other.is_secure


MX_ROWS = [
    ("null.example.com", "", Kind.FOUND, (MxRecord(0, "."),), "RFC 7505: the root is kept as such"),
    ("alias.example.com", "", Kind.FOUND, 3, "a CNAME is followed"),
    ("nowhere.example", "", Kind.NXDOMAIN, (), "no such domain"),
    ("dangling.example.com", "", Kind.NXDOMAIN, (), "a CNAME to nowhere, RFC 2308 §2.1"),
    ("text.example.com", "", Kind.NO_DATA, (), "a domain without MX"),
    ("example.com", "nodata-without-soa", Kind.NO_DATA, (), "a negative answer without SOA is one"),
    ("loop1.example.com", "", Kind.SERVER_FAILURE, (), "CNAME loop"),
    ("example.com", "servfail", Kind.SERVER_FAILURE, (), "SERVFAIL"),
    ("example.com", "refused", Kind.SERVER_FAILURE, (), "REFUSED says nothing of the name"),
    ("example.com", "referral", Kind.SERVER_FAILURE, (), "an empty answer without recursion is not NO_DATA"),
    ("example.com", "drop", Kind.TIMEOUT, (), "silence"),
    ("example.com", "slow:60", Kind.TIMEOUT, (), "too slow"),
    ("example.com", "wrong-id-only", Kind.TIMEOUT, (), "an answer to another query is none"),
    ("example.com", "wrong-question", Kind.TIMEOUT, (), "an answer to another question is none"),
    ("example.com", "truncate-then-close", Kind.SERVER_FAILURE, (), "TCP breaks off"),
    ("example.com", "wrong-id", Kind.FOUND, 3, "a forged answer first: the true one counts"),
    ("example.com", "garbage", Kind.FOUND, 3, "garbage first: the true one counts"),
    ("example.com", "truncate", Kind.FOUND, 3, "TC: asked again by TCP, RFC 7766"),
    ("example.com", "drop:1", Kind.FOUND, 3, "a lost datagram is asked for again"),
    ("example.com", "formerr-with-edns", Kind.FOUND, 3, "RFC 6891 §7: without EDNS then"),
    ("a..b", "", Kind.NXDOMAIN, (), "what cannot be a name does not exist"),
    ("odd.example.com", "", Kind.FOUND, (MxRecord(10, "a\\032b\\010c.example.com"),), "escapes stay"),
]


@pytest.mark.parametrize(("name", "fault", "kind", "records", "reason"), MX_ROWS,
                         ids=[row[4] for row in MX_ROWS])
def test_each_way_to_say_yes_or_no_has_its_kind(
    name: str, fault: str, kind: Kind, records: Any, reason: str
) -> None:
    patience: dict[str, Any] = {}
    if kind is Kind.TIMEOUT:
        patience = {"timeout": Duration(0.2), "tries": 2}
    elif fault == "drop:1":
        patience = {"timeout": Duration(0.5), "tries": 10}
    with DnsServer(RECORDS, {name: fault} if fault else {}) as dns:
        answer = run([dns.address], lambda resolver, _: resolver.mx(name), **patience)
    assert answer.kind is kind
    if isinstance(records, int):
        assert len(answer.records) == records
    else:
        assert answer.records == records
    assert bool(answer.detail) == (kind is not Kind.FOUND)


ADDRESS_ROWS: list[tuple[str, dict[str, str], Kind, tuple[str, ...], str]] = [
    ("mx1.example.com", {}, Kind.FOUND, MX1, "both families, IPv6 first"),
    ("hostalias.example.com", {}, Kind.FOUND, MX1, "through a CNAME"),
    ("chain1.example.com", {}, Kind.FOUND, ("192.0.2.4",), "through two"),
    ("v4.example.com", {}, Kind.FOUND, ("192.0.2.4",), "IPv4 only"),
    ("v6.example.com", {}, Kind.FOUND, ("2001:db8::6",), "IPv6 only"),
    ("mx1.example.com", {"mx1.example.com AAAA": "servfail"}, Kind.FOUND, MX1[1:], "one family suffices"),
    ("mx1.example.com", {"mx1.example.com A": "drop"}, Kind.FOUND, MX1[:1], "whichever"),
    ("v6.example.com", {"v6.example.com AAAA": "servfail"}, Kind.SERVER_FAILURE, (), "outranks no data"),
    ("v4.example.com", {"v4.example.com A": "drop"}, Kind.TIMEOUT, (), "a timeout too"),
    ("text.example.com", {}, Kind.NO_DATA, (), "no address at all"),
    ("nowhere.example", {}, Kind.NXDOMAIN, (), "no such host"),
]


@pytest.mark.parametrize(("name", "faults", "kind", "addresses", "reason"), ADDRESS_ROWS,
                         ids=[row[4] for row in ADDRESS_ROWS])
def test_addresses_of_both_families_are_one_answer(
    name: str, faults: dict[str, str], kind: Kind, addresses: tuple[str, ...], reason: str
) -> None:
    with DnsServer(RECORDS, faults) as dns:
        # The longer time where a family that is answered was not in the shorter one.
        for timeout_s in (0.5, 5) if "drop" in faults.values() else (20,):
            answer = run([dns.address], lambda resolver, _: resolver.addresses(name), timeout=Duration(timeout_s))
            if (answer.kind, answer.records) == (kind, addresses):
                break
    assert (answer.kind, answer.records) == (kind, addresses)


def test_many_addresses_come_from_both_families_in_turn() -> None:
    with DnsServer(RECORDS) as dns:
        answer = run([dns.address], lambda resolver, _: resolver.addresses("many.example.com"))
    assert [":" in address for address in answer.records] == [True, False, True, False, False]


def test_canonical_name_is_told() -> None:
    with DnsServer(RECORDS) as dns:
        answer = run([dns.address], lambda resolver, _: resolver.addresses("hostalias.example.com"))
    assert answer.name == "mx1.example.com"


LIFETIMES = [
    ("v4.example.com", {}, 300.0, "the record's TTL"),
    ("short.example.com", {}, 5.0, "TTL 0 is raised to the least"),
    ("long.example.com", {}, 86_400.0, "TTL of years is cut to the greatest"),
    ("nowhere.example", {}, 60.0, "RFC 2308 §5: the SOA's MINIMUM"),
    ("v4.example.com", {"v4.example.com": "nodata-without-soa"}, 5.0, "no SOA: hardly at all"),
    ("v4.example.com", {"v4.example.com": "servfail"}, 5.0, "RFC 9520: a failure is remembered, briefly"),
]


@pytest.mark.parametrize(("name", "faults", "lifetime_s", "reason"), LIFETIMES,
                         ids=[row[3] for row in LIFETIMES])
def test_answer_lives_as_long_as_it_may(
    name: str, faults: dict[str, str], lifetime_s: float, reason: str
) -> None:
    # IPv4 alone is looked at: the negative answer for AAAA has a life of its own.
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        await resolver.addresses(name)
        clock.now += lifetime_s - 0.5
        await resolver.addresses(name)
        assert dns.count(name, "A") == asked_at_first
        clock.now += 1.0
        await resolver.addresses(name)
        assert dns.count(name, "A") == asked_at_first + 1

    with DnsServer(RECORDS, faults) as dns:
        asked_at_first = 1
        run([dns.address], ask, prefetch=False)


def test_identical_look_ups_in_flight_are_one_query() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        answers = await asyncio.gather(*(resolver.mx("example.com") for _ in range(50)))
        assert {answer.kind for answer in answers} == {Kind.FOUND}

    with DnsServer(RECORDS, {"example.com": "slow:0.05"}) as dns:
        run([dns.address], ask)
        assert dns.count("example.com", "MX") == 1


def test_one_who_stops_waiting_does_not_end_the_query_for_others() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        first = asyncio.ensure_future(resolver.mx("example.com"))
        second = asyncio.ensure_future(resolver.mx("example.com"))
        await until(lambda: bool(dns.queries))
        first.cancel()
        dns.release()
        assert (await second).kind is Kind.FOUND
        assert first.cancelled()

    with DnsServer(RECORDS, {"example.com": "held"}) as dns:
        run([dns.address], ask)


def test_no_more_queries_at_once_than_allowed() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        await asyncio.gather(*(resolver.mx(name) for name in names))

    names = [f"d{i}.example.com" for i in range(10)]
    with DnsServer({name: {"MX": ["0 mx."]} for name in names}, dict.fromkeys(names, "slow:0.02")) as dns:
        run([dns.address], ask, concurrency=3)
        assert len(set(dns.queries)) == 10
        assert dns.peak <= 3


def test_cache_is_bounded() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        for i in range(6):
            await resolver.mx(f"d{i}.example.com")
        await resolver.mx("d5.example.com")
        await resolver.mx("d0.example.com")

    with DnsServer({f"d{i}.example.com": {"MX": ["0 mx."]} for i in range(6)}) as dns:
        run([dns.address], ask, cache_entries=4)
        assert dns.count("d5.example.com", "MX") == 1
        assert dns.count("d0.example.com", "MX") == 2


def test_second_name_server_answers_for_a_silent_first_and_is_asked_first_from_then() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> list[Kind]:
        return [(await resolver.mx(name)).kind for name in ("example.com", "null.example.com")]

    faults = {"example.com": "drop", "null.example.com": "drop"}
    for timeout_s in (0.5, 5):          # the longer one where the good one did not answer in the shorter either
        with DnsServer(RECORDS, faults) as silent, DnsServer(RECORDS) as good:
            kinds = run([silent.address, good.address], ask, timeout=Duration(timeout_s))
            wait_for(lambda silent=silent: silent.queries, "the silent one has seen it")
        if (kinds, len(silent.queries)) == ([Kind.FOUND] * 2, 1):
            break
    assert kinds == [Kind.FOUND] * 2
    assert silent.queries == ["example.com MX"]
    assert len(good.queries) == 2


def test_second_name_server_is_asked_after_a_refusal() -> None:
    with DnsServer(RECORDS, {"example.com": "refused"}) as broken, DnsServer(RECORDS) as good:
        answer = run([broken.address, good.address], lambda resolver, _: resolver.mx("example.com"))
    assert answer.kind is Kind.FOUND


def test_name_server_that_is_not_there_is_a_failure_at_once() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answer = await resolver.mx("example.com")
        assert answer.kind is Kind.SERVER_FAILURE
        assert "refused" in answer.detail
        return loop.time() - begun

    # The time-out is a minute: to pass within the test's own limit the answer cannot have waited for it.
    assert run([f"127.0.0.1:{closed_port()}"], ask, timeout=Duration(60)) < 30


def test_failure_heals_when_its_short_life_is_over() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        assert (await resolver.mx("example.com")).kind is Kind.SERVER_FAILURE
        dns.set_fault("example.com", None)
        assert (await resolver.mx("example.com")).kind is Kind.SERVER_FAILURE
        clock.now += 6
        assert (await resolver.mx("example.com")).kind is Kind.FOUND

    with DnsServer(RECORDS, {"example.com": "servfail"}) as dns:
        run([dns.address], ask)


def test_large_answer_comes_whole() -> None:
    hosts = [f"{i} a-rather-long-name-for-a-mail-exchanger-{i}.example.net." for i in range(100)]
    with DnsServer({"big.example": {"MX": hosts}}, {"big.example": "truncate"}) as dns:
        answer = run([dns.address], lambda resolver, _: resolver.mx("big.example"))
        assert dns.queries == ["big.example MX", "big.example MX tcp"]
    assert len(answer.records) == 100


def test_tlsa_text_and_alias_records_as_they_are() -> None:
    sha256 = "ab" * 32
    records = {
        "_25._tcp.mx.example.com": {"TLSA": [f"3 1 1 {sha256}", "2 0 0 3003"]},
        "_mta-sts.example.com": {"TXT": ['"v=STSv1; " "id=1;"', '"other \\252"']},
        "alias.example.com": {"CNAME": ["Target.example.com."]},
        "target.example.com": {"A": ["192.0.2.1"]},
    }

    async def ask(resolver: CachingResolver, _: Clock) -> None:
        tlsa = await resolver.tlsa("_25._tcp.mx.example.com")
        assert tlsa.records == (TlsaRecord(2, 0, 0, bytes.fromhex("3003")), TlsaRecord(3, 1, 1, bytes.fromhex(sha256)))
        assert set((await resolver.txt("_mta-sts.example.com")).records) == {"v=STSv1; id=1;", "other \xfc"}
        assert (await resolver.alias("alias.example.com")).records == ("target.example.com",)
        assert (await resolver.alias("target.example.com")).kind is Kind.NO_DATA

    with DnsServer(records) as dns:
        run([dns.address], ask)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("nxdomain", Kind.NXDOMAIN, "no such domain"),
        ("nodata", Kind.NO_DATA, "no such record"),
        ("bogus", Kind.SERVER_FAILURE, "SERVFAIL (dnssec bogus) from"),
        ("servfail", Kind.SERVER_FAILURE, "SERVFAIL from"),
        ("drop", Kind.TIMEOUT, "no answer from"),
    ],
)
def test_the_kinds_of_no_for_tlsa(fault: str, kind: Kind, words: str) -> None:
    with DnsServer({}, {"_25._tcp.mx.example.com": fault}) as dns:
        patience = Duration(0.3) if kind is Kind.TIMEOUT else Duration(20)
        answer = run([dns.address], lambda resolver, _: resolver.tlsa("_25._tcp.mx.example.com"), timeout=patience)
    assert answer.kind is kind
    assert words in answer.detail
    assert answer.detail.isprintable()


def test_addresses_are_secure_when_those_found_are() -> None:
    async def ask(resolver: CachingResolver, _: Clock) -> list[bool]:
        return [(await resolver.addresses(name)).is_secure for name in ("mx1.example.com", "v4.example.com")]

    faults = {"mx1.example.com": "secure", "v4.example.com A": "secure", "v4.example.com AAAA": "servfail"}
    with DnsServer(RECORDS, faults) as dns:
        assert run([dns.address], ask, trust_ad=True) == [True, True]
        dns.set_fault("mx1.example.com AAAA", "slow:0")      # it answers, and does not vouch for it
        assert run([dns.address], ask, trust_ad=True) == [False, True]
        assert run([dns.address], ask) == [False, False]


def test_a_name_in_demand_is_looked_up_before_its_time_is_up() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        first = await resolver.mx("example.com")
        assert (first.look_again_mono_s, first.expires_mono_s) == (1270.0, 1300.0)
        clock.now = 1269.0
        await resolver.mx("example.com")
        assert dns.count("example.com", "MX") == 1
        clock.now = 1271.0
        assert await resolver.mx("example.com") == first        # at once; the query is under way behind it
        await until(lambda: dns.count("example.com", "MX") == 2)
        await settled(resolver)
        clock.now = 1400.0
        assert (await resolver.mx("example.com")).expires_mono_s == 1571.0
        assert dns.count("example.com", "MX") == 2

    with DnsServer(RECORDS) as dns:
        run([dns.address], ask)


def test_a_prefetch_that_fails_leaves_the_answer_for_its_time() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        first = await resolver.mx("example.com")
        clock.now = 1271.0
        dns.set_fault("example.com", "servfail")
        await resolver.mx("example.com")
        await until(lambda: dns.count("example.com", "MX") == 2)
        await settled(resolver)
        assert (await resolver.mx("example.com")).records == first.records
        assert dns.count("example.com", "MX") == 2              # not at every question
        clock.now = 1299.0
        assert (await resolver.mx("example.com")).kind is Kind.FOUND
        await settled(resolver)
        clock.now = 1300.0
        assert (await resolver.mx("example.com")).kind is Kind.SERVER_FAILURE

    with DnsServer(RECORDS) as dns:
        run([dns.address], ask)


def test_without_prefetching_nothing_is_asked_early() -> None:
    async def ask(resolver: CachingResolver, clock: Clock) -> None:
        await resolver.mx("example.com")
        clock.now = 1299.0
        assert (await resolver.mx("example.com")).look_again_mono_s == 1300.0
        await settled(resolver)
        assert dns.count("example.com", "MX") == 1

    with DnsServer(RECORDS) as dns:
        run([dns.address], ask, prefetch=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def settled(resolver: CachingResolver) -> None:
    """No query is under way."""
    await until(lambda: not resolver._in_flight)
