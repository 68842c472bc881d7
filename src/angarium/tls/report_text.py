"""A report as RFC 8460 writes it: the JSON (§4), gzip, the name of its file (§5.1), the message that carries it (§5.3).

Not signed: this relay has no DKIM yet, which §3 wants of reports by mail; receivers that insist on it can take them by
https.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from angarium.tls.report_options import TlsReportOptions
from angarium.tls.report_outcome import ReportedPolicy
from angarium.tls.report_store import DAY_S, Counted

MEDIA_TYPE: Final = "application/tlsrpt+gzip"

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class TlsReport(msgspec.Struct, frozen=True):
    """submitter: domain that reports. domain: that is reported to. unique: tells it from others of the same day."""

    submitter: str
    domain: str
    begin_utc_s: int
    end_utc_s: int
    unique: str
    content: bytes      # gzip

    @property
    def file_name(self) -> str:
        return f"{self.submitter}!{self.domain}!{self.begin_utc_s}!{self.end_utc_s}!{self.unique}.json.gz"

    @property
    def report_id(self) -> str:
        return f"{self.unique}@{self.submitter}"


def compose(
    options: TlsReportOptions, *, domain: str, day: int, now_utc_s: int, unique: str, counted: Sequence[Counted]
) -> TlsReport:
    """Of a day that is not over: up to now. The submitter is the domain of options.sender."""
    submitter = options.sender.rpartition("@")[2].lower()
    begin_s, end_s = day * DAY_S, min((day + 1) * DAY_S - 1, max(now_utc_s, day * DAY_S + 1))
    policies: dict[ReportedPolicy, list[Counted]] = {}
    for each in counted:
        policies.setdefault(each.outcome.policy, []).append(each)
    document = {
        "organization-name": options.organization_name,
        "date-range": {"start-datetime": _rfc3339(begin_s), "end-datetime": _rfc3339(end_s)},
        "contact-info": options.contact,
        "report-id": f"{unique}@{submitter}",
        "policies": [_policy(policy, rows) for policy, rows in policies.items()],
    }
    text = json.dumps(document, indent=1).encode()
    return TlsReport(submitter, domain, begin_s, end_s, unique, gzip.compress(text, mtime=0))


def _policy(policy: ReportedPolicy, counted: Sequence[Counted]) -> dict[str, Any]:
    described: dict[str, Any] = {"policy-type": policy.type}
    if policy.strings:
        described["policy-string"] = list(policy.strings)
    described["policy-domain"] = policy.domain
    if policy.mx:
        described["mx-host"] = list(policy.mx)
    bad = [each for each in counted if each.outcome.result]
    table: dict[str, Any] = {
        "policy": described,
        "summary": {
            "total-successful-session-count": sum(each.count for each in counted if not each.outcome.result),
            "total-failure-session-count": sum(each.count for each in bad),
        },
    }
    if bad:
        table["failure-details"] = [_failure(each) for each in bad]
    return table


def _failure(each: Counted) -> dict[str, Any]:
    outcome = each.outcome
    fields = {
        "result-type": outcome.result,
        "sending-mta-ip": outcome.sender,
        "receiving-mx-hostname": outcome.mx,
        "receiving-ip": outcome.ip,
        "failed-session-count": each.count,
        "failure-reason-code": outcome.reason,
    }
    return {key: value for key, value in fields.items() if value}


def message(report: TlsReport, options: TlsReportOptions, *, to: str, hostname: str, now_utc_s: float) -> bytes:
    """multipart/report with report-type=tlsrpt (§5.3), CRLF lines, ASCII.

    TLS-Required: no failure of TLS keeps the news of such failures from who can do something about it (RFC 8689 §3).
    """
    boundary = f"tlsrpt-{report.unique}"
    encoded = base64.encodebytes(report.content).decode().splitlines()
    lines = [
        f"From: <{options.sender}>",
        f"To: <{to}>",
        f"Date: {_date(now_utc_s)}",
        f"Subject: Report Domain: {report.domain}",
        f" Submitter: {report.submitter}",
        f" Report-ID: <{report.report_id}>",
        f"Message-ID: <tlsrpt.{report.unique}@{hostname}>",
        f"TLS-Report-Domain: {report.domain}",
        f"TLS-Report-Submitter: {report.submitter}",
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        'Content-Type: multipart/report; report-type="tlsrpt";',
        f' boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is a report about TLS on connections to the hosts of {report.domain}",
        f"from {report.submitter} (RFC 8460), from {_rfc3339(report.begin_utc_s)} to {_rfc3339(report.end_utc_s)}.",
        f"Questions: {options.contact}",
        "",
        f"--{boundary}",
        f"Content-Type: {MEDIA_TYPE}",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment;",
        f' filename="{report.file_name}"',
        "",
        *encoded,
        "",
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _rfc3339(utc_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(utc_s))


def _date(utc_s: float) -> str:
    at = time.gmtime(utc_s)     # not by strftime, whose names follow the locale
    day = f"{_DAYS[at.tm_wday]}, {at.tm_mday} {_MONTHS[at.tm_mon - 1]} {at.tm_year}"
    return f"{day} {time.strftime('%H:%M:%S', at)} +0000"
