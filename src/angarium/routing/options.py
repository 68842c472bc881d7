"""[[route]], [source.NAME] and [pool.NAME] as the operator writes them."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

import msgspec

from angarium.model.plan import TlsName
from angarium.resolver.domain_name import to_a_labels
from angarium.routing.next_hop import parse_next_hop, with_tls
from angarium.routing.route_key import sender_key

_WEIGHT_MAXIMUM: Final = 1_000_000
_SOCKS_FIELD_OCTETS: Final = 255
LABEL_CHARACTERS: Final = 128      # of a tenant or campaign: policy/decisions.py takes no more


class RouteOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[[route]]

    domain    "*" or absent: every domain; "example.com": this one; ".example.com": its subdomains, not
              itself; "[192.0.2.1]": an address literal.
    sender    "*" or absent: everybody; "user@example.com"; "example.com": addresses of this domain; ".example.com":
              of its subdomains; "<>": the null reverse-path, that is reports.
    next_hop  "mx", "smtp://host:port", "smtp://[v6]:port", "smtps://host:port", "lmtp://host:port",
              "lmtp+unix:/path", "maildir:/path/{local}".
    tls       instead of shaping.default.tls: "opportunistic", "none", "encrypt" or "required".
    login     NAME of the [login.NAME] by which we authenticate there; "": as [shaping] says.
    """

    next_hop: str
    domain: str = "*"
    sender: str = "*"
    tls: TlsName | None = None
    login: str = ""

    def __post_init__(self) -> None:
        try:
            if self.sender != "*":
                sender_key(self.sender)
        except ValueError as error:
            raise ValueError(f"sender: {error}") from None
        try:
            domain_key(self.domain)
        except ValueError as error:
            raise ValueError(f"domain: {error}") from None
        try:
            next_hop = parse_next_hop(self.next_hop)
        except ValueError as error:
            raise ValueError(f"next_hop: {error}") from None
        if self.tls is not None:
            with_tls(next_hop, self.tls)
        if self.login and next_hop.protocol in ("lmtp+unix", "maildir"):
            raise ValueError(f"login: {next_hop.protocol} asks for none")


class ProxyOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[source.NAME.proxy]

    kind      "socks5" (RFC 1928), or "haproxy": a proxy that takes PROXY headers, version 2, and connects as they say.
    server    its numeric address and port.
    user      for SOCKS5 (RFC 1929); absent: none. password: likewise.
    """

    kind: Literal["socks5", "haproxy"]
    server: str
    user: str = ""
    password: str = ""

    def __post_init__(self) -> None:
        host, _, port = self.server.rpartition(":")
        try:
            if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
                raise ValueError
            if (ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).version == 6) != host.startswith("["):
                raise ValueError
        except ValueError:
            raise ValueError(f'server: "{self.server}" is not like "192.0.2.1:1080" or "[2001:db8::1]:1080"') from None
        if self.kind != "socks5" and (self.user or self.password):
            raise ValueError("user: only SOCKS5 has one")
        if bool(self.user) != bool(self.password):
            raise ValueError("user: it comes with a password, or neither is given")
        for key, field in (("user", self.user), ("password", self.password)):
            if len(field.encode()) > _SOCKS_FIELD_OCTETS:
                raise ValueError(f"{key}: at most {_SOCKS_FIELD_OCTETS} octets (RFC 1929 §2)")


class SourceOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[source.NAME]. Its limits: [shaping.source.NAME] (queue/shaping_options.py).

    address  numeric, of this machine; or an array of one IPv4 and one IPv6 address; absent: the kernel chooses.
    ehlo     name or address literal said in EHLO; absent: node.hostname.
    proxy    who has the addresses instead of this machine, and connects for it.
    """

    address: str | list[str] = ""
    ehlo: str = ""
    proxy: ProxyOptions | None = None

    def __post_init__(self) -> None:
        if self.proxy is not None and self.proxy.kind == "haproxy" and not self.addresses():
            raise ValueError("address: a proxy of kind haproxy is to be told one that it has")
        seen: set[int] = set()
        for each in self.addresses():
            try:
                version = ipaddress.ip_address(each).version
            except ValueError:
                raise ValueError(f'address: "{each}" is not a numeric address') from None
            if version in seen:
                raise ValueError(f'address: "{each}" is the second of its family; write a source for each')
            seen.add(version)
        if self.ehlo and not _is_ehlo_name(self.ehlo):
            raise ValueError(f'ehlo: "{self.ehlo}" is neither a domain nor an address literal')

    def addresses(self) -> list[str]:
        """None, one, or one of each family."""
        if isinstance(self.address, str):
            return [self.address] if self.address else []
        return self.address


class PoolOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[pool.NAME]

    sources  name of a source to its weight: of { a = 3, b = 1 } the first takes three messages of four.
             Absent: all sources, evenly.
    """

    sources: dict[str, int] = {}

    def __post_init__(self) -> None:
        for name, weight in self.sources.items():
            if not 1 <= weight <= _WEIGHT_MAXIMUM:
                raise ValueError(f"sources.{name}: {weight} is not between 1 and {_WEIGHT_MAXIMUM}")


class EgressOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[[egress]]: which pool mail leaves by. A rule matches when all that it names do.

    pool      name of a [pool.NAME].
    domain    of the forward-path, as in [[route]]. sender: of the reverse-path, likewise.
    tenant    that a hook has given the message; "*" or absent: any, and none. campaign: likewise.
    """

    pool: str
    domain: str = "*"
    sender: str = "*"
    tenant: str = "*"
    campaign: str = "*"

    def __post_init__(self) -> None:
        try:
            domain_key(self.domain)
        except ValueError as error:
            raise ValueError(f"domain: {error}") from None
        try:
            if self.sender != "*":
                sender_key(self.sender)
        except ValueError as error:
            raise ValueError(f"sender: {error}") from None
        for key, label in (("tenant", self.tenant), ("campaign", self.campaign)):
            if not 1 <= len(label) <= LABEL_CHARACTERS or not label.isprintable():
                raise ValueError(f'{key}: "*", or 1 to {LABEL_CHARACTERS} printable characters')


def domain_key(pattern: str) -> str:
    """A route's domain in normal form: A-labels, lower case. Raises ValueError that says what is wrong."""
    if pattern == "*" or (pattern.startswith("[") and pattern.endswith("]")):
        return pattern.lower()
    dot = "." if pattern.startswith(".") else ""
    try:
        return dot + to_a_labels(pattern.removeprefix(".").encode())
    except ValueError:
        raise ValueError(f'"{pattern}" is neither "*" nor a domain nor ".domain"') from None


def _is_ehlo_name(text: str) -> bool:
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1]
        try:
            if inner[:5].lower() == "ipv6:":
                ipaddress.IPv6Address(inner[5:])
            else:
                ipaddress.IPv4Address(inner)
        except ValueError:
            return False
        return True
    try:
        return to_a_labels(text.encode()) == text.lower()       # ASCII: EHLO comes before SMTPUTF8 is known
    except ValueError:
        return False
