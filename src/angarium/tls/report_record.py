"""The TXT record of a domain that wants reports, _smtp._tls.DOMAIN (RFC 8460 §3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

# Judged: nobody needs more, and each costs a message or a POST a day.
PLACES_MOST: Final = 4

_VERSION: Final = re.compile(r"v=TLSRPTv1[ \t]*(?:;|$)")
_MAILBOX: Final = re.compile(rb"[!#$%&'*+/0-9=?A-Z^_`a-z{|}~.-]{1,64}@[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)+")


def places_of_records(records: Iterable[str]) -> tuple[str, ...]:
    """Where reports go: "mailto:a@x.example", "https://..."; (): nowhere.

    Of several records that begin as they must none counts (§3: senders MUST assume that there is no reporting).
    """
    ours = [record for record in records if _VERSION.match(record)]
    if len(ours) != 1:
        return ()
    for field in ours[0].split(";")[1:]:
        name, _, value = field.partition("=")
        if name.strip() == "rua":
            found = [each for each in map(_place, value.split(",")) if each]
            return tuple(dict.fromkeys(found))[:PLACES_MOST]
    return ()


def _place(text: str) -> str:
    """A place in normal form; "": we cannot send there."""
    text = text.strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        return ""
    scheme, _, rest = text.partition(":")
    if scheme.lower() == "mailto":
        mailbox = unquote_to_bytes(rest.partition("?")[0])
        return f"mailto:{mailbox.decode()}" if _MAILBOX.fullmatch(mailbox) else ""
    if scheme.lower() != "https":
        return ""
    try:
        url = urlsplit(text)
        is_good = bool(url.hostname) and url.port != 0 and not url.username
    except ValueError:
        return ""
    return text if is_good else ""
