"""Addresses that failed are not sent to again: refused at RCPT or reported back, over workers and restarts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, fix_port, metrics
from end_to_end.smtp_client import SmtpClient
from end_to_end.test_bounce_reports import LISTENER, REPORTS, report, sent
from page_examples import of_page
from relay_process import RelayProcess, wait_for

UNKNOWN = {"RCPT": lambda line: b"550 5.1.1 User unknown" if b"gone" in line else None}


def wait_until_listed(relay: RelayProcess, *words: str) -> None:
    wait_for(lambda: relay.command("suppress", "check", *words).returncode == 0, f"{words} is listed")


def rcpt(relay: RelayProcess, to: str, reverse_path: str = "me@x.example") -> tuple[int, str]:
    with SmtpClient(relay.port) as client:
        client.ask(b"EHLO x.example\r\n")
        client.ask(f"MAIL FROM:<{reverse_path}>\r\n".encode())
        return client.ask(f"RCPT TO:<{to}>\r\n".encode())


def test_what_failed_is_refused_by_every_worker_and_after_a_restart(tmp_path: Path) -> None:
    config = of_page("bounces.md", 2).rest
    with NextHop(faults=UNKNOWN) as hop, clean_relay(tmp_path, hop.route + config, workers=2) as relay:
        fix_port(relay, hop.route + config)
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "gone@y.example", "here@y.example")
        wait_until_listed(relay, "GONE@y.example")
        reply = (550, "5.1.1 On the suppression list: earlier mail to this address failed")
        assert [rcpt(relay, "Gone@Y.example") for _ in range(8)] == [reply] * 8
        assert rcpt(relay, "here@y.example")[0] == 250
        assert rcpt(relay, "gone@y.example", "")[0] == 250  # a report: who sends it does not keep our lists
        rejected = wait_for(lambda: relay.events("rejected"), "the refusals are told")
        assert {event["reason"] for event in rejected} == {"suppressed"}
        wait_for(lambda: metrics(relay)["angarium_suppression_listed_total"] == 1, "it is counted")
        assert relay.stop() == 0
        relay.start()
        assert rcpt(relay, "gone@y.example") == reply
        assert relay.command("suppress", "remove", "gone@y.example").returncode == 0
        assert rcpt(relay, "gone@y.example")[0] == 250


def test_what_failed_is_taken_and_reported_back(tmp_path: Path) -> None:
    config = '[suppression]\naction = "bounce"\n'
    with NextHop(faults=UNKNOWN) as hop, clean_relay(tmp_path, hop.route + config) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "gone@y.example")
            hop.wait_for_count(1)  # the report
            wait_until_listed(relay, "gone@y.example")
            asked = sum(b"gone@" in command for command in hop.commands)
            client.send(MESSAGE, "here@y.example", "gone@y.example")
        wait_for(lambda: len(relay.events("failed")) == 2, "it fails at once")
        event = relay.events("failed")[1]
        assert (event["to"], event["status"], event["class"], event["attempt"]) == (
            "gone@y.example",
            "5.1.1",
            "suppressed",
            1,
        )
        assert event["reply"] == "not tried: the address is on the suppression list (bad-mailbox)"
        deliveries = hop.wait_for_count(3)
        assert sorted(delivery.to for delivery in deliveries) == [
            ["here@y.example"],
            ["me@x.example"],
            ["me@x.example"],
        ]
        assert sum(b"gone@" in command for command in hop.commands) == asked
        # what was not tried is no new failure
        entry = json.loads(relay.command("suppress", "export").stdout)
        assert (entry["class"], entry["hits"], entry["listed"]) == ("bad-mailbox", 1, True)


def test_a_bounce_that_a_trace_vouches_for_lists_its_recipient_and_hearsay_does_not(tmp_path: Path) -> None:
    config = REPORTS + '[suppression]\naction = "refuse"\n'
    with NextHop() as hop, clean_relay(tmp_path, hop.route + config, listener=LISTENER) as relay:
        _, (trace,) = sent(relay, hop, "u3@y.example")
        with SmtpClient(relay.port) as client:
            client.send(report("qmail", "fbl@b.example.net"), "fbl@b.example.net", reverse_path="")
            # a trace of one recipient, in a report that tells of another
            client.send(report("qmail", trace), trace, reverse_path="")
        wait_until_listed(relay, "u3@y.example")
        wait_for(lambda: len(relay.events("bounce")) == 2, "both bounces are told")
        first, second = relay.events("bounce")
        assert (first["to"], second["to"], second["reported"]) == ("u2@y.example", "u3@y.example", "u2@y.example")
        assert relay.command("suppress", "check", "u2@y.example").returncode == 1
        assert rcpt(relay, "u3@y.example")[0] == 550
        assert rcpt(relay, "u2@y.example")[0] == 250


def test_a_complaint_holds_for_its_tenant_whatever_its_name_and_for_no_other(tmp_path: Path) -> None:
    """It was everybody's where the trace had no room for the tenant, and nobody's where that has capitals."""
    hooks = tmp_path / "policy.py"
    hooks.write_text(
        "from angarium.policy import Accept\n\n"
        "async def on_mail(mail):\n    return Accept(tenant=mail.reverse_path.partition('@')[0] or None)\n"
    )
    config = f'[policy]\nfile = "{hooks}"\n{REPORTS}[suppression]\naction = "refuse"\nscope = "tenant"\n'
    with NextHop() as hop, clean_relay(tmp_path, hop.route + config, listener=LISTENER) as relay:
        for tenant in ("Acme", "a.tenant.with.a.rather.long.name"):
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "u2@y.example", reverse_path=f"{tenant}@example.net")
            mail = wait_for(lambda: [each.mail for each in hop.deliveries], "it is delivered")[-1]
            trace = mail.partition(b"<")[2].partition(b">")[0].decode()
            with SmtpClient(relay.port) as client:
                client.send(report("arf", trace), trace, reverse_path="")
            wait_until_listed(relay, "--tenant", tenant, "u2@y.example")
            assert rcpt(relay, "u2@y.example", f"{tenant}@example.net")[0] == 550
            for other in ("other", tenant.upper()):
                assert rcpt(relay, "u2@y.example", f"{other}@example.net")[0] == 250
            assert relay.command("suppress", "check", "u2@y.example").returncode == 1
            hop.deliveries.clear()


@pytest.mark.parametrize("action", ["refuse", "bounce"])
def test_a_tenants_failures_are_its_own(tmp_path: Path, action: str) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(
        "from angarium.policy import Accept\n\n"
        "async def on_mail(mail):\n    return Accept(tenant=mail.reverse_path.partition('@')[0])\n"
    )
    config = f'[policy]\nfile = "{hooks}"\n[suppression]\naction = "{action}"\nscope = "tenant"\n'
    with NextHop(faults=UNKNOWN) as hop, clean_relay(tmp_path, hop.route + config) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "gone@y.example", reverse_path="acme@x.example")
        wait_until_listed(relay, "--tenant", "acme", "gone@y.example")
        assert relay.command("suppress", "check", "gone@y.example").returncode == 1
        if action == "refuse":
            assert rcpt(relay, "gone@y.example", "acme@x.example")[0] == 550
            assert rcpt(relay, "gone@y.example", "other@x.example")[0] == 250
            return
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "gone@y.example", reverse_path="other@x.example")
            client.send(MESSAGE, "gone@y.example", reverse_path="acme@x.example")
        wait_for(lambda: len(relay.events("failed")) == 3, "all three have failed")
        classes = {event["from"]: event["class"] for event in relay.events("failed")[1:]}
        assert classes == {"other@x.example": "bad-mailbox", "acme@x.example": "suppressed"}


def test_the_command_says_what_it_does_and_what_is_wrong(tmp_path: Path) -> None:
    config = '[suppression]\naction = "refuse"\n'
    with NextHop() as hop, clean_relay(tmp_path, hop.route + config) as relay:
        assert relay.command("suppress", "check", "a@y.example").stdout == "not listed\n"
        added = relay.command("suppress", "add", "--days", "2", "--class", "complaint", "a@y.example")
        assert " listed  complaint  " in added.stdout
        assert relay.command("suppress", "list").stdout == added.stdout
        assert rcpt(relay, "a@y.example")[0] == 550  # at once
        for words in (
            ("add", "nobody"),
            ("add", "--class", "x", "a@y.example"),
            ("check", "--tenant", "t", "a@y.example"),
        ):
            refused = relay.command("suppress", *words)
            assert refused.returncode == 2
            assert len(refused.stderr.splitlines()) == 1


def test_a_reload_begins_and_ends_it_and_changes_its_rules(tmp_path: Path) -> None:
    on = '[suppression]\naction = "refuse"\n'
    with NextHop(faults=UNKNOWN) as hop, clean_relay(tmp_path, hop.route) as relay:
        relay.write_config(hop.route + on)
        assert relay.command("reload").returncode == 0
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "gone@y.example")
        wait_until_listed(relay, "gone@y.example")
        assert rcpt(relay, "gone@y.example")[0] == 550
        relay.write_config(hop.route)
        assert relay.command("reload").returncode == 0
        assert rcpt(relay, "gone@y.example")[0] == 250
        relay.write_config(hop.route + on + '[suppression.rules]\nmailbox-full = { keep = "1d" }\n')
        assert relay.command("reload").returncode == 0
        assert rcpt(relay, "gone@y.example")[0] == 550  # what was listed stays so
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "gone.too@y.example")
        wait_for(lambda: len(relay.events("failed")) == 2, "another fails")
        assert relay.command("suppress", "check", "gone.too@y.example").returncode == 1


def test_a_secret_that_is_none_keeps_the_old_configuration(tmp_path: Path) -> None:
    bad = tmp_path / "secret"
    bad.write_bytes(b"short")
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        relay.write_config(hop.route + f'[suppression]\naction = "refuse"\n[bounces]\nsecret_file = "{bad}"\n')
        refused = relay.command("reload")
        assert refused.returncode == 2
        assert "5 octets, and a secret has 32" in refused.stderr
        assert rcpt(relay, "a@y.example")[0] == 250
