"""What a hook may answer. All of it is checked where it is made, so that a mistake names the operator's own line.

None, or a function that returns nothing, is "no objection". Everything here is a value: what becomes of it is
inbound/hook_judges.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from angarium.model.plan import TlsName
from angarium.policy.header import CHANGES_MAXIMUM, AddField, RemoveField, ReplaceField
from angarium.policy.reply import checked_reply
from angarium.routing.next_hop import parse_next_hop, with_tls
from angarium.smtp.machines import parse_mailbox
from angarium.spool.envelope import Attribute

FieldChange = AddField | ReplaceField | RemoveField

RECIPIENTS_MAXIMUM: Final = 1000  # in place of one, or of all of a message's
_LABEL_CHARACTERS: Final = 128
# Further than any queue's max_age is useful for; what is meant as milliseconds is found by it.
_LATEST_UTC_S: Final = 253402300800  # the year 10000


class Accept(msgspec.Struct, frozen=True, kw_only=True):
    """No objection; and besides, what shall hold for the message.

    fields      changes of the header section, in this order; from on_message only.
    route       next hop instead of the routes', as the configuration writes it: "smtp://host:25", "mx", ...
    tls         what that way asks of TLS, as tls of a [[route]] does; None: what is asked of all. Only with a route.
    pool        egress pool.    tenant, campaign  names for queues, limits, log: at most 128 characters.
    priority    -9 to 9 (RFC 6710).
    not_before  first attempt: an aware datetime, or UTC seconds.
    """

    fields: Sequence[FieldChange] = ()
    route: str | None = None
    tls: TlsName | None = None
    pool: str | None = None
    tenant: str | None = None
    campaign: str | None = None
    priority: int | None = None
    not_before: datetime | float | None = None

    def __post_init__(self) -> None:
        for change in self.fields:
            if not isinstance(change, AddField | ReplaceField | RemoveField):
                raise ValueError(f"fields: {change!r} is not an AddField, ReplaceField or RemoveField")
        if len(self.fields) > CHANGES_MAXIMUM:
            raise ValueError(f"fields: {len(self.fields)} changes, at most {CHANGES_MAXIMUM}")
        self.attributes()

    def attributes(self) -> dict[int, bytes]:
        """Envelope attributes: SPOOL_ATTRIBUTE_* to text (csrc/spool/envelope.h). Raises ValueError."""
        found: dict[int, bytes] = {}
        if self.route is not None:
            found[Attribute.ROUTE] = route_text(self.route, self.tls)
        elif self.tls is not None:
            raise ValueError(f"tls {self.tls!r}: of what route?")
        for key, name, text in (
            (Attribute.POOL, "pool", self.pool),
            (Attribute.TENANT, "tenant", self.tenant),
            (Attribute.CAMPAIGN, "campaign", self.campaign),
        ):
            if text is not None:
                found[key] = _label(name, text)
        if self.priority is not None:
            if not isinstance(self.priority, int) or not -9 <= self.priority <= 9:
                raise ValueError(f"priority {self.priority!r}: -9 to 9 (RFC 6710 §3)")
            found[Attribute.PRIORITY] = b"%d" % self.priority
        if self.not_before is not None:
            found[Attribute.HOLD_UNTIL] = _moment(self.not_before)
        return found


class Reject(msgspec.Struct, frozen=True):
    """No, for good. code  500 to 599; None: 554 from on_connect, else 550.  status  of class 5 (RFC 3463).

    521 ends the session behind the reply.
    """

    text: str = "Refused by policy"
    code: int | None = None
    status: str = "5.7.1"

    def __post_init__(self) -> None:
        _class("5", self.code, "Defer")
        self.reply(550)

    def reply(self, code: int) -> bytes:
        return checked_reply(self.code or code, self.status, self.text)


class Defer(msgspec.Struct, frozen=True):
    """Not now: the client shall try again. code  400 to 499; None: 451; 421 ends the session.  status  of class 4."""

    text: str = "Deferred by policy, try again later"
    code: int | None = None
    status: str = "4.7.1"

    def __post_init__(self) -> None:
        _class("4", self.code, "Reject")
        self.reply(451)

    def reply(self, code: int) -> bytes:
        return checked_reply(self.code or code, self.status, self.text)


class Discard(msgspec.Struct, frozen=True):
    """Said yes to and thrown away: from on_rcpt this recipient, from on_message the message. reason  for the log."""

    reason: str = ""

    def __post_init__(self) -> None:
        if not self.reason.isprintable() or len(self.reason) > 500:
            raise ValueError("reason: at most 500 printable characters")


class Redirect(msgspec.Struct, frozen=True):
    """To these mailboxes instead: from on_rcpt in place of this recipient, from on_message in place of all.

    accept  what shall hold besides.
    Quarantine is this: to a mailbox that only the operator reads, with a field added that tells whom it was for.
    """

    recipients: Sequence[str]
    accept: Accept = Accept()

    def __post_init__(self) -> None:
        if isinstance(self.recipients, str) or not 1 <= len(self.recipients) <= RECIPIENTS_MAXIMUM:
            raise ValueError(f"recipients: a list of 1 to {RECIPIENTS_MAXIMUM} mailboxes")
        self.paths()

    def paths(self) -> list[bytes]:
        """As forward-paths without brackets. Raises ValueError."""
        return [mailbox(text) for text in self.recipients]


Decision = Accept | Reject | Defer | Discard | Redirect
DECISIONS: Final = (Accept, Reject, Defer, Discard, Redirect)


def route_text(route: object, tls: str | None = None) -> bytes:
    """A next hop in normal form, as routing/next_hop.py's parse_route() reads it. Raises ValueError."""
    if not isinstance(route, str):
        raise ValueError(f"route {route!r}: expected a text such as \"smtp://host:25\"")
    try:
        next_hop = parse_next_hop(route)
    except ValueError as error:
        raise ValueError(f"route: {error}") from None
    if tls is None:
        return next_hop.text.encode()
    return f"{with_tls(next_hop, tls).text} tls={tls}".encode()


def mailbox(text: str) -> bytes:
    """A mailbox as a forward-path's octets. Raises ValueError: syntax (RFC 5321 §4.1.2), lengths, control octets."""
    path = text.encode()
    if parse_mailbox(path, utf8=True)["result"] != "ok":
        raise ValueError(f'"{text}" is not a mailbox')
    return path


def _label(name: str, text: str) -> bytes:
    if not isinstance(text, str) or not 1 <= len(text) <= _LABEL_CHARACTERS or not text.isprintable():
        raise ValueError(f"{name} {text!r}: 1 to {_LABEL_CHARACTERS} printable characters")
    return text.encode()


def _moment(value: datetime | float) -> bytes:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"not_before {value}: a datetime without a time zone is another moment elsewhere")
        value = value.timestamp()
    if not 0 <= value < _LATEST_UTC_S:
        raise ValueError(f"not_before {value!r}: UTC seconds")
    return b"%d" % int(value)


def _class(digit: str, code: int | None, other: str) -> None:
    if code is not None and str(code)[:1] != digit:
        raise ValueError(f"code {code}: not of class {digit}; use {other} for that")
