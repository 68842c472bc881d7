"""Asking the next hop whether it knows a mailbox (RFC 5321 §3.3: RCPT and no DATA), so that unknown ones are refused
here.

Answers are kept, yes for long and no for short; whoever asks for a mailbox that is being asked for waits for the same
answer; of dialogues there are so many at once and no more, and whoever would wait too long for his turn is told
"later". TLS and AUTH are as for mail to the same next hop, unless another login is configured for questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from angarium.inbound.call_dialogue import CannotAsk, Dialogue, Question, TlsTrouble
from angarium.metrics.counters import counter
from angarium.model.errors import TlsMaterialError
from angarium.model.plan import Plan, RoutingTrouble, Site
from angarium.recipients.options import CallAheadOptions
from angarium.resolver.cache import ExpiringCache
from angarium.routing.next_hop import parse_next_hop
from angarium.sasl.client import Credentials
from angarium.sasl.logins import Logins
from angarium.sasl.secret_file import LoginTrouble
from angarium.tls.terms import TlsTerms

asked_total = counter("angarium_call_ahead_total", "Dialogues with next hops about one mailbox.")
troubles_total = counter("angarium_call_ahead_troubles_total", "Those that gave neither yes nor no.")

_HOSTS_TRIED: Final = 3

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Answer(msgspec.Struct, frozen=True):
    is_known: bool
    expires_mono_s: float


class CallAhead:
    """Lives on the loop. Set before the first question: plan, where mail for a domain goes (Router.plan); terms, what
    a site needs of TLS (outbound/side_tls.py), which may raise TlsMaterialError."""

    plan: Callable[[bytes], Awaitable[Plan]]
    terms: Callable[[Site], Awaitable[TlsTerms]]

    def __init__(self, hostname: str, options: CallAheadOptions) -> None:
        self._hostname = hostname.encode()
        self.options = options
        self._answers: ExpiringCache[bytes, Answer] = ExpiringCache(options.cache_entries, time.monotonic)
        self._under_way: dict[bytes, asyncio.Task[bool]] = {}
        self._turns = asyncio.Semaphore(options.at_once)
        self._logins = Logins(options.auth)

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
        self._logins.close()

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
        is_lmtp = site.protocol in ("lmtp", "lmtp+unix")
        reverse_path = self.options.reverse_path.encode()
        try:
            login = await self._login(site)
            terms = await self.terms(site)
        except (TlsMaterialError, LoginTrouble) as error:
            raise CannotAsk(str(error)) from None
        question = Question(
            b"LHLO" if is_lmtp else b"EHLO", self._hostname, reverse_path, mailbox, login or terms.login
        )
        if site.protocol == "lmtp+unix":
            return await self._ask_host(lambda: asyncio.open_unix_connection(site.path), question, terms, "", site)
        told = question.login
        hosts = [each for each in site.hosts if told is None or told.options.may_be_told(site, each)]
        places = [(host.name, address, host.port) for host in hosts for address in host.addresses]
        trouble = CannotAsk("the next hop has no address")
        if site.hosts and not hosts:
            trouble = CannotAsk("DNS does not vouch for who would get the login: name it in its hosts")
        for name, address, port in places[:_HOSTS_TRIED]:
            dial = partial(asyncio.open_connection, address, port)
            try:
                return await self._ask_host(dial, question, terms, name, site)
            except TlsTrouble as error:
                trouble = error
                if terms.needs_tls or site.begins_with_tls:
                    continue
            except CannotAsk as error:
                trouble = error
                continue
            # As mail does: where the policy lets it go in clear, TLS that fails is no reason not to.
            try:
                return await self._ask_host(dial, question, TlsTerms(terms.policy), name, site)
            except CannotAsk as error:
                trouble = error
        raise trouble

    async def _ask_host(self, dial: Dial, question: Question, terms: TlsTerms, name: str, site: Site) -> bool:
        try:
            reader, writer = await dial()
        except OSError as error:
            raise CannotAsk(f"no connection: {error.strerror or error}") from None
        with _closing(writer):
            try:
                return await Dialogue(reader, writer).ask(question, terms, name, begins_with_tls=site.begins_with_tls)
            except (OSError, EOFError) as error:
                raise CannotAsk(f"connection lost: {error}") from None

    async def _login(self, site: Site) -> Credentials | None:
        """Who we are to this next hop for questions alone; None: who we are for mail. Raises LoginTrouble."""
        for text in self.options.auth:
            if parse_next_hop(text).text == site.name:
                return await self._logins.credentials(text)
        return None


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
