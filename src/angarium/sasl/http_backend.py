"""Credentials behind an HTTP endpoint: one POST a question, JSON both ways.

    {"mechanism": "password", "identity": "alice@example.net", "password": "...", "client": "192.0.2.1", "secure": true}
    {"mechanism": "token", "identity": "" or as claimed, "token": "...", ...}
    {"mechanism": "certificate", "identity": "alice@example.net", ...}

    200 {"ok": true, "identity": "alice@example.net"}       200 {"ok": false}

`identity` of an answer may be left out when the question had one. Everything else (another status, no JSON, no answer
in time) is "nobody can say now": 454. One connection a question, closed behind it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from angarium.sasl.backend import Gate, OwnConversation, Peer
from angarium.sasl.http_post import HttpPlace, HttpTrouble, post
from angarium.sasl.steps import CheckCertificate, CheckPassword, CheckToken, FetchScramKeys, ScramKeys, Unavailable

_ANSWER_OCTETS: Final = 16 << 10


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    mechanism: Literal["password", "token", "certificate"]
    client: str
    secure: bool
    identity: str
    password: str = ""
    token: str = ""


class _Verdict(msgspec.Struct, frozen=True):
    ok: bool
    identity: str | None = None


class HttpBackend:
    """mechanisms: PLAIN, LOGIN, OAUTHBEARER, XOAUTH2, EXTERNAL: a password or a token leaves this machine.

    url   http:// or https:// (verified against the system's authorities).
    Deadlines are the caller's: a question that is cancelled closes its connection.
    """

    mechanisms = frozenset(("PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2", "EXTERNAL"))

    def __init__(self, url: str) -> None:
        self._place = HttpPlace(url)

    def begin(self, mechanism: str, peer: Peer, gate: Gate) -> OwnConversation:
        return OwnConversation(mechanism, peer, self, gate)

    def close(self) -> None:
        pass

    async def whose_password(self, ask: CheckPassword, peer: Peer) -> str | None:
        return await self._whose(
            Question("password", peer.address, peer.is_secure, ask.identity, password=ask.password)
        )

    async def whose_token(self, ask: CheckToken, peer: Peer) -> str | None:
        return await self._whose(Question("token", peer.address, peer.is_secure, ask.identity, token=ask.token))

    async def whose_certificate(self, ask: CheckCertificate, peer: Peer) -> str | None:
        return await self._whose(Question("certificate", peer.address, peer.is_secure, ask.identity))

    async def scram_keys(self, ask: FetchScramKeys) -> ScramKeys:
        raise Unavailable("SCRAM keys are not asked for over HTTP")

    async def _whose(self, question: Question) -> str | None:
        try:
            content = msgspec.json.encode(question)
            status, octets = await post(self._place, content, "application/json", most=_ANSWER_OCTETS)
            if status != 200:
                raise Unavailable(f"HTTP: status {status}")
            verdict = msgspec.json.decode(octets, type=_Verdict)
        except (OSError, HttpTrouble, msgspec.DecodeError) as error:
            raise Unavailable(f"HTTP: {error}") from None
        return (verdict.identity or question.identity or None) if verdict.ok else None
