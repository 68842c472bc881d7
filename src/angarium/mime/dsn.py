"""Composing a delivery status notification: RFC 3464 in the frame of RFC 6522, RFC 6533 where UTF-8 needs it.

    multipart/report
      text/plain                   for people
      message/delivery-status      for programs
      message/rfc822               what it is about, or text/rfc822-headers; absent when that is lost

Who is told is notify.py's business; that the report reaches him is the queue's. Nothing that a peer said gets
in without passing _printable(): no CR, LF, NUL or other control character, no line over 998 octets.
"""

from __future__ import annotations

import email.utils
import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from angarium.mime.header import field_value, header_section
from angarium.mime.notify import Outcome
from angarium.mime.xtext import decode_utf8_addr_xtext, decode_xtext, encode_utf8_addr_xtext
from angarium.model.outcome import Trouble

# Chosen, as Postfix' bounce_size_limit: enough to know a message again, too little to make a report a burden.
RETURNED_OCTETS_MAXIMUM: Final = 50 * 1024

_LINE_OCTETS: Final = 998           # RFC 5322 §2.1.1, without CRLF
_FOLD_OCTETS: Final = 76
_TEXT_CHARACTERS: Final = 1000      # of a peer's reply: ten lines of it tell all that will be told


class ReportedRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient of a report.

    forward_path            mailbox without brackets.
    orcpt                   ORCPT as given, "rfc822;xtext", or empty.
    trouble                 what the peer or we said last; None when nothing is known.
    last_attempt_utc_s      0: there was none.
    will_retry_until_utc_s  of "delayed".
    is_late                 its by-time is over (RFC 2852 §4.1.3).
    """

    forward_path: bytes
    outcome: Outcome
    orcpt: bytes = b""
    trouble: Trouble | None = None
    last_attempt_utc_s: float = 0.0
    will_retry_until_utc_s: float = 0.0
    is_late: bool = False


class ReportedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The message that a report is about.

    reverse_path    mailbox without brackets, never empty: nobody is told about a null reverse-path.
    content         its octets; of one over RETURNED_OCTETS_MAXIMUM the first so many are enough. Empty when
                    they cannot be read any more.
    message_octets  of all of it.
    envid           ENVID as given (xtext), or empty.
    ret             RET as given, or empty.
    is_smtputf8     it came with SMTPUTF8, so that its sender can read RFC 6533.
    is_binary       it came with BODY=BINARYMIME: its content fits into no report (RFC 3030 §3).
    deliver_by_utc_s  its by-time (RFC 2852 §5); None: it has none.
    hold_until_utc_s  until when it was to be held (RFC 4865 §5.1.2), None: it was not.
    hold_for_s        of HOLDFOR, 0: it was HOLDUNTIL.
    """

    reverse_path: bytes
    content: bytes
    message_octets: int
    received_utc_s: float
    queue_id: str = ""
    helo: bytes = b""
    envid: bytes = b""
    ret: Literal["", "FULL", "HDRS"] = ""
    is_smtputf8: bool = False
    is_binary: bool = False
    deliver_by_utc_s: float | None = None
    hold_until_utc_s: float | None = None
    hold_for_s: int = 0


class Dsn(msgspec.Struct, frozen=True):
    """A report, to be sent with a null reverse-path and NOTIFY=NEVER.

    octets        the message, CRLF line ends.
    has_8bit      it needs BODY=8BITMIME.
    needs_utf8    it needs SMTPUTF8.
    """

    octets: bytes
    has_8bit: bool
    needs_utf8: bool


class _Part(msgspec.Struct):
    """A body part: media type with its parameters, description, content."""

    media_type: str
    description: str
    content: bytes


