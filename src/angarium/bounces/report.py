"""What a message that came back says: bounces (RFC 3464, and what qmail, Exim, Exchange and old sendmails write) and
feedback reports (RFC 5965).

Reading only: nothing is believed here. Everything in a report but the address it was sent to (verp.py) can be made up
by anybody. Works on the beginning of a message, whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesParser, HeaderParser
from email.policy import Compat32
from typing import Final, Literal

import msgspec

Kind = Literal["bounce", "feedback", "auto-reply"]
Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]

RECIPIENTS_MAX: Final = 100  # of one report; the rest is not looked at
_PARTS_MAX: Final = 50
_TEXT_MAX: Final = 500
_FIELD_MAX: Final = 1000
_LINE_MAX: Final = 500
_LINES_MAX: Final = 2000
_SAID_MAX: Final = 50  # lines about one recipient
_BOUNDARIES_MAX: Final = 30
# Of one field, in characters: the library looks for the end of each parameter from the beginning (_parseparam). Longer
# than any boundary or name of a charset needs; what is read of other fields is _FIELD_MAX.
VALUE_MAX: Final = 2000

_ADDRESS: Final = r"[^\s<>@,;:\"]{1,64}@[A-Za-z0-9.-]{1,255}"
_ACTIONS: Final = ("failed", "delayed", "delivered", "relayed", "expanded")
# "smtp; 550 5.1.1 text", "550-5.1.1 text"; the code may be missing, and so may the status.
_DIAGNOSTIC: Final = re.compile(r"(?:^|[\s;:(])([245][0-9]{2})[ -]+(?:#?([245]\.[0-9]{1,3}\.[0-9]{1,3})[ :]*)?")
_STATUS: Final = re.compile(r"(?<![0-9.])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_SPACE: Final = re.compile(r"\s+")
_QUEUE_ID: Final = re.compile(r"\bid ([0-9A-HJKMNP-TV-Z]{13})\b")


class ReportedRecipient(msgspec.Struct, frozen=True):
    """address  original where it is told, else final. code 0, status "": not told. host: who said it, or ""."""

    address: str
    action: Action
    code: int = 0
    status: str = ""
    text: str = ""
    host: str = ""


class Report(msgspec.Struct, frozen=True):
    """form         what wrote it: "rfc3464", "arf", "qmail", "exim", "sendmail", "exchange", "auto-reply".
    feedback_type   of feedback: "abuse", "fraud", "virus", "not-spam", "auth-failure", "other" ...
    queue_id        ours, where the returned header fields have a Received field of ours. message_id: returned likewise.
    return_paths    addresses that the returned message was sent from: one may be a trace (verp.py).
    """

    kind: Kind
    form: str
    recipients: tuple[ReportedRecipient, ...] = ()
    feedback_type: str = ""
    message_id: str = ""
    queue_id: str = ""
    return_paths: tuple[str, ...] = ()


def read_report(octets: bytes, hostname: str = "") -> Report | None:
    """octets: a message or its beginning. hostname: of the Received fields that are ours. None: it is no report."""
    message = BytesParser(policy=_POLICY).parsebytes(_shallow(octets))
    parts = _parts(message)
    by_type: dict[str, Message] = {}
    for part in parts:
        by_type.setdefault(part.get_content_type(), part)
    returned = _returned(by_type)
    if "message/feedback-report" in by_type:
        return _feedback(by_type["message/feedback-report"], returned, hostname)
    for kind in ("message/delivery-status", "message/global-delivery-status"):
        if kind in by_type and (found := _delivery_status(by_type[kind])):
            return _with_original(Report("bounce", "rfc3464", found), returned, hostname)
    # Exim says "auto-replied" of its bounces, too. Programs that answer for people name no failed recipients.
    if not _failed_of_exim(message) and _is_auto_reply(message):
        return _with_original(Report("auto-reply", "auto-reply"), _original_of(message), hostname)
    lines = _lines_of(_text(parts))
    copy = _copy_begins(lines)
    for form, reader in (("exim", _exim), ("qmail", _qmail), ("sendmail", _sendmail), ("exchange", _exchange)):
        if failed := reader(message, lines[:copy]):
            if returned is None and copy < len(lines):
                text = "\n".join(lines[copy + 1 :]).lstrip("\n")
                returned = HeaderParser(policy=_POLICY).parsestr(text)
            return _with_original(Report("bounce", form, tuple(failed[:RECIPIENTS_MAX])), returned, hostname)
    return None


# ---------------------------------------------------------------- MIME


class _Bounded(Compat32):
    """Values that are too long to be meant are cut before the library looks into them."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:VALUE_MAX]


