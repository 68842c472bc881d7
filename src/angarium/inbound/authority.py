"""Who a client is, for one worker: AUTH exchanges between sessions and whoever knows the credentials, and what
follows from it.

A session asks (auth.pyx) and goes on when its answer comes, at the earliest in the loop's next turn. What a failure
costs is taken before anything is tried, and given back of what was no failure (stake.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from angarium.events.journal import Journal
from angarium.inbound.hook_backend import HookBackend
from angarium.inbound.quota import Counts, Quota
from angarium.inbound.stake import AddressBarred, Stake, Stakes, TooManyFailures
from angarium.metrics.counters import counter
from angarium.policy.hooks import BoundHook
from angarium.sasl.backend import Backend, Conversation, Peer
from angarium.sasl.dovecot import DovecotBackend
from angarium.sasl.exchange import MECHANISMS
from angarium.sasl.file_backend import FileBackend
from angarium.sasl.http_backend import HttpBackend
from angarium.sasl.options import AuthOptions, QuotaOptions
from angarium.sasl.preparation import counted_as
from angarium.sasl.scram import BINDINGS
from angarium.sasl.senders import Senders
from angarium.sasl.steps import Accepted, Challenge, Outcome, Refused, Unavailable
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
        """The reply to MAIL when it must be no, before anything costly is asked. Takes nothing."""
        if reverse_path not in self._known_paths:
            if not self._senders.may_use(reverse_path):
                return replies.SENDER_NOT_OWN
            _remember(self._known_paths, reverse_path)
        return None if self._quota is None or self._quota.has_message() else replies.QUOTA_EXCEEDED

    def take_message(self) -> bytes | None:
        """MAIL is about to be accepted: takes one message of the quota. The reply when another session was faster."""
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
        """As refuses_mail(), of RCPT and a recipient."""
        return None if self._quota is None or self._quota.has_recipient() else replies.QUOTA_EXCEEDED

    def take_recipient(self) -> bytes | None:
        """As take_message()."""
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
        self._quotas: dict[str, QuotaOptions] = {}
        self._counts = counts
        self.stakes = Stakes(counts)
        self._hook = hook
        self._backend: Backend | None = None
        self._greeting: asyncio.Task[None] | None = None

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
        self._quotas = {counted_as(identity): quota for identity, quota in options.quota.items()}

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
        stake = self.stakes.begin(client.network, self.options)
        conversation = None if self._backend is None else self._backend.begin(mechanism, peer, stake)
        return Attempt(self, client, mechanism, conversation, stake)

    def rights_of(self, identity: str) -> Rights:
        options = self._quotas.get(counted_as(identity)) or self._quotas.get("*")
        quota = None if options is None else Quota(self._counts.sent, counted_as(identity), options)
        return Rights(Senders(identity, self.options.senders), quota)

    def _make(self, options: AuthOptions) -> Backend | None:
        source = options.credentials
        if source.kind == "file":
            return FileBackend(
                Path(source.path), self._report, threads=options.threads, cache_time_s=options.cache_time
            )
        if source.kind == "dovecot":
            return DovecotBackend(source.path)
        if source.kind == "hook":
            return HookBackend(self._hook)
        return HttpBackend(source) if source.kind == "http" else None

    async def _greet(self, backend: DovecotBackend) -> None:
        try:
            await backend.greet()
        except Unavailable as error:
            self._report(str(error))

    def _report(self, reason: str) -> None:
        self.journal.log("error", where="credentials", reason=reason)


class Attempt:
    """One AUTH command and its exchange: respond() to each thing the client says, drop() when it is gone or cancels."""

    def __init__(
        self, authority: Authority, client: Client, mechanism: str, conversation: Conversation | None, stake: Stake
    ) -> None:
        self._authority = authority
        self._client = client
        self._mechanism = mechanism
        self._conversation = conversation
        self._stake = stake
        self._task: asyncio.Task[None] | None = None
        self._is_dropped = False

    def respond(self, response: bytes | None) -> None:
        """Its answer follows as one of the client's auth_ calls, never from inside this call."""
        self._task = self._authority.loop.create_task(self._go_on(response))

    def drop(self) -> None:
        """Nothing is called any more.

        Whoever leaves while he is judged has failed: a right password is often known sooner than a wrong one, so that
        he may know by then.
        """
        self._is_dropped = True
        if self._task is not None:
            self._task.cancel()
        if self._conversation is not None:
            self._conversation.drop()
        if self._stake.is_down:
            self._stake.forfeit()
            failed_total.add(1)
            self._log_failure("abandoned")

    async def _go_on(self, response: bytes | None) -> None:
        authority, client, stake = self._authority, self._client, self._stake
        try:
            outcome = await self._judge(response)
        except AddressBarred as error:
            limited_total.add(1)
            self._log_failure(error.reason)
            client.auth_refused(replies.AUTH_TOO_MANY_FAILURES)
            return
        except TooManyFailures as error:
            # Of a stake that is down, somebody has judged already: how long he took may have told.
            if stake.is_down:
                stake.forfeit()
            limited_total.add(1)
            self._log_failure(error.reason)
            client.auth_refused(replies.AUTH_UNAVAILABLE)
            return
        except (Unavailable, TimeoutError) as error:
            stake.give_back()
            unavailable_total.add(1)
            self._log_failure(f"unavailable: {error or 'no answer in time'}")
            client.auth_refused(replies.AUTH_UNAVAILABLE)
            return
        except asyncio.CancelledError:
            if self._is_dropped:
                raise
            stake.give_back()  # a hook that cancels itself must not leave the session without an answer
            unavailable_total.add(1)
            self._log_failure("unavailable: cancelled")
            client.auth_refused(replies.AUTH_UNAVAILABLE)
            return
        except Exception as error:  # whatever a backend does, the session must have its answer
            stake.give_back()
            authority.journal.log("error", where="auth", reason=repr(error))
            client.auth_refused(replies.AUTH_UNAVAILABLE)
            return
        match outcome:
            case Challenge(octets):
                client.auth_challenge(octets)
            case Accepted(identity):
                stake.give_back()
                succeeded_total.add(1)
                authority.journal.log(
                    "authenticated", client=_logged(client), user=identity, mechanism=self._mechanism
                )
                client.auth_accepted(identity.encode(), authority.rights_of(identity))
            case Refused(reason, identity):
                stake.forfeit()
                failed_total.add(1)
                self._log_failure(reason, identity)
                await asyncio.sleep(authority.options.failure_delay)
                client.auth_refused(replies.AUTH_FAILED)

    async def _judge(self, response: bytes | None) -> Outcome:
        """Raises Unavailable, TimeoutError, and whatever else comes of a backend."""
        self._stake.look()
        if self._conversation is None:
            raise Unavailable("no source of credentials")
        async with asyncio.timeout(self._authority.options.timeout):
            return await self._conversation.respond(response)

    def _log_failure(self, reason: str, identity: str = "") -> None:
        fields = {"client": _logged(self._client), "mechanism": self._mechanism, "reason": reason}
        self._authority.journal.log("auth-failed", **fields, **({"user": identity} if identity else {}))


def _logged(client: Client) -> str:
    """As everywhere in the log: RFC 5321 §4.1.3's form of an IPv6 address."""
    return f"IPv6:{client.host}" if ":" in client.host else client.host