def compose_dsn(
    message: ReportedMessage,
    recipients: Sequence[ReportedRecipient],
    *,
    hostname: str,
    dsn_id: str,
    now_utc_s: float,
) -> Dsn:
    """A report on some recipients of one message.

    recipients  at least one; of several outcomes the worst names the report.
    hostname    Reporting-MTA, and the domain of sender and Message-ID.
    dsn_id      unique for this host, letters and digits: the report's own queue id.
    """
    has_failed = any(recipient.outcome in ("failed", "expired") for recipient in recipients)
    returned = _returned(message, has_failed)
    parts = [
        _explanation(message, recipients, hostname, returned),
        _delivery_status(message, recipients, hostname),
    ]
    if returned is not None:
        parts.append(returned)
    head = _head(message, recipients, hostname, dsn_id, now_utc_s)
    has_8bit = not head.isascii() or not all(part.content.isascii() for part in parts)
    needs_utf8 = not head.isascii() or any(part.media_type.startswith("message/global") for part in parts)

    boundary = f"=_{dsn_id}"
    while any(boundary.encode() in part.content for part in parts):
        boundary += "_"
    lines = [
        head.encode() + b"Content-Type: multipart/report; report-type=delivery-status;",
        b'\tboundary="' + boundary.encode() + b'"',
        *([b"Content-Transfer-Encoding: 8bit"] if has_8bit else []),
        b"",
    ]
    for part in parts:
        lines += [b"--" + boundary.encode(), f"Content-Type: {part.media_type}".encode()]
        lines.append(f"Content-Description: {part.description}".encode())
        if not part.content.isascii():
            lines.append(b"Content-Transfer-Encoding: 8bit")
        # The CRLF in front of a delimiter belongs to the delimiter (RFC 2046 §5.1.1).
        lines += [b"", part.content]
    lines += [b"--" + boundary.encode() + b"--", b""]
    return Dsn(b"\r\n".join(lines), has_8bit, needs_utf8)


def _head(
    message: ReportedMessage,
    recipients: Sequence[ReportedRecipient],
    hostname: str,
    dsn_id: str,
    now_utc_s: float,
) -> str:
    outcomes = {recipient.outcome for recipient in recipients}
    if outcomes & {"failed", "expired"}:
        subject = "Delivery Status Notification (Failure)"
    elif "delayed" in outcomes:
        subject = "Delivery Status Notification (Delay)"
    else:
        subject = "Delivery Status Notification (Success)"
    fields = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{_printable(message.reverse_path, is_utf8=message.is_smtputf8)}>",
        f"Subject: {subject}",
        f"Date: {_date(now_utc_s)}",
        f"Message-ID: <{dsn_id}@{hostname}>",
    ]
    about = field_value(header_section(message.content), b"message-id")
    if about is not None and _is_message_id(about):
        # RFC 3834 §3.1.5: lets a reader show the report beside what it is about.
        fields += [f"In-Reply-To: {about.decode()}", f"References: {about.decode()}"]
    # RFC 3834 §5: keeps vacation programs and other robots from answering.
    fields += ["Auto-Submitted: auto-replied", "MIME-Version: 1.0"]
    return "".join(f"{field}\r\n" for field in fields)


# ---- what people read ----

_EXPLAINED: Final[dict[Outcome, str]] = {
    "failed": "could not be delivered to",
    "expired": "could not be delivered in time, and is no longer tried, to",
    "delayed": "could not be delivered yet, and is still being tried, to",
    "relayed": "was handed to a mail system that does not report delivery, for",
    "delivered": "was delivered to",
    "expanded": "was sent on to all who stand behind",
}


def _explanation(
    message: ReportedMessage, recipients: Sequence[ReportedRecipient], hostname: str, returned: _Part | None
) -> _Part:
    lines = [f"This is the mail system at {hostname}.", ""]
    for outcome, words in _EXPLAINED.items():
        of_outcome = [recipient for recipient in recipients if recipient.outcome == outcome]
        if not of_outcome:
            continue
        lines += [f"Your message {words}:", ""]
        for recipient in of_outcome:
            lines.append(f"  <{_printable(recipient.forward_path, is_utf8=message.is_smtputf8)}>")
            lines += _said(recipient.trouble, is_utf8=message.is_smtputf8)
            if recipient.will_retry_until_utc_s:
                lines.append(f"    It is tried until {_date(recipient.will_retry_until_utc_s)}.")
            lines.append("")
    if returned is not None:
        what = "Your message" if returned.media_type in _WHOLE else "The header of your message"
        lines.append(f"{what} is attached, with a report for programs.")
    if message.queue_id:
        lines.append(f"For questions to the postmaster: it had the queue id {message.queue_id} here.")
    text = "\r\n".join(lines) + "\r\n"
    charset = "us-ascii" if text.isascii() else "utf-8"
    return _Part(f"text/plain; charset={charset}", "Notification", text.encode())


def _said(trouble: Trouble | None, *, is_utf8: bool) -> list[str]:
    """The last reply, indented and wrapped."""
    if trouble is None or not (trouble.text or trouble.code):
        return []
    who = f"{_printable(trouble.remote, is_utf8=is_utf8)} said: " if trouble.remote else ""
    code = f"{trouble.code} " if trouble.code else ""
    text = f"{who}{code}{_printable(trouble.text, is_utf8=is_utf8)}"
    return textwrap.wrap(text, width=_FOLD_OCTETS, initial_indent="    ", subsequent_indent="    ")


