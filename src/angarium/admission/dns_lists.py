"""Lists of client addresses that are asked by DNS (RFC 5782): what to ask, and what an answer is worth. Asks nobody."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from angarium.admission.options import ListOptions

# RFC 5782 §2.1: answers lie in 127.0.0.0/8; others come from a resolver that rewrites, or a domain that was sold.
_LISTED: Final = ipaddress.IPv4Network("127.0.0.0/8")
# How several operators say "you may not ask", which lists nobody: https://www.spamhaus.org/faqs/dnsbl-usage/
_REFUSAL: Final = ipaddress.IPv4Network("127.255.255.0/24")


def query_name(host: str, zone: str) -> str:
    """The name to ask an A record of. host: a numeric address."""
    return f"{reversed_name(host)}.{zone}"


def reversed_name(host: str) -> str:
    """Octets or nibbles, last first (RFC 5782 §2.1, §2.4; RFC 1035 §3.5)."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return ".".join(reversed(host.split(".")))
    return ".".join(reversed(address.exploded.replace(":", "")))


class ListRule:
    """One [[admission.dns_list]], ready to compare."""

    __slots__ = ("_ranges", "score", "word", "zone")

    def __init__(self, options: ListOptions) -> None:
        self.zone = options.zone.lower().strip(".")
        self.score = options.score
        self.word = f"list:{self.zone}"
        self._ranges = options.ranges

    def matches(self, answers: Iterable[str]) -> bool:
        """Whether one of the A records is among the values that count."""
        for text in answers:
            try:
                address = ipaddress.IPv4Address(text)
            except ValueError:
                continue
            if address not in _LISTED:
                continue
            if self._ranges:
                if any(low <= int(address) <= high for low, high in self._ranges):
                    return True
            elif address not in _REFUSAL:
                return True
        return False
