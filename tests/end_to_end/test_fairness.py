"""docs/fairness.md's example in a whole relay: several tenants and campaigns wait for one host with one connection."""

from __future__ import annotations

import re
import threading
from collections import Counter
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import clean_relay, wait_until_empty
from end_to_end.smtp_client import SmtpClient

PAGE = Path(__file__).parents[2] / "docs" / "fairness.md"


def example(directory: Path, port: int) -> str:
    """The page's hook, written down, and its tables behind the listener's."""
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    (directory / "policy.py").write_text(blocks["python"])
    text = "[policy]" + blocks["toml"].partition("[policy]")[2].replace("/etc/angarium/", f"{directory}/")
    return text + f'\n[[route]]\nnext_hop = "smtp://127.0.0.1:{port}"\n\n[shaping.default]\nconnections = 1\n'


def send(client: SmtpClient, sender: str, name: str, header: str = "") -> None:
    for command, code in (
        (f"MAIL FROM:<{sender}>\r\n", 250),
        (f"RCPT TO:<{name}@y.example>\r\n", 250),
        ("DATA\r\n", 354),
        (f"Subject: x\r\n{header}\r\nhello\r\n.\r\n", 250),
    ):
        assert client.ask(command.encode())[0] == code


def test_single_messages_go_before_a_campaign_and_tenants_have_their_weights(tmp_path: Path) -> None:
    at_work, may_go = threading.Event(), threading.Event()

    def at_end(_: bytes) -> None:
        at_work.set()
        may_go.wait(100)  # one connection: nobody else is kept waiting by this

    with NextHop(faults={"END": at_end}) as hop, clean_relay(tmp_path, example(tmp_path, hop.port)) as relay:
        with SmtpClient(relay.port) as client:
            send(client, "a@opener.example", "opener")
            assert at_work.wait(20), "the connection is in use"
            for number in range(60):
                send(client, "news@shop.example", f"campaign{number}", "List-Unsubscribe: <mailto:u@shop.example>\r\n")
            for number in range(30):
                send(client, "a@free.example", f"free{number}")
            send(client, "reset@shop.example", "reset")
            send(client, "a@other.example", "other")
        may_go.set()
        wait_until_empty(relay, 60)
        order = [delivery.to[0].partition("@")[0] for delivery in hop.deliveries]
        assert order[0] == "opener"
        assert order.index("reset") <= 6
        assert order.index("other") <= 6
        shares = Counter(name.rstrip("0123456789") for name in order[10:50])
        assert shares["free"] in (7, 8, 9), shares
        assert [name for name in order if name.startswith("campaign")] == [f"campaign{number}" for number in range(60)]
        received = {event["to"][0]: event for event in relay.events("received")}
        assert received["campaign0@y.example"]["campaign"] == "bulk"
        assert received["reset@y.example"]["tenant"] == "shop.example"
