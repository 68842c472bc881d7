"""An alias for several, from RCPT to the reports: one that says it was expanded, others only for members that fail
(RFC 3461 §5.2.7.3, RFC 3464 §2.3.3); the reverse-path stays (RFC 5321 §3.9.1)."""

from __future__ import annotations

from pathlib import Path

from end_to_end.next_hop import EXTENSIONS, Delivery, NextHop
from end_to_end.relay import clean_relay, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from end_to_end.test_reports import MESSAGE, parts_of, refuse_nobody
from relay_process import wait_for

ALIASES = "info: you, nobody\nstaff: you, us\nsolo: nobody\n"
ASKED = " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old+2Binfo@list.example"


def config(folder: Path) -> str:
    (folder / "aliases").write_text(ALIASES)
    return f'[domain."y.example"]\naliases = ["file:{folder}/aliases"]\n'


def split_up(hop: NextHop) -> tuple[list[Delivery], list[Delivery]]:
    """Messages and reports."""
    reports = [each for each in hop.deliveries if each.mail.startswith(b"MAIL FROM:<>")]
    return [each for each in hop.deliveries if each not in reports], reports


def test_the_sender_hears_that_it_was_expanded_and_then_of_members_that_fail(tmp_path: Path) -> None:
    faults = {"RCPT": refuse_nobody}
    with (
        NextHop(extensions=(*EXTENSIONS, b"DSN"), faults=faults) as hop,
        clean_relay(tmp_path, config(tmp_path) + hop.route) as relay,
    ):
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "info@y.example", mail=" RET=HDRS ENVID=QQ1", rcpt=ASKED)
        wait_until_empty(relay)
        messages, reports = split_up(hop)
        ((message,), (rcpt,)) = messages, messages[0].rcpts
        assert message.to == ["you@y.example"]
        assert message.mail.startswith(b"MAIL FROM:<me@x.example>")
        # Members keep whom the sender named, and tell of failures only: that it was expanded is the success.
        assert b" NOTIFY=FAILURE" in rcpt and b" ORCPT=rfc822;old+2Binfo@list.example" in rcpt
        found = {}
        for report in reports:
            assert report.to == ["me@x.example"]
            _, (whole, *each), returned = parts_of(report)
            assert whole["Original-Envelope-Id"] == "QQ1"
            assert returned.get_content_type() == "text/rfc822-headers"
            found |= {group["Action"]: group for group in each}
        assert sorted(found) == ["expanded", "failed"]
        assert found["expanded"]["Final-Recipient"] == "rfc822; info@y.example"
        assert found["expanded"]["Status"].startswith("2.")
        assert found["failed"]["Final-Recipient"] == "rfc822; nobody@y.example"
        assert found["failed"]["Status"] == "5.1.1"
        assert {each["Original-Recipient"] for each in found.values()} == {"rfc822; old+info@list.example"}
        assert [event["to"] for event in relay.events("expanded")] == ["info@y.example"]


def test_who_did_not_ask_hears_of_failures_only_and_an_alias_for_one_is_no_list(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": refuse_nobody}) as hop, clean_relay(tmp_path, config(tmp_path) + hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "staff@y.example")
            client.send(MESSAGE, "staff@y.example", rcpt=" NOTIFY=NEVER")
            client.send(MESSAGE, "info@y.example", rcpt=" NOTIFY=NEVER")
        hop.wait_for_count(3)
        wait_until_empty(relay)
        assert split_up(hop)[1] == []
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "solo@y.example", rcpt=" NOTIFY=SUCCESS,FAILURE")
        hop.wait_for_count(4)
        wait_until_empty(relay)
        _, (_, each), _ = parts_of(split_up(hop)[1][0])
        assert (each["Action"], each["Final-Recipient"]) == ("failed", "rfc822; nobody@y.example")
        assert each["Original-Recipient"] == "rfc822; solo@y.example"
        assert not relay.events("expanded")


def test_that_it_was_expanded_is_told_once_though_the_relay_is_killed(tmp_path: Path) -> None:
    faults = {"RCPT": lambda _: b"450 4.2.0 later"}
    retry = '[queue.default]\nretry = { first = "1s", max = "1s" }\n'  # of what is deferred before it is killed, too
    with NextHop(faults=faults) as hop, clean_relay(tmp_path, config(tmp_path) + retry + hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "staff@y.example", rcpt=ASKED)
        relay.kill()
        wait_for(lambda: not hop.open_now, "the hop has read, and refused, all that was said to it")
        hop.faults.clear()
        relay.start()
        wait_until_empty(relay, 60.0)
        messages, reports = split_up(hop)
        assert sorted(to for message in messages for to in message.to) == ["us@y.example", "you@y.example"]
        assert [parts_of(report)[1][1]["Action"] for report in reports] == ["expanded"]
