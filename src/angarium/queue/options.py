"""What the operator may set about the queue: [shaping.default] and [queue.default]."""

from __future__ import annotations

import msgspec

from angarium.model.plan import TlsName
from angarium.model.units import Duration, Rate
from angarium.tls.options import CertificateOptions, require_path


class ShapingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits per site, over all workers of the machine.

    connections              at once to one site.
    rate                     messages to one site; absent: no limit. Smooth (GCRA), a burst of a tenth of a second.
    messages_per_connection  then QUIT and a new one; 0: no limit.
    recipients               in one transaction (RFC 5321 §4.5.3.1.8: 100 are always allowed).
    tls                      "opportunistic": where offered, whatever certificate is shown, and in clear when it fails.
                             "none": never. "encrypt": with any certificate, or mail waits. "required": with a
                             certificate for the host's name from an authority that we trust, or mail waits.
    dane                     TLSA records that DNS vouches for (resolver.trust_ad) raise "opportunistic" and "encrypt".
    mta_sts                  so do policies that domains publish over HTTPS (RFC 8461); TLSA records go before them.
    tls_ca                   PEM file of authorities; absent: the system's.
    tls_certificate          ours, shown to hosts that ask for one.
    """

    connections: int = 32
    rate: Rate | None = None
    messages_per_connection: int = 0
    recipients: int = 100
    tls: TlsName = "opportunistic"
    dane: bool = True
    mta_sts: bool = False
    tls_ca: str | None = None
    tls_certificate: CertificateOptions | None = None

    def __post_init__(self) -> None:
        if self.tls_ca is not None:
            require_path("tls_ca", self.tls_ca)
        if not 1 <= self.connections <= 65535:
            raise ValueError("connections: between 1 and 65535")
        if self.messages_per_connection < 0:
            raise ValueError("messages_per_connection: 0 (no limit) or more")
        if not 1 <= self.recipients <= 100000:
            raise ValueError("recipients: between 1 and 100000")


class RetryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a deferred recipient is tried again: first * factor**(attempts - 1), at most max, +- jitter (a fraction)."""

    first: Duration = Duration(300)
    factor: float = 2.0
    max: Duration = Duration(4 * 3600)
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.first <= 0:
            raise ValueError("first: more than 0")
        if not 1.0 <= self.factor <= 100.0:
            raise ValueError("factor: between 1 and 100")
        if self.max < self.first:
            raise ValueError("max: not less than first")
        if not 0.0 <= self.jitter <= 0.9:
            raise ValueError("jitter: between 0 and 0.9")


class QueueOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Retry and expiry.

    max_age       a recipient not delivered after this long expires (RFC 5321 §4.5.4.1: 4 to 5 days).
    delay_report  after how long a sender who asked for it (NOTIFY=DELAY, RFC 3461) is told that a recipient waits
                  still, at the next attempt that fails; 0: never.
    """

    retry: RetryOptions = RetryOptions()
    max_age: Duration = Duration(5 * 86400)
    delay_report: Duration = Duration(4 * 3600)

    def __post_init__(self) -> None:
        if self.max_age <= 0:
            raise ValueError("max_age: more than 0")
        if self.delay_report < 0:
            raise ValueError("delay_report: 0 (never) or more")
