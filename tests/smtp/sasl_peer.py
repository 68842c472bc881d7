"""Who answers AUTH in transcripts: one exchange at a time, credentials in memory, RFC 7677's nonce."""

from __future__ import annotations

import base64

from angarium.sasl.exchange import Exchange
from angarium.sasl.scram import imagined_keys, make_keys
from angarium.sasl.steps import (
    Accepted,
    Answer,
    Challenge,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    FetchScramKeys,
    Outcome,
    Refused,
    Step,
)
from angarium.smtp import replies, server_events
from angarium.smtp.server_session import ServerSession

# RFC 7677 §3
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
PASSWORDS = {
    "user": "pencil",
    "tim": "tanstaaftanstaaf",
    "\u00e9mile": "sesam",
    "user@testserver": "secretpassword",  # of the shared dialogues
}
TOKENS = {"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==": "user@example.com"}
BINDING = b"exported keying material of the tests"
KEYS = {name: make_keys(password, SALT, 4096) for name, password in PASSWORDS.items()}


class SaslPeer:
    """mechanisms  offered. is_bound  the channel has a binding. certificate  the name in the client's."""

    def __init__(self, mechanisms: bytes | None, *, is_bound: bool = False, certificate: str | None = None) -> None:
        self.mechanisms = mechanisms
        self.is_bound = is_bound
        self.certificate = certificate
        self.exchange: Exchange

    def offer(self, session: ServerSession) -> None:
        session.mechanisms = self.mechanisms
        session.auth_needs_tls = self.mechanisms is None

    def channel_binding(self, kind: str) -> bytes | None:
        return BINDING if self.is_bound and kind == "tls-exporter" else None

    def peer_certificate_identity(self) -> str | None:
        return self.certificate

    def answer(self, session: ServerSession, event: server_events.Auth | server_events.AuthResponse) -> None:
        step: Step
        if isinstance(event, server_events.Auth):
            offers_plus = b"SCRAM-SHA-256-PLUS" in (self.mechanisms or b"").split()
            self.exchange = Exchange(event.mechanism, self, offers_plus=offers_plus)
            step = self.exchange.start(event.initial)
        else:
            step = self.exchange.respond(event.octets)
        while not isinstance(step, Challenge | Accepted | Refused):
            step = self.exchange.answer(known(step))
        self.settle(session, step)

    def settle(self, session: ServerSession, outcome: Outcome) -> None:
        match outcome:
            case Challenge(octets):
                session.challenge(octets)
            case Accepted(identity):
                session.authenticate(identity.encode())
            case Refused():
                session.refuse(replies.AUTH_FAILED)


def known(ask: Step) -> Answer:
    match ask:
        case CheckPassword(identity, password):
            return identity if PASSWORDS.get(identity) == password else None
        case CheckToken(_, token):
            return TOKENS.get(token)
        case CheckCertificate(identity):
            return identity
        case FetchScramKeys(identity):
            return KEYS.get(identity) or imagined_keys(b"secret of the tests", identity)
    raise AssertionError(ask)
