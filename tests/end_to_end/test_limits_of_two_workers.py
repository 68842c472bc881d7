"""Limits of a tenant on connections, and of a source at a site, hold for the machine, however many workers it has: a
sink counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli.test_sink import sink
from end_to_end.relay import clean_relay, wait_until_empty
from end_to_end.test_workers import fill

HOOK = """
from angarium.policy import Accept, Message


def on_message(message: Message) -> Accept:
    return Accept(tenant="shop")
"""
RECEIVERS = """
[receiver.one]
address = ["127.20.0.0/16"]
[receiver.two]
address = ["127.30.0.0/16"]
"""


@pytest.mark.parametrize(
    ("limits", "at_each", "at_all"),
    [
        ("connections = 3\n", 3, 6),
        ("connections = 3\nshare = true\n", 3, 3),
        ("connections = 1\nshare = true\n", 1, 1),      # fewer than workers: one of them sends for both
        ("connections = 1\n", 1, 2),
    ],
)
def test_two_workers_keep_to_the_connections_of_a_tenant(
    tmp_path: Path, limits: str, at_each: int, at_all: int
) -> None:
    (tmp_path / "policy.py").write_text(HOOK)
    file = tmp_path / "receivers.toml"
    file.write_text(RECEIVERS)
    with sink("--listen", "0.0.0.0:0", "--receivers", str(file), "--delay", "dot=0.01") as running:
        assert running.process.stderr is not None
        port = int(running.process.stderr.readline().rsplit(":", 1)[1])
        config = f'[policy]\nfile = "{tmp_path}/policy.py"\n[shaping.tenant.shop]\n{limits}'
        for domain, address in (("a.example", "127.20.0.1"), ("b.example", "127.30.0.1")):
            config += f'[[route]]\ndomain = "{domain}"\nnext_hop = "smtp://{address}:{port}"\n'
        with clean_relay(tmp_path, config, workers=2) as relay:
            fill(relay, 192, sessions=16, domains=("a.example", "b.example"))
            wait_until_empty(relay, 40)
            delivered = relay.events("delivered")
        counted: dict[str, Any] = running.end()
    receivers = counted["receivers"]
    assert (receivers["one"]["messages"], receivers["two"]["messages"]) == (96, 96)
    assert len({event["id"][:2] for event in delivered}) == 2, "both workers had mail"
    assert max(receivers["one"]["open"], receivers["two"]["open"]) <= at_each
    assert counted["peak_open"] <= at_all


def test_two_workers_keep_to_the_connections_of_each_source_at_each_site(tmp_path: Path) -> None:
    file = tmp_path / "receivers.toml"
    file.write_text(RECEIVERS)
    with sink("--listen", "0.0.0.0:0", "--receivers", str(file), "--delay", "dot=0.01") as running:
        assert running.process.stderr is not None
        port = int(running.process.stderr.readline().rsplit(":", 1)[1])
        config = """
            [source.few]
            address = "127.0.0.11"
            [source.many]
            address = "127.0.0.12"
            [pool.default]
            sources = { few = 1, many = 1 }
            [shaping.source.few]
            connections = 9
            [shaping.source.few.site."127.20.0.1"]
            connections = 2
            [shaping.provider.two]
            domains = ["b.example"]
            [shaping.source.few.provider.two]
            connections = 1
            [shaping.source.many.provider.two]
            connections = 3
            """
        for domain, address in (("a.example", "127.20.0.1"), ("b.example", "127.30.0.1")):
            config += f'[[route]]\ndomain = "{domain}"\nnext_hop = "smtp://{address}:{port}"\n'
        with clean_relay(tmp_path, config, workers=2) as relay:
            # All at once: of what comes one by one, two connections could take as much as the pair's limit leaves.
            assert relay.command("queue", "suspend", "--all").returncode == 0
            fill(relay, 384, sessions=16, domains=("a.example", "b.example"))
            assert relay.command("queue", "resume", "--all").returncode == 0
            wait_until_empty(relay, 40)
            delivered = relay.events("delivered")
        counted: dict[str, Any] = running.end()
    assert counted["messages"] == 384 and len({event["id"][:2] for event in delivered}) == 2
    receivers = counted["receivers"]
    most = {(name, each["source"]): each["open"] for name in receivers for each in receivers[name]["sources"]}
    assert most["one", "127.0.0.11"] <= 2
    assert most["two", "127.0.0.11"] == 1
    assert most["two", "127.0.0.12"] <= 3
    assert most["one", "127.0.0.12"] > 2        # the others of the site are not held up by the pair's limit
