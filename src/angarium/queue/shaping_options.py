"""What the operator may set about the way to a site: [shaping.*]. How the tables come together: shaping.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal

import msgspec

from angarium.model.plan import TlsName
from angarium.model.units import Duration, Rate
from angarium.queue.options import RetryOptions
from angarium.resolver.domain_name import to_a_labels
from angarium.smtp import limits
from angarium.tls.options import CertificateOptions, require_path

AddressFamily = Literal["any", "prefer-ipv4", "prefer-ipv6", "ipv4", "ipv6"]

# How a table says that a key of a wider one does not hold: then it is as if nobody had set it.
UNSET: Final = "unset"
UNSET_KEYS: Final = "(unset)"       # where config/unset.py puts the names of such keys

CONNECTIONS_MAXIMUM: Final = 65535   # csrc/queue/shares.c counts no further
_TIMEOUTS: Final = (
    "connect_timeout", "greeting_timeout", "hello_timeout", "handshake_timeout", "mail_timeout", "rcpt_timeout",
    "data_timeout", "block_timeout", "end_timeout",
)  # fmt: skip
_TIMEOUT_MAXIMUM_S: Final = 3600.0
_IDLE_MAXIMUM_S: Final = 3600.0
_TENANT_CHARACTERS: Final = 128     # policy/decisions.py


def domain_pattern(text: str) -> str:
    """"Example.COM" or ".example.com" in normal form. Raises ValueError."""
    dot = "." if text.startswith(".") else ""
    try:
        return dot + to_a_labels(text.removeprefix(".").encode())
    except ValueError:
        raise ValueError(f'"{text}" is neither a domain nor ".domain"') from None


def check_values(options: Any) -> None:
    """What ShapingOptions and Overrides have in common. Raises ValueError that begins with the key."""
    for key, least, most, reason in (
        ("connections", 1, CONNECTIONS_MAXIMUM, f"between 1 and {CONNECTIONS_MAXIMUM}"),
        ("messages_per_connection", 0, 1 << 31, "0 (no limit) or more"),
        ("recipients_per_transaction", 1, 100000, "between 1 and 100000"),
        ("max_ready", 1, 1 << 31, "1 or more"),
    ):
        value = getattr(options, key)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{key}: {reason}")
    for key in _TIMEOUTS:
        value = getattr(options, key)
        if value is not None and not 0 < value <= _TIMEOUT_MAXIMUM_S:
            raise ValueError(f"{key}: more than 0 and at most 1h")
    if options.idle_time is not None and options.idle_time > _IDLE_MAXIMUM_S:
        raise ValueError("idle_time: at most 1h")
    if options.tls_ca is not None:
        require_path("tls_ca", options.tls_ca)


class ShapingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What holds towards a site, over all workers of the machine. The defaults are those of a key that nobody sets.

    connections              at once.
    connection_rate          connections begun; None: no limit. Smooth (GCRA), with a burst of a tenth of a second.
    message_rate             messages; likewise.
    messages_per_connection  then QUIT and a new one; 0: no limit.
    recipients_per_transaction  (RFC 5321 §4.5.3.1.8: 100 are always allowed).
    max_ready                recipients in each ready queue of a worker; others wait behind it, bodies on disk only.
    idle_time                an unused connection is kept this long for the next message, then QUIT.
    connect_timeout          for one address; Linux itself would try for two minutes.
    greeting_timeout ... end_timeout  for the reply (RFC 5321 §4.5.3.2): the greeting; EHLO, HELO and RSET; STARTTLS and
                             the handshake; MAIL; RCPT; DATA; for the next block of the body to leave; behind the body.
    address_family           of hosts that have addresses of both.
    tls                      "opportunistic": where offered, whatever certificate is shown, and in clear when it fails.
                             "none": never. "encrypt": with any certificate, or mail waits. "required": with a
                             certificate for the host's name from an authority that we trust, or mail waits.
    dane                     TLSA records that DNS vouches for (resolver.trust_ad) raise "opportunistic" and "encrypt".
    mta_sts                  so do policies that domains publish over HTTPS (RFC 8461); TLSA records go before them.
    tls_ca                   PEM file of authorities; absent: the system's.
    tls_certificate          ours, shown to hosts that ask for one.
    pipelining, bdat         used where offered. A binary message (RFC 3030 §3) cannot do without BDAT, and uses it.
    retry                    when a deferred recipient is tried again; None: as [queue.default] says.
    login                    NAME of the [login.NAME] by which we authenticate, unless the route names one; "": none.
    """

    connections: int = 32
    connection_rate: Rate | None = None
    message_rate: Rate | None = None
    messages_per_connection: int = 0
    recipients_per_transaction: int = 100
    max_ready: int = 100000
    idle_time: Duration = Duration(5)
    connect_timeout: Duration = Duration(30)
    greeting_timeout: Duration = Duration(limits.GREETING_TIMEOUT_S)
    hello_timeout: Duration = Duration(limits.MAIL_TIMEOUT_S)       # §4.5.3.2 names no time for EHLO and RSET
    handshake_timeout: Duration = Duration(limits.HANDSHAKE_TIMEOUT_S)
    mail_timeout: Duration = Duration(limits.MAIL_TIMEOUT_S)
    rcpt_timeout: Duration = Duration(limits.RCPT_TIMEOUT_S)
    data_timeout: Duration = Duration(limits.DATA_INITIATION_TIMEOUT_S)
    block_timeout: Duration = Duration(limits.DATA_BLOCK_TIMEOUT_S)
    end_timeout: Duration = Duration(limits.DATA_TERMINATION_TIMEOUT_S)
    address_family: AddressFamily = "any"
    tls: TlsName = "opportunistic"
    dane: bool = True
    mta_sts: bool = False
    tls_ca: str | None = None
    tls_certificate: CertificateOptions | None = None
    pipelining: bool = True
    bdat: bool = True
    retry: RetryOptions | None = None
    login: str = ""

    def __post_init__(self) -> None:
        check_values(self)