_POLICY: Final = _Bounded()


def _shallow(octets: bytes) -> bytes:
    """As far as it names few enough boundaries: the library looks at each line once for every part that is open."""
    at = -1
    folded = octets.lower()
    for _ in range(_BOUNDARIES_MAX + 1):
        at = folded.find(b"boundary", at + 1)
        if at < 0:
            return octets
    return octets[:at]


def _parts(message: Message) -> list[Message]:
    """The parts outside of the message that came back, itself first."""
    found: list[Message] = []
    waiting = [message]
    while waiting and len(found) < _PARTS_MAX:
        part = waiting.pop(0)
        found.append(part)
        if part.get_content_maintype() == "multipart":
            waiting.extend(_children(part))
    return found


def _children(part: Message) -> list[Message]:
    """What the library has read inside of it; [] where it has taken it for text.

    Text is not asked for in passing: the library would decode it, by whatever charset the part names (punycode takes
    minutes).
    """
    return part.get_payload() if part.is_multipart() else []  # type: ignore[return-value]


def _field(message: Message, name: str) -> str:
    """Its value in one line without control characters; "" when there is none."""
    value = message.get(name)
    return "" if value is None else _one_line(str(value)[:_FIELD_MAX])


def _one_line(text: str) -> str:
    # compat32 keeps octets above 127 as surrogates
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _SPACE.sub(" ", _CONTROL.sub(" ", text)).strip()


def _typed(value: str) -> str:
    """ "rfc822; user@y.example" without its type."""
    kind, semicolon, rest = value.partition(";")
    return rest.strip() if semicolon else kind.strip()


def _address(value: str) -> str:
    """The mailbox in a field of a report, "" when there is none."""
    value = _typed(value).strip("<> ")
    return value if re.fullmatch(_ADDRESS, value) else ""


def _returned(by_type: dict[str, Message]) -> Message | None:
    """The header section that came back, as its own part."""
    for kind in ("message/rfc822", "message/global"):
        if kind in by_type and (children := _children(by_type[kind])):
            return children[0]
    for kind in ("text/rfc822-headers", "message/rfc822-headers", "message/global-headers"):
        if kind in by_type:
            return _section(by_type[kind])
    return None


def _section(part: Message) -> Message:
    """The fields that it consists of."""
    children = _children(part)  # of message/*, whatever it is
    return children[0] if children else HeaderParser(policy=_POLICY).parsestr(_content(part).lstrip("\r\n"))


def _content(part: Message) -> str:
    """Its text, decoded; of what has parts there is none. Parts are never written out again: that is done once for
    each level that they are nested."""
    octets = part.get_payload(decode=True)
    if not isinstance(octets, bytes):
        return ""
    return octets.decode("utf-8", "replace").replace("\r\n", "\n")


def _text(parts: list[Message]) -> str:
    for part in parts:
        if part.get_content_type() == "text/plain" and not part.is_multipart():
            return _content(part)
    return ""


def _with_original(report: Report, returned: Message | None, hostname: str) -> Report:
    if returned is None:
        return report
    queue_id = ""
    for value in returned.get_all("Received", [])[:100]:
        line = _one_line(str(value)[:_FIELD_MAX])
        if hostname and f"by {hostname.lower()} " in line.lower() and (match := _QUEUE_ID.search(line)):
            queue_id = match[1]
            break
    paths = [each.strip("<> ") for each in (_field(returned, "Return-Path"), _field(returned, "X-Envelope-From"))]
    return msgspec.structs.replace(
        report,
        message_id=report.message_id or _field(returned, "Message-ID")[:_TEXT_MAX],
        queue_id=queue_id,
        return_paths=(*report.return_paths, *(each for each in paths if re.fullmatch(_ADDRESS, each))),
    )


