"""What is held against a client, or in its favour: points from lists and names, added up once and kept for a while.

A look-up that fails or takes too long counts nothing: DNS in trouble must not keep mail out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec

from angarium.admission.dns_lists import ListRule, query_name
from angarium.admission.names import NO_ADDRESS, Directory, Reverse, helo_faults, is_name, reverse_of
from angarium.admission.options import AdmissionOptions
from angarium.metrics.counters import counter
from angarium.resolver.answer import Kind
from angarium.resolver.cache import ExpiringCache

scored_total = counter("angarium_in_scored_total", "Clients' addresses that lists and names were asked about.")
incomplete_total = counter(
    "angarium_in_scores_incomplete_total", "Scores in which a look-up is missing: it failed or came too late."
)

# A score in which something is missing is asked for again sooner. By judgement.
_INCOMPLETE_S: Final = 30.0


class Verdict(msgspec.Struct, frozen=True):
    """Points of one client, and the words that say for what, worst first."""

    score: int
    words: tuple[str, ...]
    expires_mono_s: float
    is_complete: bool = True

    def with_points(self, points: list[tuple[str, int]]) -> Verdict:
        if not points:
            return self
        words = (*self.words, *(word for word, _ in points))
        return msgspec.structs.replace(self, score=self.score + sum(each for _, each in points), words=words)


_OF_NOBODY: Final = Verdict(0, (), float("inf"))


class Scores:
    """All verdicts of one worker.

    clock  monotonic seconds.
    """

    def __init__(
        self,
        options: AdmissionOptions,
        directory: Directory,
        our_names: frozenset[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._options = options
        self._checks = {
            Reverse.MISSING: options.checks.no_ptr,
            Reverse.UNCONFIRMED: options.checks.ptr_unconfirmed,
        }
        self._helo_points = options.checks.helo_points
        self._lists = [ListRule(each) for each in options.dns_list]
        self._our_names = our_names
        self._clock = clock
        self._cache: ExpiringCache[str, Verdict] = ExpiringCache(options.cache_entries, clock)
        self._helo_cache: ExpiringCache[str, Verdict] = ExpiringCache(options.cache_entries, clock)
        self._in_flight: dict[str, asyncio.Task[Verdict]] = {}

    @property
    def asks_of_address(self) -> bool:
        return bool(self._lists) or any(self._checks.values())

    @property
    def asks_of_helo(self) -> bool:
        return any(self._helo_points.values())

    def of_address_now(self, host: str) -> Verdict | None:
        """What is known already."""
        # Not even one that answers for 0.0.0.0 says something of a client whose address the proxy does not know.
        return _OF_NOBODY if host == NO_ADDRESS else self._cache.get(host)

    async def of_address(self, host: str) -> Verdict:
        """Asks what is not known. Clients of one address that meet share one answer."""
        verdict = self.of_address_now(host)
        if verdict is not None:
            return verdict
        task = self._in_flight.get(host)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._judge(host))
            self._in_flight[host] = task
            task.add_done_callback(lambda _: self._in_flight.pop(host, None))
        # One client that leaves must not end it for the others.
        return await asyncio.shield(task)

    def helo_points_now(self, helo: str, host: str) -> list[tuple[str, int]] | None:
        """Points for the name in HELO; None when DNS must be asked (helo_points)."""
        faults = helo_faults(helo, host, self._our_names)
        points = [(word, self._helo_points[word]) for word in faults if self._helo_points[word]]
        if faults or not self._helo_points["helo-unresolvable"] or not is_name(helo):
            return points
        verdict = self._helo_cache.get(helo.lower())
        if verdict is None:
            return None
        if verdict.score:
            points.append((verdict.words[0], verdict.score))
        return points

    async def helo_points(self, helo: str, host: str) -> list[tuple[str, int]]:
        points = self.helo_points_now(helo, host)
        if points is not None:
            return points
        name = helo.lower().rstrip(".")
        found, is_known = False, True
        for look_up in (self._directory.addresses, self._directory.mx):
            answer = await _in_time(look_up(name), self._options.timeout)
            if answer is None or answer.kind.is_temporary:
                is_known = False
            elif answer.kind is Kind.FOUND:
                found = True
                break
        word = "helo-unresolvable"
        bad = is_known and not found
        self._helo_cache.put(
            helo.lower(),
            Verdict(self._helo_points[word] if bad else 0, (word,) if bad else (), self._expiry(is_known)),
        )
        return self.helo_points_now(helo, host) or []

    async def close(self) -> None:
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _judge(self, host: str) -> Verdict:
        scored_total.add()
        work: dict[asyncio.Task[tuple[str, int] | None], None] = {}
        loop = asyncio.get_running_loop()
        steps: list[Coroutine[Any, Any, tuple[str, int] | None]] = [
            self._of_list(rule, host) for rule in self._lists
        ]
        if any(self._checks.values()):
            steps.append(self._of_names(host))
        for step in steps:
            work[loop.create_task(step)] = None
        points: list[tuple[str, int]] = []
        is_complete = True
        try:
            done, late = await asyncio.wait(work, timeout=self._options.timeout) if work else (set(), set())
        except asyncio.CancelledError:
            for task in work:
                task.cancel()
            raise
        for task in late:
            task.cancel()
            is_complete = False
        for task in work:
            if task not in done:
                continue
            try:
                found = task.result()
            except Unknown:
                is_complete = False
                continue
            if found is not None:
                points.append(found)
        if not is_complete:
            incomplete_total.add()
        points.sort(key=lambda each: -each[1])
        verdict = Verdict(0, (), self._expiry(is_complete), is_complete).with_points(points)
        self._cache.put(host, verdict)
        return verdict

    def _expiry(self, is_complete: bool) -> float:
        keep_s = float(self._options.cache_time)
        return self._clock() + (keep_s if is_complete else min(keep_s, _INCOMPLETE_S))

    async def _of_list(self, rule: ListRule, host: str) -> tuple[str, int] | None:
        answer = await self._directory.ipv4(query_name(host, rule.zone))
        if answer.kind.is_temporary:
            raise Unknown
        return (rule.word, rule.score) if rule.matches(answer.records) else None

    async def _of_names(self, host: str) -> tuple[str, int] | None:
        reverse = await reverse_of(self._directory, host)
        if reverse is Reverse.UNKNOWN:
            raise Unknown
        points = self._checks.get(reverse, 0)
        return (reverse.value, points) if points else None


class Unknown(Exception):
    """DNS did not say."""


async def _in_time(look_up: Awaitable[Any], timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            return await look_up
    except TimeoutError:
        return None
