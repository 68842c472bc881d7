"""What becomes of mail that does not go through at once: retries, restarts, expiry, reports, operators' orders."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from end_to_end.next_hop import CLOSE, NextHop
from end_to_end.relay import (
    MESSAGE,
    NO_RETRY,
    QUICK_RETRY,
    clean_relay,
    metrics,
    outcomes,
    queue,
    wait_until_empty,
)
from end_to_end.smtp_client import SmtpClient
from relay_process import wait_for


def test_mail_refused_for_now_is_tried_again(tmp_path: Path) -> None:
    faults = {"RCPT": [b"450 4.2.0 later"] * 2}
    with NextHop(faults=faults) as hop, clean_relay(tmp_path, hop.route + QUICK_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        (delivery,) = hop.wait_for_count(1)
        assert delivery.content == MESSAGE
        wait_for(lambda: relay.events("delivered"), "the outcome is logged")
        assert outcomes(relay) == {"you@y.example": ["deferred", "deferred", "delivered"]}
        first, second = relay.events("deferred")
        assert (first["code"], first["status"], first["attempt"], second["attempt"]) == (450, "4.2.0", 1, 2)


VERBS = ["greeting", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "BDAT", "CHUNK", "END", "RSET", "QUIT"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", [b"421 4.3.2 closing", b"450 4.3.2 later", CLOSE], ids=["421", "450", "close"])
def test_no_passing_fault_loses_or_doubles_mail(tmp_path: Path, verb: str, fault: bytes | str) -> None:
    """Two of them in a row, three recipients, two messages: all arrive, once, however the dialogue was cut."""
    chunking = () if verb in ("DATA", "RSET") else (b"CHUNKING",)
    extensions = None if verb == "HELO" else (b"PIPELINING", b"8BITMIME", *chunking)
    config = QUICK_RETRY
    faults = {verb: [fault, fault]}
    if verb == "RSET":                  # it is said behind a transaction that was refused
        faults["DATA"] = [b"451 4.3.0 later"] * 4
        config += "[shaping.default]\nconnections = 1\n"
    if verb == "QUIT":
        config += "[shaping.default]\nmessages_per_connection = 1\n"
    with NextHop(faults=faults, extensions=extensions) as hop, clean_relay(tmp_path, hop.route + config) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "a@y.example", "b@y.example", "c@z.example")
            client.send(MESSAGE, "d@y.example")
        wait_for(lambda: len(relay.events("delivered")) == 4, "all four are delivered", 40)
        assert sorted(to for delivery in hop.deliveries for to in delivery.to) == [
            "a@y.example", "b@y.example", "c@z.example", "d@y.example"
        ]  # fmt: skip
        assert not relay.events("failed")
        wait_until_empty(relay)
        wait_for(lambda: not hop.faults[verb], "both have struck")
        if verb == "QUIT":
            assert not relay.events("deferred")


def test_queued_mail_survives_a_restart_with_its_attempts_and_times(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": lambda line: b"450 4.2.0 later" if b"<slow" in line else None}) as hop:
        with clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
            with SmtpClient(relay.port) as client:
                ids = {client.send(MESSAGE, f"slow{n}@y.example", f"quick{n}@y.example") for n in range(5)}
            wait_for(lambda: len(relay.events("deferred")) == 5 and len(hop.deliveries) == 5, "first attempts")
            before = {each["id"]: each for each in queue(relay)}
            assert set(before) == ids
        hop.faults.clear()
        with clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
            wait_for(lambda: len(queue(relay)) == 5, "the backlog is loaded")
            shown = json.loads(relay.command("queue", "show", min(ids), "--json").stdout)
            (waiting,) = [each for each in shown["recipients"] if each["to"].startswith("slow")]
            assert waiting["attempts"] == 1
            assert "450 4.2.0 later" in json.dumps(waiting) or "later" in json.dumps(waiting)
            assert 3000 < waiting["next_attempt_utc_s"] - time.time() < 4000
            assert len(hop.deliveries) == 5, "nothing is tried before its time, nothing delivered again"
            relay.command("queue", "retry", "--all")
            hop.wait_for_count(10)
            wait_until_empty(relay)
        assert sorted(to for delivery in hop.deliveries for to in delivery.to) == sorted(
            f"{kind}{n}@y.example" for kind in ("slow", "quick") for n in range(5)
        )


def test_mail_in_hand_at_sigterm_is_finished_or_kept(tmp_path: Path) -> None:
    """The next hop takes its time; what it answers within the deadline is an outcome, the rest stays queued."""
    with NextHop() as hop:
        with clean_relay(tmp_path, hop.route + NO_RETRY, workers=2) as relay:
            clients = [SmtpClient(relay.port) for _ in range(4)]
            for number in range(200):
                clients[number % 4].send(MESSAGE, f"r{number}@y.example")
            relay.signal(signal.SIGTERM)
            assert relay.wait() == 0  # told a second time it would end at once
            for client in clients:
                client.close()
        with clean_relay(tmp_path, hop.route + NO_RETRY, workers=2) as relay:
            wait_for(lambda: len(hop.deliveries) >= 200, "the rest is delivered after the restart")
            wait_until_empty(relay)
        assert sorted(to for delivery in hop.deliveries for to in delivery.to) == sorted(
            f"r{number}@y.example" for number in range(200)
        )


def test_mail_expires_with_a_report(tmp_path: Path) -> None:
    config = '[queue.default]\nretry = { first = "300ms", factor = 1.0, max = "300ms" }\nmax_age = "6s"\n'
    faults = {"RCPT": lambda line: b"451 4.7.1 greylisted" if b"never@" in line else None}
    with NextHop(faults=faults) as hop, clean_relay(tmp_path, hop.route + config) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "never@y.example")
        (report,) = hop.wait_for_count(1)
        assert report.to == ["me@x.example"]
        assert report.mail.startswith(b"MAIL FROM:<>")
        assert b"Status: 4.4.7\r\n" in report.message
        assert b"greylisted" in report.message
        wait_for(lambda: relay.events("expired"), "the expiry is logged")
        assert outcomes(relay)["never@y.example"][-1] == "expired"
        assert len(outcomes(relay)["never@y.example"]) >= 3
        wait_until_empty(relay)


def test_a_report_that_cannot_be_delivered_is_the_end(tmp_path: Path) -> None:
    """Never a bounce of a bounce (RFC 5321 §6.1)."""
    with NextHop(faults={"RCPT": lambda _: b"550 5.1.1 nobody"}) as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "nobody@y.example")
            client.send(MESSAGE, "nobody@y.example", reverse_path="")
        wait_for(lambda: len(relay.events("failed")) == 3, "the messages and one report failed")
        wait_until_empty(relay)
        assert len(relay.events("report")) == 1
        assert metrics(relay)["angarium_reports_total"] == 1


def test_operators_list_show_retry_and_delete(tmp_path: Path) -> None:
    faults = {"RCPT": lambda _: b"450 4.2.0 later"}
    with NextHop(faults=faults) as hop, clean_relay(tmp_path, hop.route + NO_RETRY, workers=2) as relay:
        ids = {}
        for name in ("one", "two", "three"):
            with SmtpClient(relay.port) as client:
                ids[name] = client.send(MESSAGE, f"a@{name}.example", f"b@{name}.example")
        wait_for(lambda: len(relay.events("deferred")) == 6, "all are deferred")
        listed = {each["id"]: each for each in queue(relay)}
        assert set(listed) == set(ids.values())
        assert listed[ids["one"]]["domains"] == ["one.example"]
        assert listed[ids["one"]]["waiting"] == 2
        assert [each["id"] for each in queue(relay, "--domain", "TWO.example")] == [ids["two"]]
        assert len(queue(relay, "--limit", "2")) == 2
        assert len(queue(relay, "--state", "deferred")) == 3
        assert queue(relay, "--state", "ready") == []
        shown = json.loads(relay.command("queue", "show", ids["three"], "--json").stdout)
        assert shown["from"] == "me@x.example"
        assert [each["to"] for each in shown["recipients"]] == ["a@three.example", "b@three.example"]
        assert json.loads(relay.command("queue", "delete", ids["two"], "--json").stdout)["recipients"] == 2
        assert relay.command("queue", "delete", ids["two"]).returncode == 2
        hop.faults.clear()
        done = relay.command("queue", "retry", "--domain", "one.example", "--json")
        assert json.loads(done.stdout)["recipients"] == 2
        hop.wait_for_count(1)
        assert json.loads(relay.command("queue", "retry", "--all", "--json").stdout)["recipients"] == 2
        hop.wait_for_count(2)
        wait_until_empty(relay)
        assert not relay.events("report"), "deleting tells nobody"


def test_an_order_for_a_domain_leaves_the_other_recipients_of_its_messages_alone(tmp_path: Path) -> None:
    """Once `queue delete --domain` ended whole messages, recipients in other domains included."""
    faults = {"RCPT": lambda _: b"450 4.2.0 later"}
    with NextHop(faults=faults) as hop, clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "a@good.example", "a@bad.example", "b@good.example")
        wait_for(lambda: len(relay.events("deferred")) == 3, "all are deferred")
        done = relay.command("queue", "delete", "--domain", "bad.example", "--json")
        assert json.loads(done.stdout)["recipients"] == 1
        hop.faults.clear()
        done = relay.command("queue", "retry", "--domain", "good.example", "--json")
        assert json.loads(done.stdout)["recipients"] == 2
        (delivery,) = hop.wait_for_count(1)
        assert delivery.to == ["a@good.example", "b@good.example"]
        wait_until_empty(relay)


def test_deleted_mail_stays_deleted_after_a_restart(tmp_path: Path) -> None:
    faults = {"RCPT": lambda _: b"450 4.2.0 later"}
    with NextHop(faults=faults) as hop:
        with clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
            with SmtpClient(relay.port) as client:
                kept, gone = client.send(MESSAGE, "a@kept.example"), client.send(MESSAGE, "a@gone.example")
            wait_for(lambda: len(relay.events("deferred")) == 2, "both are deferred")
            assert relay.command("queue", "delete", gone).returncode == 0
        with clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
            wait_for(lambda: queue(relay), "the backlog is loaded")
            assert [each["id"] for each in queue(relay)] == [kept]
