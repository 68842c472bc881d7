"""Whoever knows the credentials, as the receiving side sees them, and the usual way to be one: judge by our mechanisms.

Dovecot speaks the mechanisms itself (dovecot.py); files and HTTP only answer what ours ask (Knowledge).
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from angarium.sasl.exchange import Exchange
from angarium.sasl.preparation import identity_of
from angarium.sasl.steps import (
    Accepted,
    Answer,
    Ask,
    Challenge,
    Channel,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    FetchScramKeys,
    Outcome,
    Refused,
    ScramKeys,
    Unavailable,
)


class Peer(msgspec.Struct, frozen=True):
    """The connection that an exchange belongs to. address: "192.0.2.1", "2001:db8::1", or "" for a unix socket."""

    channel: Channel
    address: str
    is_secure: bool
    offers_plus: bool


class Conversation(Protocol):
    """One exchange. All errors but Unavailable are ours."""

    async def respond(self, response: bytes | None) -> Outcome:
        """The client's next words, first its initial response or None. Raises Unavailable."""

    def drop(self) -> None:
        """The client cancelled it or is gone; nothing more will be asked."""


class Backend(Protocol):
    """mechanisms   what it can judge, as far as the channel allows."""

    @property
    def mechanisms(self) -> frozenset[str]: ...

    def begin(self, mechanism: str, peer: Peer, gate: Gate) -> Conversation: ...

    def close(self) -> None: ...


class Knowledge(Protocol):
    """What our own mechanisms ask for. All raise Unavailable."""

    async def whose_password(self, ask: CheckPassword, peer: Peer) -> str | None: ...

    async def whose_token(self, ask: CheckToken, peer: Peer) -> str | None: ...

    async def whose_certificate(self, ask: CheckCertificate, peer: Peer) -> str | None: ...

    async def scram_keys(self, ask: FetchScramKeys) -> ScramKeys: ...


class Gate(Protocol):
    """Whether this exchange may be tried at all, and what a failure of it costs (inbound/stake.py)."""

    def admit(self, identity: str) -> None:
        """Before anything is judged, and before a verdict is told: takes what a failure costs, once; identity "": not
        known yet. Raises Unavailable when too many have failed."""

    def give_back(self) -> None:
        """Nothing is being judged any more, and the client was told nothing: until the next admit()."""


class OwnConversation:
    """An exchange judged by our mechanisms."""

    def __init__(self, mechanism: str, peer: Peer, knowledge: Knowledge, gate: Gate) -> None:
        self._exchange = Exchange(mechanism, peer.channel, offers_plus=peer.offers_plus)
        self._peer = peer
        self._knowledge = knowledge
        self._gate = gate
        self._is_begun = False
        self._asked: Ask | None = None
        self._was_no = False

    async def respond(self, response: bytes | None) -> Outcome:
        if self._asked is not None:
            self._gate.admit(self._asked.identity)      # the mechanism itself may judge this response: SCRAM's proof
        if self._is_begun:
            step = self._exchange.respond(response or b"")
        else:
            self._is_begun = True
            step = self._exchange.start(response)
        while not isinstance(step, Challenge | Accepted | Refused):
            self._asked = step
            self._gate.admit(step.identity)
            answer = await self._answer(step)
            self._was_no = answer is None
            step = self._exchange.answer(answer)
        # A challenge behind a no tells it (RFC 7628 §3.2.2): whoever then cancels has failed all the same.
        if isinstance(step, Challenge) and not self._was_no:
            self._gate.give_back()
        return step

    def drop(self) -> None:
        pass

    async def _answer(self, ask: Ask) -> Answer:
        match ask:
            case CheckPassword():
                return _sound(await self._knowledge.whose_password(ask, self._peer))
            case CheckToken():
                return _sound(await self._knowledge.whose_token(ask, self._peer))
            case CheckCertificate():
                return _sound(await self._knowledge.whose_certificate(ask, self._peer))
            case FetchScramKeys():
                return await self._knowledge.scram_keys(ask)


def _sound(identity: str | None) -> str | None:
    """Logs and headers get what a backend says: it is held to what clients are."""
    try:
        return None if identity is None else identity_of(identity)
    except ValueError:
        raise Unavailable("the backend's identity is malformed") from None
