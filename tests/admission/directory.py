"""DNS as a table, for what admission asks of it."""

from __future__ import annotations

import asyncio

from angarium.resolver.answer import Answer, Kind, MxRecord


class Table:
    """name -> records. What is not in it does not exist; "!" fails, "?" never answers."""

    def __init__(self, records: dict[str, list[str]]) -> None:
        self.records = records
        self.asked: list[str] = []

    async def ipv4(self, host: str) -> Answer[str]:
        return await self._answer(host)

    async def names(self, name: str) -> Answer[str]:
        return await self._answer(name)

    async def addresses(self, host: str) -> Answer[str]:
        return await self._answer(host)

    async def mx(self, domain: str) -> Answer[MxRecord]:
        answer = await self._answer(f"mx {domain}")
        records = tuple(MxRecord(10, host) for host in answer.records)
        return Answer(answer.kind, domain, records, answer.expires_mono_s)

    async def _answer(self, name: str) -> Answer[str]:
        self.asked.append(name)
        records = self.records.get(name)
        if records == ["?"]:
            await asyncio.Event().wait()
        if records is None:
            return Answer(Kind.NXDOMAIN, name, (), 0.0)
        if records == ["!"]:
            return Answer(Kind.SERVER_FAILURE, name, (), 0.0)
        return Answer(Kind.FOUND, name, tuple(records), 0.0)
