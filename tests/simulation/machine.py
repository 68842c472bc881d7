"""The simulated relay: one worker's queue with all that steers it, and the part of a supervisor that decides for it.

Real are spool, scheduler, connections, orders, quiet hours, warm-up with its file, automation with its file. Not there
are listeners and a second process: what a worker would write to its supervisor is a call.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, cast

from queue_harness import Queue
from simulation.hosts import MailHost
from simulation.world import PROVIDER, Router, World

from angarium.model.units import Duration, Rate
from angarium.process.automation_desk import AutomationDesk
from angarium.process.control import Noticed
from angarium.process.supervisor import Supervisor
from angarium.queue.automation import Measure
from angarium.queue.automation_options import AutomationRule
from angarium.queue.compaction import Compactor
from angarium.queue.notices import Notice, Notices, Tally
from angarium.queue.options import QueueOptions, RetryOptions
from angarium.queue.order_watch import OrderWatch
from angarium.queue.quiet import QuietOptions, quiet_hours
from angarium.queue.ration_file import RationFile
from angarium.queue.rations import Rations
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import DomainShaping, ProviderShaping, ShapingDefault, ShapingTables
from angarium.routing.egress_rules import egress_pools
from angarium.routing.options import PoolOptions, SourceOptions
from angarium.routing.source_health import SourceHealth
from angarium.routing.warmup import WarmupOptions, Warmups

SWEEP_S: Final = 60.0
OVERLOADED_RATE: Final = Rate(0.5)
RETRY: Final = RetryOptions(first=Duration(300), factor=2.0, max=Duration(4 * 3600), jitter=0.1)
OPTIONS: Final = QueueOptions(retry=RETRY, max_age=Duration(30 * 3600), delay_report=Duration(4 * 3600))
QUIET: Final = QuietOptions(
    start="22:00", end="06:30", zone="Europe/Berlin", domains=["quiet0.example", "quiet1.example"]
)
RULES: Final = {
    "limited": AutomationRule(
        text=["rate limited"], count=3, within=Duration(600), action="suspend", scope="source-and-site",
        duration=Duration(3600),
    ),
    "overload": AutomationRule(
        text=["overloaded"], count=3, within=Duration(600), action="slow", scope="site", factor=8.0,
        duration=Duration(1800), recovery=Duration(3600), steps=3,
    ),
    "banned": AutomationRule(text=["never again"], action="treat-as-permanent"),
    "deferring": AutomationRule(
        deferral_rate=0.9, minimum=30, within=Duration(1800), action="cap", connections=1, scope="site",
        duration=Duration(1800), recovery=Duration(1800), steps=2,
    ),
}  # fmt: skip


class _Spawner:
    """What the desk asks of a supervisor."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Machine:
    """Start it, stop it, start it again: it goes on.

    measures  every state of automation that was told to the worker: (when, what was in force).
    """

    def __init__(self, directory: Path, world: World, plan: WarmupOptions) -> None:
        self._directory = directory
        self._world = world
        self._plan = plan
        self._log: list[dict[str, str | int | float]] = []
        self.measures: list[tuple[float, list[Measure]]] = []
        self.queue: Queue

    @property
    def told(self) -> list[dict[str, str | int | float]]:
        """What automation has logged."""
        return self._log

    def _shaping(self) -> Shaping:
        overloaded = [name for name, kind in self._world.kinds.items() if kind == "overloaded"]
        return Shaping(
            ShapingTables(
                default=ShapingDefault(connections=8),
                provider={PROVIDER: ProviderShaping(mx=["*.big.example"])},
                domain={name: DomainShaping(message_rate=OVERLOADED_RATE) for name in overloaded},
            )
        )

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._directory.mkdir(exist_ok=True)
        self._fd = os.open(self._directory, os.O_RDONLY)
        warmups = Warmups({"plan": self._plan}, [PROVIDER], Rations())
        self._rations = [ration for _, _, ration in warmups.all()]
        self._ration_file = RationFile(self._fd)
        self._ration_file.restore(self._rations)
        health = SourceHealth()
        sources = {
            "old": SourceOptions(address="127.0.0.1", ehlo="old.example"),
            "new": SourceOptions(address="127.0.0.2", ehlo="new.example"),
        }
        pools = egress_pools(sources, {"default": PoolOptions()}, [], "relay.example", health=health, warmups=warmups)
        self.queue = queue = Queue(
            self._directory,
            MailHost("unused").site,
            options=OPTIONS,
            shaping=self._shaping(),
            pool=pools,
            segment_octets=1 << 20,
            router=Router(self._world),
        )
        self._desk = AutomationDesk(
            cast(Supervisor, _Spawner()), self._fd, lambda event, **fields: self._log.append(fields), RULES
        )
        self._desk.restore()
        self._watch = OrderWatch(loop, queue.journal, queue.scheduler)

        async def push() -> None:
            self.measures.append((time.time(), self._desk.in_force()))
            self._watch.set_orders(self._desk.orders(), self._desk.adjustments())

        def noticed(notices: list[Notice], tallies: list[Tally]) -> None:
            self._desk.on_noticed(Noticed(notices, tallies))

        self._desk.push = push
        await push()
        self._watch.set_quiet(quiet_hours([QUIET]))
        scheduler = queue.scheduler
        self._notices = Notices(loop, RULES, scheduler.classifier, noticed, scheduler.take_tallies)
        scheduler.notice_by(self._notices)
        self._desk.start()
        await queue.recover()
        self._compactor = Compactor(scheduler, queue.shard)
        self._compactor.start()
        self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self.queue.scheduler.sweep()
        self._ration_file.save(Rations().day, self._rations)
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    async def stop(self) -> None:
        """In order, as a worker ends (Relay.drain), and then its supervisor."""
        self._sweeping.cancel()
        self._watch.close()
        self._notices.flush()
        self._notices.close()
        queue = self.queue
        await queue.dispatcher.drain(5.0)
        queue.scheduler.close()
        queue.shard.hurry()
        await queue.reporter.drain()
        await self._compactor.stop()
        while queue.scheduler.states_in_flight:
            await asyncio.sleep(0.01)
        queue.shutdown()
        if self._desk._timer is not None:       # a desk ends with its process
            self._desk._timer.cancel()
        self._desk.save()
        self._ration_file.save(Rations().day, self._rations)
        os.close(self._fd)
