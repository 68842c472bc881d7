"""When quiet hours begin and end: over midnight, on some days, over changes of clocks."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from angarium.queue.quiet import QuietHours, QuietOptions, quiet_hours
from angarium.queue.selection import Selection

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def hours(start: str, end: str, *days: str) -> QuietHours:
    return QuietHours(Selection(domain="y.example"), start, end, "Europe/Berlin", days)


@pytest.mark.parametrize(
    ("quiet", "now", "ends"),
    [
        (hours("22:00", "07:00"), "2026-11-26T21:59", None),
        (hours("22:00", "07:00"), "2026-11-26T22:00", "2026-11-27T07:00"),
        (hours("22:00", "07:00"), "2026-11-27T06:59", "2026-11-27T07:00"),
        (hours("22:00", "07:00"), "2026-11-27T07:00", None),
        (hours("12:00", "13:00"), "2026-11-26T12:30", "2026-11-26T13:00"),
        (hours("22:00", "22:00"), "2026-11-26T21:00", "2026-11-26T22:00"),      # a whole day
        (hours("22:00", "07:00", "fri"), "2026-11-27T06:00", None),             # Thursday's night
        (hours("22:00", "07:00", "fri"), "2026-11-28T06:00", "2026-11-28T07:00"),
        (hours("01:00", "04:00"), "2026-03-29T01:30", "2026-03-29T04:00"),      # two hours long that night
        # Clocks go from 02:00 to 03:00: what begins or ends in between does so then.
        (hours("02:30", "07:00"), "2026-03-29T01:59", None),
        (hours("02:30", "07:00"), "2026-03-29T03:00", "2026-03-29T07:00"),
        (hours("22:00", "02:30"), "2026-03-29T01:59", "2026-03-29T03:00"),
        (hours("22:00", "02:30"), "2026-03-29T03:00", None),
    ],
)
def test_they_hold_from_start_to_end(quiet: QuietHours, now: str, ends: str | None) -> None:
    assert quiet.ends(at(now)) == (0.0 if ends is None else at(ends))


def test_a_night_in_which_clocks_change_is_as_long_as_it_is() -> None:
    spring, autumn = hours("22:00", "07:00"), hours("22:00", "07:00")
    assert spring.ends(at("2026-03-28T22:00")) - at("2026-03-28T22:00") == 8 * 3600
    assert autumn.ends(at("2026-10-24T22:00")) - at("2026-10-24T22:00") == 10 * 3600


@pytest.mark.parametrize(
    ("quiet", "now", "begins"),
    [
        (hours("22:00", "07:00"), "2026-11-26T21:59", "2026-11-26T22:00"),
        (hours("22:00", "07:00"), "2026-11-26T22:00", "2026-11-27T22:00"),
        (hours("22:00", "07:00", "thu"), "2026-11-26T22:00", "2026-12-03T22:00"),
    ],
)
def test_the_next_begin_is_known(quiet: QuietHours, now: str, begins: str) -> None:
    assert quiet.begins(at(now)) == at(begins)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"domains": ["y.example"], "zone": "Europe/Atlantis"}, 'zone: there is no time zone "Europe/Atlantis"'),
        ({"domains": ["y.example"], "start": "24:00"}, "start: expected a time of day"),
        ({"domains": ["y..example"]}, "domains[0]:"),
        ({}, "domains: either these or a provider"),
        ({"domains": ["y.example"], "provider": "google"}, "domains: either these or a provider"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, object], reason: str) -> None:
    given = {"start": "22:00", "end": "07:00", "zone": "UTC"} | options
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(given, QuietOptions)
    assert reason in str(refused.value)


def test_each_domain_is_quiet_for_itself() -> None:
    made = quiet_hours([QuietOptions(domains=["a.example", "b.example"], start="22:00", end="07:00", zone="UTC")])
    assert [each.where for each in made] == [Selection(domain="a.example"), Selection(domain="b.example")]
