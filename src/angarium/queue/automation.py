"""Automation: from what workers notice to what is done about it, for how long, and how it goes back. Knows no loop, no
file and no worker: process/automation_desk.py has these.

Notices of all workers come together here, once a second each; that is the only count there is, so that a rule holds for
the machine whatever worker had the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from angarium.model.units import Duration
from angarium.queue.adjustments import Adjustment
from angarium.queue.automation_options import TREATMENTS, AutomationRule
from angarium.queue.measure import Evidence, Measure, measure_name, permanent
from angarium.queue.notices import Notice, Place, Tally, Treated, Treatments, concerns_tally, scoped
from angarium.queue.standing import Order

MEASURES_MAX: Final = 1000
_WINDOWS_MAX: Final = 100000
_REPLIES_KEPT: Final = 3
_BUCKETS: Final = 60        # of a window: what is older by one of them counts a little too long


class Engine:
    """clock: UTC seconds."""

    def __init__(self, rules: Mapping[str, AutomationRule], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._measures: dict[str, Measure] = {}
        self._permanent: dict[str, Measure] = {}
        self._counted: dict[tuple[str, Place], deque[tuple[float, int]]] = {}
        self._attempts: dict[tuple[str, Place], deque[list[float]]] = {}
        self._rules: Mapping[str, AutomationRule] = {}
        self.set_rules(rules)

    @property
    def measures(self) -> list[Measure]:
        """What rules have begun, the oldest first."""
        return list(self._measures.values())

    @property
    def in_force(self) -> list[Measure]:
        """What holds for as long as the configuration has the rule, cancelled or not; then the measures."""
        return [*self._permanent.values(), *self._measures.values()]

    def set_rules(self, rules: Mapping[str, AutomationRule]) -> None:
        """A new configuration. What is in force stays until it ends."""
        self._rules = dict(rules)
        known, self._permanent = self._permanent, {}
        for name, rule in rules.items():
            if rule.is_permanent:
                made = permanent(name, rule, self._clock())
                last = known.get(name)
                self._permanent[name] = last if last is not None and last.digest == made.digest else made
        for windows in (self._counted, self._attempts):
            for key in [key for key in windows if key[0] not in rules]:
                del windows[key]

    def restore(self, measures: Iterable[Measure]) -> None:
        now = self._clock()
        self._measures = {}
        for each in measures:
            if each.is_permanent:
                made = self._permanent.get(each.name)
                if made is not None and made.digest == each.digest:
                    self._permanent[each.name] = each
            elif each.ends_utc_s > now:
                self._measures[each.name] = each

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
        """Ends one at once. It begins anew when its rule is met anew; what is permanent, when it is restored or its
        rule is another."""
        if (held := self._permanent.get(name)) is not None and not held.cancelled_utc_s:
            self._permanent[name] = msgspec.structs.replace(held, cancelled_utc_s=self._clock())
            return self._permanent[name]
        measure = self._measures.pop(name, None)
        if measure is not None:
            self._counted.pop((measure.rule, measure.place), None)
            self._attempts.pop((measure.rule, measure.place), None)
        return measure

    def restore_permanent(self, name: str) -> Measure | None:
        """Undoes cancel(). None: nothing permanent of that name is cancelled."""
        held = self._permanent.get(name)
        if held is None or not held.cancelled_utc_s:
            return None
        self._permanent[name] = msgspec.structs.replace(held, cancelled_utc_s=0.0)
        return self._permanent[name]

    def next_change_s(self) -> float | None:
        """In how many seconds something ends or goes back a step; None: nothing does."""
        now = self._clock()
        changes = [each.next_change(now) for each in self._measures.values()]
        return max(0.0, min(changes) - now) if changes else None

    def orders(self) -> list[Order]:
        """What workers obey as they obey an operator's."""
        now = self._clock()
        return [order for each in self._measures.values() if (order := each.order(now)) is not None]

    def adjustments(self) -> list[Adjustment]:
        """What changes in limits and the choice of sources now."""
        now = self._clock()
        return [found for each in self._measures.values() if (found := each.adjustment(now)) is not None]

    def treatments(self) -> Treatments:
        """Which replies are taken for the other kind now, besides those of rules that are permanent."""
        return Treatments(
            [each.name for each in self._permanent.values() if each.cancelled_utc_s],
            [
                Treated(each.rule, each.place)
                for each in self._measures.values()
                if each.action in TREATMENTS and not each.dry_run
            ],
        )

    def _count(self, notice: Notice) -> Measure | None:
        rule = self._rules.get(notice.rule)
        if rule is None:
            return None         # noticed by a configuration of before
        now = self._clock()
        if rule.is_permanent:
            self._used(notice, now)
            return None
        key = (notice.rule, notice.place)
        if key not in self._counted and len(self._counted) >= _WINDOWS_MAX:
            return None
        window = self._counted.setdefault(key, deque())
        _forget_later(window, now + rule.within / _BUCKETS)
        _add(window, (now, notice.count), rule.within)
        _forget(window, now - rule.within)
        total = sum(count for _, count in window)
        name = measure_name(notice.rule, notice.place)
        if total < rule.count and name not in self._measures:
            return None
        if rule.action in TREATMENTS and name in self._measures:
            # Not prolonged: mail that it keeps comes back to the same reply, and would keep it in force for ever.
            self._measures[name] = _met(self._measures[name], notice, now)
            return None
        if rule.action in TREATMENTS:
            window.clear()
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
        _forget_later(window, now + rule.within / _BUCKETS)
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
        rule, name = self._rules[rule_name], measure_name(rule_name, place)
        now = self._clock()
        known = self._measures.get(name)
        if known is None and len(self._measures) >= MEASURES_MAX:
            return None
        until = now + rule.holds_s
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
            connections=rule.connections,
            message_rate=rule.message_rate or 0.0,
            pool=rule.pool,
            count=count + (known.count if known else 0),
            why=why,
            replies=[*(known.replies if known else []), *([reply] if reply else [])][-_REPLIES_KEPT:],
            dry_run=rule.dry_run,
        )
        self._measures[name] = measure
        return measure

    def _used(self, notice: Notice, now: float) -> None:
        if (held := self._permanent.get(notice.rule)) is not None:
            self._permanent[notice.rule] = _met(held, notice, now)

    def _prune(self, now: float) -> None:
        """Windows in which nothing counts any more."""

        def is_over(key: tuple[str, Place], last_utc_s: float) -> bool:
            within = self._rules[key[0]].within
            return not now - within < last_utc_s <= now + within

        for counted in [key for key, each in self._counted.items() if not each or is_over(key, each[-1][0])]:
            del self._counted[counted]
        for reckoned in [key for key, each in self._attempts.items() if not each or is_over(key, each[-1][0])]:
            del self._attempts[reckoned]


def _add(window: deque[tuple[float, int]], entry: tuple[float, int], within: float) -> None:
    if window and entry[0] - window[-1][0] < within / _BUCKETS:
        window[-1] = (window[-1][0], window[-1][1] + entry[1])
    else:
        window.append(entry)


def _forget(window: deque[tuple[float, int]], before: float) -> None:
    while window and window[0][0] <= before:
        window.popleft()


def _forget_later(window: deque[tuple[float, int]] | deque[list[float]], latest: float) -> None:
    """The clock was set back: what was counted by the other one would take in all that comes until it is caught up."""
    while window and window[-1][0] > latest:
        window.pop()


def _met(measure: Measure, notice: Notice, now: float) -> Measure:
    """What has happened while it was in force."""
    reply = Evidence(now, notice.reply, notice.remote)
    return msgspec.structs.replace(
        measure, count=measure.count + notice.count, replies=[*measure.replies, reply][-_REPLIES_KEPT:]
    )
