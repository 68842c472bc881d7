"""The receivers that a sink plays, and which of them a connection or a recipient is for."""

from __future__ import annotations

import ipaddress
import random
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from angarium.measure.receiver_options import EXTENSIONS, ReceiverOptions
from angarium.measure.rules import Rule, Rules, parse_reply
from angarium.measure.sources import Counts, Greylist, Pace, Source

DEFAULT = "default"
_REMEMBERED = 100_000

Tell = Callable[[Source, int, Counts], None]


class Receiver:
    """One of them: greeting, rules, limits, and its sources by client address.

    rules     come before its own.
    tell      as Source's.
    """

    def __init__(
        self,
        name: str,
        options: ReceiverOptions,
        *,
        rules: list[Rule] | None = None,
        chance: random.Random | None = None,
        is_lmtp: bool = False,
        tls: ssl.SSLContext | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self.rules = Rules([*(rules or []), *options.rules()], chance=chance)
        self.ruled = self.rules.verbs()
        self.tls = tls
        self.greeting = f"220 {options.hostname} {'LMTP' if is_lmtp else 'ESMTP'} Angarium sink\r\n".encode()
        offered = [name for name in EXTENSIONS if name not in {each.upper() for each in options.without}]
        offered += [f"SIZE {options.size}"] if options.size else []
        offered += ["AUTH PLAIN LOGIN"] if options.auth else []
        self.ehlo = _ehlo(options.hostname, offered)
        self.ehlo_in_clear = _ehlo(options.hostname, [*offered, "STARTTLS"]) if tls is not None else self.ehlo
        self.greylist = Greylist(options.greylist) if options.greylist else None
        # Whether MAIL and RCPT have limits to be asked about.
        self.limits_mail = bool(options.messages_per_connection) or options.message_rate.is_limited
        self.limits_rcpt = bool(options.recipients_per_message or options.greylist)
        self.sources: dict[tuple[str, str], Source] = {}
        self.open = self.peak_open = 0
        self._tell = tell
        self._domains = frozenset(each.lower() for each in options.domain if not each.startswith("*"))
        self._suffixes = tuple(each.lower()[1:] for each in options.domain if each.startswith("*"))
        self._addresses, self._clients = options.networks("address"), options.networks("client")

    def source(self, client: str, address: str) -> Source:
        """The one of that client, made when it first comes; one for each address that it connects to where these are
        receivers by themselves.
        """
        key = (client, address if self.options.each_address else "")
        source = self.sources.get(key)
        if source is None:
            o = self.options
            source = self.sources[key] = Source(
                self.name,
                *key,
                connection_pace=Pace(o.connection_rate) if o.connection_rate.is_limited else None,
                message_pace=Pace(o.message_rate) if o.message_rate.is_limited else None,
                tell=self._tell,
            )
        return source

    def opened(self, source: Source) -> bytes | None:
        """Counts a connection; what refuses it, if something does."""
        source.open += 1
        self.open += 1
        self.peak_open = max(self.peak_open, self.open)
        live = source.live()
        live.connections += 1
        live.open = max(live.open, source.open)
        o = self.options
        if o.connections and source.open > o.connections:
            return self.refusal("connections", source)
        if source.connection_pace is not None and not source.connection_pace.allows(time.monotonic()):
            return self.refusal("connection_rate", source)
        return None

    def closed(self, source: Source) -> None:
        """Counts one less."""
        source.live()               # what was open in this second is known before it is less
        source.open -= 1
        self.open -= 1

    def refusal(self, limit: str, source: Source) -> bytes:
        """What is said to who goes over that limit."""
        return parse_reply(getattr(self.options.replies, limit).replace("{client}", source.client))

    def refuses_mail(self, source: Source, messages: int) -> bytes | None:
        """What refuses MAIL to who has begun `messages` in this connection; the message counts if nothing does."""
        o = self.options
        if o.messages_per_connection and messages >= o.messages_per_connection:
            return self.refusal("messages_per_connection", source)
        if source.message_pace is not None and not source.message_pace.allows(time.monotonic()):
            return self.refusal("message_rate", source)
        return None

    def refuses_rcpt(self, source: Source, recipients: int, reverse_path: bytes, forward_path: bytes) -> bytes | None:
        """What refuses one more recipient of a message that has `recipients`."""
        o = self.options
        if o.recipients_per_message and recipients >= o.recipients_per_message:
            return self.refusal("recipients_per_message", source)
        if self.greylist is not None:
            triple = (source.client, reverse_path, forward_path)
            if not self.greylist.knows(triple, time.monotonic()):
                return self.refusal("greylist", source)
        return None

    def fits(self, address: str, port: int, client: str) -> bool:
        """Whether it is for connections from `client` to this address and port; neither address for UNIX sockets."""
        return (
            (not self.options.port or port in self.options.port)
            and _is_in(address, self._addresses)
            and _is_in(client, self._clients)
        )

    def takes(self, domain: str) -> bool:
        """Whether it is for recipients of this domain (lower case)."""
        return domain in self._domains or domain.endswith(self._suffixes)


class Receivers:
    """All of them, in order, and one for whoever fits none."""

    def __init__(self, receivers: list[Receiver], default: Receiver | None = None) -> None:
        self.default = default or Receiver(DEFAULT, ReceiverOptions())
        self._receivers = receivers
        self._found: dict[tuple[str, int, str], tuple[Receiver, tuple[Receiver, ...]]] = {}

    def of_connection(self, address: str, port: int, client: str) -> tuple[Receiver, tuple[Receiver, ...]]:
        """Whose a connection is, and those that its recipients may be for instead, by domain."""
        key = (address, port, client)
        found = self._found.get(key)
        if found is None:
            fitting = [each for each in self._receivers if each.fits(*key)]
            one = next((each for each in fitting if not each.options.domain), self.default)
            found = (one, tuple(each for each in fitting if each.options.domain))
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[key] = found
        return found

    def __iter__(self) -> Iterator[Receiver]:
        yield from self._receivers
        yield self.default

    def report(self) -> dict[str, object]:
        """Counts by receiver, and below by client address; without those where nothing happened."""
        found: dict[str, object] = {}
        for receiver in self:
            if receiver.sources:
                sum_of_all = Counts()
                sources = []
                for source in receiver.sources.values():
                    total = source.total()
                    sum_of_all.add(total)
                    sources.append({**source.names(), **_as_dict(total), "busiest_second": source.busiest})
                found[receiver.name] = {**_as_dict(sum_of_all), "open": receiver.peak_open, "sources": sources}
        return found


def tls_context(options: ReceiverOptions, directory: Path) -> ssl.SSLContext | None:
    """What `tls` names, relative to `directory`; None without it. Raises OSError (ssl.SSLError too)."""
    if options.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / options.tls.certificate, directory / options.tls.key)
    return context


def _as_dict(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in counts.__struct_fields__}


def _ehlo(hostname: str, offered: list[str]) -> bytes:
    names = [hostname, *offered]
    return b"".join(f"250{' ' if i == len(names) - 1 else '-'}{name}\r\n".encode() for i, name in enumerate(names))


def _is_in(address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    if not networks:
        return True
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False        # a UNIX-domain socket has no address
    return any(found in network for network in networks)
