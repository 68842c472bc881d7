"""A Resolver that answers from a table: routing is tested without DNS and without a clock."""

from __future__ import annotations

from collections.abc import Mapping

from angarium.model.tlsa import TlsaRecord
from angarium.resolver.answer import Answer, Kind, MxRecord

EXPIRES_MONO_S = 300.0
FAILURES = {
    "NXDOMAIN": Kind.NXDOMAIN,
    "NODATA": Kind.NO_DATA,
    "SERVFAIL": Kind.SERVER_FAILURE,
    "TIMEOUT": Kind.TIMEOUT,
}


class DnsTable:
    """Rows: "name MX" -> "10 a.example, 20 b.example"; "name A" -> "192.0.2.1 ::2"; or one of FAILURES.

    "name CNAME" -> the canonical name, which is then looked up; "name CNAME itself" -> what asking for that record
    alone gives. A name without any row is NXDOMAIN, one with rows of another type only has NODATA. asked: every
    look-up, in order.
    """

    def __init__(self, rows: Mapping[str, str]) -> None:
        self.rows = dict(rows)
        self.asked: list[str] = []
        # What DNS vouches for: domains (their MX records), "name A", "name TLSA", "name CNAME".
        self.secure: set[str] = set()

    async def mx(self, domain: str) -> Answer[MxRecord]:
        name, text = self._look_up(domain, "MX")
        if text in FAILURES:
            return Answer(FAILURES[text], name, (), EXPIRES_MONO_S, f"{name} MX: {text}", domain in self.secure)
        pairs = (item.split() for item in text.split(","))
        records = sorted(MxRecord(int(preference), host) for preference, host in pairs)
        return Answer(Kind.FOUND, name, tuple(records), EXPIRES_MONO_S, is_secure=domain in self.secure)

    async def addresses(self, host: str) -> Answer[str]:
        name, text = self._look_up(host, "A")
        if text in FAILURES:
            return Answer(FAILURES[text], name, (), EXPIRES_MONO_S, f"{name} A: {text}")
        is_secure = f"{host} A" in self.secure
        return Answer(Kind.FOUND, name, tuple(text.split()), EXPIRES_MONO_S, is_secure=is_secure)

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        _, text = self._look_up(name, "TLSA")
        is_secure = f"{name} TLSA" in self.secure
        if text in FAILURES:
            return Answer(FAILURES[text], name, (), EXPIRES_MONO_S, f"{name} TLSA: {text}", is_secure)
        records = (each.split() for each in text.split(","))
        found = tuple(TlsaRecord(int(u), int(s), int(m), bytes.fromhex(data)) for u, s, m, data in records)
        return Answer(Kind.FOUND, name, found, EXPIRES_MONO_S, is_secure=is_secure)

    async def txt(self, name: str) -> Answer[str]:
        _, text = self._look_up(name, "TXT")
        if text in FAILURES:
            return Answer(FAILURES[text], name, (), EXPIRES_MONO_S, f"{name} TXT: {text}")
        return Answer(Kind.FOUND, name, tuple(text.split("|")), EXPIRES_MONO_S)

    async def alias(self, name: str) -> Answer[str]:
        self.asked.append(f"{name} CNAME")
        text = self.rows.get(f"{name} CNAME", "NODATA")
        text = self.rows.get(f"{name} CNAME itself", text)
        is_secure = f"{name} CNAME" in self.secure
        if text in FAILURES:
            return Answer(FAILURES[text], name, (), EXPIRES_MONO_S, f"{name} CNAME: {text}", is_secure)
        return Answer(Kind.FOUND, name, (text,), EXPIRES_MONO_S, is_secure=is_secure)

    def _look_up(self, name: str, rdtype: str) -> tuple[str, str]:
        self.asked.append(f"{name} {rdtype}")
        name = self.rows.get(f"{name} CNAME", name)
        text = self.rows.get(f"{name} {rdtype}")
        if text is None:
            text = "NODATA" if any(row.startswith(name + " ") for row in self.rows) else "NXDOMAIN"
        return name, text
