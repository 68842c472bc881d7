"""Who we are, as the DNS sees us: to tell a mail exchanger that is this very machine (RFC 5321 §5.1)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from angarium.routing.next_hop import SMTP_PORT


class Ourselves:
    """Our names, and the addresses at which mail exchangers would reach us.

    names      host names that are ours: node.hostname and, if they are different, EHLO names.
    listening  (address, port) of every TCP listener; "0.0.0.0" and "::" stand for all of the machine's.
    port       at which mail exchangers are dialled: a listener elsewhere cannot close a loop.
    """

    def __init__(
        self, names: Iterable[str], listening: Iterable[tuple[str, int]] = (), port: int = SMTP_PORT
    ) -> None:
        self._names = frozenset(name.lower().removesuffix(".") for name in names)
        self._addresses: set[str] = set()
        self._any_families: set[int] = set()
        for text, listening_port in listening:
            address = ipaddress.ip_address(text)
            if listening_port != port:
                continue
            if address.is_unspecified:
                self._any_families.add(address.version)     # listeners on "::" take IPv6 only
            else:
                self._addresses.add(str(address))

    def has_name(self, host: str) -> bool:
        """host in lower case, without the final dot."""
        return host in self._names

    def has_address(self, address: str) -> bool:
        """Whether a connection to this address would be one to ourselves."""
        if address in self._addresses:
            return True
        version = 6 if ":" in address else 4
        return version in self._any_families and _is_local(address)


def _is_local(address: str) -> bool:
    """Asks the kernel, who alone knows the addresses as they are now: only a local one can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True
