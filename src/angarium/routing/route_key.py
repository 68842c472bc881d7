"""The key of a domain queue: a domain, and a route where recipients of one domain go different ways.

    b"example.net"                            as the routes say for anybody
    b"example.net\0>smtp://192.0.2.1:25"      to this next hop, whatever the routes say: the message said so
    b"example.net\0>mx tls=encrypt"           likewise, and with this policy of TLS
    b"example.net\0<a@x.example\0.example"   from a sender that these patterns of [[route]] sender match

Where [[egress]] or a hook say by which pool mail leaves, parts of that come first, each behind a NUL of its own:

    b"example.net\0=bulk"                     by this pool: a hook said so
    b"example.net\0%acme\0#spring"            of this tenant and this campaign, which some [[egress]] names
    b"example.net\0~.x.example\0>mx"          from a sender that this pattern of [[egress]] matches; to this hop

A message in the queue keeps its patterns: a reload that adds a route for its sender holds for new mail, one that
changes or takes away a route holds for all, and a restart asks again. A key is as long as its patterns, and there
are no more of them than routes, however many senders there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from angarium.resolver.domain_name import to_a_labels

NULL_SENDER: Final = "<>"
_EGRESS_PARTS: Final = {b"=": "pool", b"%": "tenant", b"#": "campaign"}
_EGRESS_MARKS: Final = {b"=", b"%", b"#", b"~"}


class RouteKey(msgspec.Struct, frozen=True):
    """The parts of a key: next_hop as text for parse_route(), or "", and patterns that match the sender. pool, tenant,
    campaign, egress_senders: what is known of egress."""

    domain: bytes
    next_hop: str = ""
    senders: tuple[str, ...] = ()
    pool: str = ""
    tenant: str = ""
    campaign: str = ""
    egress_senders: tuple[str, ...] = ()

    @classmethod
    def parse(cls, key: bytes) -> RouteKey:
        domain, _, route = key.partition(b"\0")
        if not route:
            return cls(domain)
        egress, route = _split_egress(route)
        named: dict[str, str] = {}
        egress_senders = []
        for part in egress:
            text = part[1:].decode("utf-8", "surrogateescape")
            if part[:1] == b"~":
                egress_senders.append(text)
            else:
                named[_EGRESS_PARTS[part[:1]]] = text
        text = route.decode("utf-8", "surrogateescape")
        return cls(
            domain,
            next_hop=text[1:] if text.startswith(">") else "",
            senders=tuple(text[1:].split("\0")) if text.startswith("<") else (),
            egress_senders=tuple(egress_senders),
            **named,
        )


def egress_part(
    *,
    pool: bytes | None = None,
    tenant: bytes | None = None,
    campaign: bytes | None = None,
    senders: Iterable[str] = (),
) -> bytes | None:
    """What of a key says by which pool mail leaves; None when nothing is known."""
    parts = [mark + text for mark, text in ((b"=", pool), (b"%", tenant), (b"#", campaign)) if text is not None]
    parts += [b"~" + pattern.encode("utf-8", "surrogateescape") for pattern in senders]
    return b"\0".join(parts) or None


def _split_egress(route: bytes) -> tuple[list[bytes], bytes]:
    """The parts of egress_part(), and what is left."""
    parts = []
    while route[:1] in _EGRESS_MARKS:
        part, _, route = route.partition(b"\0")
        parts.append(part)
    return parts, route


def moved(route: bytes, *, next_hop: str = "", pool: str = "") -> bytes:
    """What stands behind the NUL of a key when its mail goes to another next hop, or by another pool; "": as it was.

    next_hop  as in RouteKey.
    """
    egress, rest = _split_egress(route)
    if pool:
        egress = [b"=" + pool.encode()]
    if next_hop:
        rest = b">" + next_hop.encode()
    return b"\0".join([*egress, *([rest] if rest else [])])


def route_text(route: bytes) -> str:
    """What stands behind the NUL, for people: "smtp://192.0.2.1:25" or "from a@x.example .example"; "" where it says
    nothing but the pool."""
    _, route = _split_egress(route)
    if not route:
        return ""
    text = route.decode("utf-8", "replace")
    return text[1:] if text.startswith(">") else f"from {text[1:].replace(chr(0), ' ')}"


def sender_key(pattern: str) -> str:
    """A pattern of senders in normal form. Raises ValueError that says what is wrong.

    pattern  "<>" (the null reverse-path), "user@example.com", "example.com", ".example.com" (all below it).
    """
    if pattern == NULL_SENDER:
        return pattern
    local, at, domain = pattern.rpartition("@")
    dot = "." if not at and domain.startswith(".") else ""
    try:
        if at and (not local or any(character <= " " or character == "\x7f" for character in local)):
            raise ValueError
        return local.lower() + at + dot + to_a_labels(domain.removeprefix(dot).encode())
    except ValueError:
        raise ValueError(f'"{pattern}" is neither "<>" nor an address nor a domain nor ".domain"') from None


class SenderPatterns:
    """Which of many patterns match a reverse-path, at the cost of one look-up per label of its domain."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """patterns: as sender_key() gives them."""
        self._patterns = frozenset(patterns)

    def matching(self, reverse_path: bytes) -> tuple[str, ...]:
        """From the closest to the widest. reverse_path: mailbox without brackets, empty for the null one."""
        return tuple(each for each in _spellings(reverse_path) if each in self._patterns)


def _spellings(reverse_path: bytes) -> Iterable[str]:
    if not reverse_path:
        yield NULL_SENDER
        return
    local, _, domain_octets = reverse_path.rpartition(b"@")
    try:
        domain = to_a_labels(domain_octets)
    except ValueError:
        domain = domain_octets.decode("utf-8", "surrogateescape").lower()       # an address literal
    yield f"{local.decode('utf-8', 'surrogateescape').lower()}@{domain}"
    yield domain
    dot = domain.find(".")
    while dot != -1 and not domain.startswith("["):
        yield domain[dot:]
        dot = domain.find(".", dot + 1)