# ---- what programs read ----

# RFC 3464 §2.3.3.
_ACTIONS: Final[dict[Outcome, str]] = {
    "failed": "failed",
    "expired": "failed",
    "delayed": "delayed",
    "relayed": "relayed",
    "delivered": "delivered",
    "expanded": "expanded",
}
# The class that an action's status has to have, and the status when nobody gave one (RFC 3463 §3).
_STATUS: Final[dict[Outcome, tuple[int, int, int]]] = {
    "failed": (5, 0, 0),
    "delayed": (4, 0, 0),
    "relayed": (2, 0, 0),
    "delivered": (2, 0, 0),
    "expanded": (2, 0, 0),
}
_EXPIRED: Final = (4, 4, 7)         # "delivery time expired"; of one that is late, too (RFC 2852 §4.1.3)


def _delivery_status(
    message: ReportedMessage, recipients: Sequence[ReportedRecipient], hostname: str
) -> _Part:
    is_utf8 = message.is_smtputf8
    fields = []
    if message.envid:
        fields.append(("Original-Envelope-Id", _printable(decode_xtext(message.envid), is_utf8=is_utf8)))
    fields.append(("Reporting-MTA", f"dns; {hostname}"))
    if message.helo:
        fields.append(("Received-From-MTA", f"dns; {_printable(message.helo, is_utf8=is_utf8)}"))
    fields.append(("Arrival-Date", _date(message.received_utc_s)))
    if message.deliver_by_utc_s is not None:
        fields.append(("Deliver-By-Date", _date(message.deliver_by_utc_s)))
    if message.hold_until_utc_s is not None:
        until = datetime.fromtimestamp(message.hold_until_utc_s, UTC)
        asked = f"for;{message.hold_for_s}" if message.hold_for_s else f"until;{until:%Y-%m-%dT%H:%M:%SZ}"
        fields.append(("Future-Release-Request", asked))
    groups = [fields, *(_recipient_fields(recipient, message, is_utf8=is_utf8) for recipient in recipients)]
    text = "\r\n".join("".join(_field(name, value) for name, value in group) for group in groups)
    media_type = "message/delivery-status" if text.isascii() else "message/global-delivery-status"
    return _Part(media_type, "Delivery report", text.encode())


def _recipient_fields(
    recipient: ReportedRecipient, message: ReportedMessage, *, is_utf8: bool
) -> list[tuple[str, str]]:
    """The fields of RFC 3464 §2.3, in its order."""
    fields = []
    if recipient.orcpt:
        fields.append(("Original-Recipient", _original_recipient(recipient.orcpt, is_utf8=is_utf8)))
    fields.append(("Final-Recipient", _final_recipient(recipient.forward_path, is_utf8=is_utf8)))
    fields.append(("Action", _ACTIONS[recipient.outcome]))
    fields.append(("Status", ".".join(map(str, _status(recipient)))))
    trouble = recipient.trouble
    if trouble is not None:
        if trouble.remote:
            fields.append(("Remote-MTA", _remote_mta(trouble.remote, is_utf8=is_utf8)))
        text = _printable(trouble.text, is_utf8=is_utf8)
        if trouble.code:
            fields.append(("Diagnostic-Code", f"smtp; {trouble.code} {text}"))
        elif text:
            fields.append(("Diagnostic-Code", f"x-angarium; {text}"))
    if recipient.last_attempt_utc_s:
        fields.append(("Last-Attempt-Date", _date(recipient.last_attempt_utc_s)))
    if message.queue_id:
        fields.append(("Final-Log-ID", message.queue_id))
    if recipient.will_retry_until_utc_s:
        fields.append(("Will-Retry-Until", _date(recipient.will_retry_until_utc_s)))
    return fields


def _status(recipient: ReportedRecipient) -> tuple[int, int, int]:
    """A status that agrees with the action: 550 with a 2.0.0 in its text must not report success."""
    if recipient.outcome == "expired" or (recipient.outcome == "delayed" and recipient.is_late):
        return _EXPIRED
    default = _STATUS[recipient.outcome]
    if recipient.trouble is None or recipient.trouble.status[0] != default[0]:
        return default
    return recipient.trouble.status


