"""Reports of other hosts, taken in at chosen addresses: read, told to the log, then dropped or forwarded.

A judge like others, but one that says no only to addresses that look like traces of ours and are not. A message is read
by a thread, at most max_octets of it, before it is answered. Of one that is dropped nothing stays but its event: 250 is
said when that is on stable storage, as far as the log is a file.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from angarium.bounces.classes import COMPLAINT, UNCLASSIFIED
from angarium.bounces.classifier import Classifier
from angarium.bounces.report import Report, ReportedRecipient, read_report
from angarium.bounces.report_options import ReportsOptions
from angarium.bounces.verp import Trace, Verp
from angarium.events.journal import Journal
from angarium.inbound.judgement import Answer, Judges, MailCase, MessageCase, NewRecipient, RcptCase
from angarium.inbound.options import ListenerOptions
from angarium.inbound.policy_state import PendingReport, visit_of
from angarium.metrics.counters import counter, registry
from angarium.mime.notify import Notify
from angarium.model.refusal import Refusal
from angarium.smtp import replies

NOBODY: Final = Judges()
FORGED: Final = Refusal(replies.NO_REPORT_ADDRESS, "no-report-address")
APART: Final = Refusal(replies.REPORT_APART, "report-apart")
NOT_KEPT: Final = Refusal(replies.LOCAL_TROUBLE, "local-trouble")

_HELP: Final = "Messages to addresses for reports, for each kind."
reports_total = {
    kind: counter("angarium_in_reports_total", _HELP, {"kind": kind})
    for kind in ("bounce", "feedback", "auto-reply", "unrecognised", "forged")
}

# The journal's own: lines that a full disk has cost.
lines_dropped = next(each for each in registry() if each.name == "angarium_log_lines_dropped_total")

# RFC 5965 §7.3 and the registry behind it.
FEEDBACK_CLASSES: Final = {
    "abuse": COMPLAINT,
    "fraud": COMPLAINT,
    "virus": "virus",
    "auth-failure": "authentication-failed",
    "opt-out": "unsubscribed",
}

Bounced = Callable[[str, Trace], object]


class ReportDesk:
    """One per worker; apply() before the first listener is made, and at each reload. close() last.

    log_fd     what the journal writes to.
    on_bounce  told (class, trace) of failures and complaints that come back to a trace of ours.
    """

    on_bounce: Bounced | None

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal, hostname: str, log_fd: int) -> None:
        self._loop = loop
        self._journal = journal
        self._hostname = hostname
        self._log_fd = log_fd
        self._options = ReportsOptions()
        self._classifier: Classifier
        self._verp: Verp | None = None
        self._whole: frozenset[bytes] = frozenset()
        self._domains: frozenset[bytes] = frozenset()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reports")
        self.on_bounce = None

    def apply(self, options: ReportsOptions, verp: Verp | None, classifier: Classifier) -> None:
        patterns = [each.lower().encode("ascii") for each in options.addresses]
        self._options = options
        self._verp = verp
        self._classifier = classifier
        self._domains = frozenset(each[2:] for each in patterns if each.startswith(b"*@"))
        self._whole = frozenset(each for each in patterns if not each.startswith(b"*@"))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def judges_of(self, options: ListenerOptions) -> Judges:
        if not self._options.is_used:
            return NOBODY
        return Judges(mail=(self._mail,), rcpt=(self._rcpt,), message=(self._message,))

    def _mail(self, case: MailCase) -> Answer:
        if case.client.visit is not None:
            case.client.visit.report = None
        return None

    def _rcpt(self, case: RcptCase) -> Answer:
        visit = case.client.visit
        pending = None if visit is None else visit.report
        address = case.forward_path
        is_trace = self._verp is not None and self._verp.is_one(address)
        if not is_trace and not self._is_report_address(address):
            return APART if pending is not None else None
        trace = self._verp.read(address) if self._verp is not None and is_trace else None
        if is_trace and trace is None:
            reports_total["forged"].add(1)
            return FORGED
        # What is to become of the message is decided for all of it.
        if case.recipient_count or (pending is not None and pending.address != address):
            return APART
        visit_of(case.client).report = PendingReport(address, trace)
        case.recipients = []
        return None

    def _is_report_address(self, address: bytes) -> bool:
        folded = address.lower()
        return folded in self._whole or folded.rpartition(b"@")[2] in self._domains

    def _message(self, case: MessageCase) -> Answer:
        visit = case.client.visit
        if visit is None or visit.report is None:
            return None
        return self._take(case, visit.report)

    async def _take(self, case: MessageCase, pending: PendingReport) -> Refusal | None:
        content = case.content[: self._options.max_octets]
        lost = lines_dropped.value
        try:
            report = await self._loop.run_in_executor(self._thread, read_report, content, self._hostname)
            if report is not None:
                self._tell(report, pending)
            else:
                self._unrecognised(pending, "no report")
        except Exception as error:
            # The library has met something that it cannot even misread, or we have: for a person to look at. With a 451
            # the same octets would come again for days.
            report = None
            self._unrecognised(pending, repr(error))
        options = self._options
        if options.forward_to and (options.forward == "all" or (options.forward == "unrecognised" and report is None)):
            case.recipients = [NewRecipient(options.forward_to.encode("ascii"), b"", Notify.NEVER)]
            return None
        return None if await self._is_kept(lost) else NOT_KEPT

    async def _is_kept(self, lost_before: int) -> bool:
        """Whether what was logged is on stable storage. A pipe or terminal has none: it is as good as its reader."""
        self._journal.flush()
        try:
            await self._loop.run_in_executor(self._thread, os.fdatasync, self._log_fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):
                self._journal.log("error", where="reports", reason=f"the log cannot be synced: {error.strerror}")
                return False
        return lines_dropped.value == lost_before

    def _unrecognised(self, pending: PendingReport, reason: str) -> None:
        reports_total["unrecognised"].add(1)
        fields = {"address": pending.address.decode("utf-8", "replace"), **_of_trace(pending.trace), "reason": reason}
        self._journal.log("report-unrecognised", **fields)

    def _tell(self, report: Report, pending: PendingReport) -> None:
        reports_total[report.kind].add(1)
        trace = pending.trace
        if trace is None and self._verp is not None:
            traces = (self._verp.read(path.encode("utf-8", "replace")) for path in report.return_paths)
            trace = next((each for each in traces if each is not None), None)
        common: dict[str, str | int] = {"id": report.queue_id, **_of_trace(trace)}
        rest = {"message_id": report.message_id, "form": report.form}
        if report.kind == "auto-reply":
            self._journal.log("auto-reply", **_said({**common, **rest}))
            return
        recipients = report.recipients or (ReportedRecipient("", "failed"),)
        is_told = False
        for recipient in recipients:
            if report.kind == "feedback":
                name = FEEDBACK_CLASSES.get(report.feedback_type, "")
                fields = {**common, "feedback": report.feedback_type, "class": name}
            else:
                name = self._class_of(recipient)
                fields = {**common, "class": name, "action": recipient.action, "code": recipient.code}
                fields |= {"status": recipient.status, "reply": recipient.text}
            if not fields.get("to"):
                fields["to"] = recipient.address
            elif recipient.address and recipient.address.lower() != fields["to"]:
                fields["reported"] = recipient.address
            fields |= {"remote": recipient.host, **rest}
            if report.kind == "feedback":
                self._journal.log("feedback", **_said(fields))
            else:
                self._journal.log("bounce", **_said(fields))
            is_final = recipient.action == "failed" or report.kind == "feedback"
            if trace is not None and is_final and name and not is_told and self.on_bounce:
                # Of one trace one recipient: whatever else the report says of others.
                is_told = True
                self.on_bounce(name, trace)

    def _class_of(self, recipient: ReportedRecipient) -> str:
        if recipient.action not in ("failed", "delayed"):
            return ""
        code = recipient.code or (500 if recipient.action == "failed" else 400)
        if not (recipient.text or recipient.status):
            return UNCLASSIFIED
        text = recipient.text
        return self._classifier.verdict(code, recipient.status, text, phase="report", mx=recipient.host).name


def _of_trace(trace: Trace | None) -> dict[str, str]:
    """is_traced: id and recipient are no hearsay."""
    if trace is None:
        return {}
    return {"id": trace.id, "to": trace.recipient, "tenant": trace.tenant or "", "trace": "verified"}


def _said(fields: dict[str, str | int]) -> dict[str, str | int]:
    return {key: value for key, value in fields.items() if value}
