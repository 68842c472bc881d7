"""One dialogue with a next hop about one mailbox, as a client: greeting, TLS, AUTH, MAIL and RCPT, one by one.

Whom to ask, and what becomes of the answer, is call_ahead.py's.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Final

import msgspec

from angarium.model.errors import RemoteProtocolError
from angarium.sasl.client import ClientExchange, Credentials, Derive, Fault, choose
from angarium.smtp.limits import COMMAND_LINE_OCTETS
from angarium.smtp.machines import ReplyMachine
from angarium.tls.client import ClientTls
from angarium.tls.terms import TlsTerms

_REPLY_OCTETS: Final = 16 << 10  # of one reply: far more than any honest one
_READ_OCTETS: Final = 16 << 10


class CannotAsk(Exception):
    """Neither yes nor no; the text says why."""


class TlsTrouble(CannotAsk):
    """TLS with the host failed. Without TLS it may go."""


class Question(msgspec.Struct, frozen=True):
    """What is said. hello: the verb. login: None: no AUTH."""

    hello: bytes
    hostname: bytes
    reverse_path: bytes
    mailbox: bytes
    login: Credentials | None = None


class Dialogue:
    """Over an open connection, which stays the caller's to close."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = ReplyMachine()
        self._rest = b""
        self._tls: ClientTls | None = None
        self._offers: list[bytes] = []  # lines of the reply to EHLO, in capitals

    async def ask(self, question: Question, terms: TlsTerms, host: str, *, begins_with_tls: bool) -> bool:
        """Whether the mailbox is known. Raises CannotAsk, TlsTrouble, OSError, EOFError."""
        if begins_with_tls:
            await self._begin_tls(terms, host)
        self._expect(await self._reply(), "the greeting")
        await self._greet(question)
        if terms.context is not None and self._tls is None:
            await self._upgrade(question, terms, host)
        if terms.needs_tls and self._tls is None:
            raise CannotAsk(f"no TLS, and the policy is {terms.policy}")
        if question.login is not None:
            await self._log_in(question.login, terms)
        needs_utf8 = not question.mailbox.isascii()
        if needs_utf8 and b"SMTPUTF8" not in self._offers:
            raise CannotAsk("the next hop does not know SMTPUTF8")
        extension = b" SMTPUTF8" if needs_utf8 else b""
        self._expect(await self._say(b"MAIL FROM:<%s>%s" % (question.reverse_path, extension)), "MAIL")
        code, text = await self._say(b"RCPT TO:<%s>" % question.mailbox)
        self._send(b"QUIT\r\n")
        if 200 <= code < 300:
            return True
        if code < 500:
            raise CannotAsk(f"RCPT: {code} {_shown(text)}")
        return False

    async def _greet(self, question: Question) -> None:
        code, text = await self._say(question.hello + b" " + question.hostname)
        self._offers = text.upper().splitlines()
        if code >= 500 and question.hello == b"EHLO":
            code, text = await self._say(b"HELO " + question.hostname)
            self._offers = []
        self._expect((code, text), "the greeting by name")

    async def _upgrade(self, question: Question, terms: TlsTerms, host: str) -> None:
        if b"STARTTLS" not in self._offers:
            return
        code, text = await self._say(b"STARTTLS")
        if code != 220:
            if terms.needs_tls:
                raise CannotAsk(f"STARTTLS: {code} {_shown(text)}")
            return
        if self._rest:  # RFC 3207 §4.2: somebody on the way has put it there
            raise CannotAsk("octets in clear behind the reply to STARTTLS")
        await self._begin_tls(terms, host)
        await self._greet(question)

    async def _begin_tls(self, terms: TlsTerms, host: str) -> None:
        if terms.context is None:
            raise CannotAsk("no TLS, and the next hop begins with it")
        try:
            tls = ClientTls(terms.context, host, f"call-ahead {host}")
            self._writer.write(tls.seal_octets(b""))
            while not tls.is_established:
                data = await self._reader.read(_READ_OCTETS)
                if not data:
                    raise TlsTrouble("TLS: connection closed in the handshake")
                self._rest += tls.open_octets(data)
                self._writer.write(tls.seal_octets(b""))
        except (RemoteProtocolError, ValueError, OSError) as error:
            raise TlsTrouble(f"TLS: {error}") from None
        if terms.needs_proof and not tls.is_verified:
            raise TlsTrouble(f"TLS: the certificate is not verified, and the policy is {terms.policy}")
        self._tls = tls

    async def _log_in(self, login: Credentials, terms: TlsTerms) -> None:
        options = login.options
        if self._tls is None and not options.allow_clear:
            raise CannotAsk("AUTH is for TLS only, and there is none")
        # A policy of a hook or a service may have less than the configuration was checked for (config/schema.py).
        is_lax = options.allow_unverified or options.allow_clear
        if self._tls is not None and not self._tls.is_verified and not is_lax:
            raise CannotAsk(f"no password for a certificate that is not verified; the policy is {terms.policy}")
        words = [line.decode("ascii", "replace").split() for line in self._offers if line.startswith(b"AUTH ")]
        offered = frozenset(word for line in words for word in line[1:])
        mechanism = choose(login, offered, self._tls)
        if mechanism is None:
            raise CannotAsk(f"the next hop offers no AUTH by {' or '.join(options.usable)}")
        exchange = ClientExchange(mechanism, login, offered, self._tls)
        try:
            await self._exchange(exchange)
        except Fault as fault:
            raise CannotAsk(f"AUTH {mechanism}: {fault}") from None

    async def _exchange(self, exchange: ClientExchange) -> None:
        """RFC 4954 §4. Raises Fault, CannotAsk."""
        initial = exchange.start()
        command = b"AUTH " + exchange.mechanism.encode()
        encoded = b"" if initial is None else base64.b64encode(initial) or b"="
        is_late = len(command) + len(encoded) + 3 > COMMAND_LINE_OCTETS
        reply = await self._say(b"%b %b" % (command, encoded) if encoded and not is_late else command)
        if encoded and is_late and reply[0] == 334:
            reply = await self._say(encoded)
        while reply[0] == 334:
            try:
                challenge = base64.b64decode(reply[1].strip(b" "), validate=True)
            except ValueError:
                challenge = None
            try:
                response = exchange.respond(challenge)
                if isinstance(response, Derive):
                    keys = await asyncio.get_running_loop().run_in_executor(None, response.compute)
                    response = exchange.derived(keys)
            except Fault:
                self._send(b"*\r\n")
                raise
            reply = await self._say(base64.b64encode(response))
        self._expect(reply, f"AUTH {exchange.mechanism}")
        exchange.finish()

    def _send(self, octets: bytes) -> None:
        self._writer.write(octets if self._tls is None else self._tls.seal_octets(octets))

    async def _say(self, line: bytes) -> tuple[int, bytes]:
        self._send(line + b"\r\n")
        return await self._reply()

    async def _reply(self) -> tuple[int, bytes]:
        """Raises CannotAsk, OSError, EOFError."""
        self._parser.reset()
        taken = 0
        while True:
            data, self._rest = self._rest or await self._read(), b""
            taken += len(data)
            result, consumed = self._parser.push(data)
            if result == "complete":
                self._rest = data[consumed:]
                return self._parser.code, self._parser.text
            if result != "partial" or taken > _REPLY_OCTETS:
                raise CannotAsk("what the next hop says is no reply")

    async def _read(self) -> bytes:
        while True:
            data = await self._reader.read(_READ_OCTETS)
            if not data:
                raise EOFError("closed")
            if self._tls is None:
                return data
            try:
                plain = self._tls.open_octets(data)
                self._writer.write(self._tls.seal_octets(b""))
            except RemoteProtocolError as error:
                raise CannotAsk(f"TLS: {error}") from None
            if plain:
                return plain

    @staticmethod
    def _expect(reply: tuple[int, bytes], what: str) -> None:
        code, text = reply
        if not 200 <= code < 300:
            raise CannotAsk(f"{what}: {code} {_shown(text)}")


def _shown(text: bytes) -> str:
    return text[:100].decode("utf-8", "replace")
