"""The octets of DNS messages as nearly all of them are: one question, answers with MX, A or AAAA records (RFC 1035 §4).

What is unusual is left to dnspython, which takes ten times as long: read() then says so, and never guesses.
"""

from __future__ import annotations

import re
import struct
from socket import AF_INET6, inet_ntoa, inet_ntop
from typing import Final

import msgspec

from angarium.resolver.answer import MxRecord

A: Final = 1
CNAME: Final = 5
SOA: Final = 6
MX: Final = 15
AAAA: Final = 28
OPT: Final = 41

_READ: Final = (MX, A, AAAA)
_IN: Final = b"\0\1"
_NXDOMAIN: Final = 3
_QR, _AA, _TC, _RD, _RA, _AD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020
_OPCODE_AND_RCODE: Final = 0x780F
_HEADER: Final = struct.Struct(">HHHHHH")
_RECORD: Final = struct.Struct(">HHIH")
_PLAIN_NAME: Final = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", re.ASCII)
_PLAIN_LABELS: Final = re.compile(rb"[a-z0-9_.-]+", re.ASCII)
_NAME_OCTETS: Final = 255
_TO_THE_QUESTION: Final = b"\xc0\x0c"      # a pointer to the name in the question
_OPT_OF_ROOT: Final = b"\0\0\x29"
_SOA_NUMBERS_OCTETS: Final = 20
_TTL_MAXIMUM_S: Final = 0x7FFFFFFF      # RFC 2181 §8
_CHAIN: Final = 16              # CNAMEs; dnspython stops there too


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A response to a question for MX, A or AAAA records, NOERROR or NXDOMAIN.

    name         canonical: what CNAMEs led to, or the name asked for; lower case, no final dot.
    records      MxRecord or numeric addresses, in the server's order.
    ttl_s        the least of all records on the way; of a negative answer with the SOA's (RFC 2308 §5).
    has_soa      of a negative answer: it may be kept.
    is_authentic the AD flag.
    """

    name: str
    records: tuple[MxRecord, ...] | tuple[str, ...]
    ttl_s: int
    is_nxdomain: bool
    has_soa: bool
    is_authentic: bool


class _Unusual(Exception):
    """For dnspython to read."""


def question(name: str, rdtype: int) -> bytes | None:
    """The question section for a name in lower-case ASCII without final dot; None when no name looks like this."""
    if not _PLAIN_NAME.fullmatch(name) or len(name) > _NAME_OCTETS - 2:
        return None
    # chr(): a label's length is under 64.
    wire = "".join([f"{chr(len(label))}{label}" for label in name.split(".")])
    return wire.encode("ascii") + b"\0" + rdtype.to_bytes(2, "big") + _IN


def query(number: int, asked: bytes, *, payload_octets: int, asks_ad: bool) -> bytes:
    """A whole query with recursion desired. payload_octets: of EDNS (RFC 6891), 0 without it."""
    head = _HEADER.pack(number, _RD | (_AD if asks_ad else 0), 1, 0, 0, 1 if payload_octets else 0)
    if not payload_octets:
        return head + asked
    return head + asked + b"\0" + _RECORD.pack(OPT, payload_octets, 0, 0)


def read(octets: bytes, number: int, asked: bytes, name: str) -> Reply | None:
    """The response to query(number, asked, ...), where asked is question(name, ...). None for one that is unusual, and
    for what is no response to it.
    """
    try:
        return _read(octets, number, asked, name)
    except (_Unusual, IndexError, struct.error, UnicodeDecodeError):
        return None


def _read(octets: bytes, number: int, asked: bytes, name: str) -> Reply:
    rdtype = int.from_bytes(asked[-4:-2], "big")
    if rdtype not in _READ:
        raise _Unusual
    its_number, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(octets)
    rcode = flags & 0x000F
    if its_number != number or not flags & _QR or flags & _TC or flags & _OPCODE_AND_RCODE not in (0, _NXDOMAIN):
        raise _Unusual
    if questions != 1 or not octets.startswith(asked, _HEADER.size):
        raise _Unusual
    position = _HEADER.size + len(asked)
    aliases: dict[str, tuple[str, int]] = {}
    found: dict[str, tuple[list[MxRecord] | list[str], int]] = {}
    for _ in range(answers):
        owner, kind, ttl_s, start, end = _record(octets, position, name)
        if kind == CNAME:
            target, after = _name(octets, start)
            if after != end or owner in aliases:
                raise _Unusual
            aliases[owner] = (target, ttl_s)
        elif kind == rdtype:
            record = _data(octets, rdtype, start, end)
            records, least_s = found.get(owner, ([], ttl_s))
            if record in records:
                raise _Unusual          # RFC 2181 §5: a set has each once
            records.append(record)      # type: ignore[arg-type]
            found[owner] = (records, min(least_s, ttl_s))
        else:
            raise _Unusual
        position = end
    asked_name = name
    ttl_s = _TTL_MAXIMUM_S
    for _ in range(_CHAIN):
        if name in found or name not in aliases:
            break
        name, alias_ttl_s = aliases[name]
        ttl_s = min(ttl_s, alias_ttl_s)
    else:
        raise _Unusual
    records, least_s = found.get(name, ([], ttl_s))
    ttl_s = min(ttl_s, least_s)
    if (records and rcode == _NXDOMAIN) or not (answers or flags & (_RA | _AA)):
        raise _Unusual                  # it contradicts itself; or it is a referral
    if authorities > 1 or additionals > 1 or (records and authorities):
        raise _Unusual
    if authorities:
        owner, kind, soa_ttl_s, start, position = _record(octets, position, asked_name)
        if kind != SOA or not (not owner or name == owner or name.endswith("." + owner)):
            raise _Unusual
        _, start = _name(octets, start)
        _, start = _name(octets, start)
        if start + _SOA_NUMBERS_OCTETS != position:
            raise _Unusual
        ttl_s = min(ttl_s, soa_ttl_s, int.from_bytes(octets[position - 4 : position], "big"))
    if additionals:
        # OPT without options, and without upper bits of the response code (RFC 6891 §6.1.3).
        if not octets.startswith(_OPT_OF_ROOT, position):
            raise _Unusual
        _, _, extended, length = _RECORD.unpack_from(octets, position + 1)
        if extended >> 24 or length:
            raise _Unusual
        position += 1 + _RECORD.size
    if position != len(octets):
        raise _Unusual
    return Reply(
        name, tuple(records), ttl_s, rcode == _NXDOMAIN, bool(authorities), bool(flags & _AD)     # type: ignore[arg-type]
    )


def _record(octets: bytes, position: int, asked_name: str) -> tuple[str, int, int, int, int]:
    """Owner, type, TTL, and where the data begin and end."""
    if octets.startswith(_TO_THE_QUESTION, position):
        owner, position = asked_name, position + 2
    else:
        owner, position = _name(octets, position)
    kind, of_class, ttl_s, length = _RECORD.unpack_from(octets, position)
    start = position + _RECORD.size
    if of_class != 1 or start + length > len(octets) or ttl_s > _TTL_MAXIMUM_S:
        raise _Unusual
    return owner, kind, ttl_s, start, start + length


def _data(octets: bytes, rdtype: int, start: int, end: int) -> MxRecord | str:
    if rdtype == A and end - start == 4:
        return inet_ntoa(octets[start:end])
    if rdtype == AAAA and end - start == 16:
        return inet_ntop(AF_INET6, octets[start:end])
    if rdtype == MX and end - start > 2:
        host, after = _name(octets, start + 2)
        if after != end:
            raise _Unusual
        return MxRecord(int.from_bytes(octets[start : start + 2], "big"), host or ".")
    raise _Unusual


def _name(octets: bytes, position: int) -> tuple[str, int]:
    """A name in lower case without final dot, "" the root, and where it ends. Follows pointers, backwards only."""
    labels = []
    after = -1
    size = 0
    while length := octets[position]:
        if length < 64:
            position += 1
            labels.append(octets[position : position + length])
            position += length
            size += length + 1
            if size >= _NAME_OCTETS:
                raise _Unusual
        elif length >= 192:
            target = (length & 63) << 8 | octets[position + 1]
            if after < 0:
                after = position + 2
            if target >= position:
                raise _Unusual
            position = target
        else:
            raise _Unusual
    name = b".".join(labels).lower()
    if name and (not _PLAIN_LABELS.fullmatch(name) or any(b"." in label for label in labels)):
        raise _Unusual
    return name.decode("ascii"), position + 1 if after < 0 else after