# ---------------------------------------------------------------- RFC 3464, RFC 6533


def _groups(part: Message) -> Iterator[Message]:
    """The groups of fields, that of the message first."""
    children = _children(part)
    if part.get_content_type() == "message/delivery-status" and children:
        yield from children
        return
    # Of another message/* the library takes the first group for the fields of a message, and the others for its text.
    yield from children[:1]
    for group in re.split(r"\n[ \t]*\n", _content(children[0] if children else part).strip()):
        yield HeaderParser(policy=_POLICY).parsestr(group)


def _delivery_status(part: Message) -> tuple[ReportedRecipient, ...]:
    found: list[ReportedRecipient] = []
    reporter = ""
    for group in _groups(part):
        reporter = reporter or _typed(_field(group, "Reporting-MTA"))
        final = _address(_field(group, "Final-Recipient"))
        original = _address(_field(group, "Original-Recipient"))
        if not (final or original):
            continue
        action = _field(group, "Action").lower().partition(" ")[0]
        status = _STATUS.search(_field(group, "Status"))
        diagnostic = _typed(_field(group, "Diagnostic-Code"))
        code, said = _code_and_status(diagnostic)
        own = status[1] if status is not None else ""
        # X.0.0 says less than what the host said itself
        if said and (not own or own.endswith(".0.0")):
            own = said
        if action not in _ACTIONS:
            action = {"4": "delayed", "2": "delivered"}.get(own[:1], "failed")
        found.append(
            ReportedRecipient(
                original or final,
                action,  # type: ignore[arg-type]
                code,
                own,
                diagnostic[:_TEXT_MAX],
                _typed(_field(group, "Remote-MTA")) or reporter,
            )
        )
        if len(found) == RECIPIENTS_MAX:
            break
    return tuple(found)


def _code_and_status(text: str) -> tuple[int, str]:
    match = _DIAGNOSTIC.search(text)
    code = int(match[1]) if match is not None else 0
    status = match[2] if match is not None and match[2] else ""
    if not status and (loose := _STATUS.search(text)):
        status = loose[1]
    if code and status and int(status[0]) != code // 100:
        status = ""
    return code, status


# ---------------------------------------------------------------- RFC 5965


def _feedback(part: Message, returned: Message | None, hostname: str) -> Report:
    fields = _section(part)
    addresses = [
        address
        for value in fields.get_all("Original-Rcpt-To", [])[:RECIPIENTS_MAX]
        if (address := _address(_one_line(str(value)[:_FIELD_MAX])))
    ]
    host = _typed(_field(fields, "Reporting-MTA")) or _field(fields, "User-Agent")
    sender = _address(_field(fields, "Original-Mail-From"))
    report = Report(
        "feedback",
        "arf",
        tuple(ReportedRecipient(address, "delivered", host=host) for address in addresses),
        feedback_type=(_field(fields, "Feedback-Type").lower() or "other")[:50],
        return_paths=(sender,) if sender else (),
    )
    return _with_original(report, returned, hostname)


# ---------------------------------------------------------------- others


def _is_auto_reply(message: Message) -> bool:
    """RFC 3834, and what was there before it."""
    submitted = _field(message, "Auto-Submitted").lower()
    if submitted.startswith("auto-replied"):
        return True
    if (
        message.get("X-Autoreply")
        or message.get("X-Autorespond")
        or _field(message, "Precedence").lower() == "auto_reply"
    ):
        return True
    return _field(message, "X-Auto-Response-Suppress") != "" and not submitted and "In-Reply-To" in message


def _original_of(reply: Message) -> Message:
    original = Message(policy=_POLICY)
    original["Message-ID"] = _field(reply, "In-Reply-To")
    return original


# Of those without MIME the text is read line by line: no expression ever sees more than one line.
_COPY: Final = (
    "copy of the message",
    "original message",
    "message header",
    "below this line",
    "unsent message",
    "returned message",
)


def _lines_of(text: str) -> list[str]:
    return [line[:_LINE_MAX] for line in text.split("\n", _LINES_MAX)[:_LINES_MAX]]


def _copy_begins(lines: list[str]) -> int:
    """The line behind which the message that came back stands; how many lines there are when none does."""
    for number, line in enumerate(lines):
        text = line.lstrip(" \t")
        if text.startswith("--") and any(words in text.lower() for words in _COPY):
            return number
    return len(lines)


