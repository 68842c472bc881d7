"""A client's names: what the reverse DNS says, and whether the name in HELO can be believed. Who asks DNS is a
Directory; what comes of it is a list of words."""

from __future__ import annotations

import enum
import ipaddress
from typing import Final, Protocol

from angarium.admission.dns_lists import reversed_name
from angarium.resolver.answer import Answer, Kind, MxRecord

# Names of one address that are looked at: whoever owns the reverse zone may put any number into it.
_NAMES_MAX: Final = 5


class Directory(Protocol):
    """What is asked of DNS here (resolver/caching_resolver.py)."""

    async def ipv4(self, host: str) -> Answer[str]: ...
    async def names(self, name: str) -> Answer[str]: ...
    async def addresses(self, host: str) -> Answer[str]: ...
    async def mx(self, domain: str) -> Answer[MxRecord]: ...


class Reverse(enum.Enum):
    """What the reverse DNS says of an address."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "ptr-unconfirmed"
    MISSING = "no-ptr"
    UNKNOWN = "unknown"  # DNS failed: nothing against the client


async def reverse_of(directory: Directory, host: str) -> Reverse:
    """Asks for the names of the address, and then whether one of them leads back to it (RFC 1912 §2.1)."""
    zone = "ip6.arpa" if ":" in host else "in-addr.arpa"
    answer = await directory.names(f"{reversed_name(host)}.{zone}")
    if answer.kind.is_temporary:
        return Reverse.UNKNOWN
    if answer.kind is not Kind.FOUND:
        return Reverse.MISSING
    outcome = Reverse.UNCONFIRMED
    wanted = ipaddress.ip_address(host)
    for name in answer.records[:_NAMES_MAX]:
        forward = await directory.addresses(name)
        if any(ipaddress.ip_address(text) == wanted for text in forward.records):
            return Reverse.CONFIRMED
        if forward.kind.is_temporary:
            outcome = Reverse.UNKNOWN
    return outcome


# What a client has as its address that a proxy knows none of (XCLIENT ADDR=[UNAVAILABLE], inbound/claimed.pyx).
NO_ADDRESS: Final = "0.0.0.0"


def helo_faults(helo: str, host: str, our_names: frozenset[str]) -> list[str]:
    """What can be said of the name without asking: words of CheckOptions' fields, "helo-unqualified" and the like.

    host  the client's address. our_names  lower case.
    """
    name = helo.lower().rstrip(".")
    if name.startswith("[") and name.endswith("]"):
        literal = name[1:-1].removeprefix("ipv6:")
        return [] if host == NO_ADDRESS or _same_address(literal, host) else ["helo-wrong-literal"]
    if _is_address(name):
        return ["helo-bare-address"]
    if name in our_names:
        return ["helo-is-ours"]
    return [] if "." in name else ["helo-unqualified"]


def is_name(helo: str) -> bool:
    """Whether DNS can be asked for it."""
    name = helo.rstrip(".")
    return "." in name and not name.startswith("[") and not _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _same_address(text: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(text) == ipaddress.ip_address(host)
    except ValueError:
        return False
