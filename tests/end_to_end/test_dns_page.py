"""docs/dns.md: its example at work, and its four kinds of "no" in the words that the page gives them."""

from __future__ import annotations

import re
from pathlib import Path

from dns_server import DnsServer
from end_to_end.relay import MESSAGE, NO_RETRY, clean_relay, metrics
from end_to_end.smtp_client import SmtpClient
from page_examples import DOCS, of_page, retold
from relay_process import wait_for

_ROW = re.compile(r"^\| [^|]+ \| `(.+?)` \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)


def test_each_kind_of_no_is_told_and_does_what_the_page_says(tmp_path: Path) -> None:
    table = (DOCS / "dns.md").read_text().partition('## The four kinds of "no"')[2].partition("\n## ")[0]
    rows = _ROW.findall(table)
    kinds = ["nxdomain.example", "nodata.example", "bogus.example", "silent.example"]
    assert len(rows) == len(kinds)
    records = {name: {"TXT": ['"nothing else"']} for name in kinds[1:]}
    with DnsServer(records, {"bogus.example": "bogus", "silent.example": "drop"}) as dns:
        example = of_page("dns.md")
        changes = {"127.0.0.1:53": dns.address, '"2s"': '"5s"'}  # answers may come late on a busy machine
        with clean_relay(tmp_path, retold(example.rest, changes) + NO_RETRY) as relay:
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, *(f"a@{kind}" for kind in kinds), reverse_path="")
            wait_for(lambda: len(relay.events("failed", "deferred")) == len(kinds), "each has an outcome")
            events = {event["to"].partition("@")[2]: event for event in relay.events("failed", "deferred")}
            for kind, (words, mail) in zip(kinds, rows, strict=True):
                event = events[kind]
                assert words.replace("127.0.0.1:53", dns.address) in event["reply"]
                assert event["status"] in mail and event["event"] == ("deferred" if "waits" in mail else "failed")
            asked = metrics(relay)
            assert asked["angarium_dns_timeouts_total"] == 2, "tries"
            assert asked["angarium_dns_failures_total"] == 2
            before = dns.count("nxdomain.example", "MX")
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "b@nxdomain.example", reverse_path="")
            wait_for(lambda: len(relay.events("failed")) == 3, "it fails, too")
            assert dns.count("nxdomain.example", "MX") == before, "what is a fact is kept"
