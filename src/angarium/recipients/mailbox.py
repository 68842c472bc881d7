"""Mailboxes as keys of maps, and the mailboxes that values of maps name. Works on what the path machine has parsed.

A local part is never taken apart at "%", "!" or an "@" inside quotes: whoever is meant by "a@b"@ours is somebody of
ours.
"""

from __future__ import annotations

import re
from typing import Final

from angarium.resolver.domain_name import to_a_labels
from angarium.smtp.machines import parse_mailbox

# RFC 5321 §4.1.2 Dot-string, with RFC 6531 §3.3.
_ATOM: Final = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]+"
_DOT_STRING: Final = re.compile(rb"%b(?:\.%b)*" % (_ATOM, _ATOM))
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)
_SPECIAL: Final = re.compile(rb'(["\\])')
# Values of maps: mailboxes with commas or white space between them, neither of which counts inside quotes.
_ITEM: Final = re.compile(rb'(?:"(?:[^"\\]|\\.)*"|[^\s,])+', re.DOTALL)


def split(mailbox: bytes) -> tuple[bytes, bytes]:
    """Local part and domain, as written: no domain has an "@"."""
    local, _, domain = mailbox.rpartition(b"@")
    return local, domain


def domain_text(domain: bytes) -> str:
    """The domain as tables know it: A-labels in lower case, or an address literal."""
    try:
        return to_a_labels(domain)
    except ValueError:
        return domain.decode("utf-8", "surrogateescape").lower()


def local_key(local: bytes, *, folds_case: bool) -> bytes:
    """One spelling of a local part: quotes and backslashes that are not needed are gone (RFC 5321 §4.1.2)."""
    if local.startswith(b'"') and local.endswith(b'"') and len(local) > 1:
        plain = _QUOTED_PAIR.sub(rb"\1", local[1:-1])
        local = plain if _DOT_STRING.fullmatch(plain) else b'"' + _SPECIAL.sub(rb"\\\1", plain) + b'"'
    return local.lower() if folds_case else local


def without_tag(local: bytes, delimiters: bytes) -> tuple[bytes, bytes]:
    """A local part from local_key() and its tag, delimiter and all: (b"bob", b"+lists"); (local, b"") without one."""
    if not local.startswith(b'"'):
        for at in range(1, len(local)):     # a delimiter in front has nobody before it
            if local[at] in delimiters:
                return local[:at], local[at:]
    return local, b""


def items(value: bytes) -> list[bytes]:
    """What a value of a map names, in order, not looked at yet."""
    return _ITEM.findall(value)


def parse_target(text: bytes) -> bytes | None:
    """The mailbox in `text`, with or without angle brackets; None when it is none. Source routes are not taken."""
    if text.startswith(b"<") and text.endswith(b">"):
        text = text[1:-1]
    parsed = parse_mailbox(text, utf8=not text.isascii())
    if parsed["result"] != "ok" or parsed["end"] != len(text) or not parsed["domain"]:
        return None
    return parsed["mailbox"]
