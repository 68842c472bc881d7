"""Automation: from what workers notice to what is done about it, for how long, and how it goes back. Knows no loop, no
file and no worker: process/automation_desk.py has these.

Notices of all workers come together here, once a second each; that is the only count there is, so that a rule holds for
the machine whatever worker had the connection.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from angarium.model.units import Duration
from angarium.queue.adjustments import Adjustment
from angarium.queue.automation_options import TREATMENTS, AutomationRule
from angarium.queue.notices import Notice, Place, Tally, concerns_tally, scoped
from angarium.queue.selection import Selection
from angarium.queue.standing import NAME_CHARACTERS, Order

MEASURES_MAX: Final = 1000
_WINDOWS_MAX: Final = 100000
_REPLIES_KEPT: Final = 3
_PLACE: Final = ("site", "provider", "source", "tenant", "campaign")
_BUCKETS: Final = 60        # of a window: what is older by one of them counts a little too long


class Evidence(msgspec.Struct, frozen=True):
    """One reply that led to a measure."""

    at_utc_s: float
    reply: str
    remote: str


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """Something that automation does now.

    name      rule and place; what it is listed and cancelled by.
    until_utc_s  in full until then, and gone at ends_utc_s; between them it goes back in `steps`.
    count     matching replies since it began (of a rate: attempts that it was reckoned from).
    why       in words.    replies  the last few.
    """

    name: str
    rule: str
    place: Place
    action: str
    made_utc_s: float
    until_utc_s: float
    ends_utc_s: float
    steps: int = 1
    factor: float = 1.0
    connections: int = 0
    pool: str = ""
    count: int = 0
    why: str = ""
    replies: list[Evidence] = []

    def where(self) -> Selection | None:
        """None: no order can name the place, whose names are a host's or a hook's. That must stop nobody else."""
        try:
            return Selection(**{key: getattr(self.place, key) for key in _PLACE})
        except ValueError:
            return None

    def strength(self, now: float) -> float:
        """1.0 in full, 0.0 gone."""
        if now < self.until_utc_s:
            return 1.0
        if now >= self.ends_utc_s:
            return 0.0
        step = math.floor((now - self.until_utc_s) / (self.ends_utc_s - self.until_utc_s) * self.steps)
        return 1.0 - (step + 1) / (self.steps + 1)

    def next_change(self, now: float) -> float:
        """When strength() changes next."""
        if now < self.until_utc_s or self.ends_utc_s <= self.until_utc_s:
            return self.until_utc_s
        width = (self.ends_utc_s - self.until_utc_s) / self.steps
        # A little behind the step: a sum of floats may fall short of it.
        return self.until_utc_s + (math.floor((now - self.until_utc_s) / width) + 1) * width + 0.001

    def factor_now(self, now: float) -> float:
        return float(self.factor ** self.strength(now))

    def connections_now(self, now: float) -> int:
        strength = self.strength(now)
        return round(self.connections / strength) if strength else 0

    def effect(self, now: float) -> str:
        """What it does now, in words."""
        match self.action:
            case "slow":
                return f"connections and rates divided by {self.factor_now(now):.3g}"
            case "cap":
                return f"at most {self.connections_now(now)} connections"
            case "pool":
                return f"mail leaves by pool {self.pool}"
            case "list-source":
                return "mail takes another source, or waits"
            case _:
                return "nothing is tried"


class Engine:
    """clock: UTC seconds."""

    def __init__(self, rules: Mapping[str, AutomationRule], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._measures: dict[str, Measure] = {}
        self._counted: dict[tuple[str, Place], deque[tuple[float, int]]] = {}
        self._attempts: dict[tuple[str, Place], deque[list[float]]] = {}
        self._rules: Mapping[str, AutomationRule] = {}
        self.set_rules(rules)

    @property
    def measures(self) -> list[Measure]:
        """The oldest first."""
        return list(self._measures.values())

    def set_rules(self, rules: Mapping[str, AutomationRule]) -> None:
        """A new configuration. What is in force stays until it ends."""
        self._rules = dict(rules)
        for windows in (self._counted, self._attempts):
            for key in [key for key in windows if key[0] not in rules]:
                del windows[key]

    def restore(self, measures: Iterable[Measure]) -> None:
        now = self._clock()
        self._measures = {each.name: each for each in measures if each.ends_utc_s > now}

    def notice(self, notices: Sequence[Notice], tallies: Sequence[Tally]) -> list[Measure]:
        """Takes in what a worker has noticed; the measures that began or were prolonged."""
        begun = [measure for each in notices if (measure := self._count(each)) is not None]
        for tally in tallies:
            for name, rule in self._rules.items():
                if rule.is_of_rate and concerns_tally(rule, tally.place):
                    measure = self._reckon(name, rule, tally)
                    if measure is not None:
                        begun.append(measure)
        return begun

    def expire(self) -> list[Measure]:
        """Takes away what is over."""
        now = self._clock()
        over = [each for each in self._measures.values() if each.ends_utc_s <= now]
        for each in over:
            del self._measures[each.name]
        self._prune(now)
        return over

    def cancel(self, name: str) -> Measure | None:
        """Ends one at once. It begins anew when its rule is met anew."""
        measure = self._measures.pop(name, None)
        if measure is not None:
            self._counted.pop((measure.rule, measure.place), None)
            self._attempts.pop((measure.rule, measure.place), None)
        return measure

    def next_change_s(self) -> float | None:
        """In how many seconds something ends or goes back a step; None: nothing does."""
        now = self._clock()
        changes = [each.next_change(now) for each in self._measures.values()]
        return max(0.0, min(changes) - now) if changes else None

    def orders(self) -> list[Order]:
        """What workers obey as they obey an operator's. They end when they are here no more, so that prolonging one
        changes nothing for them."""
        found = []
        for each in self._measures.values():
            if each.action in ("suspend", "pool", "list-source"):
                where = each.where()
                if where is None:
                    continue
                found.append(
                    Order(
                        name=each.name[:NAME_CHARACTERS],
                        action="reroute" if each.action == "pool" else "suspend",
                        where=where,
                        made_utc_s=each.made_utc_s,
                        pool=each.pool,
                        by=f"automation {each.rule}",
                    )
                )
        return found

    def adjustments(self) -> list[Adjustment]:
        """What changes in limits and the choice of sources now."""
        now = self._clock()
        found = []
        for each in self._measures.values():
            place = each.place
            at = Adjustment(site=place.site, provider=place.provider, source=place.source)
            if each.action == "slow":
                found.append(msgspec.structs.replace(at, factor=each.factor_now(now)))
            elif each.action == "cap":
                found.append(msgspec.structs.replace(at, connections=each.connections_now(now)))
            elif each.action == "list-source":
                found.append(msgspec.structs.replace(at, is_listed=True))
        return found

    def _count(self, notice: Notice) -> Measure | None:
        rule = self._rules.get(notice.rule)
        if rule is None or rule.action in TREATMENTS:
            return None         # noticed by a configuration of before
        now = self._clock()
        key = (notice.rule, notice.place)
        if key not in self._counted and len(self._counted) >= _WINDOWS_MAX:
            return None
        window = self._counted.setdefault(key, deque())
        _add(window, (now, notice.count), rule.within)
        _forget(window, now - rule.within)
        total = sum(count for _, count in window)
        name = _name(notice.rule, notice.place)
        if total < rule.count and name not in self._measures:
            return None
        why = f"{total} such {'reply' if total == 1 else 'replies'} in {Duration(rule.within)}"
        count = notice.count if name in self._measures else total
        return self._begin(notice.rule, notice.place, count, why, Evidence(now, notice.reply, notice.remote))

    def _reckon(self, name: str, rule: AutomationRule, tally: Tally) -> Measure | None:
        now = self._clock()
        place = scoped(rule, tally.place)
        key = (name, place)
        if key not in self._attempts and len(self._attempts) >= _WINDOWS_MAX:
            return None
        window = self._attempts.setdefault(key, deque())
        bad = tally.deferred if rule.deferral_rate else tally.failed
        attempts = tally.delivered + tally.deferred + tally.failed
        if window and now - window[-1][0] < rule.within / _BUCKETS:
            window[-1][1] += bad
            window[-1][2] += attempts
        else:
            window.append([now, bad, attempts])
        while window and window[0][0] <= now - rule.within:
            window.popleft()
        bads, total = sum(each[1] for each in window), sum(each[2] for each in window)
        if total < rule.minimum or bads < (rule.deferral_rate or rule.bounce_rate) * total:
            return None
        window.clear()          # the next verdict is on other attempts
        what = "deferred" if rule.deferral_rate else "failed"
        why = f"{bads:g} of {total:g} attempts {what} in {Duration(rule.within)}"
        return self._begin(name, place, int(total), why)

    def _begin(
        self, rule_name: str, place: Place, count: int, why: str, reply: Evidence | None = None
    ) -> Measure | None:
        """Or prolongs it, in full again. None: too many are in force."""
        rule, name = self._rules[rule_name], _name(rule_name, place)
        now = self._clock()
        known = self._measures.get(name)
        if known is None and len(self._measures) >= MEASURES_MAX:
            return None
        until = now + rule.duration
        measure = Measure(
            name=name,
            rule=rule_name,
            place=place,
            action=rule.action,
            made_utc_s=known.made_utc_s if known else now,
            until_utc_s=until,
            ends_utc_s=until + rule.recovery,
            steps=rule.steps,
            factor=rule.factor if rule.action == "slow" else 1.0,
            connections=rule.connections if rule.action == "cap" else 0,
            pool=rule.pool,
            count=count + (known.count if known else 0),
            why=why,
            replies=[*(known.replies if known else []), *([reply] if reply else [])][-_REPLIES_KEPT:],
        )
        self._measures[name] = measure
        return measure

    def _prune(self, now: float) -> None:
        """Windows in which nothing counts any more."""
        for counted in [key for key, each in self._counted.items() if each[-1][0] <= now - self._rules[key[0]].within]:
            del self._counted[counted]
        for reckoned in [
            key for key, each in self._attempts.items() if not each or each[-1][0] <= now - self._rules[key[0]].within
        ]:
            del self._attempts[reckoned]


def _add(window: deque[tuple[float, int]], entry: tuple[float, int], within: float) -> None:
    if window and entry[0] - window[-1][0] < within / _BUCKETS:
        window[-1] = (window[-1][0], window[-1][1] + entry[1])
    else:
        window.append(entry)


def _forget(window: deque[tuple[float, int]], before: float) -> None:
    while window and window[0][0] <= before:
        window.popleft()


def _name(rule: str, place: Place) -> str:
    """ "google-rate/google/mail1"."""
    parts = (place.provider, place.site, place.tenant, place.campaign, place.source)
    return "/".join([rule, *filter(None, parts)])
