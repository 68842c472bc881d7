"""Where mail goes next, as values: made by routing/, read by queue/ and outbound/. No behaviour here."""

from __future__ import annotations

import enum
from typing import Literal, NamedTuple

import msgspec

from angarium.model.tlsa import Tlsa

# What may be asked of a way: see [shaping.default] tls.
TlsName = Literal["opportunistic", "none", "encrypt", "required"]


class TlsWish(enum.IntEnum):
    """What a message itself says about TLS (RFC 8689); the numbers are those of queue/ready.pxd."""

    NONE = 0
    REQUIRED = 1    # MAIL ... REQUIRETLS
    OPTIONAL = 2    # TLS-Required: No


class Host(msgspec.Struct, frozen=True, gc=False):
    """One host to try. For a literal next hop `name` is the address text.

    addresses    numeric, IPv6 first or mixed as the resolver sorted them; never empty.
    preference   of its MX record, 0 for smarthosts.
    tlsa         what DNS says about its certificate; None: nobody asked.
    """

    name: str
    addresses: tuple[str, ...]
    port: int = 25
    preference: int = 0
    tlsa: Tlsa | None = None


class Published(NamedTuple):
    """Of what others publish about TLS, what is looked up: TLSA records of hosts, policies of domains (MTA-STS)."""

    tlsa: bool
    sts: bool


class StsRule(msgspec.Struct, frozen=True):
    """What a domain asks by MTA-STS (RFC 8461 §3.2). Equal for domains that ask the same.

    mode      "none" is no rule, and so None stands for it.
    patterns  of mail exchangers, A-labels in lower case: "mx.example.net", "*.example.net".
    """

    mode: Literal["enforce", "testing"]
    patterns: tuple[str, ...]


class Site(msgspec.Struct, frozen=True):
    """All domains that share one MX set (or one configured next hop) are one site.

    name      stable and readable: "mx1.example.net,mx2.example.net" (MX names by preference, then name) or the next hop
              as configured, "smtp://127.0.0.1:10026", "lmtp+unix:/run/lmtp", "maildir:/srv/mail/{local}".
    protocol  what is spoken there; for "maildir" and "lmtp+unix" hosts is empty and path is set.
    hosts     by rising preference; equal ones are shuffled at use, not here.
    tls       what the route asks for; "": what is asked of all.
    begins_with_tls      no STARTTLS: the handshake comes before the greeting (RFC 8314 §3.3).
    is_located_securely  its hosts' names were not found by look-ups that anybody could have answered.
    more_names           that certificates of its hosts may bear instead of the host's, by TLSA records with usage 2
                         (RFC 7672 §3.2.2): of the one domain whose site this is.
    sts                  what the domain asks by MTA-STS.
    login                who we are to its hosts, by its route: NAME of [login.NAME]; "": the route does not say.
    """

    name: str
    protocol: Literal["smtp", "lmtp", "lmtp+unix", "maildir"]
    hosts: tuple[Host, ...] = ()
    path: str = ""
    tls: TlsName | Literal[""] = ""
    begins_with_tls: bool = False
    is_located_securely: bool = True
    more_names: tuple[str, ...] = ()
    sts: StsRule | None = None
    login: str = ""

    @property
    def claims(self) -> tuple[object, ...]:
        """By what domains of one name differ in how their mail may travel, and as whose: they share no connections."""
        return (self.tls, self.is_located_securely, self.more_names, self.sts, self.login)


class Proxy(msgspec.Struct, frozen=True):
    """Who connects for a source.

    server  "192.0.2.1:1080", "[2001:db8::1]:1080".    user, password  of SOCKS5; "": none.
    """

    kind: Literal["socks5", "haproxy"]
    server: str
    user: str = ""
    password: str = ""


class Source(msgspec.Struct, frozen=True):
    """An egress source.

    address   its own, of either family; "": the kernel chooses.
    address6  its IPv6 address, where `address` is IPv4 and it has both.
    proxy     its addresses are the proxy's then, not this machine's.
    """

    name: str
    address: str = ""
    ehlo: str = ""
    address6: str = ""
    proxy: Proxy | None = None


class Plan(msgspec.Struct, frozen=True):
    """What routing says of a domain: the site, and until when that holds (monotonic seconds; inf: configured)."""

    site: Site
    expires_mono_s: float


class RoutingTrouble(Exception):
    """No plan. `is_permanent` says whether mail fails (5.1.2, 5.1.10, 5.4.6 ...) or waits (4.4.3)."""

    def __init__(self, is_permanent: bool, status: tuple[int, int, int], text: str) -> None:
        super().__init__(text)
        self.is_permanent = is_permanent
        self.status = status
        self.text = text
