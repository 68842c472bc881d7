"""Replies that an operator's code or a policy server makes: what may go out as one, and how it is written.

A hook's mistake is an error of the hook, found where it is made (checked_reply); the text of a policy server, which may
hold what a peer has sent, is cleaned instead (cleaned_text).
"""

from __future__ import annotations

import re
from typing import Final

from angarium.smtp.limits import REPLY_LINE_OCTETS

_CODE: Final = re.compile(r"[45]\d\d", re.ASCII)
_STATUS: Final = re.compile(r"([45])\.\d{1,3}\.\d{1,3}", re.ASCII)

# Of the line: code, status, two spaces and CRLF are taken off (RFC 5321 §4.5.3.1.5).
_BESIDE_TEXT: Final = 3 + 1 + len("5.999.999") + 1 + 2
TEXT_OCTETS: Final = REPLY_LINE_OCTETS - _BESIDE_TEXT


def checked_reply(code: int, status: str, text: str) -> bytes:
    """The whole line. Raises ValueError: no refusal's code, a status of another class, control octets, too long."""
    digits = str(code)
    if not _CODE.fullmatch(digits):
        raise ValueError(f"code {code}: a refusal is 400 to 599")
    found = _STATUS.fullmatch(status)
    if found is None:
        raise ValueError(f'status "{status}": expected such as "5.7.1" (RFC 3463)')
    if found[1] != digits[0]:
        raise ValueError(f"status {status} does not belong to code {code}: classes differ (RFC 2034)")
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"reply text {text!r}: printable ASCII only")
    if len(text) > TEXT_OCTETS:
        raise ValueError(f"reply text of {len(text)} octets: at most {TEXT_OCTETS} (RFC 5321 §4.5.3.1.5)")
    return f"{digits} {status} {text.strip()}".strip().encode("ascii") + b"\r\n"


def cleaned_text(text: str) -> str:
    """As much of a foreign text as a reply may hold; what is not printable ASCII is "?"."""
    clean = "".join(each if each.isascii() and each.isprintable() else "?" for each in text)
    return clean[:TEXT_OCTETS].strip()
