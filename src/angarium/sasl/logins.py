"""[login.*] of one worker: secrets read from their files, again when those change, or fetched (tokens.py); and logins
that a host has refused.

A wrong password that is tried by every connection of every message locks accounts. So each login goes to a site by one
connection alone until it has been taken there once, and one that was refused is not tried again for REFUSED_S, or until
its file is another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from angarium.sasl.bearer import TOKEN, TOKEN_OCTETS
from angarium.sasl.client import Credentials
from angarium.sasl.login_options import LoginOptions
from angarium.sasl.preparation import PASSWORD_OCTETS
from angarium.sasl.secret_file import LoginTrouble, Stamp, read_secret_file
from angarium.sasl.tokens import Tokens

# Judged: five tries an hour and worker are what people with a typing error make.
REFUSED_S: Final = 720.0
_STANDINGS_MOST: Final = 10_000
_NO_FILE: Final[Stamp] = (0, 0, 0)


class Standing:
    """Of one login at one site. refusal: what the host said, until refused_until_mono_s."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.is_taken = False
        self.refusal: object = None
        self.refused_until_mono_s = 0.0
        self.turn = asyncio.Lock()


class Logins:
    """On the loop; files are read in its threads. report: as Tokens has it."""

    def __init__(
        self,
        options: Mapping[str, LoginOptions] | None = None,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[str, str], None] = lambda name, reason: None,
    ) -> None:
        self._options = dict(options or {})
        self._clock = clock
        self._read: dict[str, tuple[Stamp, Credentials]] = {}
        self._tokens = Tokens(clock, report)
        self._standings: dict[tuple[str, str, Hashable], Standing] = {}

    def apply(self, options: Mapping[str, LoginOptions]) -> None:
        """A reload."""
        self._read = {name: read for name, read in self._read.items() if options.get(name) == read[1].options}
        self._options = dict(options)
        self._tokens.apply(options)

    def close(self) -> None:
        """Last: what is being fetched is given up."""
        self._tokens.close()

    def options_of(self, name: str) -> LoginOptions | None:
        """None: no login is wanted, or a reload has taken it away."""
        return self._options.get(name)

    async def credentials(self, name: str) -> Credentials:
        """Raises LoginTrouble."""
        options = self._options.get(name)
        if options is None:
            raise LoginTrouble(f"there is no [login.{name}]")
        if options.fetches_token:
            fetched = await self._tokens.credentials(name, options)
            return fetched if self._options.get(name) == options else await self.credentials(name)
        known = self._read.get(name)
        stamp, secret = await asyncio.get_running_loop().run_in_executor(
            None, _read, options, known[0] if known is not None else None
        )
        if self._options.get(name) != options:      # a reload came in between
            return await self.credentials(name)
        if secret is None:
            assert known is not None
            return known[1]
        known = self._read.get(name)
        if known is not None and known[0] == stamp:     # somebody else has read it meanwhile: all wait for one attempt
            return known[1]
        credentials = Credentials(options, secret)
        self._read[name] = stamp, credentials
        return credentials

    async def renewed(self, name: str, refused: Credentials, *, may_fetch: bool) -> Credentials | None:
        """As Tokens has it; None for what is in files: they are read anew at each connection."""
        return await self._tokens.renewed(name, refused, may_fetch=may_fetch)

    def standing(self, name: str, site: str, credentials: Credentials, shown: Hashable = None) -> Standing:
        """How the login stands at a site; anew for another secret.

        shown  what else says there who we are: a certificate.
        """
        key = (name, site, shown)
        found = self._standings.get(key)
        if found is None or found.credentials is not credentials:
            if len(self._standings) >= _STANDINGS_MOST:
                del self._standings[next(iter(self._standings))]
            found = self._standings[key] = Standing(credentials)
        return found

    def refused(self, standing: Standing, refusal: object) -> None:
        standing.is_taken = False
        standing.refusal = refusal
        standing.refused_until_mono_s = self._clock() + REFUSED_S

    def refusal_of(self, standing: Standing) -> object:
        """None: it may be tried."""
        return standing.refusal if self._clock() < standing.refused_until_mono_s else None


def read_secret(options: LoginOptions) -> str:
    """Of a file, for who does not keep it. Raises LoginTrouble."""
    secret = _read(options, None)[1]
    assert secret is not None
    return secret


def _read(options: LoginOptions, known: Stamp | None) -> tuple[Stamp, str | None]:
    """As read_secret_file() has it; of a login whose certificate says it all, what is always the same."""
    if options.token_file:
        stamp, text = read_secret_file(options.token_file, TOKEN_OCTETS, known)
        if text is not None and not TOKEN.fullmatch(text):
            raise LoginTrouble(f"{options.token_file}: its first line is not a bearer token (RFC 6750 §2.1)")
        return stamp, text
    if options.password_file:
        return read_secret_file(options.password_file, PASSWORD_OCTETS, known)
    return _NO_FILE, None if known == _NO_FILE else ""
