"""Who a client is, for one worker: AUTH exchanges between sessions and whoever knows the credentials, and what
follows from it.

A session asks (auth.pyx) and goes on when its answer comes, at the earliest in the loop's next turn. Every failure
costs a place of two allowances, of the client's address and of the identity that was claimed; without a place nothing
is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from angarium.events.journal import Journal
from angarium.inbound.hook_backend import HookBackend
from angarium.inbound.quota import HOUR_NS, Allowance, Counts, Quota
from angarium.metrics.counters import counter
from angarium.policy.hooks import BoundHook
from angarium.sasl.backend import Backend, Conversation, Peer
from angarium.sasl.dovecot import DovecotBackend
from angarium.sasl.exchange import MECHANISMS
from angarium.sasl.file_backend import FileBackend
from angarium.sasl.http_backend import HttpBackend
from angarium.sasl.options import AuthOptions
from angarium.sasl.scram import BINDINGS
from angarium.sasl.senders import Senders
from angarium.sasl.steps import Accepted, Challenge, Refused, Unavailable
from angarium.smtp import replies

succeeded_total = counter("angarium_auth_succeeded_total", "AUTH exchanges answered 235.")
failed_total = counter("angarium_auth_failed_total", "AUTH exchanges answered 535.")
unavailable_total = counter("angarium_auth_unavailable_total", "AUTH exchanges answered 454: nobody could say.")
limited_total = counter("angarium_auth_limited_total", "AUTH exchanges not tried: too many failures before.")


KNOWN_MAXIMUM: Final = 64     # of a session: people have few, and a program with more is no slower than it was
_NOT_IN_ADDRESS: Final = frozenset(b" \t\r\n()<>,:;") | frozenset(range(32)) | {127}


class Client(Protocol):
    """A connection, as the authority sees it (client.pyx)."""

    @property
    def host(self) -> str:
        """ "192.0.2.1", "2001:db8::1", or "" for a unix socket."""

    @property
    def network(self) -> bytes:
        """What failures are counted for: an IPv4 address, an IPv6 network of 64 bits."""

    @property
    def is_secure(self) -> bool: ...

    def channel_binding(self, kind: str) -> bytes | None: ...

    def peer_certificate_identity(self) -> str | None: ...

    def auth_challenge(self, octets: bytes) -> None: ...

    def auth_accepted(self, identity: bytes, rights: Rights) -> None: ...

    def auth_refused(self, reply: bytes) -> None: ...


class Rights:
    """What an identity may do. Made anew by a reload, so what has been found good stays so."""

    def __init__(self, senders: Senders, quota: Quota | None) -> None:
        self._senders = senders
        self._quota = quota
        self._known_paths: set[bytes] = set()
        self._known_addresses: set[bytes] = set()
        self.known_from: bytes | None = None    # submitted.pyx: what From said last, and might say

    def refuses_mail(self, reverse_path: bytes) -> bytes | None:
        """The reply to MAIL when it must be no. Takes one message of the quota otherwise."""
        if reverse_path not in self._known_paths:
            if not self._senders.may_use(reverse_path):
                return replies.SENDER_NOT_OWN
            _remember(self._known_paths, reverse_path)
        return None if self._quota is None or self._quota.take_message() else replies.QUOTA_EXCEEDED

    def may_send_as(self, address: bytes) -> bool:
        """Whether a From field may name this address, as it stands there; blanks and comments in it are never right."""
        if address in self._known_addresses:
            return True
        if set(address) & _NOT_IN_ADDRESS or not self._senders.may_use(address):
            return False
        _remember(self._known_addresses, address)
        return True

    def refuses_rcpt(self) -> bytes | None:
        """The reply to RCPT when it must be no. Takes one recipient of the quota otherwise."""
        return None if self._quota is None or self._quota.take_recipient() else replies.QUOTA_EXCEEDED


def _remember(known: set[bytes], address: bytes) -> None:
    if len(known) < KNOWN_MAXIMUM:
        known.add(address)


class Authority:
    """All AUTH of one worker. apply() before anything else, and at a reload; close() last.

    hook  the operator's on_auth of this moment, for credentials = "hook".
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        counts: Counts,
        hook: Callable[[], BoundHook | None] = lambda: None,
    ) -> None:
        self.loop = loop
        self.journal = journal
        self.options = AuthOptions()
        self._counts = counts
        self._hook = hook
        self._backend: Backend | None = None
        self._greeting: asyncio.Task[None] | None = None
        self._under_way: dict[bytes, int] = {}

    def apply(self, options: AuthOptions) -> None:
        """A reload. Exchanges under way end with the backend they began with."""
        of_backend = (options.credentials, options.threads, options.cache_time)
        if self._backend is None or of_backend != (
            self.options.credentials,
            self.options.threads,
            self.options.cache_time,
        ):
            self.close()
            self._backend = self._make(options)
            if isinstance(self._backend, DovecotBackend):
                self._greeting = self.loop.create_task(self._greet(self._backend))
        self.options = options

    def close(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()
        if self._backend is not None:
            self._backend.close()
        self._backend = None

    def offered(self, client: Client, wanted: frozenset[str]) -> bytes | None:
        """What EHLO says behind AUTH; None: nothing. `wanted`: the listener's own list, or empty for all."""
        if self._backend is None:
            return None
        can = self._backend.mechanisms & (wanted or self._backend.mechanisms)
        if "SCRAM-SHA-256-PLUS" in can and not any(client.channel_binding(kind) for kind in BINDINGS):
            can -= {"SCRAM-SHA-256-PLUS"}
        if "EXTERNAL" in can and client.peer_certificate_identity() is None:
            can -= {"EXTERNAL"}
        return " ".join(name for name in MECHANISMS if name in can).encode() or None

    def begin(self, client: Client, mechanism: str, offers_plus: bool) -> Attempt:
        peer = Peer(client, client.host, client.is_secure, offers_plus)
        conversation = None if self._backend is None else self._backend.begin(mechanism, peer)
        return Attempt(self, client, mechanism, conversation)

    def rights_of(self, identity: str) -> Rights:
        options = self.options.quota.get(identity) or self.options.quota.get("*")
        quota = None if options is None else Quota(self._counts.sent, identity, options)
        return Rights(Senders(identity, self.options.senders), quota)

    def admit(self, identity: str) -> None:
        """Raises TooManyFailures."""
        if self._failures_of_identity(identity).wait_ns():
            raise TooManyFailures("too-many-failures-of-identity")

    def address_is_barred(self, client: Client) -> bool:
        return self._failures_of_address(client).wait_ns() != 0

    @contextlib.contextmanager
    def trying(self, client: Client) -> Iterator[None]:
        """While a try is judged: of one address no more at once than may fail. Raises TooManyFailures."""
        network = client.network
        count = self._under_way.get(network, 0)
        if count >= self.options.failures_per_address:
            raise TooManyFailures("too-many-tries-at-once")
        self._under_way[network] = count + 1
        try:
            yield
        finally:
            self._under_way[network] -= 1
            if self._under_way[network] == 0:
                del self._under_way[network]

    def count_failure(self, client: Client, identity: str) -> None:
        self._failures_of_address(client).take()
        if identity:
            self._failures_of_identity(identity).take()

    def _failures_of_address(self, client: Client) -> Allowance:
        table, name = self._counts.failures_of_addresses, client.network.hex()
        return Allowance(table, name, self.options.failures_per_address, HOUR_NS)

    def _failures_of_identity(self, identity: str) -> Allowance:
        table = self._counts.failures_of_identities
        return Allowance(table, identity, self.options.failures_per_identity, HOUR_NS)

    def _make(self, options: AuthOptions) -> Backend | None:
        source = options.credentials
        if source.kind == "file":
            return FileBackend(
                Path(source.path), self, self._report, threads=options.threads, cache_time_s=options.cache_time
            )
        if source.kind == "dovecot":
            return DovecotBackend(source.path, self)
        if source.kind == "hook":
            return HookBackend(self._hook, self)
        return HttpBackend(source, self) if source.kind == "http" else None

    async def _greet(self, backend: DovecotBackend) -> None:
        try:
            await backend.greet()
        except Unavailable as error:
            self._report(str(error))

    def _report(self, reason: str) -> None:
        self.journal.log("error", where="credentials", reason=reason)


class TooManyFailures(Unavailable):
    """Not tried: others failed, or may fail yet. `reason` is the word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Attempt:
    """One AUTH command and its exchange: respond() to each thing the client says, drop() when it is gone or cancels."""

    def __init__(
        self, authority: Authority, client: Client, mechanism: str, conversation: Conversation | None
    ) -> None:
        self._authority = authority
        self._client = client
        self._mechanism = mechanism
        self._conversation = conversation
        self._task: asyncio.Task[None] | None = None

    def respond(self, response: bytes | None) -> None:
        """Its answer follows as one of the client's auth_ calls, never from inside this call."""
        self._task = self._authority.loop.create_task(self._go_on(response))

    def drop(self) -> None:
        """Nothing is called any more."""
        if self._task is not None:
            self._task.cancel()
        if self._conversation is not None:
            self._conversation.drop()

    async def _go_on(self, response: bytes | None) -> None:
        authority, client = self._authority, self._client
        try:
            if authority.address_is_barred(client):
                limited_total.add(1)
                self._log_failure("too-many-failures-of-address")
                client.auth_refused(replies.AUTH_TOO_MANY_FAILURES)
                return
            if self._conversation is None:
                raise Unavailable("no source of credentials")
            with authority.trying(client):
                async with asyncio.timeout(authority.options.timeout):
                    outcome = await self._conversation.respond(response)
                if isinstance(outcome, Refused):
                    authority.count_failure(client, outcome.identity)
        except TooManyFailures as error:
            limited_total.add(1)
            self._log_failure(error.reason)
            client.auth_refused(replies.AUTH_UNAVAILABLE)
            return
        except (Unavailable, TimeoutError) as error:
            unavailable_total.add(1)
            self._log_failure(f"unavailable: {error or 'no answer in time'}")
            client.auth_refused(replies.AUTH_UNAVAILABLE)
            return
        except Exception as error:  # whatever a backend does, the session must have its answer
            authority.journal.log("error", where="auth", reason=repr(error))
            client.auth_refused(replies.AUTH_UNAVAILABLE)
            return
        match outcome:
            case Challenge(octets):
                client.auth_challenge(octets)
            case Accepted(identity):
                succeeded_total.add(1)
                authority.journal.log(
                    "authenticated", client=_logged(client), user=identity, mechanism=self._mechanism
                )
                client.auth_accepted(identity.encode(), authority.rights_of(identity))
            case Refused(reason, identity):
                failed_total.add(1)
                self._log_failure(reason, identity)
                await asyncio.sleep(authority.options.failure_delay)
                client.auth_refused(replies.AUTH_FAILED)

    def _log_failure(self, reason: str, identity: str = "") -> None:
        fields = {"client": _logged(self._client), "mechanism": self._mechanism, "reason": reason}
        self._authority.journal.log("auth-failed", **fields, **({"user": identity} if identity else {}))


def _logged(client: Client) -> str:
    """As everywhere in the log: RFC 5321 §4.1.3's form of an IPv6 address."""
    return f"IPv6:{client.host}" if ":" in client.host else client.host
