"""What was promised against what was logged, and what the hosts of the world saw. Each rule is a function that yields
what breaks it, in words.
"""

from __future__ import annotations

import email
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from simulation.hosts import GREYLISTED_S, HOUR, MailHost, is_unknown
from simulation.machine import OPTIONS, OVERLOADED_RATE, QUIET, RETRY, RULES
from simulation.traffic import Promise
from simulation.world import HOME, PROVIDER, World

from angarium.mime.notify import Notify
from angarium.queue.automation import Measure
from angarium.queue.quiet import quiet_hours

DAY_S: Final = 86400.0
TICK_S: Final = 5.0         # steps of the clock, ticks of the wheel, whole seconds in the spool
_ENDS: Final = ("delivered", "failed", "expired")
_ATTEMPTS: Final = ("deferred", *_ENDS)
# How late a due attempt may be: nothing holds it up; a dead site is dialled now and then; a greeting never comes.
_LATE_S: Final = {"good": 60.0, "grey": 60.0, "rcpt": 60.0, "mail": 60.0, "data": 60.0, "picky": 60.0, "narrow": 60.0,
                  "down": 400.0, "deadhost": 400.0, "greeting": 400.0, "silent": 1000.0}  # fmt: skip
_DIES: Final = ("deadhost", "silent")

Line = dict[str, Any]


