"""Automation in the supervisor: what it decides outlives a crash, though the disk refuses it at first."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from angarium.model.units import Duration
from angarium.process import automation_desk
from angarium.process.automation_desk import NAME, AutomationDesk
from angarium.process.control import Noticed
from angarium.process.supervisor import Supervisor
from angarium.queue.automation_options import AutomationRule
from angarium.queue.notices import Notice, Place

RULE = AutomationRule(text=["too fast"], action="slow", scope="site", factor=2.0, duration=Duration(3600))


class Spawner:
    def spawn(self, work: Any) -> None:
        asyncio.get_running_loop().create_task(work)


def test_what_the_disk_refuses_is_written_when_it_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automation_desk, "_SAVE_S", 0.01)
    monkeypatch.setattr(automation_desk, "_SAVE_AGAIN_S", 0.05)
    directory = os.open(tmp_path, os.O_RDONLY)

    def desk(events: list[dict[str, Any]]) -> AutomationDesk:
        def log(event: str, **fields: str | int | float) -> None:
            events.append({"event": event, **fields})

        made = AutomationDesk(cast(Supervisor, Spawner()), directory, log, {"r": RULE})
        made.push = nothing
        return made

    async def nothing() -> None:
        pass

    async def body() -> None:
        in_the_way = tmp_path / f"{NAME}.new"
        in_the_way.mkdir()
        events: list[dict[str, Any]] = []
        first = desk(events)
        first.start()
        first.on_noticed(Noticed([Notice("r", Place(site="mx.y.example"), 100, "421 too fast", "mx.y.example")], []))
        while not any(each["event"] == "error" for each in events):
            await asyncio.sleep(0.01)
        in_the_way.rmdir()
        while not (tmp_path / NAME).exists():
            await asyncio.sleep(0.01)
        second = desk([])           # and the first is gone without a word
        second.restore()
        assert [each.name for each in second.in_force()] == [each.name for each in first.in_force()] != []

    try:
        asyncio.run(asyncio.wait_for(body(), 10))
    finally:
        os.close(directory)
