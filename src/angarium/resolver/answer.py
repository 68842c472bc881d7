"""What DNS said, as values, and the interface everybody asks through. No I/O and no dnspython here."""

from __future__ import annotations

import enum
from typing import Generic, Protocol, TypeVar

import msgspec

from angarium.model.tlsa import TlsaRecord

Record = TypeVar("Record")


class Kind(enum.Enum):
    """The five things that a look-up can end in.

    The first three are what the DNS holds (RFC 2308 §2), so a decision may rest on them. The last two say
    nothing about the name: mail waits.
    """

    FOUND = "found"
    NXDOMAIN = "no such domain"
    NO_DATA = "no such record"
    SERVER_FAILURE = "name server failure"
    TIMEOUT = "name servers did not answer"

    @property
    def is_temporary(self) -> bool:
        return self is Kind.SERVER_FAILURE or self is Kind.TIMEOUT


class MxRecord(msgspec.Struct, frozen=True, order=True, gc=False):
    """host: lower case, no final dot; "." for the root (RFC 7505). Sorts by preference, then name."""

    preference: int
    host: str


class Answer(msgspec.Struct, Generic[Record], frozen=True):
    """The outcome of one look-up.

    name            canonical name: what CNAMEs led to, or the name asked for; lower case, no final dot.
    records         empty unless kind is FOUND.
    expires_mono_s  monotonic seconds until which this holds.
    refresh_mono_s  from when on asking again makes the resolver look it up anew; 0: it does not do that.
    detail          why there are no records, for a log line or a DSN: printable ASCII; empty when FOUND.
    is_secure       a name server that is trusted with that has validated it (DNSSEC, RFC 4035 §3.2.3).
    """

    kind: Kind
    name: str
    records: tuple[Record, ...]
    expires_mono_s: float
    detail: str = ""
    is_secure: bool = False
    refresh_mono_s: float = 0.0

    @property
    def look_again_mono_s(self) -> float:
        """When whoever made something of this had better ask again: before it expires where there is prefetching."""
        return self.refresh_mono_s or self.expires_mono_s


class Resolver(Protocol):
    """Names to records. Failures are kinds of Answer, never exceptions."""

    async def mx(self, domain: str) -> Answer[MxRecord]:
        """MX records of a domain (A-labels, lower case), sorted by preference, then name."""

    async def addresses(self, host: str) -> Answer[str]:
        """Numeric addresses of a host (A-labels, lower case), IPv6 and IPv4 in turn (RFC 8305 §4).

        FOUND as soon as one of the families has an address. When neither has, a failure outranks NO_DATA, so
        that mail never fails because half of the question got no answer.
        """

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        """TLSA records of a name with its port, "_25._tcp.mx.example.net", whether usable or not."""

    async def txt(self, name: str) -> Answer[str]:
        """TXT records, each with its strings joined; octets above 127 as Latin-1."""

    async def alias(self, name: str) -> Answer[str]:
        """The CNAME record of the name itself, not followed: the name it leads to."""
