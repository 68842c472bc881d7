"""Credentials behind an HTTP endpoint: one POST a question, JSON both ways.

    {"mechanism": "password", "identity": "alice@example.net", "password": "...", "client": "192.0.2.1", "secure": true}
    {"mechanism": "token", "identity": "" or as claimed, "token": "...", ...}
    {"mechanism": "certificate", "identity": "alice@example.net", ...}

    200 {"ok": true, "identity": "alice@example.net"}       200 {"ok": false}

`identity` of an answer may be left out when the question had one. Everything else (another status, no JSON, no answer
in time) is "nobody can say now": 454. One connection a question, closed behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Literal
from urllib.parse import urlsplit

import h11
import msgspec

from angarium.sasl.backend import Gate, OwnConversation, Peer
from angarium.sasl.steps import CheckCertificate, CheckPassword, CheckToken, FetchScramKeys, ScramKeys, Unavailable

ANSWER_OCTETS: Final = 16 << 10


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

    def __init__(self, url: str, gate: Gate) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._is_tls else 80)
        self._authority = parts.netloc
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._gate = gate

    def begin(self, mechanism: str, peer: Peer) -> OwnConversation:
        return OwnConversation(mechanism, peer, self, self._gate)

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
            octets = await self._post(msgspec.json.encode(question))
            verdict = msgspec.json.decode(octets, type=_Verdict)
        except (OSError, h11.RemoteProtocolError, msgspec.DecodeError) as error:
            raise Unavailable(f"HTTP: {error}") from None
        return (verdict.identity or question.identity or None) if verdict.ok else None

    async def _post(self, content: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=True if self._is_tls else None)
        try:
            connection = h11.Connection(h11.CLIENT)
            headers = [
                ("Host", self._authority),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(content))),
                ("Connection", "close"),
            ]
            head = connection.send(h11.Request(method="POST", target=self._target, headers=headers))
            data = connection.send(h11.Data(data=content))
            writer.write((head or b"") + (data or b"") + (connection.send(h11.EndOfMessage()) or b""))
            return await _answer(connection, reader)
        finally:
            with contextlib.suppress(OSError):
                writer.close()


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    """The content of a 200. Raises Unavailable for another status and for too much."""
    content = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(ANSWER_OCTETS))
        elif isinstance(event, h11.Response) and event.status_code != 200:
            raise Unavailable(f"HTTP: status {event.status_code}")
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > ANSWER_OCTETS:
                raise Unavailable("HTTP: an answer of more than 16 KiB")
        elif isinstance(event, h11.EndOfMessage):
            return content
        elif isinstance(event, h11.ConnectionClosed):
            raise Unavailable("HTTP: no answer")
