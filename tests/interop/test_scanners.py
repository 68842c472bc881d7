"""Those who look for holes: nmap's SMTP scripts, and testssl.sh against STARTTLS."""

from __future__ import annotations

import base64
import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import clean_relay
from end_to_end.smtp_client import SmtpClient
from interop.programs import program, run
from interop.test_auth import IDENTITY, PASSWORD, with_file
from interop.test_tls_clients import relay_under_tls
from relay_process import wait_for

ARGUMENTS = "smtp-open-relay.domain=y.example,smtp.domain=scanner.example"
WITH_AUTH = 'auth = { required = true, allow_plaintext_from = ["127.0.0.0/8"] }'


def nmap(port: int, *scripts: str, arguments: str = "") -> str:
    """With the port taken for SMTP, whatever its number."""
    return run(
        "nmap", "-n", "-Pn", "-p", str(port), "--script", ",".join(f"+{script}" for script in scripts),
        "--script-args", ARGUMENTS + arguments, "127.0.0.1",
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


def test_nmap_guesses_no_password_not_even_a_right_one(tmp_path: Path) -> None:
    """Its smtp-brute (7.93) says AUTH without EHLO where it guesses: nothing is tried for it. That guesses of clients
    that do it right are few is tests/inbound/test_auth.py's."""
    (tmp_path / "names").write_text(f"{IDENTITY}\n")
    (tmp_path / "passwords").write_text("".join(f"wrong {number}\n" for number in range(25)) + f"{PASSWORD}\n")
    guesses = f",userdb={tmp_path}/names,passdb={tmp_path}/passwords,brute.useraspass=false"
    with clean_relay(tmp_path, with_file(tmp_path), listener=WITH_AUTH) as relay:
        told = nmap(relay.port, "smtp-brute", arguments=guesses)
        assert "No valid accounts found" in told, told
        assert re.search(r"Performed (2[6-9]|[3-9]\d|\d{3,}) guesses", told), told
        assert "Valid credentials" not in told, told
        refused = wait_for(lambda: relay.events("rejected"), "its guesses are in the log")
        assert {event["reason"] for event in refused if event["verb"] == "AUTH"} == {"needs-helo"}
        assert not relay.events("authenticated")
        # The right one is one, for a client that says EHLO.
        with SmtpClient(relay.port) as client:
            credentials = base64.b64encode(f"\0{IDENTITY}\0{PASSWORD}".encode())
            assert client.ask(b"AUTH PLAIN " + credentials + b"\r\n")[0] == 235


def test_nmap_learns_no_names_by_ntlm(tmp_path: Path) -> None:
    with clean_relay(tmp_path, with_file(tmp_path), listener=WITH_AUTH) as relay:
        told = nmap(relay.port, "smtp-ntlm-info")
        for word in ("smtp-ntlm-info", "Target_Name", "DNS_Computer_Name", "Product_Version"):
            assert word not in told, told
        (asked,) = wait_for(
            lambda: [event for event in relay.events("rejected") if event["verb"] == "AUTH"], "it has asked for NTLM"
        )
        assert (asked["reason"], asked["code"]) == ("auth-unknown-mechanism", 504)


def test_nmap_knows_a_mail_server_at_any_port_by_its_greeting(tmp_path: Path) -> None:
    """smtp-strangeport runs where nmap's probes have found SMTP, and where that is no port for mail."""
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        told = run(
            "nmap", "-n", "-Pn", "-sV", "--version-light", "-p", str(relay.port), "--script", "smtp-strangeport",
            "127.0.0.1",
        )  # fmt: skip
        assert re.search(rf"^{relay.port}/tcp +open +smtp\b", told, re.MULTILINE), told
        assert "smtp-strangeport: Mail server on unusual port" in told, told


def test_nmap_kills_no_worker_by_beginning_one_login_in_another(tmp_path: Path) -> None:
    """CVE-2011-1720: AUTH, "*", AUTH by another mechanism, of those of Cyrus SASL. None of them is offered here."""
    with clean_relay(tmp_path, with_file(tmp_path), listener=WITH_AUTH) as relay:
        before = relay.workers()
        told = nmap(relay.port, "smtp-vuln-cve2011-1720", arguments=",vulns.showall")
        assert "NOT VULNERABLE" in told, told
        assert "VULNERABLE:" not in told.replace("NOT VULNERABLE:", ""), told
        # The same by hand, with mechanisms that are offered.
        with SmtpClient(relay.port) as client:
            for first, second in itertools.permutations(("PLAIN", "LOGIN", "SCRAM-SHA-256"), 2):
                assert client.ask(f"AUTH {first}\r\n".encode())[0] == 334
                assert client.ask(b"*\r\n")[0] == 501
                assert client.ask(f"AUTH {second}\r\n".encode())[0] == 334
                assert client.ask(b"*\r\n")[0] == 501
        assert relay.workers() == before


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
