"""Postfix's policy delegation protocol (its SMTPD_POLICY_README) as values: questions and answers, and their octets.

    request=smtpd_access_policy LF name=value LF ... LF             action=TEXT LF LF

What may stand behind "action=" is Postfix's access(5). FILTER, HOLD and the like, which belong to Postfix's own queue,
are Unsupported and count as DUNNO.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from angarium.policy.decisions import mailbox
from angarium.policy.header import AddField
from angarium.policy.reply import checked_reply, cleaned_text

ANSWER_OCTETS: Final = 8192
_CODE_AND_TEXT: Final = re.compile(r"([45]\d\d)(?:\s+(.*))?", re.ASCII | re.DOTALL)
_STATUS_AND_TEXT: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+(.*))?", re.ASCII | re.DOTALL)
_NOT_A_VALUE: Final = re.compile(r"[\x00-\x1f\x7f]")


class Dunno(msgspec.Struct, frozen=True):
    """No opinion: the next service is asked. is_final: OK; no further service is asked at this stage."""

    is_final: bool = False


class Refuse(msgspec.Struct, frozen=True):
    """reply  whole. when  "now"; "permit": when nobody else refuses; "reject": in place of a later refusal."""

    reply: bytes
    when: Literal["now", "permit", "reject"] = "now"


class Prepend(msgspec.Struct, frozen=True):
    field: AddField


class Reroute(msgspec.Struct, frozen=True):
    """REDIRECT: the message goes there and nowhere else. BCC: there too."""

    forward_path: bytes
    is_copy: bool = False


class Drop(msgspec.Struct, frozen=True):
    """DISCARD: accepted, and thrown away."""

    text: str


class Note(msgspec.Struct, frozen=True):
    """WARN, INFO: for the log."""

    kind: str
    text: str


class Unsupported(msgspec.Struct, frozen=True):
    """An action that is not for us, or none that anybody knows, or one whose argument is no good. text: for the log."""

    text: str


Action = Dunno | Refuse | Prepend | Reroute | Drop | Note | Unsupported


def request(attributes: dict[str, str]) -> bytes:
    """The octets of a question. What could end a line early is left out of values; no peer can send it, either."""
    lines = [f"{name}={_NOT_A_VALUE.sub('', value)}\n" for name, value in attributes.items()]
    return f"request=smtpd_access_policy\n{''.join(lines)}\n".encode("utf-8", "replace")


def action_text(answer: bytes) -> str | None:
    """What stands behind "action=" in an answer, its empty line included or not; None: there is no such line."""
    for line in answer.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals and name.strip() == b"action":
            return value.strip().decode("utf-8", "replace")
    return None


def parse_action(text: str) -> Action:
    """One action of access(5), in any case."""
    word, _, rest = text.partition(" ")
    word, rest = word.upper(), rest.strip()
    if found := _CODE_AND_TEXT.fullmatch(text):
        return Refuse(_reply(int(found[1]), found[2] or ""))
    match word:
        case "DUNNO" | "":
            return Dunno()
        case "OK" | "RELAY":
            return Dunno(is_final=True)
        case _ if word.isascii() and word.isdecimal():
            return Dunno(is_final=True)
        case "REJECT":
            return Refuse(_reply(554, rest or "Access denied"))
        case "DEFER":
            return Refuse(_reply(450, rest or "Access denied, try again later"))
        case "DEFER_IF_PERMIT":
            return Refuse(_reply(450, rest or "Access denied, try again later"), "permit")
        case "DEFER_IF_REJECT":
            return Refuse(_reply(450, rest or "Access denied, try again later"), "reject")
        case "PREPEND":
            return _prepend(rest)
        case "REDIRECT" | "BCC":
            try:
                return Reroute(mailbox(rest), is_copy=word == "BCC")
            except ValueError as error:
                return Unsupported(f"{word}: {error}")
        case "DISCARD":
            return Drop(cleaned_text(rest))
        case "WARN" | "INFO":
            return Note(word.lower(), cleaned_text(rest))
    return Unsupported(cleaned_text(text)[:100])


def _prepend(text: str) -> Action:
    name, colon, value = text.partition(":")
    try:
        if colon:
            return Prepend(AddField(name.strip(), _NOT_A_VALUE.sub(" ", value)))
    except ValueError as error:
        return Unsupported(f"PREPEND: {error}")
    return Unsupported("PREPEND: no field")


def _reply(code: int, text: str) -> bytes:
    """Of a foreign text that may open with an enhanced status code; one of another class is not believed."""
    status, text = f"{code // 100}.7.1", cleaned_text(text)
    if found := _STATUS_AND_TEXT.fullmatch(text):
        text = found[2] or ""
        if found[1][0] == str(code)[0]:
            status = found[1]
    return checked_reply(code, status, text or "Access denied")
