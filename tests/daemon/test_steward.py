"""Orders in the supervisor: what holds before the queue is walked, and whatever becomes of the walk. Workers are the
test's."""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from angarium.admin.order_views import OrderRequest
from angarium.admin.views import BadQuery
from angarium.model.units import Duration
from angarium.process.control import ControlError, Request, Standing, Walk
from angarium.process.steward import Steward
from angarium.process.supervisor import Supervisor
from angarium.queue.automation import Engine
from angarium.queue.automation_options import AutomationRule
from angarium.queue.notices import Notice, Place
from angarium.queue.order_book import OrderBook
from angarium.queue.selection import Selection
from angarium.queue.standing import Order

Y = Selection(domain="y.example")


class Worker:
    """Notes what it is asked. A walk waits until it may go on, and fails when it has a reason to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.walks: list[Walk] = []
        self.held: list[str] = []
        self.may_walk = asyncio.Event()
        self.failure = ""

    async def call(self, request: Request, kind: type[Any], timeout_s: float = 5.0) -> Any:
        self.asked.append(type(request).__name__)
        if isinstance(request, Standing):
            self.held = [order.name for order in request.orders]
            return None
        if isinstance(request, Walk):
            self.walks.append(request)
            await self.may_walk.wait()
            if self.failure:
                raise ControlError(self.failure)
            return 2, 1, 0
        return []


class Automatic:
    """An engine, as the supervisor has it: each notice suspends its site for ten minutes, and half for ten more."""

    def __init__(self) -> None:
        rule = AutomationRule(
            action="suspend", text=["no"], scope="site", duration=Duration(600), recovery=Duration(600), steps=1
        )
        self.ahead_s = 0.0
        self.engine = Engine({"full": rule}, lambda: time.time() + self.ahead_s)

    def suspend(self, site: str) -> None:
        self.engine.notice([Notice("full", Place(site=site), 1, "421 no", "")], [])

    def orders(self) -> list[Order]:
        return self.engine.orders()

    def adjustments(self) -> list[Any]:
        return self.engine.adjustments()

    def treatments(self) -> Any:
        return self.engine.treatments()

    def in_force(self) -> list[Any]:
        return self.engine.in_force


class Machine:
    """A supervisor of two workers, and what is given to it."""

    def __init__(self, directory_fd: int, automatic: Automatic | None) -> None:
        self.workers = {0: Worker(), 1: Worker()}
        self.count = 2
        self.told: list[tuple[object, object]] = []
        self._directory_fd = directory_fd
        self._automatic = automatic
        self.again()

    def again(self) -> Machine:
        """As after a restart, but for the workers."""
        self.close()
        self.book = OrderBook(self._directory_fd)
        self.book.restore()
        supervisor = cast(Supervisor, self)
        self.steward = Steward(
            supervisor, self.book, self.log, lambda: ["bulk"], lambda: 3600.0, automatic=self._automatic
        )
        return self

    def log(self, event: str, **fields: str | float) -> None:
        self.told.append((fields["what"], fields["name"]))

    def spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        asyncio.get_running_loop().create_task(coroutine)

    def held(self) -> list[list[str]]:
        return [worker.held for worker in self.workers.values()]

    def let_walk(self) -> None:
        for worker in self.workers.values():
            worker.may_walk.set()

    def close(self) -> None:
        steward = getattr(self, "steward", None)
        if steward is not None and steward._timer is not None:
            steward._timer.cancel()


def run(
    directory: pathlib.Path,
    test: Callable[[Machine], Coroutine[object, object, None]],
    automatic: Automatic | None = None,
) -> None:
    async def body() -> None:
        fd = os.open(directory, os.O_RDONLY)
        machine = Machine(fd, automatic)
        try:
            await test(machine)
        finally:
            machine.close()
            os.close(fd)

    asyncio.run(body())


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("options", "action"),
    [
        ({"action": "suspend", "for_s": 60.0}, "count"),
        ({"action": "suspend"}, "count"),
        ({"action": "reroute", "name": "reroute-1", "pool": "bulk"}, "count-origins"),
        ({"action": "bounce", "for_s": 60.0}, "bounce"),
        ({"action": "retry", "for_s": 60.0}, "retry"),
    ],
)
def test_an_order_holds_before_the_queue_is_walked(
    tmp_path: pathlib.Path, options: dict[str, Any], action: str
) -> None:
    async def test(machine: Machine) -> None:
        given = asyncio.create_task(machine.steward.give(OrderRequest(where=Y, **options)))
        await turns()
        (order,) = machine.steward.orders()
        assert machine.held() == [[order.name]] * 2 and not given.done()
        assert [worker.walks[0].action for worker in machine.workers.values()] == [action] * 2
        assert order.meets_later is (machine.workers[0].walks[0].before_utc_s == 0)
        if "for_s" in options:
            assert order.until_utc_s == order.made_utc_s + 60.0 <= time.time() + 60.0
        machine.let_walk()
        answer = await given
        assert (answer.recipients, answer.messages, answer.incomplete) == (4, 2, "")
        assert answer.order == order

    run(tmp_path, test)


def test_a_resume_begins_to_count_what_is_suspended_and_waits_for_no_count(tmp_path: pathlib.Path) -> None:
    """What it lets go is delivered within milliseconds, and would not be counted afterwards."""

    async def test(machine: Machine) -> None:
        steward = machine.steward
        machine.let_walk()
        await steward.give(OrderRequest(action="suspend", where=Y, name="y"))
        for worker in machine.workers.values():
            worker.may_walk.clear()
            worker.asked.clear()
        for where in (Selection(domain="y.example", tenant="shop"), Y):
            given = asyncio.create_task(steward.give(OrderRequest(action="resume", where=where)))
            await turns()
            assert not given.done()
            assert machine.workers[0].asked == ["Walk", "Standing"]
            assert machine.held()[0] == (["y", "resume-1"] if where != Y else [])
            machine.let_walk()
            answer = await given
            assert answer.recipients == 4
            for worker in machine.workers.values():
                worker.may_walk.clear()
                worker.asked.clear()
        assert answer.cancelled == ["y", "resume-1"]

    run(tmp_path, test)


def test_a_worker_that_fails_to_walk_loses_no_order(tmp_path: pathlib.Path) -> None:
    async def test(machine: Machine) -> None:
        machine.let_walk()
        machine.workers[1].failure = "no answer within 3600 s"
        answer = await machine.steward.give(OrderRequest(action="suspend", where=Y, name="y"))
        assert (answer.recipients, answer.incomplete) == (2, "worker 1: no answer within 3600 s")
        del machine.workers[1]
        answer = await machine.steward.give(OrderRequest(action="delete", where=Y, name="gone"))
        assert (answer.recipients, answer.incomplete) == (
            2, "worker 1 is being restarted; ask again in a second"
        )  # fmt: skip
        answer = await machine.steward.give(OrderRequest(action="resume", where=Y))
        assert answer.cancelled == ["y"] and answer.incomplete
        assert [order.name for order in machine.steward.orders()] == ["gone"]
        with pytest.raises(ControlError, match="worker 1 is being restarted"):
            await machine.steward.give(OrderRequest(action="delete", where=Y))

    run(tmp_path, test)


@pytest.mark.parametrize("action", ["suspend", "bounce"])
def test_a_dry_run_counts_and_nothing_holds(tmp_path: pathlib.Path, action: Any) -> None:
    async def test(machine: Machine) -> None:
        machine.let_walk()
        answer = await machine.steward.give(OrderRequest(action=action, where=Y, name="y", dry_run=True))
        assert (answer.recipients, answer.order is not None) == (4, True)
        assert machine.steward.orders() == [] and machine.workers[0].asked == ["Walk", "Sample"]
        assert machine.workers[0].walks[0].action == "count"

    run(tmp_path, test)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_resume_of_what_automation_suspends_lives_as_long_as_that(
    tmp_path: pathlib.Path, is_restarted: bool
) -> None:
    automatic = Automatic()

    async def test(machine: Machine) -> None:
        steward = machine.steward
        machine.let_walk()
        automatic.suspend("mx.y.example")
        automatic.suspend("mx.z.example,mx2.z.example")
        with pytest.raises(BadQuery, match="nothing of that is suspended"):
            await steward.give(OrderRequest(action="resume", where=Selection(site="mx.x.example,mx2.x.example")))
        await steward.give(OrderRequest(action="suspend", where=Selection(domain="x.example"), name="x"))
        await steward.give(OrderRequest(action="resume", where=Selection(site="mx.y.example")))
        assert await steward.cancel("x") == ["x"]
        automatic.engine.cancel("full/mx.z.example,mx2.z.example")
        await steward.push()
        automatic.ahead_s = 700.0
        assert automatic.orders() == []         # it comes back, and may be in full again
        await steward.push()
        assert [order.name for order in steward.orders()] == ["resume-1"]
        if is_restarted:
            steward = machine.again().steward
            steward.start()
            assert [order.name for order in steward.orders()] == ["resume-1"]
            steward = machine.again().steward
        automatic.engine.cancel("full/mx.y.example")        # or it ended while nothing ran
        if is_restarted:
            steward.start()
            await turns()
        else:
            await steward.push()
        assert steward.orders() == [] and machine.held() == [[], []]
        assert machine.told[-1] == ("ended", "resume-1")

    run(tmp_path, test, automatic)
