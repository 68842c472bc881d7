"""Where mail goes next, as values: made by routing/, read by queue/ and outbound/. No behaviour here."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

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
    """

    name: str
    addresses: tuple[str, ...]
    port: int = 25
    preference: int = 0


class Site(msgspec.Struct, frozen=True):
    """All domains that share one MX set (or one configured next hop) are one site.

    name      stable and readable: "mx1.example.net,mx2.example.net" (MX names by preference, then name) or the next hop
              as configured, "smtp://127.0.0.1:10026", "lmtp+unix:/run/lmtp", "maildir:/srv/mail/{local}".
    protocol  what is spoken there; for "maildir" and "lmtp+unix" hosts is empty and path is set.
    hosts     by rising preference; equal ones are shuffled at use, not here.
    tls       what the route asks for; "": what is asked of all.
    begins_with_tls      no STARTTLS: the handshake comes before the greeting (RFC 8314 §3.3).
    is_located_securely  its hosts' names were not found by look-ups that anybody could have answered.
    """

    name: str
    protocol: Literal["smtp", "lmtp", "lmtp+unix", "maildir"]
    hosts: tuple[Host, ...] = ()
    path: str = ""
    tls: TlsName | Literal[""] = ""
    begins_with_tls: bool = False
    is_located_securely: bool = True


class Source(msgspec.Struct, frozen=True):
    """An egress source. `address` "" means: let the kernel choose."""

    name: str
    address: str = ""
    ehlo: str = ""


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
