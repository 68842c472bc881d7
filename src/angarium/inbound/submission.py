"""What the header of a submitted message may say of its sender, if the operator asks (RFC 6409 §6.1, §8.1)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from angarium.inbound.authority import Rights
from angarium.inbound.submission_options import SubmissionOptions
from angarium.smtp import replies

# What may be written into a header as it is: a dot-atom on both sides.
_PLAIN: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9.-]+")


class HeaderFacts(msgspec.Struct, frozen=True):
    """From and Sender: how many fields, and the addresses in them as they will be sent.

    ..._is_clear  every reader finds these addresses in it and no other (csrc/mime/header.h).
    """

    from_fields: int
    from_addresses: list[bytes]
    from_is_clear: bool
    sender_fields: int
    sender_addresses: list[bytes]
    sender_is_clear: bool


class Submission:
    """[listener.submission], compiled."""

    def __init__(self, options: SubmissionOptions) -> None:
        self.options = options
        self.asks = options.check_from or options.add_sender

    def refusal(self, facts: HeaderFacts, rights: Rights | None) -> bytes | None:
        """The reply to the message when From must not be said; None: it may. rights: None of clients without AUTH."""
        if not self.options.check_from or rights is None:
            return None
        if facts.from_fields != 1 or not facts.from_addresses or not facts.from_is_clear:
            return replies.FROM_UNCLEAR
        return None if all(map(rights.may_send_as, facts.from_addresses)) else replies.FROM_NOT_OWN

    def sender(self, facts: HeaderFacts, identity: bytes | None) -> bytes | None:
        """What a Sender field must name, in the place of any other; None: it is left as it is."""
        if not self.options.add_sender or identity is None or not _PLAIN.fullmatch(identity):
            return None
        if not (facts.from_is_clear and facts.sender_is_clear):
            return identity
        own = identity.lower()
        if [address.lower() for address in facts.from_addresses] == [own] and not facts.sender_fields:
            return None
        if facts.sender_fields == 1 and [address.lower() for address in facts.sender_addresses] == [own]:
            return None
        return identity
