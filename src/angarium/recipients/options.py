"""[domain."NAME"], [recipients] and [[bcc]] as the operator writes them."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from angarium.model.units import Duration
from angarium.recipients.mailbox import parse_target
from angarium.recipients.maps import MapSource
from angarium.routing.next_hop import parse_next_hop
from angarium.routing.options import domain_key
from angarium.routing.route_key import sender_key
from angarium.sasl.login_options import LoginOptions

CALL_AHEAD: Final = "call-ahead"
HOOK: Final = "hook"


class DomainOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One domain that is ours: anybody may send to it. ".example.com": all below.

    recipients      who is known: maps whose keys are mailboxes or bare local parts, and "call-ahead" (ask the next hop)
                    or "hook" (ask knows_recipient of policy.file); known to one of them is enough. []: everybody.
    aliases         maps from a mailbox or bare local part to others; before those of [recipients].
    alias_of        another domain: all mailboxes here stand for the same ones there.
    catch_all       the mailbox that gets mail for whoever is not known.
    sub_address     characters behind which a local part has a tag that does not count: "+". "": none.
    case_sensitive  local parts "Bob" and "bob" are two.
    next_hop        as a [[route]] for this domain before all others.
    """

    recipients: list[str] = []
    aliases: list[str] = []
    alias_of: str = ""
    catch_all: str = ""
    sub_address: str = "+"
    case_sensitive: bool = False
    next_hop: str = ""

    def __post_init__(self) -> None:
        for index, text in enumerate(self.recipients):
            if text not in (CALL_AHEAD, HOOK):
                _check_source(f"recipients[{index}]", text)
        if self.asks_ahead and self.asks_hook:
            raise ValueError('recipients: "call-ahead" and "hook": only one of the two can be asked')
        for index, text in enumerate(self.aliases):
            _check_source(f"aliases[{index}]", text)
        if self.alias_of:
            _check_domain("alias_of", self.alias_of)
            if self.recipients or self.aliases or self.catch_all:
                raise ValueError("alias_of: leaves nothing for recipients, aliases or catch_all to say")
        if self.catch_all:
            _check_mailbox("catch_all", self.catch_all)
        if not all("!" <= each <= "~" and each not in '"(),:;<>@[\\].' for each in self.sub_address):
            raise ValueError('sub_address: characters that a local part may have, such as "+" or "+-"')
        if self.next_hop:
            try:
                parse_next_hop(self.next_hop)
            except ValueError as error:
                raise ValueError(f"next_hop: {error}") from None

    @property
    def asks_ahead(self) -> bool:
        return CALL_AHEAD in self.recipients

    @property
    def asks_hook(self) -> bool:
        return HOOK in self.recipients


class CallAheadOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[recipients.call_ahead]: asking next hops whether they know a mailbox.

    timeout        for the whole dialogue, waiting for a turn included.
    known_time     how long a yes is believed. unknown_time  how long a no is.
    cache_entries  answers kept on one worker, least recently used out first.
    at_once        dialogues under way on one worker.
    on_trouble     when the next hop cannot be asked: "defer" (451) or "accept".
    reverse_path   said in MAIL; "": the null one.
    auth           by next hop, as routes write it: who we are there, where that is not the login of the route.
    """

    timeout: Duration = Duration(10)
    known_time: Duration = Duration(86400)
    unknown_time: Duration = Duration(900)
    cache_entries: int = 100_000
    at_once: int = 20
    on_trouble: Literal["defer", "accept"] = "defer"
    reverse_path: str = ""
    auth: dict[str, LoginOptions] = {}

    def __post_init__(self) -> None:
        for text in self.auth:
            try:
                if parse_next_hop(text).protocol not in ("smtp", "smtps", "lmtp"):
                    raise ValueError('AUTH is for "smtp://host:port", "smtps://host:port" and "lmtp://host:port"')
            except ValueError as error:
                raise ValueError(f'auth."{text}": {error}') from None
        _require("timeout", 1, self.timeout, 100)
        _require("known_time", 1, self.known_time, 30 * 86400)
        _require("unknown_time", 1, self.unknown_time, 30 * 86400)
        _require("cache_entries", 1, self.cache_entries, 10_000_000)
        _require("at_once", 1, self.at_once, 1000)
        if self.reverse_path:
            _check_mailbox("reverse_path", self.reverse_path)


class HookAnswerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[recipients.hook]: what the hook knows_recipient has answered. Its deadline: policy.timeouts.

    known_time     how long a yes is believed, at most until a reload; 0: asked each time. unknown_time  a no, likewise.
    cache_entries  answers kept on one worker, least recently used out first.
    """

    known_time: Duration = Duration(300)
    unknown_time: Duration = Duration(60)
    cache_entries: int = 100_000

    def __post_init__(self) -> None:
        _require("known_time", 0, self.known_time, 30 * 86400)
        _require("unknown_time", 0, self.unknown_time, 30 * 86400)
        _require("cache_entries", 1, self.cache_entries, 10_000_000)


class RecipientsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[recipients]: what holds for recipients of all domains, and for senders.

    aliases         maps from a mailbox, or "@domain", to one or more.
    senders         maps from a reverse-path, or "@domain", to what stands in its place.
    max_depth       aliases that lead to aliases. max_expansion  mailboxes that one may stand for.
    max_recipients  of one message when all are written out.
    """

    aliases: list[str] = []
    senders: list[str] = []
    max_depth: int = 10
    max_expansion: int = 1000
    max_recipients: int = 10_000
    call_ahead: CallAheadOptions = msgspec.field(default_factory=CallAheadOptions)
    hook: HookAnswerOptions = msgspec.field(default_factory=HookAnswerOptions)

    def __post_init__(self) -> None:
        for key, texts in (("aliases", self.aliases), ("senders", self.senders)):
            for index, text in enumerate(texts):
                _check_source(f"{key}[{index}]", text)
        _require("max_depth", 1, self.max_depth, 100)
        _require("max_expansion", 1, self.max_expansion, 100_000)
        _require("max_recipients", 100, self.max_recipients, 100_000)


class BccOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[[bcc]]: somebody else who gets every message that matches. Several may.

    to         the mailbox.
    sender     "*": of everybody; else as in [[route]].
    recipient  "*": to everybody; else written like sender, and looked for in what RCPT said.
    """

    to: str
    sender: str = "*"
    recipient: str = "*"

    def __post_init__(self) -> None:
        _check_mailbox("to", self.to)
        for key, pattern in (("sender", self.sender), ("recipient", self.recipient)):
            if pattern != "*":
                try:
                    sender_key(pattern)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
        if self.recipient == "<>":
            raise ValueError('recipient: "<>" is nobody')


def domain_name(name: str) -> str:
    """The NAME of a [domain."NAME"] in normal form, A-labels. Raises ValueError."""
    if name == "*" or not name.removeprefix("."):
        raise ValueError(f'"{name}" is not a domain')
    return domain_key(name)


def _check_source(key: str, text: str) -> None:
    try:
        MapSource.parse(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _check_domain(key: str, text: str) -> None:
    try:
        if text.startswith(("*", ".")):
            raise ValueError
        domain_key(text)
    except ValueError:
        raise ValueError(f'{key}: "{text}" is not a domain') from None


def _check_mailbox(key: str, text: str) -> None:
    if parse_target(text.encode()) is None:
        raise ValueError(f'{key}: "{text}" is not a mailbox such as "bob@example.com"')


def _require(key: str, least: float, value: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{key}: between {least} and {most}")
