"""Which source mail leaves from."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from angarium.model.errors import ConfigError
from angarium.model.plan import Source
from angarium.routing.egress_pool import EgressPool, egress_pool
from angarium.routing.options import PoolOptions, SourceOptions

SOURCES = {"ip-1": SourceOptions(address="192.0.2.1", ehlo="out1.example"), "ip-2": SourceOptions()}


def test_without_sources_the_kernel_chooses_the_address() -> None:
    pool = egress_pool({}, PoolOptions(), "mx.example")
    assert pool.only == Source("default", "", "mx.example")
    assert pool.choose() is pool.only


def test_sources_without_a_pool_are_all_used() -> None:
    pool = egress_pool(SOURCES, PoolOptions(), "mx.example")
    assert pool.only is None
    assert pool.sources == (Source("ip-1", "192.0.2.1", "out1.example"), Source("ip-2", "", "mx.example"))


def test_pool_takes_only_its_sources() -> None:
    pool = egress_pool(SOURCES, PoolOptions(sources={"ip-2": 7}), "mx.example")
    assert pool.only == Source("ip-2", "", "mx.example")


def test_choice_follows_the_weights() -> None:
    a, b, c = Source("a"), Source("b"), Source("c")
    pool = EgressPool({a: 1, b: 3, c: 6}, random.Random(1))
    chosen = Counter(pool.choose().name for _ in range(20_000))
    assert chosen["a"] == pytest.approx(2_000, rel=0.1)
    assert chosen["b"] == pytest.approx(6_000, rel=0.1)
    assert chosen["c"] == pytest.approx(12_000, rel=0.1)


def test_dangling_reference_is_refused_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^pool\.default\.sources\.ip-3: "):
        egress_pool(SOURCES, PoolOptions(sources={"ip-1": 1, "ip-3": 1}), "mx.example")


REFUSED: list[tuple[type, dict[str, object], str]] = [
    (SourceOptions, {"address": "out.example"}, "address: "),
    (SourceOptions, {"address": "192.0.2.0/24"}, "address: "),
    (SourceOptions, {"ehlo": "two words"}, "ehlo: "),
    (SourceOptions, {"ehlo": "[192.0.2]"}, "ehlo: "),
    (SourceOptions, {"ehlo": "bücher.example"}, "ehlo: "),
    (SourceOptions, {"ehlo": "a\r\nMAIL FROM:<>"}, "ehlo: "),
    (SourceOptions, {"adress": "192.0.2.1"}, "`adress`"),
    (PoolOptions, {"sources": {"a": 0}}, "sources.a: "),
    (PoolOptions, {"sources": {"a": -1}}, "sources.a: "),
    (PoolOptions, {"sources": {"a": "1"}}, "$.sources"),
]


@pytest.mark.parametrize(("kind", "table", "key"), REFUSED)
def test_bad_table_is_refused_with_its_key(kind: type, table: dict[str, object], key: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(table, kind)
    assert key in str(caught.value)


EHLO_NAMES = ["out.example", "OUT.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", "xn--bcher-kva.example"]


@pytest.mark.parametrize("ehlo", EHLO_NAMES)
def test_ehlo_may_be_a_domain_or_an_address_literal(ehlo: str) -> None:
    assert SourceOptions(ehlo=ehlo).ehlo == ehlo
