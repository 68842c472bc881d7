"""Who is told of what: the NOTIFY rules of RFC 3461 §4.1 and §5.2. Pure; composes nothing."""

from __future__ import annotations

import enum
from typing import Final, Literal

# What a report says of a recipient. "expired" is a failure in the report (status 4.4.7), but not in the log.
# "relayed": handed to a next hop that does not know the DSN extension; "delivered": into a mailbox.
# "expanded": an alias stood for several, who are recipients of their own (RFC 3464 §2.3.3).
Outcome = Literal["failed", "expired", "delayed", "relayed", "delivered", "expanded"]


class Notify(enum.IntFlag):
    """NOTIFY of a RCPT command; SMTP_NOTIFY_* of csrc/smtp/command.h. 0: not given.

    EXPANDED, which no client can say: nothing is sent to it, its sender is told that it was an alias.
    """

    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8
    EXPANDED = 16


_ASKED_BY: Final[dict[Outcome, Notify]] = {
    "failed": Notify.FAILURE,
    "expired": Notify.FAILURE,
    "delayed": Notify.DELAY,
    "relayed": Notify.SUCCESS,
    "delivered": Notify.SUCCESS,
    "expanded": Notify.SUCCESS,
}


def is_report_due(outcome: Outcome, notify: int, reverse_path: bytes, *, is_asked: bool = False) -> bool:
    """Whether the outcome of a recipient is to be told to the reverse-path.

    notify        Notify bits of the recipient.
    reverse_path  mailbox without brackets; empty: null, and nobody is told anything (RFC 5321 §4.5.5), or two
                  hosts could send each other reports for ever.
    is_asked      something else asked for it (BY, RFC 2852): then only NEVER keeps it back.
    Where NOTIFY was not given, failures are told and nothing else (RFC 3461 §4.1 leaves delays to us).
    """
    if not reverse_path or notify & Notify.NEVER:
        return False
    return is_asked or bool((notify or Notify.FAILURE) & _ASKED_BY[outcome])
