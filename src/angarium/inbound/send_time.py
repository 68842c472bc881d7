"""The header field in which a submitter says when a message is to be sent: [listener.extensions] future_release_field.

Only its name and what a value means; who is heeded, and for how long mail is held, is scheduled.pyx's.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

VALUE_OCTETS: Final = 200   # unfolded, with comments

# What a message needs, or others go by: taking it out would do more than set a time.
_TAKEN: Final = frozenset({
    "authentication-results", "bcc", "cc", "comments", "date", "dkim-signature", "errors-to", "from", "in-reply-to",
    "keywords", "message-id", "mime-version", "received", "references", "reply-to", "return-path", "sender",
    "solicitation", "subject", "tls-required", "to",
})  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
_MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MAIL: Final = re.compile(
    r"(?:[a-z]{3} ?, ?)?(?P<day>\d{1,2}) (?P<month>[a-z]{3}) (?P<year>\d{4})"
    r" (?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d))? (?:(?P<sign>[+-])(?P<zone>\d{4})|gmt|ut|utc|z)",
    re.ASCII,
)
_INTERNET: Final = re.compile(
    r"\d{4}-\d\d-\d\d[t ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:z|[+-]\d\d:\d\d)", re.ASCII
)
_COMMENT: Final = re.compile(r"\([^()]*\)")


def check_name(name: str) -> None:
    """Raises ValueError: no field has this name, or one that means something else."""
    if not _NAME.fullmatch(name):
        raise ValueError(f'"{name}" is no name of a header field such as "X-Send-At"')
    if name.lower() in _TAKEN or name.lower().startswith(("content-", "resent-", "arc-", "list-")):
        raise ValueError(f'"{name}" says something else: name a field of its own, such as "X-Send-At"')


def moment_of(value: bytes) -> int:
    """UTC seconds, rounded up, of a field's octets behind the colon.

    "Fri, 27 Nov 2026 09:00:00 +0100" (RFC 5322 §3.3; the day of the week is not looked at), or
    "2026-11-27T09:00:00+01:00" (RFC 3339). Raises ValueError for anything else: without a zone it is another moment
    elsewhere.
    """
    if len(value) > VALUE_OCTETS:
        raise ValueError("too long for a date")
    text = " ".join(_COMMENT.sub(" ", value.decode("ascii")).split()).lower()
    if _INTERNET.fullmatch(text):
        moment = datetime.fromisoformat(text.upper())
    elif found := _MAIL.fullmatch(text):
        minutes = 0
        if found["zone"]:
            minutes = int(found["zone"][:2]) * 60 + int(found["zone"][2:])
            minutes = -minutes if found["sign"] == "-" else minutes
        moment = datetime(
            int(found["year"]), _MONTHS.index(found["month"]) + 1, int(found["day"]), int(found["hour"]),
            int(found["minute"]), int(found["second"] or 0), tzinfo=timezone(timedelta(minutes=minutes)),
        )  # fmt: skip
    else:
        raise ValueError("no date and time with a zone")
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return -(-since // timedelta(seconds=1))
