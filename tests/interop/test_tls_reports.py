"""Reports about TLS, from connections to what a report says, as parsedmarc reads it."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from end_to_end.test_published_tls import may_bind
from end_to_end.test_tls_reports import reported
from tls.authority import certificate
from tls.test_tls_reports import MIDNIGHT, Desk, counted, server

from angarium.tls.report_outcome import ReportedPolicy, TlsOutcome

PYTHON = Path(__file__).parents[2] / "build/interop/parsedmarc/bin/python"
READ = """
import json, sys, parsedmarc
read = {"mail": parsedmarc.parse_report_email, "file": parsedmarc.parse_report_file}[sys.argv[1]]
found = read(open(sys.argv[2], "rb").read(), offline=True)
print(json.dumps({"type": found["report_type"], "report": found["report"]}, default=str))
"""

TLSA = ReportedPolicy("tlsa", "mx1.y.example", ("3 0 1 " + "AB" * 32, "2 0 1 " + "CD" * 32), ("mx1.y.example",))
STS = ReportedPolicy(
    "sts", "y.example", ("version: STSv1", "mode: enforce", "mx: *.y.example", "mx: mx.z.example", "max_age: 86400"),
    ("*.y.example", "mx.z.example"),
)  # fmt: skip
NONE = ReportedPolicy("no-policy-found", "y.example")

# A day of one domain: policy, how often it went well, and what failed, how often, where and why.
OF_A_DAY: list[tuple[ReportedPolicy, int, list[tuple[str, int, str, str, str]]]] = [
    (TLSA, 5, [
        ("validation-failure", 2, "mx1.y.example", "192.0.2.1", "no matching DANE TLSA records"),
        ("tlsa-invalid", 1, "mx1.y.example", "2001:db8::1", "no record is usable"),
        ("dnssec-invalid", 3, "mx1.y.example", "", "TLSA of mx1.y.example: SERVFAIL"),
    ]),
    (STS, 7, [
        ("certificate-host-mismatch", 1, "mx2.y.example", "192.0.2.2", 'the certificate is for "other.example", <b>&c'),
        ("certificate-expired", 4, "mx2.y.example", "192.0.2.2", "certificate has expired"),
        ("certificate-not-trusted", 1, "mx.z.example", "192.0.2.3", "self-signed certificate"),
        ("starttls-not-supported", 2, "mx.z.example", "192.0.2.3", ""),
        ("sts-policy-fetch-error", 1, "", "", "HTTP status 404"),
        ("sts-policy-invalid", 1, "", "", "no version"),
        ("sts-webpki-invalid", 1, "", "", "certificate verify failed"),
    ]),
    (NONE, 9, [("starttls-not-supported", 1, "old.y.example", "192.0.2.9", "")]),
]  # fmt: skip


def parsedmarc(what: str, path: Path) -> dict[str, Any]:
    if not PYTHON.exists():
        pytest.skip("parsedmarc is not installed: tools/interop-peers installs it")
    done = subprocess.run([PYTHON, "-c", READ, what, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["type"] == "smtp_tls"
    report: dict[str, Any] = found["report"]
    return report


def sent(folder: Path, outcomes: list[TlsOutcome]) -> tuple[bytes, bytes]:
    """The report of these outcomes as it is mailed, and the body as it is posted."""

    async def main() -> tuple[bytes, bytes]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate("r.y.example").configure_cert(context)
        serve, taken = server([b"201 Created"])
        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        record = f"v=TLSRPTv1; rua=mailto:tls@y.example,https://r.y.example:{listening.sockets[0].getsockname()[1]}/v1"
        path = folder / "reports.db"
        counted(path, *outcomes)
        desk = Desk(path, {"_smtp._tls.y.example TXT": record, "r.y.example A": "127.0.0.1"})
        await desk.until(MIDNIGHT + 5 * 3600)
        await desk.reporter.close()
        listening.close()
        ((_, mail),), (posted,) = desk.mails, taken
        return mail, posted.partition(b"\r\n\r\n")[2]

    return asyncio.run(main())


def test_parsedmarc_reads_every_policy_and_result_mailed_and_posted(tmp_path: Path) -> None:
    outcomes = []
    for policy, good_count, failures in OF_A_DAY:
        outcomes += [TlsOutcome("y.example", policy)] * good_count
        for result, count, mx, ip, reason in failures:
            bad = TlsOutcome("y.example", policy, result, mx, ip, "198.51.100.7" if ip else "", reason)  # type: ignore[arg-type]
            outcomes += [bad] * count
    mailed, posted = tmp_path / "report.eml", tmp_path / "report.json"
    mail, body = sent(tmp_path, outcomes)
    mailed.write_bytes(mail)
    posted.write_bytes(gzip.decompress(body))
    reports = parsedmarc("mail", mailed), parsedmarc("file", posted)
    assert reports[0] == reports[1]
    for report in reports:
        assert report["organization_name"] == "Example Net"
        assert report["contact_info"] == "tls@example.net"
        assert (report["begin_date"], report["end_date"]) == ("2024-10-04T00:00:00Z", "2024-10-04T23:59:59Z")
        by_type = {policy["policy_type"]: policy for policy in report["policies"]}
        assert len(by_type) == len(report["policies"]) == len(OF_A_DAY)
        for policy, good_count, failures in OF_A_DAY:
            read = by_type[policy.type]
            assert read["policy_domain"] == policy.domain
            assert read.get("policy_strings", []) == list(policy.strings)
            # Not "mx-host", which it looks for by the name that RFC 8460 §4.4 has for its value.
            assert read["successful_session_count"] == good_count
            assert read["failed_session_count"] == sum(count for _, count, *_ in failures)
            found = {
                (
                    each["result_type"],
                    each["failed_session_count"],
                    each.get("receiving_mx_hostname", ""),
                    each.get("receiving_ip", ""),
                    each.get("failure_reason_code", ""),
                )
                for each in read["failure_details"]
            }
            assert found == set(failures) and len(read["failure_details"]) == len(failures)


@pytest.mark.skipif(not may_bind(), reason="port 25 cannot be bound: this test needs root")
def test_parsedmarc_reads_what_we_report(tmp_path: Path) -> None:
    report = parsedmarc("mail", reported(tmp_path))
    assert report["organization_name"] == "Example Net"
    assert report["contact_info"] == "tls@example.net"
    (policy,) = report["policies"]
    assert (policy["policy_type"], policy["policy_domain"]) == ("tlsa", "mx.y.example")
    assert policy["policy_strings"] == ["3 0 1 " + "00" * 32]
    assert policy["successful_session_count"] == 0
    (failure,) = policy["failure_details"]
    assert failure["result_type"] == "validation-failure"
    assert failure["failed_session_count"] == policy["failed_session_count"] >= 1
    assert failure["receiving_mx_hostname"] == "mx.y.example"
