"""Standing orders in the supervisor: takes them, keeps them, hands them to all workers, ends them in time.

What is done once to the whole queue goes through here too: every worker walks its own.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeVar

from angarium.admin.order_views import OrderAnswer, OrderRequest
from angarium.admin.views import BadQuery
from angarium.policy.decisions import route_text
from angarium.process.control import ControlError, Request, Sample, Standing, Walk
from angarium.process.supervisor import Supervisor
from angarium.queue.adjustments import Adjustment
from angarium.queue.in_force import Facts, InForce, in_force
from angarium.queue.measure import Measure
from angarium.queue.notices import Treatments
from angarium.queue.order_book import OrderBook
from angarium.queue.quiet import QuietHours
from angarium.queue.recovering import Progress, factor_back, spoken
from angarium.queue.selection import Selection, may_meet
from angarium.queue.standing import Order, status_numbers

T = TypeVar("T")
Counts = tuple[int, int, int]       # recipients, messages, domains of which it is not known

SAMPLE: Final = 10
# Judged: some millions of messages in a worker, whose envelopes are all read back (docs/orders.md). Workers go on
# after it.
WALK_TIMEOUT_S: Final = 3600.0
_PUSH_TIMEOUT_S: Final = 10.0
_EVERY_S: Final = 60.0               # a retry that goes on


class Log(Protocol):
    def __call__(self, event: str, **fields: str | int | float) -> None: ...


class Automatic(Protocol):
    """What automation orders; None of it is kept here."""

    def orders(self) -> list[Order]: ...

    def adjustments(self) -> list[Adjustment]: ...

    def treatments(self) -> Treatments: ...

    def in_force(self) -> list[Measure]: ...


class Steward:
    """pools: names of egress pools now. max_age_s: of queued mail, now: what an order found is gone then."""

    def __init__(
        self,
        supervisor: Supervisor,
        book: OrderBook,
        log: Log,
        pools: Callable[[], Iterable[str]],
        max_age_s: Callable[[], float],
        *,
        automatic: Automatic | None = None,
        quiet: Callable[[], Iterable[QuietHours]] = tuple,
    ) -> None:
        self._supervisor = supervisor
        self._book = book
        self._log = log
        self._pools = pools
        self._max_age_s = max_age_s
        self._automatic = automatic
        self._quiet = quiet
        self._progress = Progress()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """On the supervisor's loop, when workers serve."""
        self._tell_progress()
        if self._settle():
            self._supervisor.spawn(self.push())
        else:
            self._await_end()

    def orders(self) -> list[Order]:
        return self._book.orders

    def in_force(self, facts: Facts) -> list[InForce]:
        """All that holds for some mail now: orders, quiet hours, automation."""
        measures = self._automatic.in_force() if self._automatic is not None else []
        return in_force(facts, orders=self._book.orders, quiet=self._quiet(), measures=measures)

    def standing(self) -> Standing:
        """All that workers are to know."""
        automatic, now = self._automatic, time.time()
        # A suspension that is over, and comes back in steps, suspends nobody.
        orders = [order for order in self._book.orders if not order.is_recovering(now)]
        adjustments = [_back(order, now) for order in self._book.orders if order.is_recovering(now)]
        if automatic is None:
            return Standing(orders, adjustments)
        return Standing(
            [*orders, *automatic.orders()], [*adjustments, *automatic.adjustments()], automatic.treatments()
        )

    async def give(self, request: OrderRequest) -> OrderAnswer:
        """Raises BadQuery for an order that makes no sense, ControlError when a worker does not answer."""
        order = self._order_of(request)
        if request.dry_run:
            counted = await self._walk(request)
            samples = await self._ask_all(Sample(request.where, SAMPLE), list[dict[str, object]])
            return OrderAnswer(*counted, sample=[each for some in samples for each in some][:SAMPLE], order=order)
        if request.action == "resume":
            return await self._resume(request, order)
        # The order first: what is ready, and what comes while the queue is walked, is met by it.
        if order is None:
            return OrderAnswer(*await self._walk(request))
        await self._add(order)
        return _answer(await self._begin(_walk_of(request, order)), order=order)

    async def cancel(self, name: str) -> list[str]:
        """Names of the orders that are gone: this one, and what makes no sense without it. Empty: there was none."""
        return await self._cancel(name)

    async def _resume(self, request: OrderRequest, order: Order | None) -> OrderAnswer:
        """Ends suspensions of just that; for part of what others suspend it is an exception to them, and for a time it
        is one to all of them."""
        if not self._is_suspended(request.where):
            raise BadQuery("nothing of that is suspended")
        same = [] if order is not None else self._book.suspensions_of(request.where)
        if request.all and order is None:
            same = [order for order in self._book.orders if order.action == "suspend"]
        # It begins to count first, and waits for no count: what is tried again is soon gone.
        counts = self._begin(_walk_of(request))
        try:
            await asyncio.sleep(0)
            if same:
                cancelled = await self._cancel(*(each.name for each in same))
                return _answer(await counts, cancelled=cancelled)
            if order is None:
                order = Order(
                    name=self._book.free_name("resume"),
                    action="resume",
                    where=request.where,
                    made_utc_s=time.time(),
                    reason=request.reason,
                )
            await self._add(order)
            return _answer(await counts, order=order)
        finally:
            counts.cancel()

    def _is_suspended(self, where: Selection) -> bool:
        automatic = self._automatic.orders() if self._automatic is not None else []
        orders = (*self._book.orders, *automatic)
        return any(order.action == "suspend" and may_meet(order.where, where) for order in orders)

    def _of_automation(self) -> list[Order]:
        """What it suspends, or will again."""
        measures = self._automatic.in_force() if self._automatic is not None else []
        return [order for measure in measures if (order := measure.suspension()) is not None]

    def _order_of(self, request: OrderRequest) -> Order | None:
        """What holds afterwards; None: nothing does. Raises BadQuery."""
        try:
            status_numbers(request.status)
            action = request.action
            if (action == "retry" or action == "resume") and not request.stands:    # noqa: PLR1714 (mypy narrows by this)
                return None
            if action in ("bounce", "delete") and not request.stands:
                Order(name="once", action="bounce", where=request.where, made_utc_s=0.0, code=request.code,
                      reason=request.reason)  # fmt: skip
                return None
            now = time.time()
            until_utc_s = now + (request.for_s or (0.0 if request.stands else self._max_age_s()))
            if request.pool and request.pool not in (known := {"default", *self._pools()}):
                close = difflib.get_close_matches(request.pool, known, n=1)
                hint = f'; did you mean "{close[0]}"?' if close else ""
                raise ValueError(f"pool: there is no [pool.{request.pool}]{hint}")
            return Order(
                name=request.name or self._book.free_name(action),
                action=action,
                where=request.where,
                made_utc_s=now,
                until_utc_s=0.0 if request.stands and not request.for_s else until_utc_s,
                meets_later=request.stands,
                reason=request.reason,
                code=request.code,
                status=request.status,
                next_hop=route_text(request.next_hop).decode() if request.next_hop else "",
                pool=request.pool,
                every_s=(request.every_s or _EVERY_S) if action == "retry" else request.every_s,
                recovery_s=request.recovery_s,
                steps=request.steps,
            )
        except ValueError as error:
            raise BadQuery(str(error)) from None

    async def _add(self, order: Order) -> None:
        try:
            self._book.add(order)
        except ValueError as error:
            raise BadQuery(str(error)) from None
        except OSError as error:
            raise ControlError(f"orders.json: {error}") from None
        self._tell("made", order)
        await self.push()

    async def _cancel(self, *names: str) -> list[str]:
        try:
            gone = self._book.cancel(*names, besides=self._of_automation())
        except OSError as error:
            raise ControlError(f"orders.json: {error}") from None
        for order in gone:
            self._progress.forget(order.name)
            self._tell("cancelled", order)
        if gone:
            await self.push()
        return [order.name for order in gone]

    async def push(self) -> None:
        """To all workers. One that dies meanwhile is started again with what the book has; one that does not answer is
        told of in the log. Automation calls it, too, when it begins or ends something."""
        self._settle()
        self._await_end()

        async def push(number: int) -> None:
            worker = self._supervisor.workers.get(number)
            if worker is None:
                return
            try:
                await worker.call(self.standing(), type(None), timeout_s=_PUSH_TIMEOUT_S)
            except ControlError as error:
                self._log("error", where="orders", worker=number, reason=str(error))

        await asyncio.gather(*(push(number) for number in range(self._supervisor.count)))

    def _settle(self) -> bool:
        """What automation suspended may have ended, and resumes with it."""
        if not any(order.action == "resume" for order in self._book.orders):
            return False
        try:
            gone = self._book.settle(self._of_automation())
        except OSError as error:        # it resumes nothing anyhow; the next change tries again
            self._log("error", where="orders.json", reason=str(error))
            return False
        for order in gone:
            self._tell("ended", order)
        return bool(gone)

    def _await_end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (left_s := self._book.next_end_s()) is not None:
            # A day at the most: loops refuse delays of years.
            self._timer = asyncio.get_running_loop().call_later(min(left_s, 86400.0), self._end_due)

    def _end_due(self) -> None:
        try:
            gone = self._book.expire(self._of_automation())
        except OSError as error:        # it is over all the same: workers look at the time themselves
            self._log("error", where="orders.json", reason=str(error))
            self._timer = asyncio.get_running_loop().call_later(60.0, self._end_due)
            return
        for order in gone:
            self._progress.forget(order.name)
            self._tell("ended", order)
        self._tell_progress()
        now = time.time()
        if gone or any(order.is_recovering(now) for order in self._book.orders):
            self._supervisor.spawn(self.push())
        else:
            self._await_end()

    def _tell_progress(self) -> None:
        """Of each suspension that comes back by a step: once."""
        now = time.time()
        for order in self._book.orders:
            step = order.step(now)
            what = self._progress.news(order.name, step)
            if what is not None:
                self._tell(what, order, effect=spoken(order.strength(now)), step=step, steps=order.steps)

    def _tell(self, what: str, order: Order, **fields: str | int) -> None:
        self._log("order", what=what, name=order.name, action=order.action, where=str(order.where), by=order.by,
                  reason=order.reason, **fields)  # fmt: skip

    async def _walk(self, request: OrderRequest) -> Counts:
        """Where the walk is all that is asked for."""
        return _summed(await self._ask_all(_walk_of(request), tuple[int, int, int], WALK_TIMEOUT_S))

    def _begin(self, walk: Walk) -> asyncio.Future[list[Counts | BaseException]]:
        """Of an order that holds whatever becomes of the walk: what each worker says, or why it says nothing."""
        numbers = range(self._supervisor.count)
        asked = (self._ask(number, walk, tuple[int, int, int], WALK_TIMEOUT_S) for number in numbers)
        return asyncio.gather(*asked, return_exceptions=True)

    async def _ask_all(self, request: Request, kind: type[T], timeout_s: float = 60.0) -> list[T]:
        """Every worker's answer. Raises ControlError when one fails: part of a queue would pass for all."""
        asked = (self._ask(number, request, kind, timeout_s) for number in range(self._supervisor.count))
        return list(await asyncio.gather(*asked))

    async def _ask(self, number: int, request: Request, kind: type[T], timeout_s: float) -> T:
        worker = self._supervisor.workers.get(number)
        if worker is None:
            raise ControlError(f"worker {number} is being restarted; ask again in a second")
        try:
            return await worker.call(request, kind, timeout_s=timeout_s)
        except ControlError as error:
            raise ControlError(f"worker {number}: {error}") from None


