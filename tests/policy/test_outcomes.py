"""The hook on_outcome: told in order, off the way of mail, within bounds."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from inbound.intake_harness import run
from policy.test_service import Log

from angarium.policy import Outcome
from angarium.policy.hook_file import read_source
from angarium.policy.hooks import Hooks
from angarium.policy.options import PolicyOptions
from angarium.policy.outcomes import AT_ONCE, OutcomeTeller, dropped_total


def outcome(number: int) -> Outcome:
    return Outcome("delivered", f"{number}", "a@x", "b@y", 1, "", "", "", 250, "2.0.0", "", 1, 0.0, 0.0)


def teller(folder: Path, hooks: str, capacity: int = 100) -> OutcomeTeller:
    path = folder / "policy.py"
    path.write_text("import asyncio\ntold, waiting = [], []\nopened = asyncio.Event()\n" + hooks)
    loop = asyncio.get_running_loop()
    hook = Hooks(read_source(str(path)), PolicyOptions(), loop, Log(folder).journal).on_outcome
    assert hook is not None
    return OutcomeTeller(hook, capacity, loop)


def test_outcomes_are_told_in_order_and_an_error_stops_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        hooks = "def on_outcome(outcome):\n    told.append(outcome.id)\n    1 / (int(outcome.id) - 3)\n"
        self = teller(tmp_path, hooks)
        for number in range(6):
            self.put(outcome(number))
        assert sys.modules["angarium_policy"].told == []
        await self.drain(20)
        assert sys.modules["angarium_policy"].told == ["0", "1", "2", "3", "4", "5"]
        self.close()

    run(main())


def test_hooks_that_wait_are_bounded_and_so_is_the_backlog(tmp_path: Path) -> None:
    hooks = (
        "async def on_outcome(outcome):\n    waiting.append(outcome.id)\n    await opened.wait()\n"
        "    told.append(outcome.id)\n"
    )

    async def main() -> None:
        self = teller(tmp_path, hooks, capacity=50)
        dropped = dropped_total.total()
        module = sys.modules["angarium_policy"]
        for number in range(60):
            if self.has_room():
                self.put(outcome(number))
        async with asyncio.timeout(20):
            while len(module.waiting) < AT_ONCE:
                await asyncio.sleep(0.001)
        assert dropped_total.total() - dropped == 10
        assert len(module.waiting) == AT_ONCE and not module.told
        module.opened.set()
        await self.drain(20)
        assert len(module.told) == 50
        self.close()

    run(main())
