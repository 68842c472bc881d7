"""Connecting to a site: its hosts in order of preference, their addresses, the egress source's own address.

One Dialer a worker; it remembers which hosts were broken a moment ago. It opens sockets and waits for the
hello; it does not decide when to dial (pool.pyx) nor what a failure means (trouble.py).
"""

from __future__ import annotations

import asyncio
import functools
import random
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.model.errors import TlsMaterialError
from angarium.model.plan import Host, Site, Source
from angarium.outbound import trouble
from angarium.outbound.connection import HelloFailed
from angarium.outbound.egress_socket import SourceUnusable, bound_socket, local_address, unbound_socket, used_part
from angarium.outbound.options import OutboundOptions
from angarium.outbound.proxy_connect import connect_by
from angarium.outbound.source_watch import SourceWatch
from angarium.outbound.tls_contexts import Material, TlsContexts
from angarium.outbound.tls_policy import Level, TlsPolicy, at_host, is_located
from angarium.outbound.tls_witness import TlsWitness
from angarium.queue.shaping_options import AddressFamily, ShapingOptions
from angarium.sasl.client import Credentials
from angarium.sasl.logins import Logins, Standing
from angarium.sasl.secret_file import LoginTrouble
from angarium.tls.certificates import ProfileName
from angarium.tls.client import ClientContext

if TYPE_CHECKING:
    from angarium.outbound.connection import Connection
    from angarium.outbound.tracing import OutboundTracing

BROKEN_HOSTS_MAX = 10_000
ATTEMPTS_KEPT = 4096
SMTP_PORT = 25

fallbacks = counter(
    "angarium_outbound_tls_fallbacks_total", "Hosts that were tried again in clear because TLS with them failed."
)

login_failures = counter(
    "angarium_outbound_logins_failed_total", "Times a host did not take who we are, or could not be told."
)

_AUTH = trouble.PHASE[trouble.Stage.AUTH]
_CONNECT = trouble.PHASE[trouble.Stage.CONNECT]

_PREFERS_IPV6 = {"prefer-ipv4": False, "prefer-ipv6": True}
_ONLY = {"ipv4": "IPv4", "ipv6": "IPv6"}

HostKey = tuple[str, str, int]
ClearKey = tuple[str, str, int, Material]
_Key = TypeVar("_Key", HostKey, ClearKey)


class Attempt(msgspec.Struct, frozen=True):
    """What a connection is made with.

    tls         None in clear. tls_name: what the host's certificate must bear.
    login       None: no AUTH. login_name: NAME of [login.NAME], for people.
    """

    remote: str
    host_key: HostKey
    watches_for_loop: bool
    policy: TlsPolicy
    tls: ClientContext | None = None
    tls_name: str = ""
    begins_with_tls: bool = False
    login: Credentials | None = None
    login_name: str = ""


Make = Callable[[Attempt], "Connection"]


class SiteUnreachable(Exception):
    """No host of the site took a connection. `judgement` says why and for how long."""

    def __init__(self, judgement: trouble.Judgement) -> None:
        super().__init__(judgement.trouble.text)
        self.judgement = judgement


class SourceDown(SiteUnreachable):
    """The egress source cannot be used; nothing is known of the site."""


class LoginRefused(SiteUnreachable):
    """Who we are is not believed. was_tried: now, and not only known from before."""

    def __init__(self, judgement: trouble.Judgement, *, was_tried: bool) -> None:
        super().__init__(judgement)
        self.was_tried = was_tried


