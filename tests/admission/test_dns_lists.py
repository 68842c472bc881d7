"""Lists in DNS: what is asked, and which answers count (RFC 5782)."""

from __future__ import annotations

import msgspec
import pytest

from angarium.admission.dns_lists import ListRule, query_name
from angarium.admission.options import ListOptions


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.99", "99.2.0.192.bad.example"),  # RFC 5782 §2.1
        (
            "2001:db8:1:2:3:4:567:89ab",  # §2.4
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bad.example",
        ),
    ],
)
def test_the_name_asked_is_the_address_backwards(host: str, name: str) -> None:
    assert query_name(host, "bad.example") == name


@pytest.mark.parametrize(
    ("values", "answers", "is_listed"),
    [
        ([], ["127.0.0.2"], True),
        ([], ["127.0.1.255"], True),
        ([], [], False),
        ([], ["192.0.2.1"], False),  # a resolver that rewrites NXDOMAIN, or a domain that was sold
        ([], ["127.255.255.254"], False),  # "you may not ask" lists nobody
        (["127.0.0.2"], ["127.0.0.3"], False),
        (["127.0.0.2"], ["127.0.0.3", "127.0.0.2"], True),
        (["127.0.0.4-127.0.0.11"], ["127.0.0.4"], True),
        (["127.0.0.4-127.0.0.11"], ["127.0.0.11"], True),
        (["127.0.0.4-127.0.0.11"], ["127.0.0.12"], False),
        (["127.0.0.2", "127.0.10.0/24"], ["127.0.10.200"], True),
        (["127.0.10.0/24"], ["127.0.11.0"], False),
        (["0.0.0.0/0"], ["10.0.0.1"], False),
        ([], ["not an address"], False),
    ],
)
def test_values_that_count(values: list[str], answers: list[str], is_listed: bool) -> None:
    rule = ListRule(ListOptions(zone="Bad.Example.", values=values))
    assert rule.word == "list:bad.example"
    assert rule.matches(answers) is is_listed


@pytest.mark.parametrize(
    "wrong",
    [
        {"zone": ""},
        {"zone": "a..b"},
        {"zone": "a b.example"},
        {"zone": "x.example", "values": ["127.0.0"]},
        {"zone": "x.example", "values": ["127.0.0.1-"]},
        {"zone": "x.example", "score": 101},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, ListOptions)