def _failed(address: str, lines: list[str]) -> ReportedRecipient:
    text = _one_line(" ".join(lines[:_SAID_MAX]))[-_FIELD_MAX:]
    code, status = _code_and_status(text)
    return ReportedRecipient(address, "failed", code, status, text[:_TEXT_MAX])


def _until(lines: list[str], begin: int, is_end: Callable[[str], bool]) -> list[str]:
    found = []
    for line in lines[begin:]:
        if is_end(line):
            break
        found.append(line)
    return found


def _is_blank(line: str) -> bool:
    return not line.strip()


def _failed_of_exim(message: Message) -> dict[str, str]:
    """Addresses by their lower case."""
    values = _field(message, "X-Failed-Recipients").split(",")
    return {each.strip().lower(): each.strip() for each in values if re.fullmatch(_ADDRESS, each.strip())}


def _exim(message: Message, lines: list[str]) -> list[ReportedRecipient]:
    """X-Failed-Recipients, and below each indented address what was said to it."""
    failed = _failed_of_exim(message)
    said: dict[str, list[str]] = {}
    for number, line in enumerate(lines if failed else ()):
        words = line.split(None, 1)
        if words and line[0] in " \t" and words[0].lower() in failed and words[0].lower() not in said:
            said[words[0].lower()] = _until(lines, number + 1, _is_next_of_exim)
    return [_failed(address, said.get(key, [])) for key, address in failed.items()]


def _is_next_of_exim(line: str) -> bool:
    """Blank, or another address: those have two spaces in front, what was said has four."""
    return _is_blank(line) or (line.startswith("  ") and not line[2:3].isspace())


def _qmail(_: Message, lines: list[str]) -> list[ReportedRecipient]:
    """QSBMF: paragraphs that begin with "<address>:"."""
    first = next((line for line in lines if not _is_blank(line)), "")
    if not first.startswith(("Hi. This is", "Hi. The MTA program")):
        return []
    found: list[ReportedRecipient] = []
    for number, line in enumerate(lines):
        match = re.fullmatch(rf"<({_ADDRESS})>:\s*", line)
        if match is not None and len(found) < RECIPIENTS_MAX:
            found.append(_failed(match[1], _until(lines, number + 1, _is_blank)))
    return found


def _is_rule(line: str) -> bool:
    return line.lstrip(" \t").startswith("---")


def _sendmail(_: Message, lines: list[str]) -> list[ReportedRecipient]:
    """ "----- The following addresses had ... -----", and a transcript."""
    sections: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        if not _is_rule(line):
            continue
        title = line.strip(" \t-").lower()
        if title.startswith("the following addresses") and title.endswith(("errors", "delivery problems")):
            sections.setdefault("addresses", _until(lines, number + 1, _is_rule))
        elif title.startswith("transcript of session follows"):
            sections.setdefault("transcript", _until(lines, number + 1, _is_rule))
    transcript = sections.get("transcript", [])[:_SAID_MAX]
    answers = [line for line in transcript if line.startswith("<<<")]
    found = []
    for line in sections.get("addresses", [])[:RECIPIENTS_MAX]:
        match = re.search(_ADDRESS, line)
        if match is None:
            continue
        about = [each for each in transcript if match[0].lower() in each.lower() and not each.startswith(">>>")]
        said = (about or answers or transcript)[-1:]
        found.append(_failed(match[0], [each.removeprefix("<<< ") for each in said]))
    return found


def _exchange(_: Message, lines: list[str]) -> list[ReportedRecipient]:
    """ "did not reach the following recipient(s):", each with a date and an indented reason."""
    begin = next((n for n, line in enumerate(lines) if "did not reach the following recipient(s):" in line), len(lines))
    found: list[ReportedRecipient] = []
    for number in range(begin + 1, len(lines)):
        match = re.match(rf"\s*['\"<]?({_ADDRESS})['\">]? on ", lines[number])
        if match is not None and len(found) < RECIPIENTS_MAX:
            found.append(_failed(match[1], _until(lines, number + 1, lambda line: line[:1] not in (" ", "\t"))))
    return found
