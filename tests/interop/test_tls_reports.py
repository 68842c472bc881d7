"""Reports about TLS, from connections to what a report says, as parsedmarc reads it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from end_to_end.test_published_tls import may_bind
from end_to_end.test_tls_reports import reported

pytestmark = pytest.mark.skipif(not may_bind(), reason="port 25 cannot be bound: this test needs root")

PYTHON = Path(__file__).parents[2] / "build/interop/parsedmarc/bin/python"
READ = """
import json, sys, parsedmarc
found = parsedmarc.parse_report_email(open(sys.argv[1], "rb").read(), offline=True)
print(json.dumps({"type": found["report_type"], "report": found["report"]}, default=str))
"""


def parsedmarc(message: Path) -> dict[str, Any]:
    if not PYTHON.exists():
        pytest.skip("parsedmarc is not installed: tools/interop-peers installs it")
    done = subprocess.run([PYTHON, "-c", READ, message], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_parsedmarc_reads_what_we_report(tmp_path: Path) -> None:
    found = parsedmarc(reported(tmp_path))
    assert found["type"] == "smtp_tls"
    report = found["report"]
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
