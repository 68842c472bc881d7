"""A DNS response to an Answer: which kind of yes or no it is and how long that holds. Pure; asks nobody.

The response is one that Nameservers.ask let through: NOERROR or NXDOMAIN.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import msgspec

from angarium.model.tlsa import TlsaRecord
from angarium.resolver.answer import Answer, Kind, MxRecord
from angarium.resolver.wire import Reply

Record = TypeVar("Record")

# RFC 2308 §5: negative answers longer than one to three hours have been found to do harm.
_NEGATIVE_TTL_S = 10_800


class TtlBounds:
    """How short and how long an answer may live, in seconds."""

    __slots__ = ("maximum_s", "minimum_s")

    def __init__(self, minimum_s: float, maximum_s: float) -> None:
        self.minimum_s = minimum_s
        self.maximum_s = maximum_s

    def clamp(self, ttl_s: float) -> float:
        return min(max(ttl_s, self.minimum_s), self.maximum_s)


def interpret_mx(
    name: str, response: dns.message.Message, bounds: TtlBounds, now_mono_s: float
) -> Answer[MxRecord]:
    """The answer to a question for MX records of `name`."""
    answer = _interpret(name, response, bounds, now_mono_s, _mx_record)
    if len(answer.records) < 2:
        return answer
    return msgspec.structs.replace(answer, records=tuple(sorted(answer.records)))


def interpret_addresses(
    name: str, response: dns.message.Message, bounds: TtlBounds, now_mono_s: float
) -> Answer[str]:
    """The answer to a question for A or AAAA records, in the server's order, which spreads load."""
    return _interpret(name, response, bounds, now_mono_s, _address)


def interpret_reply(
    name: str, rdtype: dns.rdatatype.RdataType, reply: Reply, bounds: TtlBounds, now_mono_s: float
) -> Answer[Any]:
    """What interpret_mx and interpret_addresses say, of a response that needed no dnspython."""
    if reply.records:
        records: tuple[Any, ...] = reply.records
        if len(records) > 1 and rdtype == dns.rdatatype.MX:
            records = tuple(sorted(records))
        return Answer(Kind.FOUND, reply.name, records, now_mono_s + bounds.clamp(reply.ttl_s))
    kind = Kind.NXDOMAIN if reply.is_nxdomain else Kind.NO_DATA
    detail = f"{name} {_text_of_type(rdtype)}: {kind.value}"
    return Answer(kind, reply.name, (), now_mono_s + _negative_ttl_s(reply.ttl_s, reply.has_soa, bounds), detail)


def interpret_names(
    name: str, response: dns.message.Message, bounds: TtlBounds, now_mono_s: float
) -> Answer[str]:
    """The answer to a question for PTR records."""
    return _interpret(name, response, bounds, now_mono_s, _pointer)


def interpret_tlsa(
    name: str, response: dns.message.Message, bounds: TtlBounds, now_mono_s: float
) -> Answer[TlsaRecord]:
    """The answer to a question for TLSA records, in a stable order."""
    answer = _interpret(name, response, bounds, now_mono_s, _tlsa_record)
    return msgspec.structs.replace(answer, records=tuple(sorted(answer.records)))


def interpret_texts(
    name: str, response: dns.message.Message, bounds: TtlBounds, now_mono_s: float
) -> Answer[str]:
    """The answer to a question for TXT records."""
    return _interpret(name, response, bounds, now_mono_s, _text)


def interpret_alias(
    name: str, response: dns.message.Message, bounds: TtlBounds, now_mono_s: float
) -> Answer[str]:
    """The answer to a question for the CNAME record itself."""
    return _interpret(name, response, bounds, now_mono_s, _pointer)


def _interpret(
    name: str,
    response: dns.message.Message,
    bounds: TtlBounds,
    now_mono_s: float,
    record: Callable[[Any], Record],
) -> Answer[Record]:
    asked = f"{name} {_type_text(response)}"
    if not isinstance(response, dns.message.QueryMessage):
        return failure(Kind.SERVER_FAILURE, name, f"{asked}: not an answer", bounds, now_mono_s)
    try:
        chain = response.resolve_chaining()
    except dns.message.ChainTooLong:
        return failure(Kind.SERVER_FAILURE, name, f"{asked}: CNAME loop", bounds, now_mono_s)
    except dns.exception.DNSException as error:
        # NXDOMAIN with records, no question: the server contradicts itself.
        return failure(Kind.SERVER_FAILURE, name, f"{asked}: {type(error).__name__}", bounds, now_mono_s)
    canonical = name_text(chain.canonical_name)
    if chain.answer is not None:
        expires = now_mono_s + bounds.clamp(chain.minimum_ttl)
        return Answer(Kind.FOUND, canonical, tuple(record(rdata) for rdata in chain.answer), expires)
    has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
    ttl_s = _negative_ttl_s(chain.minimum_ttl, has_soa, bounds)
    kind = Kind.NXDOMAIN if response.rcode() == dns.rcode.NXDOMAIN else Kind.NO_DATA
    return Answer(kind, canonical, (), now_mono_s + ttl_s, f"{asked}: {kind.value}")


def _negative_ttl_s(ttl_s: float, has_soa: bool, bounds: TtlBounds) -> float:
    """RFC 2308 §5: a negative answer without the zone's SOA is not to be cached: the least TTL."""
    return bounds.clamp(min(ttl_s, _NEGATIVE_TTL_S)) if has_soa else bounds.minimum_s


def failure(kind: Kind, name: str, detail: str, bounds: TtlBounds, now_mono_s: float) -> Answer[Any]:
    """A failed look-up: kept for the least TTL, so that a broken zone is not asked per message (RFC 9520)."""
    return Answer(kind, name, (), now_mono_s + bounds.minimum_s, detail)


def name_text(name: dns.name.Name) -> str:
    """Lower case, no final dot; octets beyond printable ASCII as \\DDD (RFC 1035 §5.1); the root is "."."""
    return name.to_text(omit_final_dot=True).lower()


def _mx_record(rdata: Any) -> MxRecord:
    return MxRecord(rdata.preference, name_text(cast(dns.name.Name, rdata.exchange)))


def _address(rdata: Any) -> str:
    return cast(str, rdata.address)


def _pointer(rdata: Any) -> str:
    return name_text(cast(dns.name.Name, rdata.target))


def _tlsa_record(rdata: Any) -> TlsaRecord:
    return TlsaRecord(rdata.usage, rdata.selector, rdata.mtype, bytes(rdata.cert))


def _text(rdata: Any) -> str:
    return b"".join(rdata.strings).decode("latin-1")


_text_of_type = functools.cache(dns.rdatatype.to_text)


def _type_text(response: dns.message.Message) -> str:
    return dns.rdatatype.to_text(response.question[0].rdtype) if response.question else "?"
