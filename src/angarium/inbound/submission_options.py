"""What the operator may set about mail that its authors hand in: [listener.submission], for submission(s) listeners."""

from __future__ import annotations

import idna
import msgspec


class SubmissionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules and fix-ups of RFC 6409.

    complete_with    domain that mailboxes without one get, in envelope and header; "": they are refused.
    check_from       the From field, too, belongs to the identity, by the table of [auth.senders].
    add_sender       a Sender field names the identity where From does not (§8.1).
    add_date         when there is no Date field (§8.2).
    add_message_id   when there is no Message-ID field (§8.3).
    """

    complete_with: str = ""
    check_from: bool = False
    add_sender: bool = False
    add_date: bool = True
    add_message_id: bool = True

    def __post_init__(self) -> None:
        if self.complete_with and not is_qualified(self.complete_with):
            raise ValueError(f'complete_with: "{self.complete_with}" is not a domain such as "example.com"')


def is_qualified(text: str) -> bool:
    """Whether it is a domain of two labels or more, in A-labels."""
    try:
        return "." in text and idna.encode(text).decode("ascii") == text and len(text) <= 253
    except idna.IDNAError:
        return False
