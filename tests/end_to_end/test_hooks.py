"""Hooks in a whole relay: a reload takes the file anew or keeps the old one; later workers run what holds."""

from __future__ import annotations

import json
import os
import signal
import smtplib
from pathlib import Path
from typing import Any

from end_to_end.next_hop import NextHop
from relay_process import RelayProcess, maildir_route, wait_for

HOOKS = """
from angarium.policy import *
import time

def on_rcpt(rcpt):
    if rcpt.local_part == "slow":
        time.sleep(0.3)
    return Reject("{word}")

def on_outcome(outcome):
    with open("{folder}/outcomes", "a") as file:
        print(outcome.event, outcome.forward_path, outcome.status, outcome.attempt, file=file)
"""


def said_by(relay: RelayProcess, to: str = "b@y.example") -> str:
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
        client.helo("client.example")
        client.mail("a@x.example")
        return client.rcpt(to)[1].decode()


def test_a_reload_takes_the_file_anew_or_keeps_the_old_one(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(HOOKS.format(word="one", folder=tmp_path))
    config = f'[policy]\nfile = "{hooks}"\n' + maildir_route(tmp_path)
    with RelayProcess(tmp_path, config, workers=2) as relay:
        assert said_by(relay) == "5.7.1 one"
        hooks.write_text(HOOKS.format(word="two", folder=tmp_path))
        assert said_by(relay) == "5.7.1 one"
        assert relay.command("reload").returncode == 0
        assert said_by(relay) == "5.7.1 two"

        hooks.write_text("def on_rcpt(rcpt:\n")
        done = relay.command("reload")
        assert done.returncode != 0 and f"policy.file: {hooks}:1: '(' was never closed" in done.stderr
        hooks.write_text("\nimport nowhere\n")
        done = relay.command("reload")
        assert done.returncode != 0 and f"{hooks}:2: ModuleNotFoundError" in done.stderr
        assert said_by(relay) == "5.7.1 two"

        # Its successor runs what the others run, not what is in the file by now.
        victim = relay.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: relay.events("worker-restarted") and len(relay.workers()) == 2, "a successor")
        assert {said_by(relay) for _ in range(8)} == {"5.7.1 two"}

        def told() -> dict[str, Any] | None:
            """On a busy machine there are others, of nobody, and the watchdog may come too late to see who it was."""
            said_by(relay, "slow@y.example")
            return next((event for event in relay.events("stall") if "hook" in event), None)

        stall = wait_for(told, "the watchdog tells")
        assert stall["hook"] == "on_rcpt" and f"{hooks}" in stall["holder"]

        relay.write_config(maildir_route(tmp_path))
        assert relay.command("reload").returncode == 0
        assert said_by(relay) == "2.1.5 Ok"


def test_modules_beside_the_file_are_reloaded_with_it_or_keep_the_old_ones(tmp_path: Path) -> None:
    hooks, tenants = tmp_path / "policy.py", tmp_path / "tenants.py"
    hooks.write_text(
        "from angarium.policy import *\nimport tenants\ndef on_rcpt(rcpt): return Reject(tenants.word(rcpt))\n"
    )
    tenants.write_text("def word(rcpt):\n    return 'one' if rcpt.local_part == 'b' else 1 / 0\n")
    config = f'[policy]\nfile = "{hooks}"\n' + maildir_route(tmp_path)
    with RelayProcess(tmp_path, config, workers=2) as relay:
        assert said_by(relay) == "5.7.1 one"
        assert said_by(relay, "bug@y.example").startswith("4.3.0 ")
        (error,) = wait_for(lambda: relay.events("hook-error"), "the error is told")
        assert error["at"] == f"{tenants}:2"
        tenants.write_text("def word(rcpt): return 'two'\n")
        assert said_by(relay) == "5.7.1 one"
        assert relay.command("reload").returncode == 0
        assert {said_by(relay) for _ in range(8)} == {"5.7.1 two"}
        tenants.write_text("\n\ndef word(rcpt:\n")
        done = relay.command("reload")
        assert done.returncode != 0 and f"policy.file: {tenants}:3: '(' was never closed" in done.stderr
        assert {said_by(relay) for _ in range(8)} == {"5.7.1 two"}


