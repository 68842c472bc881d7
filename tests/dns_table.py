"""A Resolver that answers from a table: routing is tested without DNS and without a clock."""

from __future__ import annotations

from collections.abc import Mapping

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

    "name CNAME" -> the canonical name, which is then looked up. A name without any row is NXDOMAIN, one with
    rows of another type only has NODATA. asked: every look-up, in order.
    """

    def __init__(self, rows: Mapping[str, str]) -> None:
        self.rows = dict(rows)
        self.asked: list[str] = []
        self.secure: set[str] = set()       # domains whose MX records DNS vouches for

    async def mx(self, domain: str) -> Answer[MxRecord]:
        name, text = self._look_up(domain, "MX")
        if text in FAILURES:
            return Answer(FAILURES[text], name, (), EXPIRES_MONO_S, f"{name} MX: {text}")
        pairs = (item.split() for item in text.split(","))
        records = sorted(MxRecord(int(preference), host) for preference, host in pairs)
        return Answer(Kind.FOUND, name, tuple(records), EXPIRES_MONO_S, is_secure=domain in self.secure)

    async def addresses(self, host: str) -> Answer[str]:
        name, text = self._look_up(host, "A")
        if text in FAILURES:
            return Answer(FAILURES[text], name, (), EXPIRES_MONO_S, f"{name} A: {text}")
        return Answer(Kind.FOUND, name, tuple(text.split()), EXPIRES_MONO_S)

    def _look_up(self, name: str, rdtype: str) -> tuple[str, str]:
        self.asked.append(f"{name} {rdtype}")
        name = self.rows.get(f"{name} CNAME", name)
        text = self.rows.get(f"{name} {rdtype}")
        if text is None:
            text = "NODATA" if any(row.startswith(name + " ") for row in self.rows) else "NXDOMAIN"
        return name, text