class Ledger:
    """All that is known at the end.

    lines  of the relay's log, in order. stops  when it was down (begin, end).
    """

    def __init__(
        self,
        world: World,
        promises: Sequence[Promise],
        lines: Sequence[Line],
        *,
        measures: Sequence[tuple[float, list[Measure]]],
        stops: Sequence[tuple[float, float]],
        rations: Mapping[str, Sequence[int]],
    ) -> None:
        self.world = world
        self.promises = {each.recipient: each for each in promises}
        self.measures = measures
        self.stops = stops
        self.rations = rations
        self.attempts: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            if line["event"] in _ATTEMPTS and line["to"] in self.promises:
                line["utc_s"] = _utc_s(line["time"])
                self.attempts[line["to"]].append(line)
        self.deliveries = Counter(each.recipient for host in world.hosts for each in host.deliveries)
        self.reports = self._read_reports(world.host(HOME))

    @staticmethod
    def _read_reports(home: MailHost) -> Counter[tuple[str, str, str]]:
        """(sender told, recipient, action) of all reports that came home."""
        found: Counter[tuple[str, str, str]] = Counter()
        for each in home.deliveries:
            message = email.message_from_bytes(each.content)
            status = next(part for part in message.walk() if part.get_content_type() == "message/delivery-status")
            for fields in status.get_payload():
                if isinstance(fields, email.message.Message) and fields["Final-Recipient"]:
                    recipient = fields["Final-Recipient"].partition(";")[2].strip()
                    found[each.recipient, recipient, fields["Action"]] += 1
        return found

    def end_of(self, recipient: str) -> str:
        return next((line["event"] for line in self.attempts[recipient] if line["event"] in _ENDS), "")

    def breaches(self) -> Iterator[str]:
        for rule in (
            self._each_has_one_end,
            self._ends_are_those_that_the_world_allows,
            self._senders_are_told_once,
            self._delays_are_told_once,
            self._attempts_keep_to_their_times,
            self._nothing_goes_before_its_hour,
            self._nothing_goes_in_quiet_hours,
            self._nothing_goes_to_the_suspended,
            self._suspensions_end,
            self._slow_ones_are_slow,
            self._warm_up_keeps_to_its_plan,
        ):
            for breach in rule():
                yield f"{rule.__name__[1:].replace('_', ' ')}: {breach}"

    # ---- every accepted recipient has one end ----

    def _each_has_one_end(self) -> Iterator[str]:
        for recipient in self.promises:
            ends = [line["event"] for line in self.attempts[recipient] if line["event"] in _ENDS]
            if len(ends) != 1:
                yield f"{recipient}: {ends or 'no end'}"
            elif self.deliveries[recipient] != (ends == ["delivered"]):
                yield f"{recipient}: {ends[0]}, and its host has it {self.deliveries[recipient]} times"

    def _ends_are_those_that_the_world_allows(self) -> Iterator[str]:
        for recipient, promise in self.promises.items():
            allowed = {"delivered"}
            if promise.kind in _DIES:
                allowed = {"expired"}
            elif promise.kind in ("nowhere", "banning") or (promise.kind == "picky" and is_unknown(recipient)):
                allowed = {"failed"}
            if promise.by_utc_s:
                allowed.add("failed")
            if self.end_of(recipient) not in allowed:
                yield f"{recipient} ({promise.kind}): {self.end_of(recipient)}, expected {' or '.join(sorted(allowed))}"
            last = self.attempts[recipient][-1] if self.attempts[recipient] else None
            if last is None:
                continue
            age_s = last["utc_s"] - promise.begins_utc_s
            if last["event"] == "expired" and not -TICK_S <= age_s - OPTIONS.max_age <= 1000:
                yield f"{recipient} ({promise.kind}) expired after {age_s:.0f} s"
            if promise.by_utc_s and last["utc_s"] > promise.by_utc_s + 400:
                yield f"{recipient} ({promise.kind}) ended {last['utc_s'] - promise.by_utc_s:.0f} s behind its by-time"

    # ---- reports ----

    def _senders_are_told_once(self) -> Iterator[str]:
        expected: Counter[tuple[str, str, str]] = Counter()
        for recipient, promise in self.promises.items():
            end = self.end_of(recipient)
            if end in ("failed", "expired") and promise.wants(Notify.FAILURE):
                expected[promise.sender, recipient, "failed"] += 1
            if end == "delivered" and promise.wants(Notify.SUCCESS):
                expected[promise.sender, recipient, "relayed"] += 1
        told = Counter({key: count for key, count in self.reports.items() if key[2] != "delayed"})
        for key in expected.keys() | told.keys():
            if expected[key] != told[key]:
                yield f"{key}: told {told[key]} times, expected {expected[key]}"

    def _delays_are_told_once(self) -> Iterator[str]:
        for recipient, promise in self.promises.items():
            told = self.reports[promise.sender, recipient, "delayed"]
            late = [
                line for line in self.attempts[recipient]
                if line["event"] == "deferred" and line["utc_s"] >= promise.begins_utc_s + OPTIONS.delay_report + TICK_S
            ]  # fmt: skip
            if told > 1 or (told and not promise.wants(Notify.DELAY)):
                yield f"{recipient}: {told} times"
            elif not told and promise.wants(Notify.DELAY) and len(late) > 1:
                yield f"{recipient}: never, though it waited"

    # ---- times of attempts ----

    def _attempts_keep_to_their_times(self) -> Iterator[str]:
        for recipient, promise in self.promises.items():
            lines = self.attempts[recipient]
            if [line["attempt"] for line in lines] != list(range(1, len(lines) + 1)):
                yield f"{recipient} ({promise.kind}): attempts {[line['attempt'] for line in lines]}"
            expires = promise.begins_utc_s + OPTIONS.max_age
            late_s = _LATE_S.get(promise.kind)
            if lines and late_s and promise.kind not in _DIES:
                wait = lines[0]["utc_s"] - promise.begins_utc_s
                if wait > late_s + self._stopped_s(promise.begins_utc_s, lines[0]["utc_s"]):
                    yield f"{recipient} ({promise.kind}): first attempt after {wait:.0f} s"
            for before, line in pairwise(lines):
                gap = line["utc_s"] - before["utc_s"]
                delay = min(RETRY.first * RETRY.factor ** (before["attempt"] - 1), RETRY.max)
                left = max(expires - before["utc_s"], 1.0)
                if promise.by_utc_s:
                    left = min(left, max(promise.by_utc_s - before["utc_s"], 0.0))
                least = min(delay * (1 - RETRY.jitter), left) - TICK_S
                most = min(delay * (1 + RETRY.jitter), left) + (late_s or float("inf"))
                if not least <= gap <= most + self._stopped_s(before["utc_s"], line["utc_s"]):
                    attempt = f"{recipient} ({promise.kind}): attempt {line['attempt']}"
                    yield f"{attempt} came {gap:.0f} s behind the one before, not {least:.0f} to {most:.0f}"

    def _stopped_s(self, begin: float, end: float) -> float:
        return sum(max(min(end, stop[1]) - max(begin, stop[0]), 0.0) for stop in self.stops)

    def _nothing_goes_before_its_hour(self) -> Iterator[str]:
        for host in self.world.hosts:
            for when, mailbox in host.tried:
                promise = self.promises.get(mailbox)
                if promise is not None and when < promise.begins_utc_s - TICK_S:
                    yield f"{mailbox}: {promise.begins_utc_s - when:.0f} s early"
            if host.mood == "greylisting":
                yield from self._greylisted_too_early(host)

    @staticmethod
    def _greylisted_too_early(host: MailHost) -> Iterator[str]:
        tries: dict[str, float] = {}
        for when, mailbox in host.tried:
            if when < tries.get(mailbox, 0.0) + GREYLISTED_S * (1 - RETRY.jitter) - TICK_S:
                yield f"{mailbox}: {when - tries[mailbox]:.0f} s behind the try before"
            tries[mailbox] = when

    # ---- quiet hours, automation ----

    def _nothing_goes_in_quiet_hours(self) -> Iterator[str]:
        for hours in quiet_hours([QUIET]):
            for when, mailbox in self.world.host(hours.where.domain).tried:
                if hours.ends(when) and hours.ends(when - TICK_S):
                    yield f"{mailbox} at {datetime.fromtimestamp(when, UTC):%H:%M:%S}"

    def _periods(self, action: str) -> Iterator[tuple[float, float, Measure]]:
        """Of each measure of the kind: told to the worker, told that it is over, as it was last."""
        open_: dict[str, tuple[float, Measure]] = {}
        for when, measures in self.measures:
            now = {each.name: each for each in measures if each.action == action}
            for name in [name for name in open_ if name not in now]:
                begin, measure = open_.pop(name)
                yield begin, when, measure
            for name, measure in now.items():
                open_[name] = (open_[name][0] if name in open_ else when, measure)
        for begin, measure in open_.values():
            yield begin, float("inf"), measure

    def _nothing_goes_to_the_suspended(self) -> Iterator[str]:
        periods = list(self._periods("suspend"))
        if not periods:
            yield "there was no suspension"
        for begin, end, measure in periods:
            host = next(each for each in self.world.hosts if each.name == measure.place.site)
            source = f"{measure.place.source}.example"
            for asked in host.asked:
                if asked.source == source and begin + TICK_S < asked.utc_s < end:
                    yield f"{host.name} from {source}, {asked.utc_s - begin:.0f} s after it was suspended"

    def _suspensions_end(self) -> Iterator[str]:
        for action in ("suspend", "slow", "cap"):
            for begin, end, measure in self._periods(action):
                if not -0.5 <= end - measure.ends_utc_s <= TICK_S + self._stopped_s(begin, end):
                    yield f"{measure.name}: from {begin:.0f} to {end:.0f}, planned to {measure.ends_utc_s:.0f}"

    def _slow_ones_are_slow(self) -> Iterator[str]:
        slowed = [name for name, kind in self.world.kinds.items() if kind == "overloaded"]
        (host,) = (self.world.host(name) for name in slowed)
        factors = [
            (when, next((each.factor_now(when) for each in measures if each.action == "slow"), 1.0))
            for when, measures in self.measures
        ]
        if len({round(factor, 2) for _, factor in factors}) < RULES["overload"].steps + 2:
            yield f"factors were {sorted({round(factor, 2) for _, factor in factors})}"
        for (begin, factor), (end, _) in pairwise(factors):
            count = sum(begin + TICK_S < asked.utc_s <= end for asked in host.asked)
            most = (end - begin) * OVERLOADED_RATE / factor + 2
            if count > most:
                yield f"{count} messages in {end - begin:.0f} s at a factor of {factor:.2f}, not at most {most:.0f}"

    # ---- warm-up ----

    def _warm_up_keeps_to_its_plan(self) -> Iterator[str]:
        counts: Counter[tuple[str, int]] = Counter()
        of_old = 0
        first_day = min(each.accepted_utc_s for each in self.promises.values()) // DAY_S
        for host in self.world.hosts:
            provider = PROVIDER if host.name.endswith(".big.example") else ""
            for asked in host.asked:
                counts[provider, int(asked.utc_s // DAY_S - first_day)] += asked.source == "new.example"
                of_old += asked.source == "old.example"
        for provider, schedule in self.rations.items():
            for day, volume in enumerate(schedule):
                if counts[provider, day] > volume:
                    yield f"{counts[provider, day]} messages on day {day} to {provider or 'others'}, planned {volume}"
                # Two days bring more than enough mail; what is left for the others is what retries need.
                elif day < 2 and counts[provider, day] < volume * 0.99 - 1:
                    yield f"only {counts[provider, day]} messages on day {day} to {provider or 'others'}, of {volume}"
        if of_old < sum(counts.values()):
            yield f"the warm source has sent {of_old}, the new one {sum(counts.values())}"


def _utc_s(text: str) -> float:
    assert re.fullmatch(r"[\d-]+T[\d:.]+Z", text), text
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


HOURS_UNTIL_ALL_IS_OVER: Final = OPTIONS.max_age / HOUR + 12
