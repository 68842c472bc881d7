"""SIGHUP: what a new configuration changes at once, and what happens to one that is no good."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, QUICK_RETRY, clean_relay, queue
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for


def reload(relay: RelayProcess, config: str) -> None:
    """Writes it, sends SIGHUP, waits until all work by it."""
    before = len(relay.events("reloaded", "reload-refused"))
    relay.write_config(config)
    relay.signal(signal.SIGHUP)
    wait_for(lambda: len(relay.events("reloaded", "reload-refused")) > before, "the reload is over")
    assert relay.events("reloaded", "reload-refused")[-1]["event"] == "reloaded"


def rcpt(port: int) -> int:
    with SmtpClient(port) as client:
        assert client.ask(b"MAIL FROM:<a@x.example>\r\n")[0] == 250
        return client.ask(b"RCPT TO:<b@y.example>\r\n")[0]


def test_who_may_relay_changes_at_once(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener='relay_from = ["192.0.2.0/24"]') as relay:
        assert rcpt(relay.port) == 550
        relay.listener = relay.listener.replace("192.0.2.0/24", "127.0.0.0/8")
        reload(relay, hop.route)
        assert rcpt(relay.port) == 250
        relay.listener = relay.listener.replace('relay_from = ["127.0.0.0/8"]', 'relay_to = ["y.example"]')
        reload(relay, hop.route)
        assert rcpt(relay.port) == 250
        relay.listener = relay.listener.replace("y.example", "other.example")
        reload(relay, hop.route)
        assert rcpt(relay.port) == 550


def test_deferred_mail_follows_the_new_route(tmp_path: Path) -> None:
    later = {"RCPT": lambda _: b"450 4.2.0 later"}
    with NextHop(faults=later) as old, NextHop() as new, clean_relay(tmp_path, old.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        wait_for(lambda: relay.events("deferred"), "deferred")
        reload(relay, new.route + NO_RETRY)
        relay.command("queue", "retry", "--all")
        new.wait_for_count(1)


def test_mail_that_waits_for_a_connection_follows_the_new_route(tmp_path: Path) -> None:
    """The old next hop is a black hole: it accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as hole, NextHop() as new:
        route = f'[[route]]\ndomain = "*"\nnext_hop = "smtp://127.0.0.1:{hole.getsockname()[1]}"\n'
        limit = "[shaping.default]\nconnections = 1\n"
        with clean_relay(tmp_path, route + limit) as relay:
            with SmtpClient(relay.port) as client:
                for _ in range(3):
                    client.send(MESSAGE)
            reload(relay, new.route + limit)
            new.wait_for_count(3)


def test_a_new_listener_serves_and_a_removed_one_is_closed(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, workers=2) as relay:
        extra = f'[[listener]]\naddress = "unix:{tmp_path}/second.sock"\nrelay_from = ["127.0.0.0/8"]\n'
        reload(relay, hop.route + extra)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(f"{tmp_path}/second.sock")
            assert client.recv(100).startswith(b"220 ")
            reload(relay, hop.route)
            client.sendall(b"NOOP\r\n")
            assert client.recv(100).startswith(b"250 "), "a session that is open goes on"
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError, match=r"refused|No such file"):
            client.connect(f"{tmp_path}/second.sock")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("this is not TOML", "angarium.toml"),
        ("[queue.default]\nmax_ages = '5d'\n", "queue.default.max_ages"),
        ("[[route]]\ndomain = '*'\nnext_hop = 'ftp://x'\n", "route[1].next_hop"),
        ("[pool.default]\nsources = { gone = 1 }\n", "pool.default.sources.gone"),
        ("[shaping.default]\nconnections = 0\n", "shaping.default"),
    ],
    ids=["no TOML", "unknown key", "bad value", "dangling reference", "out of range"],
)
def test_a_bad_configuration_is_refused_and_the_old_one_kept(tmp_path: Path, bad: str, reason: str) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        relay.write_config(hop.route + bad)
        relay.signal(signal.SIGHUP)
        (refused,) = wait_for(lambda: relay.events("reload-refused"), "refused")
        assert reason in refused["reason"]
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        hop.wait_for_count(1)
        checked = relay.command("check")
        assert checked.returncode == 2
        assert reason in checked.stderr
        assert len(checked.stderr.splitlines()) == 1


def test_a_shorter_retry_schedule_holds_from_the_next_attempt_on(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": [b"450 4.2.0 later"] * 3}) as hop, clean_relay(
        tmp_path, hop.route + NO_RETRY
    ) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        wait_for(lambda: relay.events("deferred"), "deferred")
        reload(relay, hop.route + QUICK_RETRY)
        assert len(queue(relay)) == 1
        relay.command("queue", "retry", "--all")
        hop.wait_for_count(1)
        wait_for(lambda: relay.events("delivered"), "the outcome is logged")
