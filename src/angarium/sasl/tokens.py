"""Tokens of logins that a command or an endpoint gives: fetched once for all who wait, kept for their time, renewed
ahead.

    known, its time is not up        it is taken; when most of its time is over, another is fetched behind the mail
    known, refused by a host         it is forgotten, and another is fetched, once for each refusal
    not known                        fetched; whoever wants it waits; if that fails nobody gets it for FAILURE_S

A host that refuses is told from a token that is worn out by asking once: the same token again, or a new one that is
refused as well, is the operator's to put right.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from angarium.metrics.counters import counter
from angarium.sasl.client import Credentials
from angarium.sasl.login_options import LoginOptions
from angarium.sasl.secret_file import LoginTrouble
from angarium.sasl.token_command import TokenCommand
from angarium.sasl.token_endpoint import Token, fetch_token

# Judged: who fails is not asked again by each message, and mail is not held up for long once he has recovered.
FAILURE_S: Final = 30.0
_RENEW: Final = 0.75            # of its time
_LASTS_LEAST_S: Final = 5.0     # an endpoint that says "0" would be asked for every connection
_MARGIN_S: Final = 30.0         # before the end, or a tenth of its time: a token is used a while after it was asked for
_THREADS: Final = 4             # commands at once; they may each take as long as they are allowed

fetches = counter("angarium_outbound_tokens_total", "Bearer tokens that a command or an endpoint gave for a login.")
failures = counter("angarium_outbound_tokens_failed_total", "Times a command or an endpoint gave none.")


class _Kept:
    def __init__(self, credentials: Credentials, renew_mono_s: float, expires_mono_s: float) -> None:
        self.credentials = credentials
        self.renew_mono_s = renew_mono_s
        self.expires_mono_s = expires_mono_s


class _Of:
    """What is known of one login."""

    def __init__(self, options: LoginOptions) -> None:
        self.options = options
        self.kept: _Kept | None = None
        self.last: Credentials | None = None    # given last: the same text again is the same credentials
        self.failure = ""
        self.failed_until_mono_s = 0.0
        self.task: asyncio.Task[Credentials] | None = None


class Tokens:
    """Of one worker, on its loop; close() last.

    report  (login, reason) of what fails and holds no mail up: a renewal ahead, a refresh token that cannot be kept.
    """

    def __init__(self, clock: Callable[[], float], report: Callable[[str, str], None]) -> None:
        self._clock = clock
        self._report = report
        self._logins: dict[str, _Of] = {}
        self._tasks: set[asyncio.Task[Credentials]] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._commands: set[TokenCommand] = set()

    async def credentials(self, name: str, options: LoginOptions) -> Credentials:
        """Raises LoginTrouble."""
        found = self._of(name, options)
        now = self._clock()
        if found.kept is not None and now < found.kept.expires_mono_s:
            if now >= found.kept.renew_mono_s and now >= found.failed_until_mono_s:
                self._begin(name, found)
            found.kept.credentials.is_cached = True
            return found.kept.credentials
        if found.task is None and now < found.failed_until_mono_s:
            raise LoginTrouble(found.failure)
        return await asyncio.shield(self._begin(name, found))

    async def renewed(self, name: str, refused: Credentials, *, may_fetch: bool) -> Credentials | None:
        """Others in place of those that a host has just refused; None: there are none to be had, or they are as new as
        can be. may_fetch: it was indeed tried, and not only known to be refused. Raises LoginTrouble."""
        found = self._logins.get(name)
        if found is None or found.options != refused.options:
            return None
        if found.kept is not None and found.kept.credentials is refused:
            if not (may_fetch and refused.is_cached):
                return None
            found.kept = None
            if self._clock() < found.failed_until_mono_s:
                raise LoginTrouble(found.failure)
            self._begin(name, found)
        if found.kept is not None:
            credentials = found.kept.credentials
        elif found.task is not None:
            credentials = await asyncio.shield(found.task)
        else:
            return None
        return None if credentials is refused else credentials

    def apply(self, options: Mapping[str, LoginOptions]) -> None:
        """A reload: who waits for a token by options that are gone gets it all the same, and asks again."""
        self._logins = {name: found for name, found in self._logins.items() if options.get(name) == found.options}

    def close(self) -> None:
        """What runs is ended; who waits for it is cancelled or gets LoginTrouble."""
        for task in list(self._tasks):
            task.cancel()
        for command in list(self._commands):
            command.end()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _of(self, name: str, options: LoginOptions) -> _Of:
        found = self._logins.get(name)
        if found is None or found.options != options:
            found = self._logins[name] = _Of(options)
        return found

    def _begin(self, name: str, found: _Of) -> asyncio.Task[Credentials]:
        if found.task is None:
            found.task = asyncio.get_running_loop().create_task(self._fetch(name, found))
            self._tasks.add(found.task)
            found.task.add_done_callback(functools.partial(self._ended, found))
        return found.task

    def _ended(self, found: _Of, task: asyncio.Task[Credentials]) -> None:
        found.task = None
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()            # told to who waited; a renewal ahead has been reported

    async def _fetch(self, name: str, found: _Of) -> Credentials:
        try:
            token = await self._token(found.options)
        except Exception as error:
            trouble = error if isinstance(error, LoginTrouble) else LoginTrouble(f"no token can be had: {error!r}")
            failures.add()
            found.failure = str(trouble)
            found.failed_until_mono_s = self._clock() + FAILURE_S
            if found.kept is not None and self._clock() < found.kept.expires_mono_s:
                self._report(name, found.failure)
            raise trouble from None
        fetches.add()
        if token.warning:
            self._report(name, token.warning)
        last = found.last
        if last is None or last.secret != token.text:
            last = found.last = Credentials(found.options, token.text)
        lasts_s = found.options.token_time if token.lasts_s is None else max(token.lasts_s, _LASTS_LEAST_S)
        now = self._clock()
        margin_s = min(_MARGIN_S, lasts_s / 10)
        found.kept = _Kept(last, now + lasts_s * _RENEW, now + lasts_s - margin_s)
        found.failed_until_mono_s = 0.0
        return last

    async def _token(self, options: LoginOptions) -> Token:
        if options.token_endpoint is None:
            return Token(await self._run(TokenCommand(options.token_command, options.token_timeout)))
        try:
            async with asyncio.timeout(options.token_timeout):
                return await fetch_token(options.token_endpoint)
        except TimeoutError:
            url, time_s = options.token_endpoint.url, options.token_timeout
            raise LoginTrouble(f"token_endpoint {url}: not done within {time_s:g} s") from None

    async def _run(self, command: TokenCommand) -> str:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="token")
        self._commands.add(command)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, command.run)
        finally:
            self._commands.discard(command)
            command.end()               # where it was cancelled
