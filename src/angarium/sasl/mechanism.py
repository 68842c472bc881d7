"""What all mechanisms are made of: a generator that yields what it wants and returns who the client is.

A mechanism yields Challenges, which are answered with the client's response, and Asks, which are answered by whoever
knows the credentials; it returns Accepted or Refused, or raises Refusal from wherever it finds a fault. exchange.py
runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Final, cast

from angarium.sasl.preparation import identity_of, password_of
from angarium.sasl.steps import Accepted, Answer, Ask, Challenge, Channel, Refused, ScramKeys

Mechanism = Generator[Challenge | Ask, bytes | Answer, Accepted | Refused]
Part = Generator[Challenge | Ask, bytes | Answer, bytes]
# initial response or None, the connection, whether -PLUS is offered on it
Begin = Callable[[bytes | None, Channel, bool], Mechanism]

_SASLNAME: Final = re.compile(rb"(?:[^\0=,]|=2C|=3D)+")


class Refusal(Exception):
    """Ends an exchange; `reason` as in Refused."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def respond(challenge: bytes) -> Part:
    """The client's response to a challenge."""
    return cast(bytes, (yield Challenge(challenge)))


def first(initial: bytes | None) -> Part:
    """What a mechanism's client says first: in the AUTH command, or to an empty challenge (RFC 4422 §5, 2a)."""
    return (yield from respond(b"")) if initial is None else initial


def whose(ask: Ask) -> Generator[Challenge | Ask, bytes | Answer, str | None]:
    return cast("str | None", (yield ask))


def keys_of(ask: Ask) -> Generator[Challenge | Ask, bytes | Answer, ScramKeys]:
    return cast(ScramKeys, (yield ask))


def text_of(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise Refusal("malformed") from None


def identity_from(octets: bytes) -> str:
    try:
        return identity_of(text_of(octets))
    except ValueError:
        raise Refusal("malformed") from None


def password_from(octets: bytes) -> str:
    try:
        return password_of(text_of(octets))
    except ValueError:
        raise Refusal("malformed") from None


def plain_name(name: bytes) -> bytes:
    """saslname (RFC 5801 §4, 5802 §5.1): "=2C" and "=3D" stand for comma and "=", and no other "=" may be there."""
    if not _SASLNAME.fullmatch(name):
        raise Refusal("malformed")
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def must_be_own(authorization: bytes, identity: str) -> None:
    """Nobody acts for others here: an authorization identity is empty or the client's own (RFC 4422 §3.4.1)."""
    if authorization and identity_from(authorization) != identity:
        raise Refusal("other-authorization-identity")


def verdict(identity: str | None, claimed: str) -> Accepted | Refused:
    return Refused("bad-credentials", claimed) if identity is None else Accepted(identity)
