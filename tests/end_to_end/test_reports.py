"""Delivery status notifications: passed on where the next hop knows DSN, made here where it does not (RFC 3461)."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from end_to_end.next_hop import EXTENSIONS, Delivery, NextHop
from end_to_end.relay import clean_relay, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import maildir_route, wait_for

MESSAGE = b"From: <me@x.example>\r\nMessage-ID: <1@x.example>\r\nSubject: hello\r\n\r\nthe body\r\n"
REFUSED = b"550 5.1.1 <nobody@y.example> no such mailbox"


def refuse_nobody(line: bytes) -> bytes | None:
    return REFUSED if b"<nobody" in line else None


def parsed(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def parts_of(report: Delivery) -> tuple[str, list[Any], Any]:
    """A report's text, its delivery-status groups (per message, then per recipient), and what it returns."""
    message = parsed(report.message)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert report.mail.startswith(b"MAIL FROM:<>")
    parts = list(message.iter_parts())
    text, status = parts[0], parts[1]
    assert status.get_content_type() == "message/delivery-status"
    groups = status.get_payload()
    assert isinstance(groups, list)
    return text.get_content(), groups, parts[2] if len(parts) > 2 else None


def test_parameters_are_passed_on_to_a_hop_that_knows_dsn(tmp_path: Path) -> None:
    """Then the report is that host's business (RFC 3461 §5.2.1)."""
    with NextHop(extensions=(*EXTENSIONS, b"DSN")) as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            assert "DSN" in client.extensions.split("\n")
            client.send(
                MESSAGE,
                "you@y.example",
                mail=" RET=HDRS ENVID=QQ+2B314159",
                rcpt=" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;you+2Bold@y.example",
            )
            client.send(MESSAGE, "never@y.example", rcpt=" NOTIFY=NEVER")
        hop.wait_for_count(2)
        wait_until_empty(relay)
        by_recipient = {delivery.to[0]: delivery for delivery in hop.deliveries}
        asked = by_recipient["you@y.example"]
        assert b" RET=HDRS" in asked.mail
        assert b" ENVID=QQ+2B314159" in asked.mail
        (rcpt,) = asked.rcpts
        assert b" ORCPT=rfc822;you+2Bold@y.example" in rcpt
        (notify,) = [word for word in rcpt.split() if word.startswith(b"NOTIFY=")]
        assert set(notify.removeprefix(b"NOTIFY=").split(b",")) == {b"SUCCESS", b"FAILURE"}
        assert b" NOTIFY=NEVER" in by_recipient["never@y.example"].rcpts[0]
        assert not relay.events("report")


def test_success_towards_a_hop_without_dsn_is_reported_as_relayed(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "you@y.example", mail=" ENVID=a+2Bb", rcpt=" NOTIFY=SUCCESS")
            client.send(MESSAGE, "quiet@y.example")
        hop.wait_for_count(3)
        wait_until_empty(relay)
        (report,) = [delivery for delivery in hop.deliveries if delivery.to == ["me@x.example"]]
        mail = next(delivery for delivery in hop.deliveries if delivery.to == ["you@y.example"])
        assert b"NOTIFY" not in mail.rcpts[0]
        _, (per_message, recipient), returned = parts_of(report)
        assert per_message["Original-Envelope-Id"] == "a+b"
        assert per_message["Reporting-MTA"] == "dns; mx.test"
        assert recipient["Action"] == "relayed"
        assert recipient["Status"].startswith("2.")
        assert returned is None or returned.get_content_type() == "text/rfc822-headers"


def test_success_into_a_maildir_is_reported_as_delivered(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, maildir_route(tmp_path, "y.example") + hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "you@y.example", rcpt=" NOTIFY=SUCCESS")
        (report,) = hop.wait_for_count(1)
        _, (_, recipient), _ = parts_of(report)
        assert recipient["Action"] == "delivered"


@pytest.mark.parametrize(
    ("mail", "rcpt", "returned_type"),
    [
        ("", "", "message/rfc822"),
        (" RET=FULL", " NOTIFY=FAILURE", "message/rfc822"),
        (" RET=HDRS", "", "text/rfc822-headers"),
        ("", " NOTIFY=SUCCESS", None),
        ("", " NOTIFY=NEVER", None),
        ("", " NOTIFY=DELAY", None),
    ],
    ids=lambda value: str(value).strip() or "plain",
)
def test_failure_is_reported_as_asked(tmp_path: Path, mail: str, rcpt: str, returned_type: str | None) -> None:
    with NextHop(faults={"RCPT": refuse_nobody}) as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "nobody@y.example", mail=mail, rcpt=rcpt)
        wait_for(lambda: relay.events("failed"), "it failed")
        wait_until_empty(relay)
        if returned_type is None:
            assert not hop.deliveries
            return
        (report,) = hop.wait_for_count(1)
        assert report.to == ["me@x.example"]
        text, (_, recipient), returned = parts_of(report)
        assert "nobody@y.example" in text
        assert recipient["Final-Recipient"] == "rfc822; nobody@y.example"
        assert recipient["Action"] == "failed"
        assert recipient["Status"] == "5.1.1"
        assert recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1 ")
        assert returned is not None
        assert returned.get_content_type() == returned_type
        assert b"Subject: hello" in returned.as_bytes()
        assert (b"the body" in returned.as_bytes()) == (returned_type == "message/rfc822")


def test_one_report_tells_of_all_that_failed_together_and_the_rest_is_delivered(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": refuse_nobody}) as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "nobody1@y.example", "somebody@y.example", "nobody2@y.example")
        hop.wait_for_count(2)
        wait_until_empty(relay)
        assert [delivery.to for delivery in hop.deliveries] == [["somebody@y.example"], ["me@x.example"]]
        _, (_, first, second), _ = parts_of(hop.deliveries[1])
        assert [first["Final-Recipient"], second["Final-Recipient"]] == [
            "rfc822; nobody1@y.example", "rfc822; nobody2@y.example"
        ]  # fmt: skip


def test_a_report_on_a_large_message_returns_its_header_only(tmp_path: Path) -> None:
    message = MESSAGE + b"".join(b"line %d\r\n" % number for number in range(60_000))
    with NextHop(faults={"RCPT": refuse_nobody}) as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(message, "nobody@y.example")
        (report,) = hop.wait_for_count(1)
        _, _, returned = parts_of(report)
        assert returned is not None
        assert returned.get_content_type() == "text/rfc822-headers"
        assert len(report.message) < 20_000


def test_nothing_a_peer_says_forges_a_field_of_the_report(tmp_path: Path) -> None:
    reply = b"550-5.1.1 first\r\n550-X-Forged: yes\x01\x1b[31m\r\n550 " + b"long" * 220
    with NextHop(faults={"RCPT": lambda line: reply if b"<nobody" in line else None}) as hop, clean_relay(
        tmp_path, hop.route
    ) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "nobody@y.example")
        wait_for(lambda: relay.events("failed"), "it failed")
        (report,) = hop.wait_for_count(1)
        _, (per_message, recipient), _ = parts_of(report)
        assert per_message["X-Forged"] is None
        assert recipient["X-Forged"] is None
        assert not any(octet < 32 and octet not in b"\r\n\t" for octet in report.message)
        assert max(map(len, report.message.split(b"\r\n"))) <= 998
