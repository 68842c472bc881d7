"""Automation in the supervisor: feeds the Engine with what workers notice, tells workers what it decides, keeps
that in `automation.json` in the spool's directory, so that a restart goes on with it.

Measures begin and end at any moment, while the file is written at most once a second: a crash forgets a second of them,
and what led to them comes again. A file that cannot be written is written later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec

from angarium.admin.automation_views import MeasureView
from angarium.process.control import Noticed
from angarium.process.supervisor import Supervisor
from angarium.queue.adjustments import Adjustment
from angarium.queue.automation import Engine
from angarium.queue.automation_options import AutomationRule
from angarium.queue.measure import Measure
from angarium.queue.notices import Treatments
from angarium.queue.recovering import Progress
from angarium.queue.standing import Order
from angarium.spool.state_file import StateFile

NAME: Final = "automation.json"
_SAVE_S: Final = 1.0
_SAVE_AGAIN_S: Final = 10.0
_LOOK_S: Final = 60.0       # at the least, to forget what is not counted any more


class _Measures(msgspec.Struct):
    version: int
    measures: list[Measure]


class Log(Protocol):
    def __call__(self, event: str, **fields: str | int | float) -> None: ...


class AutomationDesk:
    """push: hands all that holds to the workers."""

    def __init__(
        self,
        supervisor: Supervisor,
        directory_fd: int,
        log: Log,
        rules: Mapping[str, AutomationRule],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.push: Callable[[], Awaitable[None]]
        self._supervisor = supervisor
        self._file = StateFile(directory_fd, NAME)
        self._log = log
        self._clock = clock
        self._rules = rules
        self._engine = Engine(rules, clock)
        self._progress = Progress()
        self._is_saved = True
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.TimerHandle | None = None

    # What the daemon asks.

    def restore(self) -> None:
        """Before any worker is started."""
        try:
            octets = self._file.read()
            if octets is not None:
                found = msgspec.json.decode(octets, type=_Measures)     # its errors are ValueErrors
                if found.version != 1:
                    raise ValueError(f"version {found.version}")
                self._engine.restore(found.measures)
        except (OSError, ValueError) as error:
            self._log("error", where=NAME, reason=f"nothing is in force: {error}")

    def start(self) -> None:
        """On the supervisor's loop, when workers serve."""
        self._tell_progress(self._engine.measures)
        self._await_change()

    def set_rules(self, rules: Mapping[str, AutomationRule]) -> None:
        """Of a new configuration, when workers have it: what replies are taken for may be another."""
        before = self.treatments()
        self._rules = rules
        self._engine.set_rules(rules)
        if before != self.treatments():
            self._changed()
            self._supervisor.spawn(self._push())

    def save(self) -> None:
        if self._is_saved:
            return
        try:
            self._file.write(msgspec.json.encode(_Measures(1, self._engine.in_force)))
            self._is_saved = True
        except OSError as error:
            self._log("error", where=NAME, reason=str(error))

    def orders(self) -> list[Order]:
        return self._engine.orders()

    def adjustments(self) -> list[Adjustment]:
        return self._engine.adjustments()

    def treatments(self) -> Treatments:
        return self._engine.treatments()

    def in_force(self) -> list[Measure]:
        return self._engine.in_force

    def on_noticed(self, noticed: Noticed) -> None:
        """A worker's letter."""
        before = self.orders(), self.adjustments(), self.treatments()
        known = {each.name for each in self._engine.measures}
        begun = self._engine.notice(noticed.notices, noticed.tallies)
        for measure in begun:
            if measure.name not in known:
                known.add(measure.name)
                self._tell("began", measure)
        self._tell_progress(begun)
        if begun:
            self._changed()
        if before != (self.orders(), self.adjustments(), self.treatments()):
            self._supervisor.spawn(self._push())

    # What the HTTP API asks.

    def measures(self) -> list[MeasureView]:
        now = self._clock()
        return [
            MeasureView(
                name=each.name,
                rule=each.rule,
                action=each.action,
                effect=each.effect(now),
                **{key: text for key, text in msgspec.structs.asdict(each.place).items() if text},
                made_utc_s=each.made_utc_s,
                until_utc_s=each.until_utc_s,
                ends_utc_s=each.ends_utc_s,
                is_recovering=each.is_recovering(now),
                step=each.step(now),
                steps=each.steps,
                is_permanent=each.is_permanent,
                cancelled_utc_s=each.cancelled_utc_s,
                dry_run=each.dry_run,
                whom=each.whom,
                count=each.count,
                why=each.why,
                replies=each.replies,
            )
            for each in self._engine.in_force
        ]

    def rules(self) -> dict[str, dict[str, Any]]:
        """As the configuration has them; durations in seconds, None for what is permanent."""
        return {
            name: msgspec.to_builtins(rule, enc_hook=float) | {"duration": None if rule.is_permanent else rule.holds_s}
            for name, rule in self._rules.items()
        }

    async def cancel_measure(self, name: str) -> bool:
        """False: there is none of that name."""
        measure = self._engine.cancel(name)
        if measure is None:
            return False
        self._progress.forget(name)
        self._tell("cancelled", measure)
        self._changed()
        await self.push()
        return True

    async def restore_measure(self, name: str) -> bool:
        """What is permanent and was cancelled holds again. False: there is none of that name."""
        measure = self._engine.restore_permanent(name)
        if measure is None:
            return False
        self._tell("restored", measure)
        self._changed()
        await self.push()
        return True

    async def _push(self) -> None:
        await self.push()

    def _changed(self) -> None:
        self._is_saved = False
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(_SAVE_S, self._save_due)
        self._await_change()

    def _save_due(self) -> None:
        self._saving = None
        self.save()
        if not self._is_saved:          # there may be no other change for days
            self._saving = asyncio.get_running_loop().call_later(_SAVE_AGAIN_S, self._save_due)

    def _await_change(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        change_s = self._engine.next_change_s()
        delay_s = _LOOK_S if change_s is None else min(change_s, _LOOK_S)
        self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0.05), self._change_due)

    def _change_due(self) -> None:
        over = self._engine.expire()
        for measure in over:
            self._progress.forget(measure.name)
            self._tell("ended", measure)
        self._tell_progress(self._engine.measures)
        if over:
            self._changed()
        if self._engine.measures or over:
            self._supervisor.spawn(self._push())
        self._await_change()

    def _tell_progress(self, measures: Iterable[Measure]) -> None:
        """Of each that goes back by a step, or holds in full again: once."""
        now = self._clock()
        for measure in measures:
            step = measure.step(now)
            what = self._progress.news(measure.name, step)
            if what == "again":
                self._tell(what, measure)
            elif what is not None:
                self._tell(what, measure, step=step, steps=measure.steps)

    def _tell(self, what: str, measure: Measure, **fields: int) -> None:
        last = measure.replies[-1].reply if measure.replies else ""
        self._log("automation", what=what, name=measure.name, rule=measure.rule, effect=measure.effect(self._clock()),
                  reason=measure.why, reply=last, **fields)  # fmt: skip
