"""MTA-STS policies of other domains (RFC 8461 §3.3, §5.1): asked for per domain, kept for their time.

    a policy is known, its time is not up
        TXT record gone, or cannot be had     it holds
        with its id                           it holds; once a day, and when half of its time is over, it is fetched
                                              anew behind the mail
        with another id                       that one is fetched; if that fails this one holds
    none is known
        no TXT record                         none
        TXT record                            fetched; if that fails none, for 5 minutes

One domain's fetch holds up that domain's mail and no other's. So many are under way at once, others stand in line; who
does not want to wait (look()) is told so, and whoever waits does it for FETCH_S and the wait for a turn at most. When
what holds for a domain is no more what was said of it last, on_change is told: mail may lie where that was heeded.
"""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from angarium.metrics.counters import counter
from angarium.model.plan import StsRule
from angarium.resolver.answer import Kind, Resolver
from angarium.resolver.cache import ExpiringCache
from angarium.tls.report_outcome import ResultType, result_of_fetch
from angarium.tls.sts_fetch import HTTPS_PORT, StsUnavailable, fetch_policy
from angarium.tls.sts_policy import StsPolicy, id_of_records, parse_policy
from angarium.tls.sts_store import Kept, StsStore

fetches = counter("angarium_sts_fetches_total", "MTA-STS policies fetched.")
failures = counter("angarium_sts_fetch_failures_total", "MTA-STS policies that could not be fetched or read.")

# §5.1: "a caching mechanism for failures", and §3.3: fetched anew once a day at least.
_FAILURE_S: Final = 300.0
_REFRESH_S: Final = 86_400
# Under way at once, per worker; a domain whose turn does not come in _TURN_S goes without, as if its server were slow.
_FETCHES: Final = 64
_TURN_S: Final = 30.0           # judged: twice FETCH_S: servers that never answer hold up twice as many others, no more
_IN_LINE: Final = 4096          # with those under way; each costs some kilobytes
_BUSY_S: Final = 60.0           # as _FAILURE_S, where it was our doing
_REMEMBERED: Final = 20_000
# A TXT record without a life of its own must not make a plan a minute of it.
_LOOK_AGAIN_MINIMUM_S: Final = 60.0
_TRUST_S: Final = 3600.0
# Mail that was routed by what was said may wait in a ready queue for longer than its plan holds.
_TOLD_S: Final = 86_400.0


class Finding(msgspec.Struct, frozen=True):
    """kept: None: there is no policy. announced: the id in DNS. detail: why nothing newer is known, for people."""

    kept: Kept | None
    announced: str | None
    look_again_mono_s: float
    detail: str = ""

    @property
    def rule(self) -> StsRule | None:
        return self.kept.policy.rule if self.kept is not None else None


class _Held(msgspec.Struct, frozen=True):
    kept: Kept
    expires_mono_s: float


class _TooMany(StsUnavailable):
    """It was not even tried."""


class _Told(msgspec.Struct, frozen=True):
    """What was said of a domain last."""

    rule: StsRule | None
    expires_mono_s: float


class _Failure(msgspec.Struct, frozen=True):
    id: str
    detail: str
    expires_mono_s: float