class Dialer:
    """Opens connections for all pools of a worker. sources: is told of those that cannot be used; None: nobody is."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: OutboundOptions,
        journal: Journal,
        sources: SourceWatch | None = None,
        logins: Logins | None = None,
    ) -> None:
        self.sources = sources
        self.loop = loop
        self.options = options
        self.journal = journal
        self.contexts = TlsContexts(loop, journal)
        self.logins = Logins() if logins is None else logins
        self.broken: dict[HostKey, float] = {}  # until when, monotonic seconds
        self._attempts: dict[HostKey, Attempt] = {}  # the last one of a host
        self.witness: TlsWitness | None = None
        self.without_tls: dict[ClearKey, float] = {}  # TLS with it failed: likewise
        self.tracing: OutboundTracing | None = None  # who looks on at dialogues; None: nobody

    def dial(
        self,
        site: Site,
        source: Source,
        make: Make,
        policy: TlsPolicy,
        material: Material,
        *,
        limits: ShapingOptions,
        login: str = "",
        domain: bytes = b"",
    ) -> Coroutine[Any, Any, Connection]:
        """A connection that is ready for transactions.

        Hosts by rising preference, equal ones in random order (RFC 5321 §5.1); hosts that failed a moment ago
        come last. `limits` say for how long one address is tried, and of which family it is. `make(attempt)` gives a
        fresh protocol object for each try. Where the policy lets mail go in clear, a host with which TLS fails is tried
        once more without.
        domain  of the message that waits for it, for the witness.
        login  NAME of the [login.NAME] by which to authenticate; `policy` has to be one for it (with_login()).
        Raises SiteUnreachable when every try has failed, SourceDown when the source could not even be tried.
        """
        # Ten thousand may be waiting for a greeting: no frame of ours stands around that of who does the work.
        if not login:
            return self._dial(site, source, make, policy, material, limits=limits, domain=domain)
        return self._dial_with_login(
            site, source, make, policy, material, limits=limits, login=login, domain=domain
        )

    async def _dial_with_login(
        self,
        site: Site,
        source: Source,
        make: Make,
        policy: TlsPolicy,
        material: Material,
        *,
        limits: ShapingOptions,
        login: str,
        domain: bytes,
    ) -> Connection:
        try:
            credentials = await self.logins.credentials(login)
        except LoginTrouble as error:
            raise SiteUnreachable(self._login_failed(site, login, trouble.no_login(login, str(error)))) from None
        has_asked_anew = False
        while True:
            standing = self.logins.standing(login, site.name, credentials, material)
            dial = functools.partial(
                self._dial, site, source, make, policy, material,
                limits=limits, login=login, credentials=credentials, domain=domain,
            )  # fmt: skip
            try:
                if standing.is_taken:
                    return await self._dial_as(standing, dial, site, login)
                async with standing.turn:
                    return await self._dial_as(standing, dial, site, login)
            except LoginRefused as refused:
                if has_asked_anew:
                    raise
                has_asked_anew = True
                try:
                    newer = await self.logins.renewed(login, credentials, may_fetch=refused.was_tried)
                except LoginTrouble as error:
                    trouble_ = trouble.no_login(login, str(error))
                    raise SiteUnreachable(self._login_failed(site, login, trouble_)) from None
                if newer is None:
                    raise
                credentials = newer

    async def _dial_as(
        self, standing: Standing, dial: Callable[[], Awaitable[Connection]], site: Site, login: str
    ) -> Connection:
        """Raises LoginRefused, at once where the host is known to refuse."""
        refusal = self.logins.refusal_of(standing)
        if isinstance(refusal, trouble.Judgement):
            raise LoginRefused(refusal, was_tried=False)
        try:
            connection = await dial()
        except SiteUnreachable as error:
            if error.judgement.trouble.phase == _AUTH:
                self._login_failed(site, login, error.judgement)
            if not error.judgement.is_refused_login:
                raise
            self.logins.refused(standing, error.judgement)
            raise LoginRefused(error.judgement, was_tried=True) from None
        standing.is_taken = True
        return connection

    def _login_failed(self, site: Site, login: str, judgement: trouble.Judgement) -> trouble.Judgement:
        login_failures.add(1)
        reason, remote = judgement.trouble.text, judgement.trouble.remote
        self.journal.log("login-failed", site=site.name, remote=remote, login=login, reason=reason)
        return judgement

    async def _dial(
        self,
        site: Site,
        source: Source,
        make: Make,
        policy: TlsPolicy,
        material: Material,
        *,
        limits: ShapingOptions,
        login: str = "",
        credentials: Credentials | None = None,
        domain: bytes = b"",
    ) -> Connection:
        if site.protocol == "lmtp+unix":
            return await self._dial_path(site.path, make, policy)
        if not is_located(policy, site):
            raise SiteUnreachable(trouble.not_located(site.name))
        targets = self.targets(site, source, limits.address_family)
        if not targets:
            raise SiteUnreachable(trouble.of_no_address(site.name, source.name, _ONLY.get(limits.address_family, "")))
        targets, why_not = self._of_usable(targets, source)
        judgements: list[trouble.Judgement] = []
        at_hosts: dict[Host, TlsPolicy] = {}
        was_tried = False
        # Who is told what comes of TLS here; "": nobody. Who heeds no policy (reports do not) says nothing of it.
        witness = self.witness if domain and policy.heeds_published else None
        told = witness.domain_of(site, domain) if witness is not None else ""
        for host in site.hosts:
            verdict = at_host(policy, site, host)
            if not isinstance(verdict, TlsPolicy):
                judgements.append(verdict)
                if told and self.witness is not None:
                    self.witness.bad(told, site, host, policy, verdict)
            elif credentials is not None and not credentials.options.may_be_told(site, host):
                judgements.append(trouble.not_to_be_told(login, host.name))
            else:
                at_hosts[host] = verdict
        usable = [(host, address) for host, address in targets if host in at_hosts]
        for host, address in usable[: self.options.addresses_per_dial]:
            if why_not and self._why_not(source, address):
                continue                # found out by a try before this one
            at_this = at_hosts[host]
            tls = await self._context(at_this, material)
            key = (host.name, address, host.port)
            remote = remote_name(host.name, address, host.port)
            # Only on port 25 do our own listeners greet the world; a filter on another port of this machine
            # may well bear our name.
            watches_for_loop = site.protocol == "smtp" and host.port == SMTP_PORT
            # By what is shown and trusted: a host that fails with one certificate may well do with another, or none.
            clear_key: ClearKey = (*key, material)
            is_clear = at_this.may_go_clear and self._is_remembered(self.without_tls, clear_key)
            attempt = Attempt(
                remote,
                key,
                watches_for_loop,
                at_this,
                None if is_clear else tls,
                host.name,
                site.begins_with_tls,
                credentials,
                login,
            )
            connection = make(self._shared(attempt))
            target = (source, address, host.port, limits.connect_timeout)
            try:
                judgement = await self._try(connection, self._socket(*target), remote)
                if told and self.witness is not None:
                    if judgement is None:
                        connection.session_domains = self.witness.good(told, site, host, at_this, connection)
                    else:
                        sender = local_address(source, address) or ""
                        self.witness.bad(told, site, host, at_this, judgement, ip=address, sender=sender)
                if judgement is not None and judgement.is_tls and at_this.may_go_clear:
                    self._fall_back(site, clear_key, judgement)
                    connection = make(msgspec.structs.replace(attempt, tls=None))
                    judgement = await self._try(connection, self._socket(*target), remote)
            except SourceUnusable as unusable:
                connection.hello.cancel()
                connection.close_now()
                why_not = unusable.reason
                if self.sources is not None:
                    self.sources.suspend(source, used_part(source, address), why_not)
                continue
            was_tried = True
            if judgement is None:
                self.broken.pop(key, None)
                return connection
            if judgement.is_about_tls:
                judgement = trouble.under_policy(judgement, host.name, at_this.origin, at_this.name)
            judgements.append(judgement)
            if judgement.scope == trouble.Scope.SITE:
                raise SiteUnreachable(judgement)
            if not judgement.is_about_tls:
                self.remember_broken(key)
        if why_not and at_hosts and not was_tried:
            # Whatever TLS has against other hosts: of those that mail may go to nothing is known.
            raise SourceDown(trouble.of_source(source.name, why_not))
        raise SiteUnreachable(trouble.of_site(judgements))

    def _shared(self, attempt: Attempt) -> Attempt:
        """The same object for all connections that are made alike: a host may have hundreds."""
        kept = self._attempts.get(attempt.host_key)
        if kept == attempt:
            return kept
        if attempt.login is None:               # a secret is kept by who has to
            if len(self._attempts) >= ATTEMPTS_KEPT:
                self._attempts.clear()
            self._attempts[attempt.host_key] = attempt
        return attempt

    def targets(
        self, site: Site, source: Source, address_family: AddressFamily = "any"
    ) -> list[tuple[Host, str]]:
        """Host and address pairs in the order they are to be tried."""
        now_mono = time.monotonic()
        by_preference: dict[int, list[Host]] = {}
        for host in site.hosts:
            by_preference.setdefault(host.preference, []).append(host)
        found: list[tuple[Host, str]] = []
        for preference in sorted(by_preference):
            equals = by_preference[preference]
            random.shuffle(equals)
            group = [(host, address) for host in equals for address in host.addresses]
            if address_family in _PREFERS_IPV6:
                wants_ipv6 = _PREFERS_IPV6[address_family]
                group.sort(key=lambda each: (":" in each[1]) != wants_ipv6)
            found.extend(group)
        if address_family in _ONLY:
            found = [(host, address) for host, address in found if (":" in address) == (address_family == "ipv6")]
        if source.address:
            found = [each for each in found if local_address(source, each[1]) is not None]
        return sorted(
            found, key=lambda each: self._is_broken((each[0].name, each[1], each[0].port), now_mono)
        )

    def _of_usable(self, targets: list[tuple[Host, str]], source: Source) -> tuple[list[tuple[Host, str]], str]:
        """Those that can be reached from what can be used of the source; and why others cannot, "" when all can."""
        if self.sources is None or not self.sources.health.addresses:
            return targets, ""
        reasons = [self._why_not(source, address) for _, address in targets]
        kept = [target for target, reason in zip(targets, reasons, strict=True) if not reason]
        return kept, next(filter(None, reasons), "")

    def _why_not(self, source: Source, address: str) -> str:
        """Why the source cannot be used towards this address; "": it can, or that is to be tried."""
        return "" if self.sources is None else self.sources.health.reason(source, used_part(source, address))

    def remember_broken(self, key: HostKey) -> None:
        """This host comes last for the next minutes."""
        _remember(self.broken, key, self.options.broken_host_s)

    def _is_broken(self, key: HostKey, now_mono: float) -> bool:
        return self.broken.get(key, 0.0) > now_mono

    @staticmethod
    def _is_remembered(hosts: dict[_Key, float], key: _Key) -> bool:
        return bool(hosts) and hosts.get(key, 0.0) > time.monotonic()

    def _fall_back(self, site: Site, key: ClearKey, judgement: trouble.Judgement) -> None:
        fallbacks.add(1)
        _remember(self.without_tls, key, self.options.without_tls_s)
        self.journal.log(
            "tls-fallback", site=site.name, remote=judgement.trouble.remote, reason=judgement.trouble.text
        )

    async def _context(self, policy: TlsPolicy, material: Material) -> ClientContext | None:
        if not policy.wants_tls:
            return None
        try:
            return await self.contexts.get(material, _profile_of(policy))
        except TlsMaterialError as error:
            if policy.may_go_clear:
                return None         # reported by who could not read them
            raise SiteUnreachable(trouble.no_material(str(error))) from None

    async def _dial_path(self, path: str, make: Make, policy: TlsPolicy) -> Connection:
        connection = make(Attempt(path, (path, "", 0), False, policy))
        judgement = await self._try(connection, self._socket_of_path(path), path)
        if judgement is None:
            return connection
        # Of a socket that is not there, the site is as unreachable as its only host.
        is_connected = judgement.trouble.phase != _CONNECT
        raise SiteUnreachable(trouble.of_site([judgement]) if is_connected else judgement)

    async def _try(
        self, connection: Connection, connecting: Coroutine[Any, Any, socket.socket], remote: str
    ) -> trouble.Judgement | None:
        """None when transactions may start. Raises SourceUnusable."""
        try:
            connection.attach(await connecting)
        except OSError as error:  # TimeoutError is one
            connection.hello.cancel()
            connection.close_now()
            return trouble.of_connect(error, remote)
        except BaseException:
            connection.close_now()
            raise
        del connecting                          # its frame is no small part of what a dial takes
        try:
            await connection.hello
        except HelloFailed as failed:
            return failed.judgement
        except asyncio.CancelledError:
            connection.close_now()
            raise
        return None

    async def _socket(self, source: Source, address: str, port: int, timeout_s: float) -> socket.socket:
        """From the source's own address, or by its proxy. Raises SourceUnusable, OSError."""
        local = local_address(source, address) or ""
        if source.proxy is not None:
            return await connect_by(self.loop, source.proxy, local, address, port, timeout_s=timeout_s)
        sock = bound_socket(local) if local else unbound_socket(address)
        return await self._connected(sock, (address, port), timeout_s)

    @staticmethod
    async def _socket_of_path(path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(path)      # never waits: EAGAIN, when as many wait to be accepted as may (unix(7))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _connected(self, sock: socket.socket, peer: tuple[str, int], timeout_s: float) -> socket.socket:
        try:
            async with asyncio.timeout(timeout_s):
                await self.loop.sock_connect(sock, peer)
        except BaseException:
            sock.close()
            raise
        return sock


def _profile_of(policy: TlsPolicy) -> ProfileName:
    if policy.tlsa is not None:
        return "dane"
    return "strict" if policy.floor == Level.VERIFIED else "any"


def _remember(hosts: dict[_Key, float], key: _Key, for_s: float) -> None:
    """At most BROKEN_HOSTS_MAX of them."""
    now_mono = time.monotonic()
    if len(hosts) >= BROKEN_HOSTS_MAX:
        for each in [each for each, until in hosts.items() if until <= now_mono]:
            del hosts[each]
        if len(hosts) >= BROKEN_HOSTS_MAX:
            return
    hosts[key] = now_mono + for_s


def remote_name(name: str, address: str, port: int) -> str:
    """The peer as logs and reports show it, "host[address]:port"."""
    return f"[{address}]:{port}" if name == address else f"{name}[{address}]:{port}"
