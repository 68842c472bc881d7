"""Loading the backlog: a scan that ended before it had seen everything must not pass for a loaded one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from angarium import relay
from angarium.metrics import counters


class Shard:
    name = "00"

    def __init__(self, *, is_scan_broken: bool) -> None:
        self.is_scan_broken = is_scan_broken

    def statistics(self) -> dict[str, bool]:
        return {"is_scan_broken": self.is_scan_broken}


class Idle:
    def __init__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        pass


@pytest.mark.parametrize(("is_broken", "errors"), [(False, 0), (True, 1)])
def test_a_scan_that_broke_off_is_counted(monkeypatch: pytest.MonkeyPatch, *, is_broken: bool, errors: int) -> None:
    monkeypatch.setattr(relay, "recover", lambda *_: -1)
    monkeypatch.setattr(relay, "Compactor", Idle)
    half: Any = relay.Relay.__new__(relay.Relay)
    half._scheduler, half._compactors = None, []
    (figure,) = (each for each in counters.registry() if each.name == "angarium_recovery_errors_total")
    before = figure.total()
    asyncio.run(half._load(Shard(is_scan_broken=is_broken)))
    assert figure.total() - before == errors
