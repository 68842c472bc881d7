"""Quantities as operators write them."""

from __future__ import annotations

import math

import pytest

from angarium.model.address import ListenAddress
from angarium.model.units import Duration, Octets, Rate

DURATIONS = [
    ("0s", 0.0),
    ("90s", 90.0),
    ("5m", 300.0),
    ("4h", 14400.0),
    ("5d", 432000.0),
    ("2w", 1209600.0),
    ("250ms", 0.25),
    ("1.5h", 5400.0),
    ("1h30m", 5400.0),
]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert Duration.decode(text) == seconds


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (5, "a bare number could be minutes"),
        (5.0, "the same"),
        ("5", "the same"),
        ("", "nothing"),
        ("m", "no number"),
        ("-5m", "negative"),
        ("5 m", "a space"),
        ("5M", "months? minutes?"),
        ("5m!", "something behind"),
        ("٥m", "only ASCII digits"),
        (True, "not a text"),
        (None, "not a text"),
    ],
)
def test_what_is_not_a_duration_is_refused(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        Duration.decode(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "1m30s"), (300, "5m"), (432000, "5d"), (0.25, "250ms"), (5400.5, "1h30m500ms")],
)
def test_a_duration_reads_back(seconds: float, text: str) -> None:
    assert str(Duration(seconds)) == text
    assert Duration.decode(text) == seconds


@pytest.mark.parametrize(
    ("text", "per_s"),
    [
        ("100/s", 100),
        ("60/m", 1),
        ("5000/h", 5000 / 3600),
        ("86400/d", 1),
        ("20/10s", 2),
        ("0.5/s", 0.5),
        ("1 / s", 1),
    ],
)
def test_a_rate_is_events_per_second(text: str, per_s: float) -> None:
    rate = Rate.decode(text)
    assert rate == pytest.approx(per_s)
    assert rate.is_limited


def test_a_rate_of_none_is_no_limit() -> None:
    assert Rate.decode("none") == math.inf
    assert not Rate.decode("none").is_limited


@pytest.mark.parametrize("value", ["0/s", "100", 100, "100/", "/s", "-1/s", "100/y", "5/0s", ""])
def test_what_is_not_a_rate_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        Rate.decode(value)


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (0, 0),
        (65536, 65536),
        ("65536", 65536),
        ("10kB", 10000),
        ("50MiB", 50 << 20),
        ("1.5 GiB", 3 << 29),
        ("10B", 10),
    ],
)
def test_a_size_is_octets(value: object, octets: int) -> None:
    assert Octets.decode(value) == octets


@pytest.mark.parametrize("value", [-1, True, 1.5, "50M", "MiB", "50 mib", "", None])
def test_what_is_not_a_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        Octets.decode(value)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("127.0.0.1:2525", "127.0.0.1:2525"),
        ("[::]:25", "[::]:25"),
        ("[0:0:0:0:0:0:0:1]:25", "[::1]:25"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("unix:/run/angarium/lmtp.sock", "unix:/run/angarium/lmtp.sock"),
    ],
)
def test_an_address_has_one_spelling(text: str, normal: str) -> None:
    assert ListenAddress.decode(text) == normal


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("localhost:25", "is not an IP address"),
        ("127.0.0.1", "is not an address with a port"),
        ("127.0.0.1:", "is not an address with a port"),
        ("127.0.0.1:65536", "is not an address with a port"),
        ("127.0.0.1:smtp", "is not an address with a port"),
        ("::1:25", "in brackets"),
        ("[127.0.0.1]:25", "brackets are for IPv6"),
        (":25", "is not an IP address"),
        ("unix:relative", "absolute path"),
        ("unix:/" + "x" * 107, "at most 107 octets"),
        (25, "expected an address"),
    ],
)
def test_what_is_not_an_address_is_refused(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ListenAddress.decode(value)


def test_loopback_is_told_from_the_network() -> None:
    assert ListenAddress.decode("127.3.2.1:1").is_loopback
    assert ListenAddress.decode("[::1]:1").is_loopback
    assert ListenAddress.decode("unix:/run/x").is_loopback
    assert not ListenAddress.decode("0.0.0.0:1").is_loopback
