"""Points of clients: what adds up, what is kept, and that DNS in trouble counts nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from admission.directory import Table

from angarium.admission.options import AdmissionOptions
from angarium.admission.scoring import Scores, Verdict
from angarium.model.units import decode_unit

OURS = frozenset({"mx.test.example"})
HOST = "192.0.2.99"
PTR = "99.2.0.192.in-addr.arpa"

LISTS = {
    "dns_list": [
        {"zone": "bad.example", "score": 6},
        {"zone": "worse.example", "score": 9, "values": ["127.0.0.3"]},
        {"zone": "good.example", "score": -4},
    ]
}
NAMES = {"checks": {"no_ptr": 3, "ptr_unconfirmed": 2}}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def scores(table: Table, options: dict[str, Any], clock: Clock | None = None) -> Scores:
    made = msgspec.convert(options, AdmissionOptions, dec_hook=decode_unit)
    return Scores(made, table, OURS, clock=clock or Clock())


def verdict(records: dict[str, list[str]], options: dict[str, Any]) -> Verdict:
    return asyncio.run(scores(Table(records), options).of_address(HOST))


def test_points_of_all_lists_add_up_worst_first() -> None:
    listed = {
        f"99.2.0.192.{zone}": [value]
        for zone, value in (
            ("bad.example", "127.0.0.2"), ("worse.example", "127.0.0.3"), ("good.example", "127.0.0.1")
        )
    }  # fmt: skip
    found = verdict(listed, LISTS)
    assert (found.score, found.words) == (11, ("list:worse.example", "list:bad.example", "list:good.example"))
    assert verdict({}, LISTS).score == 0


@pytest.mark.parametrize("trouble", ["!", "?"])
def test_a_list_that_does_not_answer_counts_nothing_and_holds_up_nobody(trouble: str) -> None:
    records = {"99.2.0.192.worse.example": [trouble], "99.2.0.192.bad.example": ["127.0.0.2"]}
    found = verdict(records, {**LISTS, "timeout": "100ms"})
    assert (found.score, found.is_complete) == (6, False)


@pytest.mark.parametrize(
    ("records", "score", "words"),
    [
        ({}, 3, ("no-ptr",)),
        ({PTR: ["mail.example"], "mail.example": ["192.0.2.99"]}, 0, ()),
        ({PTR: ["a.example", "b.example"], "b.example": ["192.0.2.1", "192.0.2.99"]}, 0, ()),
        ({PTR: ["mail.example"], "mail.example": ["192.0.2.98"]}, 2, ("ptr-unconfirmed",)),
        ({PTR: ["mail.example"]}, 2, ("ptr-unconfirmed",)),
        ({PTR: ["mail.example"], "mail.example": ["!"]}, 0, ()),
        ({PTR: ["!"]}, 0, ()),
    ],
)
def test_names_of_the_address(records: dict[str, list[str]], score: int, words: tuple[str, ...]) -> None:
    found = verdict(records, NAMES)
    assert (found.score, found.words) == (score, words)


def test_of_an_address_with_thousands_of_names_a_few_are_looked_at() -> None:
    table = Table({PTR: [f"n{number}.example" for number in range(5000)]})
    asyncio.run(scores(table, NAMES).of_address(HOST))
    assert len(table.asked) == 6


def test_an_ipv6_address_is_found_however_it_is_written() -> None:
    name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
    table = Table({name: ["six.example"], "six.example": ["2001:0db8::0001"]})
    assert asyncio.run(scores(table, NAMES).of_address("2001:db8::1")).score == 0


def test_a_client_is_asked_about_once_until_its_time_is_up() -> None:
    async def main() -> None:
        clock, table = Clock(), Table({"99.2.0.192.bad.example": ["127.0.0.2"]})
        each = scores(table, {**LISTS, "cache_time": "10m"}, clock)
        assert each.of_address_now(HOST) is None
        both = await asyncio.gather(each.of_address(HOST), each.of_address(HOST))
        assert [found.score for found in both] == [6, 6]
        assert len(table.asked) == 3
        clock.now += 599
        known = each.of_address_now(HOST)
        assert known is not None
        assert known.score == 6
        clock.now += 2
        assert each.of_address_now(HOST) is None

    asyncio.run(main())


def test_what_is_missing_is_asked_for_again_soon() -> None:
    async def main() -> None:
        clock, table = Clock(), Table({"99.2.0.192.bad.example": ["!"]})
        each = scores(table, LISTS, clock)
        assert (await each.of_address(HOST)).score == 0
        table.records = {"99.2.0.192.bad.example": ["127.0.0.2"]}
        clock.now += 31
        assert (await each.of_address(HOST)).score == 6

    asyncio.run(main())


def test_one_that_leaves_does_not_end_it_for_the_others() -> None:
    async def main() -> None:
        table = Table({"99.2.0.192.bad.example": ["?"]})
        each = scores(table, {**LISTS, "timeout": "200ms"})
        first = asyncio.ensure_future(each.of_address(HOST))
        second = asyncio.ensure_future(each.of_address(HOST))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).score == 0

    asyncio.run(main())


def test_no_more_clients_are_remembered_than_may_be() -> None:
    async def main() -> None:
        each = scores(Table({}), {**LISTS, "cache_entries": 10})
        for number in range(100):
            await each.of_address(f"192.0.2.{number}")
        assert sum(each.of_address_now(f"192.0.2.{number}") is not None for number in range(100)) == 10

    asyncio.run(main())


@pytest.mark.parametrize(
    ("helo", "words"),
    [
        ("mail.example.org", []),
        ("mail", ["helo-unqualified"]),
        ("192.0.2.99", ["helo-bare-address"]),
        ("2001:db8::1", ["helo-bare-address"]),
        ("[192.0.2.99]", []),
        ("[192.0.2.98]", ["helo-wrong-literal"]),
        ("[nonsense]", ["helo-wrong-literal"]),
        ("MX.Test.Example.", ["helo-is-ours"]),
        ("gone.example", ["helo-unresolvable"]),
        ("only-mx.example", []),
        ("trouble.example", []),
    ],
)
def test_names_in_helo(helo: str, words: list[str]) -> None:
    keys = ("helo_unqualified", "helo_bare_address", "helo_is_ours", "helo_wrong_literal", "helo_unresolvable")
    table = Table(
        {"mail.example.org": ["192.0.2.1"], "mx only-mx.example": ["x.example"], "trouble.example": ["!"]}
    )
    each = scores(table, {"checks": dict.fromkeys(keys, 2)})
    assert asyncio.run(each.helo_points(helo, HOST)) == [(word, 2) for word in words]


def test_a_check_without_points_is_not_made() -> None:
    table = Table({})
    each = scores(table, {"checks": {"helo_unqualified": 2}})
    assert each.helo_points_now("gone.example", HOST) == []
    assert not each.asks_of_address
    assert not table.asked


def test_of_a_client_without_an_address_nothing_is_asked_and_nothing_counts() -> None:
    """A proxy did not know it (XCLIENT ADDR=[UNAVAILABLE]): 0.0.0.0 has no name, and that says nothing of a client."""
    table = Table({"0.0.0.0.bad.example": ["127.0.0.2"]})
    options = {**LISTS, "checks": {"no_ptr": 3, "helo_wrong_literal": 4, "helo_unqualified": 2}}
    made = scores(table, options)
    assert made.of_address_now("0.0.0.0") == asyncio.run(made.of_address("0.0.0.0"))
    assert (asyncio.run(made.of_address("0.0.0.0")).score, table.asked) == (0, [])
    assert made.helo_points_now("[192.0.2.1]", "0.0.0.0") == []
    assert made.helo_points_now("[192.0.2.1]", "0.0.0.1") == [("helo-wrong-literal", 4)]
    assert made.helo_points_now("name", "0.0.0.0") == [("helo-unqualified", 2)]
