"""What a SASL exchange may say next, as values (RFC 4422 §3): to the client, or to whoever knows the credentials."""

from __future__ import annotations

from typing import Protocol

import msgspec

from angarium.model.errors import AngariumError


class Challenge(msgspec.Struct, frozen=True):
    """For the client, plain octets; its response is wanted."""

    octets: bytes


class Accepted(msgspec.Struct, frozen=True):
    """The end: this is who the client is."""

    identity: str


class Refused(msgspec.Struct, frozen=True):
    """The end: 535. `reason` is a word for the log and never for the client; `identity` as far as it is known."""

    reason: str
    identity: str = ""


class CheckPassword(msgspec.Struct, frozen=True):
    """Asks: is it the password of `identity`? Both are prepared (preparation.py). Answer: an identity, or None."""

    identity: str
    password: str


class CheckToken(msgspec.Struct, frozen=True):
    """Asks: whose is this bearer token (RFC 6750)? `identity` is whose the client says it is, or "".

    Answer: an identity, or None.
    """

    identity: str
    token: str


class CheckCertificate(msgspec.Struct, frozen=True):
    """Asks: may the holder of a verified client certificate of this name come in? Answer: an identity, or None."""

    identity: str


class FetchScramKeys(msgspec.Struct, frozen=True):
    """Asks for what is kept of `identity`'s password. Answer: ScramKeys, for unknown identities too."""

    identity: str


class ScramKeys(msgspec.Struct, frozen=True):
    """What a server keeps for SCRAM-SHA-256 (RFC 5802 §3): enough to verify with, not to log in with."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


Ask = CheckPassword | CheckToken | CheckCertificate | FetchScramKeys
Answer = str | ScramKeys | None
Outcome = Challenge | Accepted | Refused
Step = Outcome | Ask


class Channel(Protocol):
    """What a mechanism may know of the connection below."""

    def channel_binding(self, kind: str) -> bytes | None:
        """The data of `kind`: "tls-exporter" (RFC 9266), "tls-server-end-point" (RFC 5929 §4); None: there are none."""

    def peer_certificate_identity(self) -> str | None:
        """The name in the client's certificate when it was verified."""


class Unavailable(AngariumError):
    """Nobody can say now whether the credentials are good: 454, never 535."""
