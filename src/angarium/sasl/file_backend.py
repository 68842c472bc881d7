"""Credentials from a file, kept in memory and read again when the file is another.

Passwords are hashed by a few threads, never on the loop, and who is unknown costs as much as who is known. A password
that was right a moment ago is known by its HMAC under a key that never leaves this process.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from argon2.exceptions import VerificationError
from argon2.low_level import Type, verify_secret

from angarium.metrics.counters import counter
from angarium.sasl.backend import Gate, OwnConversation, Peer
from angarium.sasl.credential_file import Credentials, CredentialsError, changed_by, imagined_verifier, read
from angarium.sasl.scram import imagined_keys
from angarium.sasl.steps import CheckCertificate, CheckPassword, CheckToken, FetchScramKeys, ScramKeys, Unavailable

# Passwords waiting for a thread, judged a few seconds' work; past it 454. At 25 ms and two threads: 3 s.
WAITING_MAX: Final = 256
CACHED_MAX: Final = 10_000
# The file is looked at no more often than this: what `angarium auth` changed holds a second later.
LOOK_S: Final = 1.0

hashed_total = counter("angarium_auth_hashed_total", "Passwords hashed; others were known from a moment ago.")


class FileBackend:
    """mechanisms: PLAIN, LOGIN, SCRAM-SHA-256 and -PLUS, and EXTERNAL for identities in the file.

    report  is told once of a file that cannot be used; what was read before holds on.
    """

    mechanisms = frozenset(("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "EXTERNAL"))

    def __init__(
        self, path: Path, report: Callable[[str], None], *, threads: int, cache_time_s: float
    ) -> None:
        self._path = path
        self._report = report
        self._cache_time_s = cache_time_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._waiting = 0
        self._credentials: Credentials | None = None
        self._seen: tuple[int, int, int] | None = (0, 0, 0)
        self._looked_mono_s = float("-inf")
        self._reading = asyncio.Lock()
        self._imagined = imagined_verifier()
        self._key = secrets.token_bytes(32)
        self._cache: dict[str, tuple[bytes, str, float]] = {}

    def begin(self, mechanism: str, peer: Peer, gate: Gate) -> OwnConversation:
        return OwnConversation(mechanism, peer, self, gate)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def whose_password(self, ask: CheckPassword, peer: Peer) -> str | None:
        credentials = await self._current()
        entry = credentials.entries.get(ask.identity)
        verifier = self._imagined if entry is None else entry.argon2
        digest = hmac.digest(self._key, ask.identity.encode() + b"\0" + ask.password.encode(), "sha256")
        if self._was_right(ask.identity, verifier, digest):
            return ask.identity
        if self._waiting >= WAITING_MAX:
            raise Unavailable("too many passwords wait to be hashed")
        self._waiting += 1
        try:
            is_right = await asyncio.get_running_loop().run_in_executor(
                self._threads, _fits, verifier, ask.password.encode()
            )
        finally:
            self._waiting -= 1
        hashed_total.add(1)
        if not is_right or entry is None:
            return None
        self._remember(ask.identity, verifier, digest)
        return ask.identity

    async def whose_token(self, ask: CheckToken, peer: Peer) -> str | None:
        return None

    async def whose_certificate(self, ask: CheckCertificate, peer: Peer) -> str | None:
        return ask.identity if ask.identity in (await self._current()).entries else None

    async def scram_keys(self, ask: FetchScramKeys) -> ScramKeys:
        credentials = await self._current()
        entry = credentials.entries.get(ask.identity)
        return imagined_keys(credentials.secret, ask.identity) if entry is None else entry.scram

    def _was_right(self, identity: str, verifier: str, digest: bytes) -> bool:
        known = self._cache.get(identity)
        if known is None:
            return False
        if known[1] != verifier or known[2] < time.monotonic():  # another password was set, or it is too long ago
            del self._cache[identity]
            return False
        return hmac.compare_digest(known[0], digest)

    def _remember(self, identity: str, verifier: str, digest: bytes) -> None:
        if self._cache_time_s == 0:
            return
        if len(self._cache) >= CACHED_MAX:
            self._cache.pop(next(iter(self._cache)))
        self._cache[identity] = (digest, verifier, time.monotonic() + self._cache_time_s)

    async def _current(self) -> Credentials:
        """Raises Unavailable when the file could never be read."""
        if time.monotonic() - self._looked_mono_s >= LOOK_S:
            async with self._reading:
                await self._look()
        if self._credentials is None:
            raise Unavailable(f"{self._path} cannot be used")
        return self._credentials

    async def _look(self) -> None:
        seen = changed_by(self._path)
        if seen != self._seen:
            try:
                self._credentials = await asyncio.get_running_loop().run_in_executor(self._threads, read, self._path)
            except CredentialsError as error:
                self._report(str(error))
            self._seen = seen
        self._looked_mono_s = time.monotonic()


def _fits(verifier: str, password: bytes) -> bool:
    try:
        return verify_secret(verifier.encode(), password, Type.ID)
    except VerificationError:
        return False
