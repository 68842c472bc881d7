"""What came back is understood, whoever wrote it; flufl.bounce, which knows fifty forms, is asked the same."""

from __future__ import annotations

import contextlib
import email
import email.message
import email.policy
import random
import sys
import time
from pathlib import Path

import pytest
from flufl.bounce import all_failures

from angarium.bounces.classifier import Classifier
from angarium.bounces.report import RECIPIENTS_MAX, VALUE_MAX, Report, read_report
from angarium.mime.dsn import ReportedMessage, ReportedRecipient, compose_dsn
from angarium.model.outcome import Trouble

FOLDER = Path(__file__).with_name("reports")
FOREIGN = Path(__file__).parents[2] / ".." / "shared" / "data" / "messages"
CLASSIFIER = Classifier()


def octets_of(name: str, to: str = "bounces@b.example.net", sender: str = "news@example.net") -> bytes:
    text = (FOLDER / f"{name}.eml").read_text().replace("@TO@", to).replace("@FROM@", sender)
    return text.replace("\n", "\r\n").encode()


def class_of(report: Report) -> str:
    (one,) = report.recipients
    return CLASSIFIER.verdict(one.code, one.status, one.text, phase="report", mx=one.host).name


@pytest.mark.parametrize(
    ("name", "form", "action", "code", "status", "bounce_class"),
    [
        ("postfix", "rfc3464", "failed", 550, "5.1.1", "bad-mailbox"),
        ("delayed", "rfc3464", "delayed", 452, "4.2.2", "mailbox-full"),
        # 5.1.10 is "null MX" in the registry; the words know better
        ("exchange-online", "rfc3464", "failed", 550, "5.1.10", "bad-mailbox"),
        ("utf8", "rfc3464", "failed", 552, "5.2.2", "mailbox-full"),
        ("qmail", "qmail", "failed", 550, "5.1.1", "bad-mailbox"),
        ("exim", "exim", "failed", 550, "5.1.1", "bad-mailbox"),
        ("exim-plain", "exim", "failed", 550, "5.1.1", "bad-mailbox"),
        ("sendmail", "sendmail", "failed", 550, "", "bad-mailbox"),
        ("exchange-old", "exchange", "failed", 0, "", "bad-mailbox"),
    ],
)
def test_a_bounce_is_understood(
    *, name: str, form: str, action: str, code: int, status: str, bounce_class: str
) -> None:
    report = read_report(octets_of(name), "relay.example.net")
    assert report is not None
    (one,) = report.recipients
    assert (report.kind, report.form) == ("bounce", form)
    assert (one.address, one.action, one.code, one.status) == ("u2@y.example", action, code, status)
    assert class_of(report) == bounce_class
    if name != "exchange-old":  # it returns nothing of the message
        assert report.message_id == "<1@example.net>"


def test_the_returned_header_names_our_message() -> None:
    report = read_report(octets_of("postfix"), "relay.example.net")
    assert report is not None
    assert (report.queue_id, report.return_paths) == ("00TR4Q8500003", ("news@example.net",))
    other = read_report(octets_of("postfix"), "other.example.net")
    assert other is not None
    assert other.queue_id == ""


def test_feedback_is_understood() -> None:
    report = read_report(octets_of("arf"), "relay.example.net")
    assert report is not None
    assert (report.kind, report.feedback_type, report.message_id) == ("feedback", "abuse", "<1@example.net>")
    assert [each.address for each in report.recipients] == ["u2@y.example"]
    assert report.return_paths == ("news@example.net",)
    assert report.queue_id == "00TR4Q8500003"


def test_a_bounce_of_exim_is_no_automatic_answer_although_it_says_so() -> None:
    """Every bounce of Exim without MIME says "Auto-Submitted: auto-replied": none was counted."""
    report = read_report(octets_of("exim-plain", sender="bounces+x@b.example.net"), "relay.example.net")
    assert report is not None
    assert (report.kind, report.queue_id) == ("bounce", "00TR4Q8500003")
    assert report.return_paths == ("bounces+x@b.example.net",)
    vacation = octets_of("vacation")
    for field in (b"X-Failed-Recipients: \r\n", b"X-Failed-Recipients: nobody\r\n"):
        answer = read_report(field + vacation)
        assert answer is not None
        assert answer.kind == "auto-reply"


def test_an_automatic_answer_is_no_bounce_and_a_persons_is_nothing() -> None:
    report = read_report(octets_of("vacation"))
    assert report is not None
    assert (report.kind, report.message_id) == ("auto-reply", "<1@example.net>")
    assert read_report(octets_of("person")) is None


