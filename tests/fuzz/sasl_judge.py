"""Who answers AUTH in the fuzzed sessions, and judges each exchange by a slow, obvious reading of what the client said.

The invariants, for any responses:

- nobody comes in but by credentials that are good for the name it comes in by: the password, a proof made of it over
  this very exchange and this channel, a name in a certificate, a token of that name's;
- the server proves that it knows the password (SCRAM's "v=") only to those who have proved it;
- a mechanism is begun only where it is offered, and not by who is in already; an exchange ends within ROUNDS steps;
- an identity, also one that is refused and goes into the log, is 1 to 255 octets of printable text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from smtp.sasl_peer import BINDING, PASSWORDS, SALT, SERVER_NONCE, TOKENS, SaslPeer

from angarium.sasl.exchange import MECHANISMS, ROUNDS
from angarium.sasl.preparation import saslprep
from angarium.sasl.steps import Accepted, Challenge, Outcome, Refused
from angarium.smtp import server_events
from angarium.smtp.server_session import ServerSession

CERTIFICATE: Final = "user"


class JudgedSasl(SaslPeer):
    """Offers all mechanisms that the channel can have."""

    def __init__(self, *, is_bound: bool, has_certificate: bool) -> None:
        names = set(MECHANISMS)
        if not is_bound:
            names.remove("SCRAM-SHA-256-PLUS")
        if not has_certificate:
            names.remove("EXTERNAL")
        super().__init__(
            " ".join(sorted(names)).encode(),
            is_bound=is_bound,
            certificate=CERTIFICATE if has_certificate else None,
        )
        self.names = names
        self.is_in = False  # whoever the client is now has authenticated
        self.came_in_by: list[str] = []  # mechanisms, in their order
        self.said: list[bytes] = []
        self.told: list[bytes] = []

    def answer(self, session: ServerSession, event: server_events.Auth | server_events.AuthResponse) -> None:
        if isinstance(event, server_events.Auth):
            assert event.mechanism in self.names, event.mechanism
            assert not self.is_in, "AUTH of who is in"
            self.mechanism = event.mechanism
            self.said = [] if event.initial is None else [event.initial]
            self.told = []
        else:
            self.said.append(event.octets)
        super().answer(session, event)

    def settle(self, session: ServerSession, outcome: Outcome) -> None:
        self.judge(outcome)
        super().settle(session, outcome)

    def judge(self, outcome: Outcome) -> None:
        assert len(self.told) <= ROUNDS
        match outcome:
            case Challenge(octets):
                self.told.append(octets)
                if octets.startswith(b"v="):
                    assert _read(self._prover) is not None, "proved to who has proved nothing"
            case Accepted(identity):
                _check_identity(identity)
                assert identity == _read(self._who), (self.mechanism, identity, self.said)
                self.is_in = True
                self.came_in_by.append(self.mechanism)
            case Refused(identity=identity) if identity:
                _check_identity(identity)

    # Both raise ValueError for what cannot be read as credentials.

    def _who(self) -> str | None:
        match self.mechanism, self.said:
            case "PLAIN", [message]:
                authorization, name, password = message.split(b"\0")
                return _by_password(authorization, name, password)
            case "LOGIN", [name, password]:
                return _by_password(b"", name, password)
            case "EXTERNAL", [authorization]:
                is_own = authorization in (b"", CERTIFICATE.encode()) or saslprep(authorization.decode()) == CERTIFICATE
                return self.certificate if is_own else None
            case "OAUTHBEARER", [message, *_]:
                header, _, rest = message.partition(b"\1")
                flag, claimed, nothing = header.split(b",")
                claimed = claimed.removeprefix(b"a=").replace(b"=2C", b",").replace(b"=3D", b"=")
                return _by_token(claimed, rest) if flag in (b"n", b"y") and nothing == b"" else None
            case "XOAUTH2", [message, *_]:
                user, _, rest = message.partition(b"\1")
                return _by_token(user.removeprefix(b"user="), rest) if user != b"user=" else None
            case ("SCRAM-SHA-256" | "SCRAM-SHA-256-PLUS"), [_, _, b""]:
                return self._prover()
        return None

    def _prover(self) -> str | None:
        """Whose password the proof of a SCRAM exchange was made of (RFC 5802 §3, §5)."""
        first, final = self.said[:2]
        server_first = next((octets for octets in self.told if octets), b"")
        flag, authorization, name, nonce = first.split(b",")[:4]
        is_plus = self.mechanism == "SCRAM-SHA-256-PLUS"
        if is_plus:
            assert flag == b"p=tls-exporter" and self.is_bound
        else:
            assert flag == b"n" or (flag == b"y" and "SCRAM-SHA-256-PLUS" not in self.names), flag
        identity = saslprep(name[2:].replace(b"=2C", b",").replace(b"=3D", b"=").decode())
        if identity not in PASSWORDS or authorization not in (b"", b"a=" + name[2:]):
            return None
        without_proof = final.rpartition(b",p=")[0]
        bound_to = base64.b64encode(b"%s,%s,%s" % (flag, authorization, BINDING if is_plus else b""))
        expected = b"c=%s,r=%s" % (bound_to, nonce[2:] + SERVER_NONCE)
        if without_proof != expected and not without_proof.startswith(expected + b","):
            return None
        return identity if scram_final(identity, first, server_first, without_proof) == final else None


def _read(who: Callable[[], str | None]) -> str | None:
    try:
        return who()
    except ValueError:
        return None


def scram_final(identity: str, first: bytes, server_first: bytes, without_proof: bytes) -> bytes:
    """What a client that knows the password says last."""
    bare = b",".join(first.split(b",")[2:])
    client_key = _client_key(PASSWORDS[identity])
    stored_key = hashlib.sha256(client_key).digest()
    signature = hmac.digest(stored_key, b",".join((bare, server_first, without_proof)), "sha256")
    proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
    return without_proof + b",p=" + base64.b64encode(proof)


@functools.cache
def _client_key(password: str) -> bytes:
    return hmac.digest(hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, 4096), b"Client Key", "sha256")


def _by_password(authorization: bytes, name: bytes, password: bytes) -> str | None:
    identity = saslprep(name.decode())
    if authorization and saslprep(authorization.decode()) != identity:
        return None
    return identity if PASSWORDS.get(identity) == saslprep(password.decode()) else None


def _by_token(claimed: bytes, rest: bytes) -> str | None:
    pairs = [pair.partition(b"=") for pair in rest.split(b"\1")]
    tokens = [value.decode() for key, _, value in pairs if key.lower() == b"auth"]
    owners = [TOKENS.get(token[len("Bearer ") :]) for token in tokens if token.lower().startswith("bearer ")]
    if len(tokens) != 1 or len(owners) != 1:
        return None
    return owners[0] if not claimed or saslprep(claimed.decode()) == owners[0] else None


def _check_identity(identity: str) -> None:
    assert identity.isprintable() and 1 <= len(identity.encode()) <= 255, identity