def _walk_of(request: OrderRequest, order: Order | None = None) -> Walk:
    """What of the order is done, or only counted, by going through the queue."""
    action = {"bounce": "bounce", "delete": "delete", "retry": "retry", "reroute": "count-origins"}.get(request.action)
    if request.dry_run and action != "count-origins":
        action = None
    # What comes while it is counted is not meant by an order about what is queued.
    before = order.made_utc_s if order is not None and not order.meets_later else 0.0
    return Walk(action or "count", request.where, request.reason, request.code, request.status, before)


def _answer(
    counts: Iterable[Counts | BaseException], order: Order | None = None, cancelled: Sequence[str] = ()
) -> OrderAnswer:
    """Of what holds, or holds no more, and stays so whatever became of the walk."""
    found: list[Counts] = []
    failures = []
    for each in counts:
        if isinstance(each, ControlError):
            failures.append(str(each))
        elif isinstance(each, BaseException):
            raise each
        else:
            found.append(each)
    return OrderAnswer(*_summed(found), order=order, cancelled=list(cancelled), incomplete="; ".join(failures))


def _summed(counts: Iterable[Counts]) -> Counts:
    recipients, messages, unknown = (sum(each) for each in zip((0, 0, 0), *counts, strict=True))
    return recipients, messages, unknown


def _back(order: Order, now: float) -> Adjustment:
    """What of its limits some mail has while its suspension comes back."""
    where = order.where
    return Adjustment(
        site=where.site,
        provider=where.provider,
        source=where.source,
        tenant=where.tenant,
        campaign=where.campaign,
        factor=factor_back(order.strength(now)),
        by_host=bool(where.site) and not where.exact_site,
    )