class ShapingDefault(ShapingOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.default]"""

    def __post_init__(self) -> None:
        if self.retry is not None:
            raise ValueError("retry: for all mail it is set in [queue.default]")
        if self.login:
            raise ValueError(f"login: {_WORLD}")
        check_values(self)


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same keys where they hold for some mail only; None: not set here.

    unset  keys that were written "unset".
    """

    REFUSED: ClassVar[dict[str, str]] = {}      # keys that mean nothing in this table, and why

    connections: int | None = None
    connection_rate: Rate | None = None
    message_rate: Rate | None = None
    messages_per_connection: int | None = None
    recipients_per_transaction: int | None = None
    max_ready: int | None = None
    idle_time: Duration | None = None
    connect_timeout: Duration | None = None
    greeting_timeout: Duration | None = None
    hello_timeout: Duration | None = None
    handshake_timeout: Duration | None = None
    mail_timeout: Duration | None = None
    rcpt_timeout: Duration | None = None
    data_timeout: Duration | None = None
    block_timeout: Duration | None = None
    end_timeout: Duration | None = None
    address_family: AddressFamily | None = None
    tls: TlsName | None = None
    dane: bool | None = None
    mta_sts: bool | None = None
    tls_ca: str | None = None
    tls_certificate: CertificateOptions | None = None
    pipelining: bool | None = None
    bdat: bool | None = None
    retry: RetryOptions | None = None
    login: str | None = None
    unset: tuple[str, ...] = msgspec.field(default=(), name=UNSET_KEYS)

    def __post_init__(self) -> None:
        for key, reason in self.REFUSED.items():
            if getattr(self, key) is not None or key in self.unset:
                raise ValueError(f"{key}: {reason}")
        check_values(self)

    def has(self, key: str) -> bool:
        """Whether this table decides the key, be it by unsetting it."""
        return getattr(self, key) is not None or key in self.unset


_WORLD: Final = "would be told to every host in the world: set it in a route, or for a provider, site or domain"

class ProviderShaping(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.provider.NAME]: a site whose foremost host matches `mx`, and mail for `domains` wherever it goes.
    Warm-ups ([warmup.NAME], routing/warmup.py) name providers of here.

    mx       "mx.example.com" or "*.example.com" (all below it).
    domains  "example.com" or ".example.com" (all below it).
    share    connections and rates are counted together for all sites of the provider, not for each.
    """

    mx: list[str] = []
    domains: list[str] = []
    share: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mx and not self.domains:
            raise ValueError("mx: neither mx nor domains: nobody is of this provider")
        for index, pattern in enumerate(self.mx):
            try:
                if pattern.removeprefix("*.").find("*") >= 0:
                    raise ValueError
                to_a_labels(pattern.removeprefix("*.").encode())
            except ValueError:
                raise ValueError(f'mx[{index}]: "{pattern}" is neither a host name nor "*." and a domain') from None
        for index, pattern in enumerate(self.domains):
            try:
                domain_pattern(pattern)
            except ValueError as error:
                raise ValueError(f"domains[{index}]: {error}") from None


class SiteShaping(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.site.NAME]: the site with this name, or one of whose hosts has it."""