@pytest.mark.parametrize(
    "name", ["postfix", "exchange-online", "qmail", "exim", "exim-plain", "sendmail", "exchange-old"]
)
def test_another_program_finds_the_same_recipient(name: str) -> None:
    _, permanent = all_failures(email.message_from_bytes(octets_of(name)))
    assert permanent == {b"u2@y.example"}


def test_whatever_is_cut_off_or_broken_raises_nothing() -> None:
    chance = random.Random(5965)
    for path in sorted(FOLDER.glob("*.eml")):
        whole = octets_of(path.stem)
        for end in range(0, len(whole), 37):
            read_report(whole[:end], "relay.example.net")
        for _ in range(100):
            broken = bytearray(whole)
            for _ in range(chance.randrange(1, 30)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            read_report(bytes(broken), "relay.example.net")


def test_a_report_about_very_many_is_read_so_far_and_no_further() -> None:
    group = "Final-Recipient: rfc822; u{}@y.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
    head, _, rest = octets_of("postfix").partition(b"Final-Recipient")
    groups = "".join(group.format(number) for number in range(1000)).encode()
    report = read_report(head + groups + b"Final-Recipient" + rest)
    assert report is not None
    assert len(report.recipients) == RECIPIENTS_MAX


DASHES = b"----- The following addresses had errors -----\r\n"
BOMBS = {
    "nested parts": b"".join(
        b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(1500)
    ),
    "nested parts and lines": b"".join(
        b"Content-Type: multipart/x; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(300)
    )
    + b"x\r\n" * 15000,
    "nested messages": b"Content-Type: message/rfc822\r\n\r\n" * 2000,
    "parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 8000,
    "fields": b"A: b\r\n" * 10000,
    "parameters": b"Content-Type: text/plain; " + b'a*0*="x"; ' * 6000,
    "folded semicolons": b'Content-Type: multipart/x; a="' + b"\r\n ;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;" * 1500,
    "folded semicolons of each part": b"Content-Type: multipart/x; boundary=b\r\n\r\n"
    + (b'--b\r\nContent-Type: multipart/x; a="' + b"\r\n ;;;;;;;;;;;;;;;;;;;;" * 90 + b"\r\n\r\n") * 32,
    "folded semicolons that came back": b"Content-Type: message/rfc822\r\n\r\n"
    + b'Content-Type: multipart/x; a="'
    + b"\r\n ;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;" * 1500,
    "a slow charset": b"Content-Type: text/plain; charset=punycode\r\n\r\n\xff" + b"-" + b"a" * 65000,
    "a slow charset of a message": b"Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\n"
    b"Content-Type: message/feedback-report; charset=punycode\r\n\r\n\xff\r\n\r\n" + b"\xff-" + b"a" * 64000,
    "what came back nested, and lines": b"Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\n"
    b"Content-Type: message/rfc822-headers\r\n\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 150 + b"\r\n" * 29000,
    "groups nested, and lines": b"Content-Type: message/global-delivery-status\r\n\r\n"
    + b"Content-Type: message/rfc822\r\n\r\n" * 150
    + b"\r\n" * 29000,
    "octets above 127": b"Received: \xff" + b"\xff\r\n \xff" * 10000,
    "fields with octets above 127": b"Received: \xff\r\n" * 5000,
    "encoded words": b"Subject: " + b"=?utf-8?q?=?= " * 4600,
    "comments": b"Date: " + b"(" * 30000 + b"\r\nFrom: " + b"(" * 30000,
    "names": b"".join(b"%060d:\r\n" % n for n in range(1000)),
    "spaces behind a boundary": b"Content-Type: multipart/x; boundary=b\r\n\r\n"
    + (b"--b" + b" " * 6000 + b"x\r\n") * 10,
    "carriage returns": b"\r" * 64000,
    "dashes": b"\r\n" + DASHES + b"-" * 60000,
    "rules": b"\r\n" + b"--- --- " * 8000,
    "empty lines": b"\r\n" * 32000,
    "spaces": b"\r\n" + b" " * 64000,
    "qmail": b"\r\nHi. This is the\r\n" + b"<a@b>:\r\n" * 8000,
    "exchange": b"\r\ndid not reach the following recipient(s):\r\n\r\n" + b"a@b on x\r\n" * 6000,
    "exim": b"X-Failed-Recipients: "
    + b",".join(b"a%d@b.c" % n for n in range(90))
    + b"\r\n\r\n"
    + b" a1@b.c\r\n" * 5000,
    "sendmail": b"\r\n"
    + DASHES
    + b"a@b.c\r\n" * 90
    + b"----- Transcript of session follows -----\r\n"
    + b"x\r\n" * 18000,
    "groups": b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\n"
    + b"Content-Type: message/global-delivery-status\r\n\r\n"
    + b"A: b\r\n\r\n" * 7000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_made_to_be_expensive_takes_long(name: str) -> None:
    """Milliseconds each; with expressions over several lines two of them took minutes."""
    begun = time.process_time()
    with contextlib.suppress(RecursionError):  # the library's: to the desk it is no report
        read_report(BOMBS[name][: 64 << 10], "relay.example.net")
    assert time.process_time() - begun < 2.0


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_report_costs_grows_no_faster_than_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that no machine is too slow for: calls for each octet, and what is searched from the beginning again."""
    seen = [0]
    parse = email.message._parseparam  # type: ignore[attr-defined]

    def counted(value: object) -> object:
        seen.append(len(str(value)))
        return parse(value)

    charsets: list[str] = []

    def decode(self: email.message.Message, *args: object) -> object:
        charsets.append(str(args[0]))
        return get_param(self, *args)

    get_param = email.message.Message.get_param
    calls = [0]

    def call(frame: object, event: str, argument: object) -> None:
        calls[0] += event in ("call", "c_call")

    monkeypatch.setattr(email.message, "_parseparam", counted)
    monkeypatch.setattr(email.message.Message, "get_param", decode)
    sys.setprofile(call)
    try:
        with contextlib.suppress(RecursionError):
            read_report(BOMBS[name][: 64 << 10], "relay.example.net")
    finally:
        sys.setprofile(None)
    assert calls[0] < 40 * min(len(BOMBS[name]), 64 << 10)
    assert max(seen) <= VALUE_MAX
    assert sum(seen) <= 10 * (64 << 10)  # times VALUE_MAX: all that is searched again
    assert "charset" not in charsets  # no codec that a report names is ever run


def test_the_first_group_of_a_report_in_utf_8_says_who_reports() -> None:
    report = read_report(octets_of("utf8"), "relay.example.net")
    assert report is not None
    assert report.recipients[0].host == "mx.y.example"


def test_no_control_character_of_a_report_gets_through() -> None:
    evil = octets_of("postfix").replace(b"User unknown\r\n\r\n--B1", b"no \x1b[2J\x00\x07 user\r\n\r\n--B1")
    report = read_report(evil)
    assert report is not None
    assert report.recipients[0].text.isprintable()


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [(550, (5, 1, 1), "failed"), (452, (4, 2, 2), "expired"), (450, (4, 2, 0), "delayed")],
)
def test_our_own_reports_are_understood_by_us_and_by_others(
    code: int, status: tuple[int, int, int], outcome: str
) -> None:
    message = ReportedMessage(
        reverse_path=b"news@example.net",
        content=b"Message-ID: <1@example.net>\r\n\r\nx\r\n",
        message_octets=35,
        received_utc_s=1795700000.0,
        queue_id="00TR4Q8500003",
    )
    trouble = Trouble(code, status, "no", "mx.y.example[192.0.2.9]:25")
    recipient = ReportedRecipient(forward_path=b"u2@y.example", outcome=outcome, trouble=trouble)  # type: ignore[arg-type]
    dsn = compose_dsn(
        message, [recipient], hostname="relay.example.net", dsn_id="00TR4Q8500004", now_utc_s=1795700100.0
    ).octets
    report = read_report(dsn, "relay.example.net")
    assert report is not None
    assert (report.kind, report.recipients[0].address) == ("bounce", "u2@y.example")
    assert report.recipients[0].action == ("delayed" if outcome == "delayed" else "failed")
    assert report.message_id == "<1@example.net>"
    temporary, permanent = all_failures(email.message_from_bytes(dsn))
    assert (temporary if outcome == "delayed" else permanent) == {b"u2@y.example"}
    parsed = email.message_from_bytes(dsn, policy=email.policy.default)
    assert [part.get_content_type() for part in parsed.iter_parts()][:2] == ["text/plain", "message/delivery-status"]
    assert not [defect for part in parsed.walk() for defect in part.defects]


@pytest.mark.skipif(not FOREIGN.is_dir(), reason="no messages from elsewhere beside this checkout")
def test_messages_from_elsewhere_are_read_without_an_error() -> None:
    paths = sorted(FOREIGN.rglob("*.eml"))
    assert paths
    for path in paths:
        octets = path.read_bytes()
        report = read_report(octets)
        if report is not None and report.form == "rfc3464":
            _, permanent = all_failures(email.message_from_bytes(octets))
            failed = {each.address.encode() for each in report.recipients if each.action == "failed"}
            assert failed == permanent, path
