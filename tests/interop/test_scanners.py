"""Those who look for holes: nmap's SMTP scripts, and testssl.sh against STARTTLS."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import clean_relay
from interop.programs import program, run
from interop.test_tls_clients import relay_under_tls
from relay_process import wait_for


def nmap(port: int, *scripts: str) -> str:
    """With the port taken for SMTP, whatever its number."""
    return run(
        "nmap", "-n", "-Pn", "-p", str(port), "--script", ",".join(f"+{script}" for script in scripts),
        "--script-args", "smtp-open-relay.domain=y.example,smtp.domain=scanner.example", "127.0.0.1",
    )  # fmt: skip


def test_nmap_finds_no_open_relay(tmp_path: Path) -> None:
    bounds = "max_errors = 100\nmax_refused_recipients = 100"
    listener = f'relay_from = ["192.0.2.0/24"]\nrelay_to = ["ours.example"]\n{bounds}'
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener=listener) as relay:
        told = nmap(relay.port, "smtp-open-relay")
        assert "Server doesn't seem to be an open relay, all tests failed" in told, told
        assert wait_for(lambda: relay.events("rejected"), "its attempts are logged")
        assert not hop.deliveries


def test_nmap_reads_the_extensions(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        told = nmap(relay.port, "smtp-commands")
        assert "PIPELINING" in told, told
        assert "CHUNKING" in told, told


def test_nmap_finds_no_users_and_no_known_holes(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener='relay_to = ["y.example"]') as relay:
        told = nmap(
            relay.port, "smtp-enum-users", "smtp-vuln-cve2010-4344", "smtp-vuln-cve2011-1720", "smtp-vuln-cve2011-1764"
        )
        assert "VULNERABLE:" not in told.replace("NOT VULNERABLE:", ""), told
        assert not relay.events("error")


@pytest.mark.timeout(600)
def test_testssl_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    """Its own certificate apart, which no authority that it knows has signed."""
    scanner = program("testssl")
    report = tmp_path / "testssl.json"
    with relay_under_tls(tmp_path) as (relay, _):
        words = [
            "--starttls",
            "smtp",
            "--quiet",
            "--color",
            "0",
            "--warnings",
            "off",
            "--protocols",
            "--vulnerable",
            "--std",
        ]
        # Its exit status counts what it would have liked to know, too; what it found is in the report.
        subprocess.run(
            [scanner, *words, "--jsonfile", str(report), f"127.0.0.1:{relay.port}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=540,
            check=False,
        )
    findings = json.loads(report.read_text())
    bad = [each for each in findings if each["severity"] in ("MEDIUM", "HIGH", "CRITICAL")]
    assert not bad, bad
    found = {each["id"]: each["finding"] for each in findings}
    assert found["TLS1_3"].startswith("offered"), found
    for old in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
        assert found[old].startswith("not offered"), (old, found[old])
