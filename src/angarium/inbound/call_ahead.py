"""Asking the next hop whether it knows a mailbox (RFC 5321 §3.3: RCPT and no DATA), so that unknown ones are refused
here.

Answers are kept, yes for long and no for short; whoever asks for a mailbox that is being asked for waits for the same
answer; of dialogues there are so many at once and no more, and whoever would wait too long for his turn is told
"later". No TLS towards the next hop, no AUTH: it is one of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from angarium.metrics.counters import counter
from angarium.model.plan import Plan, RoutingTrouble, Site
from angarium.recipients.options import CallAheadOptions
from angarium.resolver.cache import ExpiringCache
from angarium.smtp.machines import ReplyMachine

asked_total = counter("angarium_call_ahead_total", "Dialogues with next hops about one mailbox.")
troubles_total = counter("angarium_call_ahead_troubles_total", "Those that gave neither yes nor no.")

_REPLY_OCTETS: Final = 16 << 10         # of one reply: far more than any honest one
_HOSTS_TRIED: Final = 3


class CannotAsk(Exception):
    """Neither yes nor no; the text says why."""


class Answer(msgspec.Struct, frozen=True):
    is_known: bool
    expires_mono_s: float


class CallAhead:
    """Lives on the loop. plan: where mail for a domain goes (Router.plan); set before the first question."""

    plan: Callable[[bytes], Awaitable[Plan]]

    def __init__(self, hostname: str, options: CallAheadOptions) -> None:
        self._hostname = hostname.encode()
        self.options = options
        self._answers: ExpiringCache[bytes, Answer] = ExpiringCache(options.cache_entries, time.monotonic)
        self._under_way: dict[bytes, asyncio.Task[bool]] = {}
        self._turns = asyncio.Semaphore(options.at_once)

    def known(self, key: bytes) -> bool | None:
        """What is remembered; None: nothing."""
        answer = self._answers.get(key)
        return None if answer is None else answer.is_known

    async def ask(self, mailbox: bytes, key: bytes) -> bool:
        """Whether the next hop takes mail for it. key: one for all spellings of the mailbox. Raises CannotAsk."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(mailbox, key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
            task.add_done_callback(_look_at)
        # A client that leaves must not take the answer from others who wait for it.
        return await asyncio.shield(task)

    def close(self) -> None:
        for task in self._under_way.values():
            task.cancel()

    async def _ask(self, mailbox: bytes, key: bytes) -> bool:
        try:
            async with asyncio.timeout(self.options.timeout), self._turns:
                asked_total.add(1)
                plan = await self.plan(mailbox.rpartition(b"@")[2].lower())
                is_known = await self._ask_site(plan.site, mailbox)
        except TimeoutError:
            troubles_total.add(1)
            raise CannotAsk("no answer in time") from None
        except RoutingTrouble as error:
            troubles_total.add(1)
            raise CannotAsk(error.text) from None
        except CannotAsk:
            troubles_total.add(1)
            raise
        time_s = self.options.known_time if is_known else self.options.unknown_time
        self._answers.put(key, Answer(is_known, time.monotonic() + time_s))
        return is_known

    async def _ask_site(self, site: Site, mailbox: bytes) -> bool:
        """Hosts one after the other, until one answers."""
        if site.protocol == "maildir":
            return True                 # made when mail comes
        if site.protocol == "lmtp+unix":
            return await self._ask_host(lambda: asyncio.open_unix_connection(site.path), b"LHLO", mailbox)
        hello = b"LHLO" if site.protocol == "lmtp" else b"EHLO"
        places = [(address, host.port) for host in site.hosts for address in host.addresses]
        trouble = CannotAsk("the next hop has no address")
        for address, port in places[:_HOSTS_TRIED]:
            try:
                return await self._ask_host(partial(asyncio.open_connection, address, port), hello, mailbox)
            except CannotAsk as error:
                trouble = error
        raise trouble

    async def _ask_host(
        self,
        dial: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]],
        hello: bytes,
        mailbox: bytes,
    ) -> bool:
        try:
            reader, writer = await dial()
        except OSError as error:
            raise CannotAsk(f"no connection: {error.strerror or error}") from None
        with _closing(writer):
            dialogue = _Dialogue(reader, writer)
            try:
                dialogue.expect(await dialogue.reply(), "the greeting")
                code, text = await dialogue.say(hello + b" " + self._hostname)
                if code >= 500 and hello == b"EHLO":
                    code, text = await dialogue.say(b"HELO " + self._hostname)
                dialogue.expect((code, text), "the greeting by name")
                has_utf8 = b"SMTPUTF8" in text.upper().split()
                if not mailbox.isascii() and not has_utf8:
                    raise CannotAsk("the next hop does not know SMTPUTF8")
                extension = b"" if mailbox.isascii() else b" SMTPUTF8"
                reverse_path = self.options.reverse_path.encode()
                dialogue.expect(await dialogue.say(b"MAIL FROM:<%s>%s" % (reverse_path, extension)), "MAIL")
                code, text = await dialogue.say(b"RCPT TO:<%s>" % mailbox)
                writer.write(b"QUIT\r\n")
            except (OSError, EOFError) as error:
                raise CannotAsk(f"connection lost: {error}") from None
        if 200 <= code < 300:
            return True
        if code < 500:
            raise CannotAsk(f"RCPT: {code} {text[:100].decode('utf-8', 'replace')}")
        return False


class _Dialogue:
    """Commands and replies, one at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = ReplyMachine()
        self._rest = b""

    async def say(self, line: bytes) -> tuple[int, bytes]:
        self._writer.write(line + b"\r\n")
        return await self.reply()

    async def reply(self) -> tuple[int, bytes]:
        """Raises CannotAsk, OSError, EOFError."""
        self._parser.reset()
        taken = 0
        while True:
            data = self._rest or await self._reader.read(4096)
            self._rest = b""
            if not data:
                raise EOFError("closed")
            taken += len(data)
            result, consumed = self._parser.push(data)
            if result == "complete":
                self._rest = data[consumed:]
                return self._parser.code, self._parser.text
            if result != "partial" or taken > _REPLY_OCTETS:
                raise CannotAsk("what the next hop says is no reply")

    @staticmethod
    def expect(reply: tuple[int, bytes], what: str) -> None:
        code, text = reply
        if not 200 <= code < 300:
            raise CannotAsk(f"{what}: {code} {text[:100].decode('utf-8', 'replace')}")


@contextlib.contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()


def _look_at(task: asyncio.Task[bool]) -> None:
    """So that a failure is not reported as nobody's when all who waited are gone."""
    if not task.cancelled():
        task.exception()
