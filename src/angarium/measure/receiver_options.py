"""How one of a sink's receivers is written in a file: whom it is for, how it answers, what it puts up with.

Values only.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Literal

import msgspec

from angarium.measure.rules import Rule, parse_delay_rule, parse_disconnect_rule, parse_reply, parse_reply_rule
from angarium.model.units import Duration, Octets, Rate

EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NO_LIMIT = Rate(math.inf)


class LimitReplies(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is said to who goes over a limit. "{client}" becomes the client's address; a 421 also closes."""

    connections: str = "421 4.7.0 Too many connections from {client} at once"
    connection_rate: str = "421 4.7.0 {client} connects too often, try again later"
    messages_per_connection: str = "421 4.7.0 Too many messages in one connection, come again"
    message_rate: str = "450 4.2.1 {client} sends faster than this is taken in, try again later"
    recipients_per_message: str = "452 4.5.3 Too many recipients"
    greylist: str = "451 4.7.1 Greylisted, try again later"

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            text = getattr(self, name)
            try:
                is_refusal = parse_reply(text)[:1] in b"45"
            except ValueError as trouble:
                raise ValueError(f"{name}: {trouble}") from None
            if not is_refusal:
                raise ValueError(f"{name}: {text!r} refuses nothing")


class TlsFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """PEM files, beside the file that names them; the chain may follow the certificate."""

    certificate: str
    key: str


class ReceiverOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[receiver.NAME]: for connections that all of address, port and client fit (empty: any); with `domain` for
    recipients in it, from RCPT on.

    address, client   networks: where the client connected to, where it comes from.
    domain            "big.example", "*.big.example" for all below it.
    each_address      that clients connect to is a receiver by itself: limits and counts are its own.
    reply, delay, disconnect   rules as on the command line.
    hostname, without, size    what it greets and offers with; AUTH is offered with `auth`.
    connections       at once, per client address.
    connection_rate, message_rate   per client address, a second's worth at once.
    greylist          how long client, reverse-path and forward-path must be known before a recipient is taken.
    """

    address: list[str] = []
    port: list[int] = []
    client: list[str] = []
    domain: list[str] = []
    each_address: bool = False
    reply: list[str] = []
    delay: list[str] = []
    disconnect: list[str] = []
    hostname: str = "sink.example"
    without: list[str] = []
    size: Octets = Octets(0)
    auth: bool = False
    connections: int = 0
    connection_rate: Rate = _NO_LIMIT
    messages_per_connection: int = 0
    message_rate: Rate = _NO_LIMIT
    recipients_per_message: int = 0
    greylist: Duration = Duration(0)
    replies: LimitReplies = LimitReplies()
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        self.networks("address")
        self.networks("client")
        self.rules()
        for index, name in enumerate(self.without):
            if name.upper() not in EXTENSIONS:
                raise ValueError(f"without[{index}]: {name!r} is none of {', '.join(EXTENSIONS)}")
        for key in ("connections", "messages_per_connection", "recipients_per_message"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key}: {getattr(self, key)} is under 0")
        if self.domain:
            # Who it is for is known at RCPT: too late for what comes before.
            for key in _EARLY:
                if getattr(self, key) != _DEFAULTS[key]:
                    raise ValueError(f"{key}: not with domain, which is not known before RCPT")

    def networks(self, key: Literal["address", "client"]) -> tuple[Network, ...]:
        """Raises ValueError that names the entry."""
        found: list[Network] = []
        for index, text in enumerate(getattr(self, key)):
            try:
                found.append(ipaddress.ip_network(text))
            except ValueError as trouble:
                raise ValueError(f"{key}[{index}]: {trouble}") from None
        return tuple(found)

    def rules(self) -> list[Rule]:
        """All rules: replies before disconnects, each in its order. Raises ValueError that names the entry."""
        found = []
        for key, parse in (
            ("reply", parse_reply_rule), ("disconnect", parse_disconnect_rule), ("delay", parse_delay_rule)
        ):
            for index, text in enumerate(getattr(self, key)):
                try:
                    found.append(parse(text))
                except ValueError as trouble:
                    raise ValueError(f"{key}[{index}]: {trouble}") from None
        return found


_EARLY = (
    "hostname", "without", "size", "auth", "connections", "connection_rate", "messages_per_connection", "tls",
    "each_address",
)
_DEFAULTS = {
    field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    for field in msgspec.structs.fields(ReceiverOptions)
}


class ReceiversFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. The first that fits is taken: they stand in the order of the file."""

    receiver: dict[str, ReceiverOptions] = {}
