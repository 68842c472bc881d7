"""A whole relay counts what comes of TLS and mails a report of it: the example of docs/tls-reports.md."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import re
import smtplib
from pathlib import Path
from typing import Any

from dns_server import DnsServer
from end_to_end.test_outbound_tls import server_tls, servers
from end_to_end.test_published_tls import MX
from end_to_end.test_published_tls import pytestmark as needs_port_25
from relay_process import RelayProcess, wait_for
from tls import authority

pytestmark = needs_port_25

ROOT = Path(__file__).parents[2]
RECORDS = {
    "y.example": {"MX": (1, ["10 mx.y.example."])},
    "z.example": {"MX": (1, ["10 mx.y.example."])},
    "mx.y.example": {"A": (1, [MX])},
    "_25._tcp.mx.y.example": {"TLSA": (1, ["3 0 1 " + "00" * 32])},
    "_smtp._tls.y.example": {"TXT": (1, ['"v=TLSRPTv1; rua=mailto:tls@reports.example"'])},
}
SECURE = ("y.example", "mx.y.example", "_25._tcp.mx.y.example")


def example(folder: Path, dns: DnsServer) -> RelayProcess:
    page = (ROOT / "docs" / "tls-reports.md").read_text()
    text = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0]
    text = text.replace("127.0.0.1:25", "127.0.0.1:0").replace('"127.0.0.1:53"', f'"{dns.address}"')
    text = text.replace("[node]\n", f'[node]\nspool = "{folder}/spool"\nworkers = 2\n')
    text += f'[[route]]\ndomain = "reports.example"\nnext_hop = "maildir:{folder}/mail/{{local}}"\n'
    text += f'[shaping.default]\ntls_ca = "{authority.write_authority(folder)}"\n'
    relay = RelayProcess(folder)
    relay.config_path.write_text(text)
    return relay


def reported(folder: Path) -> Path:
    """The report for y.example as it lies in a Maildir: a certificate that is not the one of its TLSA record."""
    host = {"tls": server_tls("any.example", "stranger"), "address": MX, "port": 25}
    with DnsServer(RECORDS, dict.fromkeys(SECURE, "secure")) as dns, servers(host):
        with example(folder, dns) as relay:
            (port,) = re.findall(r":(\d+)", relay.started())
            with smtplib.SMTP("127.0.0.1", int(port), timeout=20) as client:
                client.sendmail("", ["you@y.example"], "Subject: hello\r\n\r\nhello\r\n")
            wait_for(lambda: relay.events("deferred"), "mail waits")
            assert relay.stop() == 0
            listed = relay.command("tls-reports", "list", "--json")
            (line,) = [json.loads(each) for each in listed.stdout.splitlines()]
            assert (line["domain"], line["good"], line["due"]) == ("y.example", 0, None)
            assert line["bad"] >= 1
            shown = relay.command("tls-reports", "show", "y.example")
            assert '"result-type": "validation-failure"' in shown.stdout
            assert relay.command("tls-reports", "send-now", "y.example").stdout == "1 due now\n"
        with example(folder, dns) as relay:
            (sent,) = wait_for(lambda: relay.events("tls-report-sent"), "the report is on its way", 30)
            assert (sent["domain"], sent["to"]) == ("y.example", "mailto:tls@reports.example")
            folder = folder / "mail/tls/new"
            return wait_for(lambda: next(iter(folder.glob("*")), None) if folder.exists() else None, "it is there")


def test_a_domain_hears_what_came_of_tls_with_its_hosts(tmp_path: Path) -> None:
    parsed = email.message_from_bytes(reported(tmp_path).read_bytes(), policy=email.policy.default)
    _, attached = parsed.iter_parts()  # type: ignore[attr-defined]
    document: dict[str, Any] = json.loads(gzip.decompress(attached.get_content()))
    (policy,) = document["policies"]
    assert policy["policy"] == {
        "policy-type": "tlsa",
        "policy-string": ["3 0 1 " + "00" * 32],
        "policy-domain": "mx.y.example",
        "mx-host": ["mx.y.example"],
    }
    (failure,) = policy["failure-details"]
    assert failure["receiving-ip"] == MX
    assert failure["receiving-mx-hostname"] == "mx.y.example"
    assert "no matching DANE TLSA records" in failure["failure-reason-code"]
