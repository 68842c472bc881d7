"""A SOCKS version 5 client, sans-IO (RFC 1928), with user and password (RFC 1929). CONNECT only.

    dialogue = Socks5(address, port, user, password)
    send(dialogue.out()); while dialogue.wanted: dialogue.receive(read exactly that many at most); send(dialogue.out())

It asks for no octet more than the answer has: what the other end says first comes right behind it.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import Final

VERSION: Final = 5
METHOD_NONE: Final = 0
METHOD_PASSWORD: Final = 2
METHOD_NOT_ACCEPTABLE: Final = 0xFF
CONNECT: Final = 1
FIELD_OCTETS_MAX: Final = 255       # of user and password: their lengths are one octet (RFC 1929 §2)

# RFC 1928 §6
REPLIES: Final = {
    1: "general SOCKS server failure",
    2: "connection not allowed by ruleset",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


class Socks5Error(Exception):
    """The proxy says no. `is_of_proxy`: to us, whatever the destination; else to this destination."""

    def __init__(self, text: str, *, is_of_proxy: bool) -> None:
        super().__init__(text)
        self.is_of_proxy = is_of_proxy


class _State(enum.Enum):
    """METHOD -> (PASSWORD ->) REPLY -> BOUND -> DONE: what is awaited."""

    METHOD = enum.auto()
    PASSWORD = enum.auto()
    REPLY = enum.auto()             # its fixed part, and the first octet of the bound address, which may be its length
    BOUND = enum.auto()
    DONE = enum.auto()


class Socks5:
    """One connection to `address`:`port` (numeric). wanted: octets still to come of the answer that is due; 0: done."""

    def __init__(self, address: str, port: int, user: str = "", password: str = "") -> None:
        self._user = user.encode()
        self._password = password.encode()
        packed = ipaddress.ip_address(address).packed
        kind = 1 if len(packed) == 4 else 4
        self._request = bytes((VERSION, CONNECT, 0, kind)) + packed + port.to_bytes(2, "big")
        methods = bytes((METHOD_NONE, METHOD_PASSWORD)) if user else bytes((METHOD_NONE,))
        self._out = bytes((VERSION, len(methods))) + methods
        self._in = b""
        self._state = _State.METHOD
        self.wanted = 2

    @property
    def is_let_in(self) -> bool:
        """Methods and password are done with; what comes next is about the destination."""
        return self._state in (_State.REPLY, _State.BOUND, _State.DONE)

    def out(self) -> bytes:
        """What is to be sent now; empty when nothing is."""
        octets, self._out = self._out, b""
        return octets

    def receive(self, octets: bytes) -> None:
        """At most `wanted` of them. Raises Socks5Error; nothing more can be done with it then."""
        if not octets:
            raise Socks5Error("closed the connection instead of answering", is_of_proxy=True)
        if len(octets) > self.wanted:
            raise ValueError("more octets than were asked for")
        self._in += octets
        self.wanted -= len(octets)
        if self.wanted:
            return
        answer, self._in = self._in, b""
        match self._state:
            case _State.METHOD:
                self._on_method(answer)
            case _State.PASSWORD:
                self._on_password(answer)
            case _State.REPLY:
                self._on_reply(answer)
            case _State.BOUND:
                self._state = _State.DONE
            case _State.DONE:
                raise ValueError("nothing was asked")

    def _on_method(self, answer: bytes) -> None:
        version, method = answer
        if version != VERSION:
            raise Socks5Error(f"does not speak SOCKS version 5 (answers {version})", is_of_proxy=True)
        if method == METHOD_PASSWORD and self._user:
            fields = (self._user, self._password)
            self._out = b"\x01" + b"".join(bytes((len(field),)) + field for field in fields)
            self._state, self.wanted = _State.PASSWORD, 2
        elif method == METHOD_NONE:
            self._ask()
        else:
            text = "takes none of our methods" if self._user else "wants user and password"
            raise Socks5Error(f"{text} (method {method})", is_of_proxy=True)

    def _on_password(self, answer: bytes) -> None:
        if answer[1] != 0:              # RFC 1929 §2
            raise Socks5Error("refuses user and password", is_of_proxy=True)
        self._ask()

    def _ask(self) -> None:
        self._out = self._request
        self._state, self.wanted = _State.REPLY, 5

    def _on_reply(self, answer: bytes) -> None:
        version, code, _, kind, first = answer
        if version != VERSION:
            raise Socks5Error(f"answers CONNECT with version {version}", is_of_proxy=True)
        if code != 0:
            raise Socks5Error(REPLIES.get(code, f"reply {code}"), is_of_proxy=code in (7, 8))
        octets = {1: 4, 3: 1 + first, 4: 16}.get(kind)
        if octets is None:
            raise Socks5Error(f"answers with address type {kind}", is_of_proxy=True)
        self._state, self.wanted = _State.BOUND, octets + 2 - 1     # the port; the first octet was read