def test_a_relay_whose_hook_file_cannot_be_run_does_not_start(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text("1 / 0\n")
    relay = RelayProcess(tmp_path, f'[policy]\nfile = "{hooks}"\n')
    relay.launch()
    assert relay.wait() == 2
    assert f"{hooks}:1: ZeroDivisionError: division by zero" in relay.errors()


def test_outcomes_are_told(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(HOOKS.format(word="no", folder=tmp_path).replace('return Reject("no")', ""))
    config = f'[policy]\nfile = "{hooks}"\n' + maildir_route(tmp_path, "y.example") + (
        '[[route]]\nnext_hop = "smtp://127.0.0.1:1"\n'
    )
    with RelayProcess(tmp_path, config) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
            client.sendmail("a@x.example", ["b@y.example", "c@z.example"], "Subject: x\r\n\r\nx\r\n")
        told = tmp_path / "outcomes"
        wait_for(lambda: told.exists() and len(told.read_text().splitlines()) == 2, "both are told")
        assert sorted(told.read_text().splitlines()) == ["deferred c@z.example 4.4.1 1", "delivered b@y.example  1"]


def test_the_route_hook_leads_mail_and_the_queue_shows_what_was_decided(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(
        "from angarium.policy import *\n"
        "def route(rcpt):\n"
        f'    return {{"z.example": "maildir:{tmp_path}/other/{{local}}", "w.example": "smtp://127.0.0.1:1"}}.get('
        "rcpt.domain)\n"
        "def on_message(message):\n"
        '    return Accept(tenant="acme", priority=4)\n'
    )
    config = f'[policy]\nfile = "{hooks}"\n' + maildir_route(tmp_path)
    with RelayProcess(tmp_path, config) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
            refused = client.sendmail("a@x.example", ["b@y.example", "c@z.example"], "Subject: x\r\n\r\nx\r\n")
            assert refused["c@z.example"][0] == 452
            client.sendmail("a@x.example", ["c@z.example"], "Subject: x\r\n\r\nx\r\n")
            client.sendmail("a@x.example", ["d@w.example"], "Subject: x\r\n\r\nx\r\n")
        wait_for(lambda: list((tmp_path / "mail/b/new").glob("*")), "the routes lead one")
        wait_for(lambda: list((tmp_path / "other/c/new").glob("*")), "the hook leads the other")
        (event,) = wait_for(lambda: relay.events("deferred"), "the third waits")
        done = relay.command("queue", "show", event["id"], "--json")
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert (shown["route"], shown["tenant"], shown["priority"]) == ("smtp://127.0.0.1:1", "acme", 4)


def test_a_route_of_a_hook_and_what_it_asks_of_tls_outlive_the_hook_and_the_relay(tmp_path: Path) -> None:
    """The message itself says where it goes: kill -9, another configuration, and it still goes there."""
    hooks = tmp_path / "policy.py"
    with NextHop() as hop:
        hooks.write_text(
            "from angarium.policy import *\n"
            "def route(rcpt):\n"
            '    tls = {"w.example": None, "v.example": "encrypt"}[rcpt.domain]\n'
            f'    return Accept(route="{hop.url}", tls=tls)\n'
        )
        hop.faults["MAIL"] = b"451 4.3.0 not yet"
        config = '[queue.default]\nretry = { first = "1s", factor = 1.0, max = "1s" }\n' + maildir_route(tmp_path)
        with RelayProcess(tmp_path, f'[policy]\nfile = "{hooks}"\n' + config) as relay:
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
                client.sendmail("a@x.example", ["b@w.example"], "Subject: clear\r\n\r\nx\r\n")
                client.sendmail("a@x.example", ["b@v.example"], "Subject: secret\r\n\r\nx\r\n")
            wait_for(lambda: len({each["to"] for each in relay.events("deferred")}) == 2, "both wait")
            relay.kill()
            relay.write_config(config)
            hooks.unlink()
            wait_for(lambda: not hop.open_now, "the hop has read, and refused, all that was said to it")
            hop.faults.clear()
            before = len(relay.all_events())
            relay.start()
            hop.wait_for_count(1)
            assert b"Subject: clear" in hop.deliveries[0].message

            def waiting() -> dict[str, Any] | None:
                events = [each for each in relay.all_events(before) if each["event"] == "deferred"]
                return next((each for each in events if each["to"] == "b@v.example"), None)

            event = wait_for(waiting, "the other is tried, too")
            assert "TLS" in event["reply"]
            shown = json.loads(relay.command("queue", "show", event["id"], "--json").stdout)
            assert shown["route"] == f"{hop.url} tls=encrypt"
            assert len(hop.deliveries) == 1 and not list(tmp_path.glob("mail/*/new/*"))


def test_what_hooks_print_is_in_the_log_and_tears_no_line_of_it(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(
        "import logging, sys\nprint('run')\n"
        "def on_rcpt(rcpt):\n    sys.stdout.write('half ')\n    print('of', rcpt.forward_path, end='')\n"
        "    logging.error('not\\x1b[0m good')\n"
    )
    config = f'[policy]\nfile = "{hooks}"\n' + maildir_route(tmp_path)
    with RelayProcess(tmp_path, config, workers=2) as relay:
        for number in range(20):
            said_by(relay, f"{number}@y.example")
        # That every line is whole is seen where they are read.
        told = wait_for(
            lambda: len(relay.events("printed")) == 2 + 40 and relay.events("printed"), "all that was printed is told"
        )
        assert [(each["at"], each["text"], each.get("hook")) for each in told if each["text"] == "run"] == [
            (f"{hooks}:2", "run", None)
        ] * 2
        assert {each["text"] for each in told if each["stream"] == "stdout"} == {
            "run", *(f"half of {number}@y.example" for number in range(20))
        }  # fmt: skip
        assert {(each["text"], each["at"]) for each in told if each["stream"] == "stderr"} == {
            ("ERROR:root:not\x1b[0m good", f"{hooks}:6")
        }
    assert relay.errors().count("\n") == 1, "only the line that says where it listens"