class DomainShaping(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.domain.NAME]: mail for this domain, over connections of its own."""


class AllSites(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.source.NAME.all_sites]: what the source may do towards all sites together, besides what each of them
    allows. As in ShapingOptions; None: no limit. Likewise what a tenant's table says of these keys."""

    connections: int | None = None
    connection_rate: Rate | None = None
    message_rate: Rate | None = None

    def __post_init__(self) -> None:
        if self.connections is not None and not 1 <= self.connections <= CONNECTIONS_MAXIMUM:
            raise ValueError(f"connections: between 1 and {CONNECTIONS_MAXIMUM}")


_OF_ADDRESS: Final = {"address_family": "the address in [source] decides it"}


class SourceSiteShaping(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.source.NAME.site.SITE]: what leaves from the source to the site, named as for SiteShaping."""

    REFUSED = _OF_ADDRESS


class SourceProviderShaping(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.source.NAME.provider.PROVIDER]: what leaves from the source to a [shaping.provider.PROVIDER].

    share    one count for all sites of the provider: of this source.
    """

    REFUSED = _OF_ADDRESS

    share: bool = False


class SourceShaping(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.source.NAME]: mail that leaves from [source.NAME], at each site; all_sites: over all of them.

    provider, site   the same for some of its mail: narrower tables, the site's before the provider's.
    """

    REFUSED = {**_OF_ADDRESS, "login": _WORLD}

    all_sites: AllSites | None = None
    provider: dict[str, SourceProviderShaping] = {}
    site: dict[str, SourceSiteShaping] = {}


class TenantShaping(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[shaping.tenant.NAME]: mail to which a hook has given this tenant, over connections of its own. share: one count
    for all sites.

    connections, connection_rate and message_rate hold besides those of the site: see AllSites. Unset, none of the wider
    tables holds.
    """

    REFUSED = {"login": _WORLD}

    share: bool = False


class ShapingTables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[shaping.*]: from the widest to the narrowest; the narrowest table that has a key decides it.

    files  more such tables, which yield to those written here: a path, or "@shipped" (config/shaping_files.py).
    """

    files: list[str] = []
    default: ShapingDefault = ShapingDefault()
    provider: dict[str, ProviderShaping] = {}
    site: dict[str, SiteShaping] = {}
    domain: dict[str, DomainShaping] = {}
    source: dict[str, SourceShaping] = {}
    tenant: dict[str, TenantShaping] = {}

    def narrower(self) -> Iterator[Overrides]:
        """All tables but the default."""
        for _, table in self.named():
            yield table

    def named(self) -> Iterator[tuple[tuple[str, ...], Overrides]]:
        """Likewise, each with its path: ("shaping", "provider", "google")."""
        for level in ("provider", "site", "domain", "source", "tenant"):
            for name, table in getattr(self, level).items():
                yield ("shaping", level, name), table
        yield from self.pairs()

    def pairs(self) -> Iterator[tuple[tuple[str, ...], Overrides]]:
        """Of source and provider, of source and site: ("shaping", "source", "ip-1", "provider", "google")."""
        for name, source in self.source.items():
            for provider, of_provider in source.provider.items():
                yield ("shaping", "source", name, "provider", provider), of_provider
            for site, of_site in source.site.items():
                yield ("shaping", "source", name, "site", site), of_site

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for name in self.domain:
            try:
                key = domain_pattern(name)
            except ValueError as error:
                raise ValueError(f"domain: {error}") from None
            if key in seen:
                raise ValueError(f'domain: "{name}" is the same domain as "{seen[key]}"')
            seen[key] = name
        for name in self.tenant:
            if not name or len(name) > _TENANT_CHARACTERS or not name.isprintable():
                raise ValueError(f"tenant: {name!r} is not 1 to {_TENANT_CHARACTERS} printable characters")
