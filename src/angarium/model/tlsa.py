"""TLSA records (RFC 6698), as values: what DNS says about the certificate of a host. No behaviour here."""

from __future__ import annotations

import enum

import msgspec


class TlsaRecord(msgspec.Struct, frozen=True, order=True, gc=False):
    """One record.

    usage     2 is DANE-TA, 3 DANE-EE (RFC 7218).
    selector  0 certificate, 1 its public key.
    matching  data is 0 the whole of that, 1 its SHA-256, 2 its SHA-512.
    """

    usage: int
    selector: int
    matching: int
    data: bytes


class TlsaState(enum.Enum):
    """What came of the look-up, RFC 7672 §2.1.1 and §2.2."""

    ABSENT = "absent"           # none, or nobody vouches for it: DANE has no say in this host
    USABLE = "usable"           # the certificate must match one of them
    UNUSABLE = "unusable"       # there are some, and none that we can use: encrypted, and not authenticated
    TROUBLE = "trouble"         # nobody can know now: the host is not to be used


class Tlsa(msgspec.Struct, frozen=True):
    """What holds for one host.

    base     TLSA base domain: the name that SNI and usage 2 go by.
    records  the usable ones.
    detail   why, for people; printable ASCII.
    """

    state: TlsaState
    base: str = ""
    records: tuple[TlsaRecord, ...] = ()
    detail: str = ""
