"""[[quiet]]: times of day in which nothing is tried for some domains. Who is due then waits until they are over."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from angarium.queue.selection import Selection
from angarium.queue.shaping_options import domain_pattern

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


class QuietOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One [[quiet]].

    domains   "example.com", ".example.com" (all below it).
    provider  of [shaping.provider.NAME]. One of the two is needed.
    start, end  "22:00", "07:00": local time of `zone`; end at or before start is the next day's.
    zone      of the IANA time zone database.
    days      on which they start; empty: every day.
    """

    start: str
    end: str
    zone: str
    domains: list[str] = []
    provider: str = ""
    days: list[Day] = []

    def __post_init__(self) -> None:
        if bool(self.domains) == bool(self.provider):
            raise ValueError("domains: either these or a provider")
        for index, domain in enumerate(self.domains):
            try:
                domain_pattern(domain)
            except ValueError as error:
                raise ValueError(f"domains[{index}]: {error}") from None
        for key in ("start", "end"):
            if not _TIME.fullmatch(getattr(self, key)):
                raise ValueError(f'{key}: expected a time of day such as "22:00", got "{getattr(self, key)}"')
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f'zone: there is no time zone "{self.zone}" on this machine (package tzdata), as "Europe/Berlin" is one'
            ) from None


class QuietHours(msgspec.Struct, frozen=True):
    """Of one domain or provider. Hashable: equal ones are the same."""

    where: Selection
    start: str
    end: str
    zone: str
    days: tuple[str, ...]

    def ends(self, now_utc_s: float) -> float:
        """When they are over that hold now (UTC seconds), or 0.0: none do."""
        today = datetime.fromtimestamp(now_utc_s, ZoneInfo(self.zone)).date()
        for day in (today - timedelta(days=1), today):
            begin_s, end_s = self._window(day)
            if begin_s <= now_utc_s < end_s and self._has(day):
                return end_s
        return 0.0

    def begins(self, now_utc_s: float) -> float:
        """When they begin next (UTC seconds)."""
        today = datetime.fromtimestamp(now_utc_s, ZoneInfo(self.zone)).date()
        return next(
            begin_s
            for day in (today + timedelta(days=count) for count in range(9))
            if (begin_s := self._window(day)[0]) > now_utc_s and self._has(day)
        )

    def _has(self, day: date) -> bool:
        return not self.days or _DAYS[day.weekday()] in self.days

    def _window(self, day: date) -> tuple[float, float]:
        """Over a change of clocks as they say: in the hour that comes twice from its first time on, in one that is left
        out from its end on (PEP 495)."""
        last = day if self.end > self.start else day + timedelta(days=1)
        return _instant(day, self.start, self.zone), _instant(last, self.end, self.zone)


@functools.lru_cache(1024)
def _instant(day: date, text: str, zone_name: str) -> float:
    """UTC seconds of a local time; of one that is left out, of when clocks are put on."""
    zone = ZoneInfo(zone_name)
    local = datetime.combine(day, time.fromisoformat(text), zone)
    after_s, before_s = (local.replace(fold=fold).timestamp() for fold in (0, 1))
    if before_s >= after_s:
        return after_s                          # it is there, once or twice
    offset = datetime.fromtimestamp(before_s, zone).utcoffset()
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if datetime.fromtimestamp(middle_s, zone).utcoffset() == offset:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s


def quiet_hours(options: Iterable[QuietOptions]) -> tuple[QuietHours, ...]:
    """Each domain and provider of [[quiet]] for itself."""
    return tuple(
        QuietHours(where, each.start, each.end, each.zone, tuple(each.days))
        for each in options
        for where in (
            [Selection(domain=domain) for domain in each.domains]
            if each.domains
            else [Selection(provider=each.provider)]
        )
    )
