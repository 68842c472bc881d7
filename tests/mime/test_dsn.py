"""Reports as their readers see them: parsed back by Python's email package."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angarium.mime.dsn import RETURNED_OCTETS_MAXIMUM, Dsn, ReportedMessage, ReportedRecipient, compose_dsn
from angarium.mime.notify import Outcome
from angarium.model.outcome import Trouble

CONTENT = (b"Received: from x by y\r\nFrom: sender@example.com\r\nTo: rcpt@example.net\r\n"
           b"Subject: hello\r\nMessage-ID: <original@example.com>\r\n\r\nfirst line\r\n.dot line\r\n")
LARGE = CONTENT + b"x\r\n" * (RETURNED_OCTETS_MAXIMUM // 3)
NO_SUCH_USER = Trouble(550, (5, 1, 1), "5.1.1 No such user", "mx.example.net[192.0.2.1]:25")


def message(**changes: Any) -> ReportedMessage:
    content = changes.get("content", CONTENT)
    facts = {"reverse_path": b"sender@example.com", "content": CONTENT, "message_octets": len(content),
             "received_utc_s": 1_700_000_000.0, "queue_id": "0123456789ABC", **changes}
    return ReportedMessage(**facts)


def recipient(outcome: Outcome = "failed", **changes: Any) -> ReportedRecipient:
    facts = {"forward_path": b"rcpt@example.net", "outcome": outcome, "trouble": NO_SUCH_USER,
             "last_attempt_utc_s": 1_700_000_060.0, **changes}
    return ReportedRecipient(**facts)


def compose(about: ReportedMessage | None = None, *recipients: ReportedRecipient) -> Dsn:
    return compose_dsn(about or message(), recipients or (recipient(),),
                       hostname="mx.example.org", dsn_id="DSN0000000001", now_utc_s=1_700_000_100.0)


def parsed(dsn: Dsn) -> EmailMessage:
    """As a modern reader sees it; whatever the parser finds wrong is a failure."""
    report = email.message_from_bytes(dsn.octets, policy=email.policy.default)
    for part in report.walk():
        assert part.defects == [], part.get_content_type()
    return cast(EmailMessage, report)


def parts(dsn: Dsn) -> list[Message]:
    return cast(list[Message], parsed(dsn).get_payload())


def status_groups(dsn: Dsn) -> list[Message]:
    return cast(list[Message], parts(dsn)[1].get_payload())


def is_well_formed(octets: bytes) -> bool:
    lines = octets.split(b"\r\n")
    is_clean = not any(octet in line for line in lines for octet in (b"\r", b"\n", b"\0"))
    return octets.endswith(b"\r\n") and is_clean and max(map(len, lines)) <= 998


def test_report_is_a_multipart_report_of_three_parts() -> None:
    report = parsed(compose())
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    kinds = [part.get_content_type() for part in cast(list[Message], report.get_payload())]
    assert kinds == ["text/plain", "message/delivery-status", "message/rfc822"]


def test_report_says_who_sends_it_to_whom_and_that_nobody_shall_answer() -> None:
    report = parsed(compose())
    assert report["From"] == "Mail Delivery System <MAILER-DAEMON@mx.example.org>"
    assert report["To"] == "<sender@example.com>" or report["To"] == "sender@example.com"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["MIME-Version"] == "1.0"
    assert report["Message-ID"] == "<DSN0000000001@mx.example.org>"
    assert report["In-Reply-To"] == "<original@example.com>"
    assert report["References"] == "<original@example.com>"
    assert report["Date"] == "Tue, 14 Nov 2023 22:15:00 +0000"


def test_delivery_status_has_the_fields_of_rfc_3464_in_its_groups() -> None:
    about = message(envid=b"QQ+2B314159", helo=b"client.example.com")
    whom = recipient(orcpt=b"rfc822;Bob+2Bx@example.com")
    per_message, per_recipient = status_groups(compose(about, whom))
    assert per_message.items() == [
        ("Original-Envelope-Id", "QQ+314159"),
        ("Reporting-MTA", "dns; mx.example.org"),
        ("Received-From-MTA", "dns; client.example.com"),
        ("Arrival-Date", "Tue, 14 Nov 2023 22:13:20 +0000"),
    ]
    assert per_recipient.items() == [
        ("Original-Recipient", "rfc822; Bob+x@example.com"),
        ("Final-Recipient", "rfc822; rcpt@example.net"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx.example.net"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 No such user"),
        ("Last-Attempt-Date", "Tue, 14 Nov 2023 22:14:20 +0000"),
        ("Final-Log-ID", "0123456789ABC"),
    ]


OUTCOMES: list[tuple[Outcome, Trouble | None, str, str]] = [
    ("failed", NO_SUCH_USER, "failed 5.1.1 Failure", "the peer's status"),
    ("failed", Trouble(550, (2, 0, 0), "OK not"), "failed 5.0.0 Failure", "status contradicts 550"),
    ("failed", None, "failed 5.0.0 Failure", "nothing known"),
    ("failed", Trouble(0, (5, 1, 10), "null MX"), "failed 5.1.10 Failure", "our own status"),
    ("expired", Trouble(451, (4, 3, 0), "later"), "failed 4.4.7 Failure", "expired: 4.4.7"),
    ("delayed", Trouble(451, (4, 3, 0), "later"), "delayed 4.3.0 Delay", "delayed"),
    ("relayed", Trouble(250, (2, 0, 0), "queued"), "relayed 2.0.0 Success", "relayed"),
    ("delivered", Trouble(0, (2, 1, 5), ""), "delivered 2.1.5 Success", "delivered"),
]


@pytest.mark.parametrize(("outcome", "trouble", "said", "reason"), OUTCOMES, ids=[row[3] for row in OUTCOMES])
def test_action_and_status_follow_the_outcome(
    outcome: Outcome, trouble: Trouble | None, said: str, reason: str
) -> None:
    dsn = compose(message(), recipient(outcome, trouble=trouble))
    group = status_groups(dsn)[1]
    action, status, word = said.split()
    assert (group["Action"], group["Status"]) == (action, status)
    assert parsed(dsn)["Subject"] == f"Delivery Status Notification ({word})"


def test_our_own_reason_is_no_smtp_diagnostic() -> None:
    trouble = Trouble(0, (5, 1, 2), "Domain not found")
    group = status_groups(compose(message(), recipient(trouble=trouble)))[1]
    assert group["Diagnostic-Code"] == "x-angarium; Domain not found"
    assert group["Remote-MTA"] is None


@pytest.mark.parametrize(("remote", "shown"), [
    ("mx.example.net[192.0.2.1]:25", "dns; mx.example.net"),
    ("[192.0.2.1]:25", "dns; [192.0.2.1]"),
    ("mx.example.net[2001:db8::1]:25", "dns; mx.example.net"),
    ("[2001:db8::1]:25", "dns; [2001:db8::1]"),
])
def test_remote_mta_is_the_host_s_name_or_literal(remote: str, shown: str) -> None:
    group = status_groups(compose(message(), recipient(trouble=Trouble(550, (5, 0, 0), "no", remote))))[1]
    assert group["Remote-MTA"] == shown


def test_several_recipients_have_a_group_each_and_the_worst_names_the_report() -> None:
    dsn = compose(message(), recipient("delivered", forward_path=b"a@example.net"),
                  recipient("expired", forward_path=b"b@example.net"),
                  recipient("delayed", forward_path=b"c@example.net", will_retry_until_utc_s=1_700_432_000.0))
    groups = status_groups(dsn)[1:]
    assert [group["Final-Recipient"] for group in groups] == [f"rfc822; {x}@example.net" for x in "abc"]
    assert [group["Action"] for group in groups] == ["delivered", "failed", "delayed"]
    assert groups[2]["Will-Retry-Until"] == "Sun, 19 Nov 2023 22:13:20 +0000"
    assert parsed(dsn)["Subject"] == "Delivery Status Notification (Failure)"


def test_people_read_recipient_reply_and_queue_id() -> None:
    text = cast(EmailMessage, parts(compose())[0]).get_content()
    assert "mx.example.org" in text
    assert "<rcpt@example.net>" in text
    assert "mx.example.net[192.0.2.1]:25 said: 550 5.1.1 No such user" in " ".join(text.split())
    assert "0123456789ABC" in text


def test_bounce_detectors_find_the_failed_recipient() -> None:
    # As flufl.bounce and list software do: walk, look for delivery-status groups with a failed action.
    report = email.message_from_bytes(compose(message(), recipient(orcpt=b"rfc822;alias@example.com")).octets)
    failed = set()
    for part in report.walk():
        if part.get_content_type() != "message/delivery-status":
            continue
        for group in cast(list[Message], part.get_payload()):
            if group.get("action", "").lower() == "failed":
                found = group.get("original-recipient", group["final-recipient"])
                failed.add(str(found).partition(";")[2].strip())
    assert failed == {"alias@example.com"}


RETURNED: list[tuple[dict[str, Any], Outcome, str, str]] = [
    ({}, "failed", "message/rfc822", "all of it with a failure"),
    ({"ret": "FULL"}, "failed", "message/rfc822", "RET=FULL"),
    ({"ret": "HDRS"}, "failed", "text/rfc822-headers", "RET=HDRS"),
    ({"ret": "FULL"}, "relayed", "text/rfc822-headers", "RFC 3461 §4.3: RET concerns failures only"),
    ({}, "delivered", "text/rfc822-headers", "nobody wants a delivered message back"),
    ({"ret": "FULL", "content": LARGE, "message_octets": len(LARGE)}, "failed", "text/rfc822-headers",
     "too large"),
    ({"content": CONTENT[:-5], "message_octets": len(CONTENT)}, "failed", "text/rfc822-headers",
     "only its beginning at hand"),
    ({"content": CONTENT + b"x" * 999 + b"\r\n"}, "failed", "text/rfc822-headers", "a line over 998 octets"),
    ({"content": CONTENT + b"x" * 998 + b"\r\n"}, "failed", "message/rfc822", "a line of 998 octets"),
]


@pytest.mark.parametrize(("changes", "outcome", "kind", "reason"), RETURNED,
                         ids=[row[3] for row in RETURNED])
def test_message_or_header_is_returned(
    changes: dict[str, Any], outcome: Outcome, kind: str, reason: str
) -> None:
    dsn = compose(message(**changes), recipient(outcome))
    returned = parts(dsn)[2]
    assert returned.get_content_type() == kind
    if kind == "message/rfc822":
        assert changes.get("content", CONTENT) + b"\r\n--" in dsn.octets
    else:
        assert b"Subject: hello" in dsn.octets
        assert b"first line" not in dsn.octets
    assert is_well_formed(dsn.octets)


def test_message_without_a_last_line_end_is_returned_as_it_was() -> None:
    content = CONTENT + b"no end"
    assert content + b"\r\n--" in compose(message(content=content)).octets


def test_header_that_is_endless_is_cut() -> None:
    content = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 900) for i in range(100))
    content = b"X: " + b"z" * 3000 + b"\r\n" + content + b"\r\n"
    dsn = compose(message(content=content, ret="HDRS"))
    assert len(dsn.octets) < RETURNED_OCTETS_MAXIMUM + 5000
    assert is_well_formed(dsn.octets)


def test_message_that_cannot_be_read_any_more_is_reported_without_it() -> None:
    dsn = compose(message(content=b"", message_octets=1000))
    kinds = [part.get_content_type() for part in parts(dsn)]
    assert kinds == ["text/plain", "message/delivery-status"]
    assert "attached" not in cast(EmailMessage, parts(dsn)[0]).get_content()


def test_boundary_does_not_occur_in_what_is_returned() -> None:
    content = CONTENT + b"--=_DSN0000000001--\r\n--=_DSN0000000001_\r\nstill inside\r\n"
    returned = parts(compose(message(content=content)))[2]
    assert "still inside" in cast(list[Message], returned.get_payload())[0].as_string()


def test_ascii_report_of_an_ascii_message_needs_nothing() -> None:
    dsn = compose()
    assert (dsn.has_8bit, dsn.needs_utf8) == (False, False)
    assert dsn.octets.isascii()
    assert b"Content-Transfer-Encoding" not in dsn.octets


def test_8bit_body_is_declared() -> None:
    content = CONTENT + "Grüße\r\n".encode("latin-1")
    dsn = compose(message(content=content))
    assert (dsn.has_8bit, dsn.needs_utf8) == (True, False)
    assert parsed(dsn)["Content-Transfer-Encoding"] == "8bit"
    assert parts(dsn)[2]["Content-Transfer-Encoding"] == "8bit"
    assert content in dsn.octets


def test_8bit_header_without_smtputf8_stays_an_rfc822_message() -> None:
    # Against the rules, and seen every day: nobody who sent it could read message/global.
    dsn = compose(message(content="Subject: Grüße\r\n\r\nHallo\r\n".encode()))
    assert parts(dsn)[2].get_content_type() == "message/rfc822"
    assert (dsn.has_8bit, dsn.needs_utf8) == (True, False)


def test_smtputf8_message_gets_the_types_of_rfc_6533() -> None:
    content = "Subject: Grüße\r\nFrom: jörg@example.com\r\n\r\nHallo\r\n".encode()
    about = message(content=content, is_smtputf8=True, reverse_path="jörg@example.com".encode())
    whom = recipient(forward_path="用户@例え.example".encode(), orcpt="utf-8;用户@例え.example".encode(),
                     trouble=Trouble(550, (5, 1, 1), "Benutzer unbekannt: 用户"))
    dsn = compose(about, whom)
    assert (dsn.has_8bit, dsn.needs_utf8) == (True, True)
    report = email.message_from_bytes(dsn.octets, policy=email.policy.SMTPUTF8)
    kinds = [part.get_content_type() for part in cast(list[Message], report.get_payload())]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global"]
    text = dsn.octets.decode()
    assert "To: <jörg@example.com>" in text
    assert "Final-Recipient: utf-8; 用户@例え.example" in text
    assert "Original-Recipient: utf-8; 用户@例え.example" in text
    assert "Content-Type: text/plain; charset=utf-8" in text


def test_smtputf8_message_that_is_ascii_gets_plain_types() -> None:
    dsn = compose(message(is_smtputf8=True))
    assert not dsn.needs_utf8
    kinds = [part.get_content_type() for part in parts(dsn)]
    assert kinds[1:] == ["message/delivery-status", "message/rfc822"]


def test_utf8_recipient_is_spelt_in_ascii_for_a_sender_without_smtputf8() -> None:
    group = status_groups(compose(message(), recipient(orcpt=b"utf-8;j\\x{F6}rg@example.com",
                                                       forward_path="jörg@example.com".encode())))[1]
    assert group["Final-Recipient"] == "utf-8; j\\x{F6}rg@example.com"
    assert group["Original-Recipient"] == "utf-8; j\\x{F6}rg@example.com"


HOSTILE = [
    "ok\r\n\r\n--=_DSN0000000001\r\nContent-Type: text/html\r\n\r\n<b>",
    "a\nBcc: everybody@example.com",
    "nul\0 bell\a esc\x1b[31m del\x7f c1\x85 bidi\u202e separator\u2028 surrogate\udc80",
    "x" * 5000,
    "wörter " * 500,
    "",
    "\n\n\n",
    " leading and trailing ",
]


@pytest.mark.parametrize("is_utf8", [False, True])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_a_peer_says_breaks_the_report(text: str, is_utf8: bool) -> None:
    said = text.encode("utf-8", "surrogateescape")
    dsn = compose(message(is_smtputf8=is_utf8, envid=said, helo=said),
                  recipient(trouble=Trouble(550, (5, 0, 0), text, text), orcpt=b"rfc822;" + said))
    assert is_well_formed(dsn.octets)
    assert not any(octet < 32 and octet not in b"\r\n\t" for octet in dsn.octets)
    assert is_utf8 or dsn.octets.isascii()
    report = email.message_from_bytes(dsn.octets)
    kinds = [part.get_content_type() for part in cast(list[Message], report.get_payload())]
    assert kinds[0] == "text/plain"
    assert len(kinds) == 3
    assert "Bcc" not in report


@given(text=st.text(max_size=300), code=st.sampled_from([0, 250, 421, 550]), is_utf8=st.booleans())
def test_any_reply_text_gives_a_report_that_parses(text: str, code: int, is_utf8: bool) -> None:
    dsn = compose(message(is_smtputf8=is_utf8), recipient(trouble=Trouble(code, (5, 0, 0), text)))
    assert is_well_formed(dsn.octets)
    assert dsn.octets.count(b"\r\n--=_DSN0000000001") == 4
    text_of_status = dsn.octets.split(b"--=_DSN0000000001")[2].split(b"\r\n\r\n", 1)[1]
    for line in text_of_status.split(b"\r\n"):
        assert line == b"" or line.startswith(b" ") or b": " in line or line.endswith(b":")


def test_lines_of_a_reply_become_one() -> None:
    trouble = Trouble(550, (5, 7, 1), "5.7.1 Go away\n5.7.1 and stay there")
    group = status_groups(compose(message(), recipient(trouble=trouble)))[1]
    assert group["Diagnostic-Code"] == "smtp; 550 5.7.1 Go away 5.7.1 and stay there"


def test_long_diagnostic_is_folded_and_unfolds_to_itself() -> None:
    words = " ".join(f"word{i}" for i in range(100))
    dsn = compose(message(), recipient(trouble=Trouble(550, (5, 0, 0), words)))
    diagnostic = status_groups(dsn)[1]["Diagnostic-Code"]
    assert "".join(diagnostic.splitlines()) == f"smtp; 550 {words}"
    assert all(len(line) <= 78 for line in dsn.octets.split(b"\r\n"))


MESSAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "messages"


@pytest.mark.skipif(not MESSAGES.exists(), reason="../shared/data is not here")
def test_real_messages_come_back_as_they_were() -> None:
    found = 0
    for path in sorted(MESSAGES.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").replace(b"\0", b"")
        if b"\r" in content.replace(b"\r\n", b""):
            continue
        dsn = compose(message(content=content))
        assert is_well_formed(dsn.octets), path
        returned = cast(list[Message], email.message_from_bytes(dsn.octets).get_payload())
        assert len(returned) == 3, path
        if returned[2].get_content_type() == "message/rfc822":
            assert content in dsn.octets, path
        found += 1
    assert found > 50