def _original_recipient(orcpt: bytes, *, is_utf8: bool) -> str:
    """RFC 3464 §2.3.1: the type as given, the address decoded; for old readers UTF-8 stays (RFC 6533)."""
    kind, _, encoded = orcpt.partition(b";")
    if kind.lower() != b"utf-8":
        return f"{_printable(kind, is_utf8=False)}; {_printable(decode_xtext(encoded), is_utf8=is_utf8)}"
    address = decode_utf8_addr_xtext(decode_xtext(encoded).decode("utf-8", "replace"))
    return f"utf-8; {_printable(address, is_utf8=True) if is_utf8 else encode_utf8_addr_xtext(address)}"


def _final_recipient(forward_path: bytes, *, is_utf8: bool) -> str:
    if forward_path.isascii():
        return f"rfc822; {_printable(forward_path, is_utf8=False)}"
    address = forward_path.decode("utf-8", "replace")
    return f"utf-8; {_printable(address, is_utf8=True) if is_utf8 else encode_utf8_addr_xtext(address)}"


def _remote_mta(remote: str, *, is_utf8: bool) -> str:
    """Of "host[address]:port" the host, or the literal when it has no name (RFC 3464 §2.3.5)."""
    text = _printable(remote, is_utf8=is_utf8)
    host, bracket, rest = text.partition("[")
    if bracket and not host:
        return f"dns; [{rest.partition(']')[0]}]"
    return f"dns; {host}"


def _field(name: str, value: str) -> str:
    """A field, folded at white space where there is any; words too long for a line are cut."""
    line, lines = f"{name}:", []
    for word in value.split(" "):
        for piece in _pieces(word):
            is_too_long = len(line.encode()) + 1 + len(piece.encode()) > _FOLD_OCTETS
            if is_too_long and line not in ("", f"{name}:"):
                lines.append(line)
                line = ""
            line += f" {piece}"
    lines.append(line)
    return "\r\n".join(lines) + "\r\n"


def _pieces(word: str) -> Iterable[str]:
    # A character is up to four octets.
    size = (_LINE_OCTETS - 100) // 4
    if len(word) <= size:
        return (word,)
    return (word[start : start + size] for start in range(0, len(word), size))


# ---- what it is about ----

# What a line of a binary message may hold and no line of a report may: bare CR and LF, NUL and their like.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_WHOLE: Final = ("message/rfc822", "message/global")


def _returned(message: ReportedMessage, has_failed: bool) -> _Part | None:
    """The message, or its header section; None when there is nothing of it to be had (RFC 6522 §3: optional).

    All of it only with a failure, for the sender to send again (RFC 3461 §4.3), and not when he asked for the
    header alone, when it is large, or when it has lines that no mail system needs to take.
    """
    content = message.content
    is_whole = (
        has_failed
        and not message.is_binary
        and message.ret != "HDRS"
        and message.message_octets <= RETURNED_OCTETS_MAXIMUM
        and len(content) == message.message_octets
        and max(map(len, content.split(b"\r\n"))) <= _LINE_OCTETS
    )
    header = header_section(content)
    is_global = message.is_smtputf8 and not header.isascii()
    if is_whole:
        return _Part("message/global" if is_global else "message/rfc822", "Undelivered message", content)
    if not header:
        return None
    lines = header[:RETURNED_OCTETS_MAXIMUM].split(b"\r\n")
    if message.is_binary:
        lines = [_CONTROL.sub(b"?", line) for line in lines]
    content = b"\r\n".join(line[:_LINE_OCTETS] for line in lines if line) + b"\r\n"
    return _Part("message/global-headers" if is_global else "text/rfc822-headers", "Message header", content)


# ---- text ----


def _printable(text: bytes | str, *, is_utf8: bool) -> str:
    """Text for one line: line ends become spaces, everything else that does not print "?".

    is_utf8  characters beyond ASCII may stay.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = " ".join(text.split("\n")).replace("\r", "").replace("\t", " ")
    if len(text) > _TEXT_CHARACTERS:
        text = text[:_TEXT_CHARACTERS] + "..."
    if not (text.isprintable() and (is_utf8 or text.isascii())):
        text = "".join(
            character if character.isprintable() and (is_utf8 or character.isascii()) else "?"
            for character in text
        )
    return text


def _is_message_id(text: bytes) -> bool:
    """One msg-id (RFC 5322 §3.6.4), roughly, and short enough to be repeated."""
    return (
        text.isascii()
        and len(text) <= 250
        and text.startswith(b"<")
        and text.endswith(b">")
        and text.count(b"<") == text.count(b">") == 1
        and all(0x21 <= octet <= 0x7E for octet in text)
    )


def _date(utc_s: float) -> str:
    return email.utils.format_datetime(datetime.fromtimestamp(int(utc_s), UTC))
