"""The suppression list at work in one worker.

Failures are written to it in batches by a thread; recipients are looked up in it before mail to them is taken
("refuse") or tried ("bounce").

A list in trouble keeps no mail back: whoever cannot be looked up is sent to, and the operator is told once a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from angarium.bounces.suppression import Failure, SuppressionError, SuppressionList
from angarium.bounces.suppression_options import SuppressionOptions
from angarium.bounces.verp import Trace
from angarium.events.journal import Journal
from angarium.inbound.judgement import Answer, Judges, MailCase, NewRecipient, RcptCase
from angarium.inbound.options import ListenerOptions
from angarium.inbound.policy_state import visit_of
from angarium.metrics.counters import counter
from angarium.model.refusal import Refusal
from angarium.queue.notes import Asked, Note
from angarium.smtp import replies
from angarium.spool.envelope import Attribute

NOBODY: Final = Judges()
SUPPRESSED: Final = Refusal(replies.SUPPRESSED, "suppressed")

listed_total = counter("angarium_suppression_listed_total", "Addresses put on the suppression list.")
hits_total = counter(
    "angarium_suppression_hits_total", "Recipients refused or failed: they are on the suppression list."
)
errors_total = counter(
    "angarium_suppression_errors_total", "Recipients not looked up, or failures not counted: the list is in trouble."
)

_WAITING_MAX: Final = 10_000
_FORGET_S: Final = 600.0
_TELL_S: Final = 60.0


class SuppressionDesk:
    """One per worker; apply() before the first listener is made and at each reload. drain(), then close(), last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._options = SuppressionOptions()
        self._list: SuppressionList | None = None
        self._opened: tuple[Path, SuppressionOptions, bytes] | None = None
        self._waiting: list[Failure] = []
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="suppression")
        self._told_mono_s = 0.0
        self._forgetting: asyncio.TimerHandle | None = None

    def apply(self, options: SuppressionOptions, path: Path, secret: bytes) -> None:
        """Opens the list when it is wanted. Raises SuppressionError; then there is no list until the next time."""
        wanted = None if options.action == "off" else (path, options, secret)
        if wanted == self._opened:
            return
        # LMDB may not have one file open twice in a process.
        former, self._list, self._opened = self._list, None, None
        if former is not None:
            self._thread.submit(former.close).result()
        if wanted is not None:
            self._list = SuppressionList(*wanted)
            if self._forgetting is None:
                self._forgetting = self._loop.call_later(_FORGET_S, self._forget)
        self._opened = wanted
        self._options = options

    def judges_of(self, options: ListenerOptions) -> Judges:
        if self._list is None or self._options.action != "refuse":
            return NOBODY
        return Judges(mail=(self._mail,), rcpt=(self._rcpt,))

    @property
    def looks_at_admission(self) -> bool:
        """Whether suppressed() is to be asked of all mail that is queued."""
        return self._list is not None and self._options.action == "bounce"

    @property
    def counts(self) -> bool:
        return self._list is not None

    def suppressed(self, tenant: bytes, forward_path: bytes) -> str | None:
        """In words why a recipient is not to be tried; None: it is."""
        name = self._look_up(tenant, forward_path)
        if name is None:
            return None
        hits_total.add(1)
        return f"not tried: the address is on the suppression list ({name})"

    def speak(self, asked: Asked) -> Iterator[Note]:
        """For explanations: counted nowhere."""
        name = self._look_up(asked.tenant.encode(), asked.address.encode()) if "@" in asked.address else None
        if name is not None and self._options.action == "refuse":
            yield Note(f"{asked.address} is on the suppression list ({name}): new mail to it is refused")
        elif name is not None:
            yield Note(f"{asked.address} is on the suppression list ({name}): new mail to it fails untried")

    def failed(self, name: str, tenant: bytes, forward_path: bytes) -> None:
        """Mail to a recipient has failed for good."""
        self._count(Failure(name, tenant, forward_path))

    def reported(self, name: str, trace: Trace) -> None:
        """Another host says so of what a trace names, or somebody has complained."""
        if not (trace.recipient or trace.key):
            return
        tenant = None if trace.tenant is None else trace.tenant.encode("ascii")
        self._count(Failure(name, tenant, trace.recipient.encode("ascii"), trace.key))

    def _count(self, failure: Failure) -> None:
        if self._list is None or not self._list.wants(failure.name):
            return
        if len(self._waiting) >= _WAITING_MAX:
            errors_total.add(1)
            return
        self._waiting.append(failure)
        if self._running is None:
            self._running = self._loop.create_task(self._run())

    async def drain(self) -> None:
        """Waits until all that has failed is written."""
        while self._running is not None:
            await asyncio.wait([self._running])

    def close(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._thread.shutdown(wait=True)
        if self._list is not None:
            self._list.close()
            self._list = None

    # ---- judges

    def _mail(self, case: MailCase) -> Answer:
        # The tenant is known before any recipient where a hook sets it at MAIL or earlier.
        visit = visit_of(case.client)
        visit.tenant = case.attributes.get(Attribute.TENANT, visit.attributes.get(Attribute.TENANT, b""))
        return None

    def _rcpt(self, case: RcptCase) -> Answer:
        if not case.client.may_relay or not case.reverse_path:
            return None  # mail for us, and reports: who sends them does not keep our lists
        visit = case.client.visit
        tenant = case.attributes.get(Attribute.TENANT, b"" if visit is None else visit.tenant)
        recipients = case.recipients
        if recipients is None:
            recipients = [NewRecipient(case.forward_path, case.orcpt, case.notify)]
        left = [each for each in recipients if self._look_up(tenant, each.forward_path) is None]
        if len(left) == len(recipients):
            return None
        hits_total.add(len(recipients) - len(left))
        if not left:
            return SUPPRESSED
        case.recipients = left  # of an alias: its other members get the mail
        return None

    # ---- the list

    def _look_up(self, tenant: bytes, forward_path: bytes) -> str | None:
        if self._list is None:
            return None
        try:
            return self._list.listed(tenant, forward_path)
        except SuppressionError as error:
            self._complain(error, 1)
            return None

    async def _run(self) -> None:
        """Batches, one after the other: what comes while one is under way makes the next."""
        try:
            while self._waiting and self._list is not None:
                batch, self._waiting = self._waiting, []
                try:
                    listed_total.add(await self._loop.run_in_executor(self._thread, self._list.note, batch))
                except SuppressionError as error:
                    self._complain(error, len(batch))
        finally:
            self._running = None

    def _forget(self) -> None:
        self._forgetting = self._loop.call_later(_FORGET_S, self._forget)
        if self._list is not None and self._running is None:
            self._running = self._loop.create_task(self._forget_all())

    async def _forget_all(self) -> None:
        try:
            while self._list is not None:
                if not await self._loop.run_in_executor(self._thread, self._list.forget_expired):
                    break
        except SuppressionError as error:
            self._complain(error, 0)
        finally:
            self._running = None
        if self._waiting:
            self._running = self._loop.create_task(self._run())

    def _complain(self, error: SuppressionError, lost: int) -> None:
        errors_total.add(lost)
        now = time.monotonic()
        if now - self._told_mono_s >= _TELL_S or self._told_mono_s == 0.0:
            self._told_mono_s = now
            self._journal.log("error", where="suppression", reason=str(error))