class StsPolicies:
    """One worker's, on its loop; close() last.

    path    of the store that workers share; None: nothing is kept. is_read_only: and nothing is put into it.
    ca      PEM file of authorities for the servers of policies; None: the system's.
    report  is told (domain, reason) when a policy cannot be had; domain "" is about the store.
    on_change   (domain), to be set: what find() would say now is not what it said last.
    on_failure  (domain, result, reason), to be set: likewise, in the words of reports (RFC 8460 §4.3.2.2).
    """

    def __init__(
        self,
        resolver: Resolver,
        path: str | None,
        ca: str | None,
        report: Callable[[str, str], None],
        *,
        port: int = HTTPS_PORT,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], float] = time.time,
        is_read_only: bool = False,
    ) -> None:
        self._resolver = resolver
        self._store = StsStore(path, is_read_only=is_read_only) if path is not None else None
        self._ca = ca
        self._report = report
        self.on_failure: Callable[[str, ResultType, str], None] | None = None
        self.on_change: Callable[[str], None] | None = None
        self._port = port
        self._clock = clock
        self._utc = utc
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mta-sts")
        self._held: ExpiringCache[str, _Held] = ExpiringCache(_REMEMBERED, clock)
        self._failed: ExpiringCache[str, _Failure] = ExpiringCache(_REMEMBERED, clock)
        self._told: ExpiringCache[str, _Told] = ExpiringCache(_REMEMBERED, clock)
        self._under_way: dict[str, asyncio.Task[Kept | None]] = {}
        self._turns = asyncio.Semaphore(_FETCHES)
        self._trust: ssl.SSLContext | None = None
        self._trusted_mono_s = 0.0

    async def find(self, domain: str) -> Finding:
        """The policy of a domain (A-labels, lower case). Never raises but CancelledError."""
        found = await self.look(domain)
        if isinstance(found, asyncio.Task):
            await asyncio.wait([found])
            found = await self.look(domain, found)
        assert isinstance(found, Finding)
        return found

    async def look(
        self, domain: str, waited_for: asyncio.Task[Kept | None] | None = None
    ) -> Finding | asyncio.Task[Kept | None]:
        """As find(); where the policy has to be fetched first, the task that does it, which is not the caller's to
        cancel. waited_for: it is done: what is known now is told, whatever came of it and is announced meanwhile."""
        answer = await self._resolver.txt(f"_mta-sts.{domain}")
        announced = id_of_records(answer.records) if answer.kind is Kind.FOUND else None
        look_again = max(answer.look_again_mono_s, self._clock() + _LOOK_AGAIN_MINIMUM_S)
        kept = await self._known(domain, announced)
        if announced is None:
            return self._tell(domain, Finding(kept, None, look_again, answer.detail))
        if kept is not None and kept.id == announced:
            is_old = self._utc() - kept.fetched_utc_s >= min(_REFRESH_S, kept.policy.max_age_s / 2)
            if is_old and self._failed.get(domain) is None:
                self._begin(domain, announced)
            return self._tell(domain, Finding(kept, announced, look_again))
        failure = self._failed.get(domain)
        if (failure is None or failure.id != announced) and waited_for is None:
            return self._begin(domain, announced)
        if kept is None and waited_for is not None and not waited_for.cancelled():
            kept = waited_for.result()      # of a policy that holds for no time it holds this once
        if failure is not None:
            look_again = min(look_again, max(failure.expires_mono_s, self._clock() + _LOOK_AGAIN_MINIMUM_S))
        return self._tell(domain, Finding(kept, announced, look_again, failure.detail if failure is not None else ""))

    def remembered(self, domain: str) -> StsPolicy | None:
        """Of the policies that were looked at lately."""
        held = self._held.get(domain)
        return None if held is None else held.kept.policy

    async def close(self) -> None:
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._store is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown(wait=False)

    async def _known(self, domain: str, announced: str | None) -> Kept | None:
        """What holds still. The store is asked where memory has nothing of that id: another worker may have it."""
        held = self._held.get(domain)
        if held is not None and announced in (None, held.kept.id):
            return held.kept
        stored = await self._stored(domain)
        known = held.kept if held is not None else None
        if stored is None or stored.expires_utc_s <= self._utc():
            return known
        if known is not None and stored.fetched_utc_s <= known.fetched_utc_s:
            return known
        self._hold(domain, stored)
        return stored

    async def _stored(self, domain: str) -> Kept | None:
        if self._store is None:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._store.get, domain)
        except (sqlite3.Error, OSError) as error:
            self._report("", str(error))
            return None

    def _hold(self, domain: str, kept: Kept) -> None:
        self._held.put(domain, _Held(kept, self._clock() + max(0.0, kept.expires_utc_s - self._utc())))
        told = self._told.get(domain)
        if told is not None and told.rule != kept.policy.rule and self.on_change is not None:
            self._told.put(domain, _Told(kept.policy.rule, told.expires_mono_s))
            self.on_change(domain)

    def _tell(self, domain: str, finding: Finding) -> Finding:
        # A plan lives no longer; who plans by it is told when it has changed before.
        self._told.put(domain, _Told(finding.rule, max(finding.look_again_mono_s, self._clock() + _TOLD_S)))
        return finding

    def _begin(self, domain: str, announced: str) -> asyncio.Task[Kept | None]:
        task = self._under_way.get(domain)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(domain, announced))
            self._under_way[domain] = task
            task.add_done_callback(lambda _: self._under_way.pop(domain, None))
        return task

    async def _fetch(self, domain: str, announced: str) -> Kept | None:
        try:
            octets = await self._fetched(domain)
            kept = Kept(announced, parse_policy(octets), int(self._utc()))
        except (StsUnavailable, ValueError, OSError) as error:
            failures.add()
            detail = f"policy {announced} of {domain}: {error}"
            rest_s = _BUSY_S if isinstance(error, _TooMany) else _FAILURE_S
            self._failed.put(domain, _Failure(announced, detail, self._clock() + rest_s))
            self._report(domain, detail)
            if self.on_failure is not None and not isinstance(error, _TooMany):
                is_read = isinstance(error, ValueError)
                self.on_failure(domain, "sts-policy-invalid" if is_read else result_of_fetch(str(error)), str(error))
            return None
        fetches.add()
        self._hold(domain, kept)
        if self._store is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._store.put, domain, kept)
            except (sqlite3.Error, OSError) as error:
                self._report("", str(error))
        return kept

    async def _fetched(self, domain: str) -> bytes:
        if len(self._under_way) > _IN_LINE:
            raise _TooMany("too many policies are being fetched")
        try:
            await asyncio.wait_for(self._turns.acquire(), _TURN_S)
        except TimeoutError:
            raise _TooMany("too many policies are being fetched") from None
        try:
            return await fetch_policy(domain, self._resolver, await self._authorities(), self._port)
        finally:
            self._turns.release()

    async def _authorities(self) -> ssl.SSLContext:
        """Read in the thread, and anew once an hour: authorities are replaced, too."""
        if self._trust is None or self._clock() - self._trusted_mono_s >= _TRUST_S:
            self._trust = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: ssl.create_default_context(cafile=self._ca)
            )
            self._trusted_mono_s = self._clock()
        return self._trust
