"""Telling senders what became of their mail: which recipients of a message go into one DSN, and the DSN into the spool.

What a DSN looks like is mime/dsn.py's, who wants one is mime/notify.py's. The order that makes this safe: a recipient
that failed counts as waiting on disk until its report is itself on stable storage; a crash in between repeats the
attempt, and never loses the report.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from typing import Final

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.mime.dsn import ReportedMessage, ReportedRecipient, compose_dsn
from angarium.mime.notify import is_report_due
from angarium.model.errors import SpoolCorrupt, SpoolError
from angarium.queue.injection import inject
from angarium.queue.inspect import RecipientFacts, ReportFacts, fetch_for_report, id_text, report_facts
from angarium.queue.scheduler import Scheduler
from angarium.spool.envelope import Attribute
from angarium.spool.shard import Shard

reports_sent = counter("angarium_reports_total", "Delivery status notifications put into the queue.")
reports_failed = counter("angarium_report_errors_total", "Notifications that could not be made; tried again later.")

_IS_DSN = 128       # SPOOL_ENVELOPE_IS_DSN (csrc/spool/envelope.h)
_8BIT = 1
_SMTPUTF8 = 2
_BODY_8BITMIME = 4
_DOT_LINE = 8
_REQUIRETLS = 2048

AT_ONCE: Final = 16  # a third of a millisecond each


class Reporter:
    """One per worker. `hostname` is what reports say they come from.

    recipients_of  whom a reverse-path stands for; itself unless somebody who knows aliases is asked.
    """

    recipients_of: Callable[[bytes], list[bytes]]

    def __init__(self, hostname: str, journal: Journal) -> None:
        self.recipients_of = lambda reverse_path: [reverse_path]
        self._hostname = hostname
        self._journal = journal
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: collections.deque[tuple[Scheduler, int]] = collections.deque()

    def report(self, scheduler: Scheduler, pointer: int) -> None:
        """Called by the scheduler, which holds the message until it hears Scheduler.reported()."""
        self._waiting.append((scheduler, pointer))
        self._begin()

    def _begin(self) -> None:
        # Of a backlog that expires, reports would be composed in one turn of the loop as fast as it is read back.
        while self._waiting and len(self._tasks) < AT_ONCE:
            scheduler, pointer = self._waiting.popleft()
            task = scheduler.loop.create_task(self._report(scheduler, pointer))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._begin()

    async def drain(self) -> None:
        """Waits for reports under way: at shutdown, before the spool closes."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _report(self, scheduler: Scheduler, pointer: int) -> None:
        indexes: list[int] | None = []
        error = 1
        try:
            await _fetched(scheduler, pointer)
            facts = report_facts(scheduler, pointer)
            indexes = [each.index for each in facts.recipients]
            told = [
                each
                for each in facts.recipients
                if is_report_due(each.outcome, each.notify, facts.reverse_path, is_asked=each.is_asked_by_terms)
            ]
            error = await self._send(scheduler, facts, told) if told else 0
        except SpoolCorrupt as problem:
            # Nobody can be told: who it was from is not readable any more. Tried again it would be the same for ever.
            self._journal.log("error", where="report", reason=str(problem))
            indexes, error = None, 0
        except Exception as problem:
            self._journal.log("error", where="report", reason=repr(problem))
        if error:
            reports_failed.add()
        scheduler.reported(pointer, indexes, error)

    async def _send(self, scheduler: Scheduler, facts: ReportFacts, told: list[RecipientFacts]) -> int:
        content = facts.content
        if content is None and facts.first_chunk is not None:
            try:
                content = await facts.shard.fetch(*facts.first_chunk, body_of=facts.id)
            except SpoolError as problem:
                # The message is damaged on disk: its sender is told all the same, without its text.
                self._journal.log("error", where="report", id=id_text(facts.id), reason=str(problem))
        shard: Shard = facts.shard
        id = shard.new_id()
        dsn = compose_dsn(
            ReportedMessage(
                reverse_path=facts.reverse_path,
                content=content or b"",
                message_octets=facts.message_octets,
                received_utc_s=facts.received_utc_s,
                queue_id=id_text(facts.id),
                helo=facts.helo,
                envid=facts.envid,
                ret=facts.ret,
                is_smtputf8=facts.is_smtputf8,
                is_binary=facts.is_binary,
                deliver_by_utc_s=facts.deliver_by_utc_s,
                hold_until_utc_s=facts.hold_until_utc_s,
                hold_for_s=facts.hold_for_s,
            ),
            [
                ReportedRecipient(
                    forward_path=each.forward_path,
                    outcome=each.outcome,
                    orcpt=each.orcpt,
                    trouble=each.trouble,
                    is_late=each.is_late,
                    last_attempt_utc_s=time.time(),
                    will_retry_until_utc_s=facts.will_retry_until_utc_s if each.outcome == "delayed" else 0.0,
                )
                for each in told
            ],
            hostname=self._hostname,
            dsn_id=id_text(id),
            now_utc_s=time.time(),
        )
        flags = _IS_DSN
        if facts.requires_tls:
            flags |= _REQUIRETLS    # RFC 8689 §5: a report tells as much as the message, and travels no worse
        if dsn.has_8bit:
            flags |= _8BIT | _BODY_8BITMIME
        if dsn.needs_utf8:
            flags |= _SMTPUTF8
        if b"\r\n." in dsn.octets:
            flags |= _DOT_LINE
        stored: asyncio.Future[int] = scheduler.loop.create_future()

        def done(error: int, _: int) -> None:
            if not error:
                reports_sent.add()
                self._journal.log(
                    "report", id=id_text(facts.id), report=id_text(id), to=facts.reverse_path.decode("utf-8", "replace")
                )
            if not stored.done():
                stored.set_result(error)

        # RFC 6710 §4.6: a report has the priority of what it is about.
        attributes = {int(Attribute.PRIORITY): b"%d" % facts.priority} if facts.priority else None
        inject(
            scheduler,
            shard,
            b"",
            self.recipients_of(facts.reverse_path),
            dsn.octets,
            flags,
            done,
            id,
            attributes=attributes,
        )
        return await stored


async def _fetched(scheduler: Scheduler, pointer: int) -> None:
    """Has the envelope in memory, and the content where it is one small chunk, as far as they can be read."""
    read: asyncio.Future[int] = scheduler.loop.create_future()

    def done(error: int) -> None:
        if not read.done():
            read.set_result(error)

    fetch_for_report(scheduler, pointer, done)
    await read
