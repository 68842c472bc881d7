"""Credentials known to Dovecot: its authentication protocol 1.x over a unix socket, as a client (Dovecot's
doc/auth-protocol). Dovecot judges the mechanisms itself; responses go through as the client sent them.

    <- VERSION 1 2   MECH PLAIN plaintext ...   SPID   CUID   COOKIE   DONE          fields are separated by TAB
    -> VERSION 1 1   CPID pid
    -> AUTH id PLAIN service=smtp rip=192.0.2.1 secured resp=base64       CONT id base64
    <- CONT id base64      OK id user=name ...      FAIL id user=name temp ...

One connection a worker, made when it is first needed and made again when it was lost. What was asked on a lost one is
"nobody can say now".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import re
from typing import Final

from angarium.sasl.backend import Gate, Peer
from angarium.sasl.preparation import identity_of
from angarium.sasl.steps import Accepted, Challenge, Outcome, Refused, Unavailable

# Mechanisms that may go through: those whose every message is base64 on both sides and whose end is 235 or 535.
KNOWN: Final = ("SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2")
LINE_OCTETS: Final = 32 << 10
SENT_OCTETS: Final = 8192  # of a line; behind a longer one Dovecot hangs up, on everybody who is being judged
CONNECT_S: Final = 5.0
# Their challenges may be a no already (RFC 7628 §3.2.2).
_TELLING: Final = frozenset(("OAUTHBEARER", "XOAUTH2"))
_FIELD: Final = re.compile(r"[^\x00\t\n\r]*")


class DovecotBackend:
    """socket_path  Dovecot's auth-client socket. Who it is, is known when Dovecot has judged: a gate is asked about the
    address before, and about the identity before the verdict is told."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    @property
    def mechanisms(self) -> frozenset[str]:
        """What it said it can; before it has said anything, what nearly every Dovecot can."""
        return self._link.mechanisms if self._link is not None else frozenset(("PLAIN", "LOGIN"))

    def begin(self, mechanism: str, peer: Peer, gate: Gate) -> _Conversation:
        return _Conversation(self, gate, mechanism, peer)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    async def greet(self) -> None:
        """Connects, so that `mechanisms` is known. Raises Unavailable."""
        await self.link()

    async def link(self) -> _Link:
        """A connection that is shaken hands with. Raises Unavailable."""
        async with self._connecting:
            if self._link is None or self._link.is_lost:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        self._link = await _Link.open(self._path)
                except (OSError, TimeoutError) as error:
                    raise Unavailable(f"{self._path}: {getattr(error, 'strerror', None) or 'no answer'}") from None
            return self._link


class _Link:
    """One connection: requests by their number, each with a future for its next answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.mechanisms: frozenset[str] = frozenset()
        self.is_lost = False
        self._reader = reader
        self._writer = writer
        self._next = 0
        self._waiting: dict[str, asyncio.Future[list[str]]] = {}
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: str) -> _Link:
        self = cls(*await asyncio.open_unix_connection(path, limit=LINE_OCTETS))
        try:
            self._writer.write(f"VERSION\t1\t1\nCPID\t{os.getpid()}\n".encode())
            found = []
            while (fields := await self._fields())[0] != "DONE":
                if fields[0] == "VERSION" and fields[1:2] != ["1"]:
                    raise Unavailable("Dovecot speaks another version of its protocol")
                if fields[0] == "MECH" and fields[1] in KNOWN:
                    found.append(fields[1])
            self.mechanisms = frozenset(found)
        except BaseException:
            self._writer.close()
            raise
        self._listening = asyncio.get_running_loop().create_task(self._listen())
        return self

    def begin(self) -> str:
        # Below 2^31, and not one that is in use: 32 bits are all Dovecot reads.
        self._next = self._next % 0x7FFFFFFF + 1
        return str(self._next)

    async def ask(self, number: str, *fields: str) -> list[str]:
        """Sends a line and returns the answer to its number. Raises Unavailable."""
        if self.is_lost:
            raise Unavailable("Dovecot: the connection was lost")
        if not all(map(_FIELD.fullmatch, fields)):
            raise Unavailable("Dovecot: a field that cannot be sent")
        line = "\t".join(fields).encode() + b"\n"
        if len(line) > SENT_OCTETS:
            raise Unavailable("Dovecot: a response that is longer than it takes")
        answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(line)
            return await answer
        finally:
            self._waiting.pop(number, None)

    def cancel(self, number: str) -> None:
        """The client is gone: Dovecot forgets the request."""
        if not self.is_lost:
            self._writer.write(f"CANCEL\t{number}\n".encode())

    def close(self) -> None:
        self.is_lost = True
        if self._listening is not None:
            self._listening.cancel()
        with contextlib.suppress(OSError):
            self._writer.close()

    async def _listen(self) -> None:
        try:
            while True:
                fields = await self._fields()
                if len(fields) < 2 or fields[0] not in ("OK", "CONT", "FAIL"):
                    continue
                answer = self._waiting.get(fields[1])
                if answer is not None and not answer.done():
                    answer.set_result(fields)
        except (Unavailable, OSError):
            pass
        finally:
            self.is_lost = True
            self._writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Unavailable("Dovecot: the connection was lost"))

    async def _fields(self) -> list[str]:
        try:
            line = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Unavailable(f"Dovecot: {error}") from None
        return line[:-1].decode("utf-8", "replace").split("\t")


class _Conversation:
    def __init__(self, backend: DovecotBackend, gate: Gate, mechanism: str, peer: Peer) -> None:
        self._backend = backend
        self._gate = gate
        self._mechanism = mechanism
        self._peer = peer
        self._link: _Link | None = None
        self._number = ""

    async def respond(self, response: bytes | None) -> Outcome:
        self._gate.admit("")
        encoded = None if response is None else base64.b64encode(response).decode()
        if self._link is None:
            self._link = await self._backend.link()
            self._number = self._link.begin()
            fields = ["AUTH", self._number, self._mechanism, "service=smtp"]
            if self._peer.address:
                fields.append(f"rip={self._peer.address}")
            if self._peer.is_secure:
                fields.append("secured")
            if encoded is not None:
                fields.append(f"resp={encoded}")  # must be the last
        else:
            fields = ["CONT", self._number, encoded or ""]
        outcome = self._outcome(await self._link.ask(self._number, *fields))
        if isinstance(outcome, Challenge) and self._mechanism not in _TELLING:
            self._gate.give_back()
        return outcome

    def drop(self) -> None:
        if self._link is not None and self._number:
            self._link.cancel(self._number)

    def _outcome(self, fields: list[str]) -> Outcome:
        if fields[0] == "CONT":
            try:
                return Challenge(binascii.a2b_base64(fields[2] if len(fields) > 2 else "", strict_mode=True))
            except binascii.Error:
                raise Unavailable("Dovecot: a challenge that is not base64") from None
        self._number = ""
        words = dict(field.partition("=")[::2] for field in fields[2:])
        try:
            identity = identity_of(words["user"]) if "user" in words else ""
        except ValueError:
            identity = ""
        if identity:
            self._gate.admit(identity)
        if fields[0] == "FAIL":
            if "temp" in words:
                raise Unavailable("Dovecot: temporary failure")
            return Refused("bad-credentials", identity)
        if not identity:
            raise Unavailable("Dovecot: no sound name in its answer")
        return Accepted(identity)
