"""A worker's part of reports about TLS: what counts outcomes, and in one worker of the machine what sends for all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable

from angarium.events.journal import Journal
from angarium.outbound.tls_reports import TlsReporter
from angarium.outbound.tls_witness import TlsWitness
from angarium.resolver.answer import Resolver
from angarium.tls.report_counts import TlsCounts
from angarium.tls.report_options import TlsReportOptions
from angarium.tls.report_store import FILE_NAME
from angarium.tls.sts_policies import StsPolicies
from angarium.tls.sts_policy import StsPolicy


class TlsReporting:
    """On the loop; end_reporter() and end_counts() last, after which apply() begins nothing.

    spool  the directory of the file that all workers count into.
    mail   (sender, mailbox, message): as tls_reports.Mail. None: another worker sends.
    witness  who is told of outcomes; None: reports are off.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        spool: str,
        hostname: str,
        mail: Callable[[bytes, str, bytes], Awaitable[None]] | None,
    ) -> None:
        self.witness: TlsWitness | None = None
        self._loop = loop
        self._journal = journal
        self._path = f"{spool}/{FILE_NAME}"
        self._hostname = hostname
        self._mail = mail
        self._sts: StsPolicies | None = None
        self._counts: TlsCounts | None = None
        self._reporter: TlsReporter | None = None
        self._is_ending = False

    async def apply(self, options: TlsReportOptions, resolver: Resolver, sts: StsPolicies | None) -> None:
        """Works by these from now on. sts  the policies of MTA-STS that there are; they tell what they fail at."""
        await self._close_reporter(None)
        if self._is_ending:
            return
        self._sts = sts
        if options.enabled:
            if self._counts is None:
                self._counts = TlsCounts(self._loop, self._path, self._failed)
            self.witness = TlsWitness(self._counts.note, self._published)
            if self._mail is not None:
                self._reporter = TlsReporter(
                    self._path,
                    options,
                    hostname=self._hostname,
                    resolver=resolver,
                    mail=functools.partial(self._mail, options.sender.encode()),
                    journal=self._journal,
                )
                self._reporter.start()
        else:
            self.witness = None
            await self.end_counts()
        if sts is not None:
            sts.on_failure = None if self.witness is None else self.witness.no_sts_policy

    async def end_reporter(self, patience_s: float) -> None:
        """Sends no more. Somebody else may hold the file: past the patience that is not waited for."""
        self._is_ending = True
        await self._close_reporter(patience_s)

    async def end_counts(self) -> None:
        """Writes what has been counted."""
        counts, self._counts = self._counts, None
        if counts is not None:
            await counts.close()

    async def _close_reporter(self, patience_s: float | None) -> None:
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await reporter.close()

    def _failed(self, reason: str) -> None:
        self._journal.log("tls-report-failed", domain="", to="", reason=f"{FILE_NAME}: {reason}")

    def _published(self, domain: str) -> StsPolicy | None:
        return None if self._sts is None else self._sts.remembered(domain)
