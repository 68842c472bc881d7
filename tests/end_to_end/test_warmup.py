"""A warm-up over two workers and a restart: counted together, kept, shown; and the example of docs/sources.md."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, admin_get, clean_relay
from end_to_end.smtp_client import SmtpClient
from page_examples import of_page, retold
from relay_process import RelayProcess, wait_for

CONFIG = """
[source.warm]
address = "127.0.0.11"
[source.new]
address = "127.0.0.12"
[pool.default]
sources = {{ warm = 1, new = 4 }}
[shaping.provider.hop]
domains = ["y.example"]
[warmup.new]
sources  = ["new"]
begins   = "{today}"
schedule = [15, 15]
"""


def send(relay: RelayProcess, count: int) -> None:
    before = len(relay.events("delivered"))
    for _ in range(count):
        with SmtpClient(relay.port) as client:      # a connection each, so that both workers get some
            client.send(MESSAGE, "you@y.example")
    wait_for(lambda: len(relay.events("delivered")) == before + count, "all are delivered")


def test_a_restart_does_not_begin_the_day_anew(tmp_path: Path) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    with NextHop() as hop:
        config = CONFIG.format(today=today) + hop.route + NO_RETRY
        with clean_relay(tmp_path, config, workers=2) as relay:
            send(relay, 10)
            first = sum(event["source"] == "new" for event in relay.events("delivered"))
            assert 1 <= first <= 10
        with clean_relay(tmp_path, config, workers=2) as relay:
            send(relay, 60)
            if datetime.datetime.now(datetime.UTC).date() != today:
                return      # midnight fell into the test
            assert sum(event["source"] == "new" for event in relay.events("delivered")) == 15
            warmups = json.loads(relay.command("sources", "--json").stdout)["warmups"]
            (shown,) = [each for each in warmups if each["provider"]]
            assert shown == {"source": "new", "provider": "hop", "sent": 15, "limit": 15}
            assert "new   is warmed up: 15 of 15 messages of today to hop\n" in relay.command("sources").stdout
            text = admin_get(relay, "/metrics")[1].decode()
            assert 'angarium_warmup_sent{source="new",provider="hop"} 15\n' in text
            assert 'angarium_warmup_limit{source="new",provider=""} 15\n' in text


def test_the_example_of_the_page_sends_so_many_from_the_new_address(tmp_path: Path) -> None:
    """Its first day, three messages long, to one of its providers and to the sites of none."""
    today = datetime.datetime.now(datetime.UTC).date()
    changes = {"192.0.2.1": "127.0.0.11", "192.0.2.3": "127.0.0.12", "2026-12-01": str(today)}
    days = {"[50, 100, 200,": "[3, 100, 200,", "[20, 50, 100,": "[2, 50, 100,"}
    config = retold(of_page("sources.md", 2).rest, changes | days)
    with NextHop() as hop, clean_relay(tmp_path, config + hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            for number in range(40):
                client.send(MESSAGE, f"u{number}@example.com")
                client.send(MESSAGE, f"u{number}@elsewhere.example")
        wait_for(lambda: len(relay.events("delivered")) == 80, "the old address takes what is over")
        if datetime.datetime.now(datetime.UTC).date() != today:
            return      # midnight fell into the test
        new = [event["to"].partition("@")[2] for event in relay.events("delivered") if event["source"] == "new"]
        assert sorted(new) == ["elsewhere.example"] * 3 + ["example.com"] * 3
        shown = json.loads(relay.command("sources", "--json").stdout)["warmups"]
        assert {each["provider"]: each["limit"] for each in shown} == {"google": 2, "example": 3, "": 3}
