"""How options are read: endpoints, sizes, and the rules of a sink."""

from __future__ import annotations

import random

import pytest

from angarium.measure.endpoint import Endpoint, parse_endpoint
from angarium.measure.rules import (
    Conduct,
    Delay,
    Rule,
    Rules,
    parse_delay_rule,
    parse_disconnect_rule,
    parse_reply_rule,
)
from angarium.measure.sizes import parse_octets, parse_sizes


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:25", Endpoint(host="127.0.0.1", port=25)),
        ("[::1]:2525", Endpoint(host="::1", port=2525)),
        (":25", Endpoint(host="127.0.0.1", port=25)),
        ("mx.example:25", Endpoint(host="mx.example", port=25)),
        ("unix:/run/lmtp", Endpoint(path="/run/lmtp")),
    ],
)
def test_endpoint_is_read_as_people_write_it(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text", ["", "25", "host", "host:", "host:smtp", "::1:25", "host:65536", "unix:", "a:²"]
)
def test_endpoint_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_endpoint(text)


def test_sizes_are_numbers_ranges_and_mixes() -> None:
    assert [parse_octets(t) for t in ("4096", "4k", "4KiB", "1.5M")] == [4096, 4096, 4096, 1572864]
    mix = parse_sizes("4k:90,100k-1M:10")
    drawn = [mix.draw(chance) for chance in [random.Random(1)] for _ in range(1000)]
    assert 850 < drawn.count(4096) < 950
    assert all(size == 4096 or 102400 <= size <= 1048576 for size in drawn)


@pytest.mark.parametrize("text", ["", "4x", "8k-4k", "10", "4k:0", "4k:much", "-4k", "4k,"])
def test_sizes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_sizes(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rcpt=450", Rule("rcpt", "reply", reply=b"450 4.3.0 Try again later\r\n")),
        ("RCPT@10=550 5.1.1 No", Rule("rcpt", "reply", 10, b"550 5.1.1 No\r\n")),
        (".=250 fine", Rule(".", "reply", reply=b"250 fine\r\n")),
        ("mail@0.5%=451 a\\nb", Rule("mail", "reply", 0.5, b"451-a\r\n451 b\r\n")),
        ("dot=250 fine", Rule(".", "reply", reply=b"250 fine\r\n")),
        ("*@1=421 Gone", Rule("*", "reply", 1, b"421 Gone\r\n")),
    ],
)
def test_reply_rule_is_read(text: str, rule: Rule) -> None:
    assert parse_reply_rule(text) == rule


@pytest.mark.parametrize(
    "text", ["rcpt", "rcpt=", "rcpt=99", "rcpt=650 x", "expn=450", "rcpt@101=450", "rcpt=450 a\rb"]
)
def test_reply_rule_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_reply_rule(text)


@pytest.mark.parametrize(
    "text", ["data", "data=", "data=-1", "data=soon", "data=inf", "nothing=1", "*=2-1", "*=~1-2", "*=1-"]
)
def test_delay_rule_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_delay_rule(text)


def test_delays_are_fixed_between_two_or_exponential() -> None:
    chance = random.Random(5)
    assert parse_delay_rule("rcpt@5=30") == Rule("rcpt", "delay", 5, delay=Delay(30))
    between = [parse_delay_rule("*=0.1-0.3").delay.draw(chance) for _ in range(5000)]
    assert 0.1 <= min(between) < 0.11
    assert 0.29 < max(between) <= 0.3
    exponential = [parse_delay_rule("*=~0.2").delay.draw(chance) for _ in range(5000)]
    assert 0.19 < sum(exponential) / 5000 < 0.21
    assert max(exponential) > 1


def test_a_rule_for_each_reply_stands_in_line_with_those_of_its_verb() -> None:
    texts = ("mail=451 first", "*=450 each", "rcpt=452 late")
    rules = Rules([parse_reply_rule(text) for text in texts])
    assert rules.conduct("mail").reply == b"451 first\r\n"
    assert rules.conduct("rcpt").reply == rules.conduct("quit").reply == b"450 each\r\n"


def test_first_rule_that_applies_decides_and_delays_add_up() -> None:
    rules = Rules(
        [
            parse_delay_rule("rcpt=1"),
            parse_reply_rule("rcpt@0=421"),
            parse_disconnect_rule("rcpt"),
            parse_reply_rule("rcpt=450"),
            parse_delay_rule("rcpt=0.5"),
        ]
    )
    assert rules.conduct("rcpt") == Conduct(1.5, None, True)
    assert rules.conduct("mail") == Conduct()


def test_odds_come_true_in_the_long_run() -> None:
    rules = Rules([parse_reply_rule("mail@20=450")], seed=7)
    refused = sum(rules.conduct("mail").reply is not None for _ in range(5000))
    assert 900 < refused < 1100
