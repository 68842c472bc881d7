"""When reports about TLS are made and sent (RFC 8460): by one worker of the machine, from the file that all count into.

A day's reports leave at random times within the window behind its end, by mail through our own queue and by https. What
fails is tried again, later and later, until a day behind the day's end (§5.5); then it is given up, and told.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import sqlite3
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.resolver.answer import Kind, Resolver
from angarium.tls.report_options import TlsReportOptions
from angarium.tls.report_post import PostFailed, lax_context, post
from angarium.tls.report_record import places_of_records
from angarium.tls.report_store import DAY_S, Due, TlsReportStore
from angarium.tls.report_text import TlsReport, compose, message

sent_total = counter("angarium_tls_reports_sent_total", "Reports about TLS sent, by mail or https.")
failed_total = counter("angarium_tls_reports_failed_total", "Tries to send a report about TLS that failed.")

TURN_S: Final = 60.0
# Workers count for up to a minute before they write, and the last ones of a day must be in its report.
_LATE_S: Final = 300
_DUE_AT_ONCE: Final = 200
_AT_ONCE: Final = 10
_PAGES_TO_EMPTY: Final = 16_384
_RETRY_FIRST_S: Final = 300.0
_RETRY_MOST_S: Final = 4 * 3600.0

# (mailbox, message): put into spool and queue; raises OSError or SpoolError.
Mail = Callable[[str, bytes], Awaitable[None]]

P = ParamSpec("P")
T = TypeVar("T")


class TlsReporter:
    """On a worker's loop; start(), and close() last. utc: seconds. chance: of the send times."""

    def __init__(
        self,
        path: str,
        options: TlsReportOptions,
        *,
        hostname: str,
        resolver: Resolver,
        mail: Mail,
        journal: Journal,
        utc: Callable[[], float] = time.time,
        chance: random.Random | None = None,
        tls: ssl.SSLContext | None = None,
        allow_private: bool = False,
    ) -> None:
        self._store = TlsReportStore(path, pages_more=_PAGES_TO_EMPTY)
        self._options = options
        self._hostname = hostname
        self._resolver = resolver
        self._mail = mail
        self._journal = journal
        self._utc = utc
        self._chance = chance or random.Random()
        self._tls = tls
        self._allow_private = allow_private
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tls-reports")
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._task: asyncio.Task[None] | None = None
        self._mails: set[asyncio.Task[PostFailed | None]] = set()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*self._mails, return_exceptions=True)
        await self._in_thread(self._store.close)
        self._thread.shutdown(wait=False)

    async def turn(self) -> bool:
        """Plans what is to be planned, sends what is due; whether more may be. Raises nothing but CancelledError."""
        try:
            await self._plan()
            due = await self._in_thread(self._store.due, int(self._utc()), _DUE_AT_ONCE)
        except Exception as error:      # also of a value that the file has and nobody can read
            self._file_failed(error)
            return False
        ended = await asyncio.gather(*(self._send(each) for each in due), return_exceptions=True)
        failed = [(each, why) for each, why in zip(due, ended, strict=True) if isinstance(why, BaseException)]
        of_file = [why for _, why in failed if isinstance(why, (sqlite3.Error, OSError))]
        if of_file:
            self._file_failed(of_file[0])
        for each, why in failed:
            if why not in of_file:
                await self._put_off(each, why)
        return len(due) == _DUE_AT_ONCE and not failed

    def _file_failed(self, error: BaseException) -> None:
        self._journal.log("tls-report-failed", domain="", to="", reason=f"the file of reports: {error}")

    async def _put_off(self, due: Due, error: BaseException) -> None:
        """Of one report; that must keep no other back, nor all of them for good."""
        failed_total.add(1)
        self._journal.log("tls-report-failed", domain=due.domain, to="", reason=f"internal error: {error!r}")
        try:
            await self._again(due, due.sent)
        except (sqlite3.Error, OSError) as trouble:
            self._file_failed(trouble)

    async def _run(self) -> None:
        while True:
            if not await self.turn():
                await asyncio.sleep(TURN_S)

    async def _plan(self) -> None:
        now_s = self._utc()
        today = int((now_s - _LATE_S) // DAY_S)
        found = await self._in_thread(self._store.days_without_reports, today)
        if found:
            # From the day's end; who was down then does not send all at once either.
            planned: list[tuple[int, str, int]] = []
            for day, domain in found:
                begin_s = max((day + 1) * DAY_S + _LATE_S, now_s - 1)
                planned.append((day, domain, int(begin_s + self._chance.random() * self._options.window)))
            await self._in_thread(self._store.plan, planned)

    async def _send(self, due: Due) -> None:
        async with self._places:
            answer = await self._resolver.txt(f"_smtp._tls.{due.domain}")
            counted = await self._in_thread(self._store.outcomes, due.day, due.domain)
            if answer.kind.is_temporary and not self._is_too_late(due):
                await self._again(due, due.sent)
                return
            places = places_of_records(answer.records) if answer.kind is Kind.FOUND else ()
            if not places or not counted:
                await self._in_thread(self._store.done, due.day, due.domain, counted)
                return
            report = compose(
                self._options,
                domain=due.domain,
                day=due.day,
                now_utc_s=int(self._utc()),
                unique=secrets.token_hex(12),
                counted=counted,
            )
            sent, is_over = set(due.sent), True
            for place in places:
                if place not in sent:
                    trouble = await self._deliver_and_keep(report, place, due, sent)
                    if trouble is not None and not trouble.is_permanent:
                        is_over = False
            if is_over or self._is_too_late(due):
                await self._in_thread(self._store.done, due.day, due.domain, counted)
            else:
                await self._again(due, sent)

    async def _deliver_and_keep(
        self, report: TlsReport, place: str, due: Due, sent: set[str]
    ) -> PostFailed | None:
        """A mail is on its way once it is begun: close() waits for it, so that nobody is told twice."""

        async def deliver() -> PostFailed | None:
            trouble = await self._deliver(report, place)
            if trouble is None:
                sent.add(place)
                await self._in_thread(self._store.arrived, due, sent)
            return trouble

        if not place.startswith("mailto:"):
            return await deliver()
        mail = asyncio.ensure_future(deliver())
        self._mails.add(mail)
        mail.add_done_callback(self._mails.discard)
        return await asyncio.shield(mail)

    async def _deliver(self, report: TlsReport, place: str) -> PostFailed | None:
        scheme, _, rest = place.partition(":")
        try:
            if scheme == "mailto":
                await self._mail(
                    rest,
                    message(report, self._options, to=rest, hostname=self._hostname, now_utc_s=self._utc()),
                )
            else:
                if self._tls is None:
                    self._tls = await self._in_thread(lax_context)
                await post(place, report.content, self._resolver, self._tls, allow_private=self._allow_private)
        except PostFailed as failed:
            trouble = failed
        except Exception as error:      # of the spool
            trouble = PostFailed(str(error) or type(error).__name__)
        else:
            sent_total.add(1)
            self._journal.log("tls-report-sent", domain=report.domain, to=place, report=report.report_id)
            return None
        failed_total.add(1)
        self._journal.log("tls-report-failed", domain=report.domain, to=place, reason=str(trouble))
        return trouble

    def _is_too_late(self, due: Due) -> bool:
        """§5.5: tried for 24 hours at the most."""
        return due.tries > 0 and self._utc() >= (due.day + 2) * DAY_S

    async def _again(self, due: Due, sent: Iterable[str]) -> None:
        delay_s = min(_RETRY_FIRST_S * 2.0**due.tries, _RETRY_MOST_S) * (0.9 + 0.2 * self._chance.random())
        await self._in_thread(self._store.again, due, int(self._utc() + delay_s), sorted(sent))

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def run() -> Any:
            return call(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)
