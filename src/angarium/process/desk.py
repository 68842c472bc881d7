"""What the HTTP API asks of the daemon, gathered from all workers.

A message lives in one worker and nobody but that one knows it: questions about one message or about a domain
go to all workers at once, pages of the queue are taken from one worker after the other.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

from angarium import __version__
from angarium.admin import prometheus
from angarium.admin.views import (
    BadQuery,
    Facts,
    Health,
    QueuePage,
    SourcesView,
    SourceView,
    Status,
    WarmupView,
    WorkerView,
)
from angarium.events.dialogue import TRACES_MAX
from angarium.metrics import counters
from angarium.outbound.explanation import Question
from angarium.outbound.tracing import Target
from angarium.process.control import (
    ControlError,
    Delete,
    EndTrace,
    Listing,
    Refusal,
    Request,
    Retry,
    Show,
    SitesNamed,
    Sources,
    Top,
    Trace,
)
from angarium.process.control import Status as StatusRequest
from angarium.process.explaining import Explaining, Lines
from angarium.process.supervisor import Supervisor, Worker
from angarium.queue.facts import SiteRow, SitesPart
from angarium.queue.in_force import Facts as MailFacts
from angarium.queue.in_force import InForce
from angarium.queue.top_sites import added_up

T = TypeVar("T")

# Figures that no process counts: the end of the name is a field of WarmupView.
WARMUP_FIGURES: Final = {
    "angarium_warmup_sent": "Messages of today of a source that is warmed up.",
    "angarium_warmup_limit": "Of how many.",
}


class Desk:
    """admin.api.Backend over a supervisor's workers.

    facts   asked at every status: a reload may have changed them.
    reload  raises ConfigError when it refuses.
    warmups  of today. lines: of the configuration in force. in_force: what holds for some mail (steward.py).
    """

    def __init__(
        self,
        supervisor: Supervisor,
        facts: Callable[[], Facts],
        reload: Callable[[], Any],
        warmups: Callable[[], list[WarmupView]],
        *,
        lines: Lines,
        in_force: Callable[[MailFacts], list[InForce]],
    ) -> None:
        self._explaining = Explaining(self._ask, supervisor.count, lines, in_force)
        self._warmups = warmups
        self._supervisor = supervisor
        self._facts = facts
        self._reload = reload
        self._started_mono_s = time.monotonic()
        self._traces = 0

    async def health(self) -> Health:
        supervisor = self._supervisor
        ready = sum(worker.is_ready for worker in supervisor.workers.values())
        if supervisor.is_stopping:
            status = "stopping"
        elif ready == supervisor.count:
            status = "ok"
        else:
            status = "degraded" if supervisor.is_ready else "starting"
        return Health(status=status, workers=supervisor.count, workers_ready=ready)

    async def metrics(self) -> bytes:
        rows = [number + 1 for number in sorted(self._supervisor.workers)]
        warmups = self._warmups()
        samples = [
            prometheus.Sample(figure, help_, {"source": each.source, "provider": each.provider}, value)
            for figure, help_ in WARMUP_FIGURES.items()
            for each in warmups
            for value in [getattr(each, figure.rpartition("_")[2])]
        ]
        return prometheus.exposition(counters.registry(), rows, __version__, samples)

    async def status(self) -> Status:
        facts = self._facts()
        workers = [self._supervisor.workers[number] for number in sorted(self._supervisor.workers)]
        views = list(await asyncio.gather(*(self._view(worker) for worker in workers)))
        return Status(
            version=__version__,
            hostname=facts.hostname,
            spool=facts.spool,
            config=facts.config,
            pid=os.getpid(),
            up_s=time.monotonic() - self._started_mono_s,
            listeners=facts.listeners,
            workers=views,
            messages=sum(view.figures.get("messages", 0) for view in views),
            recipients=sum(view.figures.get("recipients", 0) for view in views),
        )

    async def sources(self) -> SourcesView:
        """Figures added up over all workers; what is suspended in any of them."""
        found: dict[str, SourceView] = {}
        for of_worker in await self._ask_all(Sources(), list[SourceView]):
            for each in of_worker:
                known = found.setdefault(each.name, SourceView(each.name, each.addresses, each.ehlo))
                known.connections += each.connections
                known.waiting += each.waiting
                for suspended in each.suspended:
                    same = next((other for other in known.suspended if other.address == suspended.address), None)
                    if same is None:
                        known.suspended.append(suspended)
                    else:
                        same.workers += 1
                        same.since_utc_s = min(same.since_utc_s, suspended.since_utc_s)
        return SourcesView(sources=list(found.values()), warmups=self._warmups())

    async def queue(self, *, after: str, limit: int, domain: str | None, state: str | None) -> QueuePage:
        """Worker after worker; `after` is "worker:cursor" of where the last page ended."""
        number, cursor = _position(after)
        messages: list[dict[str, Any]] = []
        while number < self._supervisor.count:
            wanted = Listing(cursor=cursor, limit=limit - len(messages), domain=domain, state=state)
            answer = await self._ask(number, wanted, tuple[int, list[dict[str, Any]]])
            cursor, more = answer
            messages += more
            if cursor < 0:
                number, cursor = number + 1, 0
            if len(messages) >= limit:
                break
        return QueuePage(
            messages=messages, next=f"{number}:{cursor}" if number < self._supervisor.count else None
        )

    async def message(self, id_: str) -> dict[str, Any] | None:
        answers: list[dict[str, Any] | None] = await self._ask_all(Show(id=id_), dict[str, Any] | None)  # type: ignore[arg-type]
        return next((answer for answer in answers if answer is not None), None)

    async def retry(self, *, id_: str | None, domain: str | None) -> int:
        return sum(await self._ask_all(Retry(id=id_, domain=domain), int))

    async def delete(self, *, id_: str | None, domain: str | None) -> int:
        return sum(await self._ask_all(Delete(id=id_, domain=domain), int))

    async def refusal(self, id_: str) -> dict[str, Any] | None:
        """A worker that is being restarted has forgotten what it refused: the others are asked all the same."""
        numbers = list(self._supervisor.workers)
        answers = await asyncio.gather(
            *(self._ask(number, Refusal(id=id_), dict[str, Any] | None) for number in numbers),  # type: ignore[arg-type]
            return_exceptions=True,
        )
        return next((answer for answer in answers if isinstance(answer, dict)), None)

    async def explain_message(self, id_: str) -> dict[str, Any] | None:
        return await self._explaining.of_message(id_)

    async def explain_address(self, question: Question) -> dict[str, Any]:
        return await self._explaining.of_address(question)

    async def top(self, *, order: str, limit: int) -> SitesPart:
        """Each worker names its own busiest; of all that are named, every worker tells what it has."""
        parts = await self._ask_all(Top(order, limit), SitesPart)
        names = sorted({row.site for part in parts for row in part.rows})
        rows = await self._ask_all(SitesNamed(names), list[SiteRow])
        return added_up(parts, [row for of_worker in rows for row in of_worker], order, limit)

    async def trace(
        self, *, network: str, data_octets: int, target: Target | None = None
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """What happens in all workers, as it does, until the reader goes away. A slow reader is not waited for: workers
        keep little, drop the rest and say how much that was."""
        if self._traces >= TRACES_MAX:
            raise ControlError(f"{TRACES_MAX} traces are under way, and more may not be")
        id_ = secrets.token_hex(8)
        batches: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue(maxsize=1)
        followers = [
            asyncio.create_task(self._follow(number, Trace(id_, network, data_octets, target), batches))
            for number in range(self._supervisor.count)
        ]
        self._traces += 1
        try:
            while True:
                yield await batches.get()
        finally:
            self._traces -= 1
            for follower in followers:
                follower.cancel()
            for worker in self._supervisor.workers.values():
                worker.tell(EndTrace(id_))

    async def _follow(self, number: int, query: Trace, batches: asyncio.Queue[list[dict[str, Any]]]) -> None:
        """Asks one worker again and again; its successor, when it dies."""
        while True:
            try:
                events = await self._ask(number, query, list[dict[str, Any]])
            except ControlError:
                await asyncio.sleep(0.5)
                continue
            if events:
                await batches.put(events)

    async def reload(self) -> None:
        await self._reload()

    async def _ask(self, number: int, request: Request, kind: type[T]) -> T:
        """One worker's answer. Raises ControlError, which says which worker."""
        worker = self._supervisor.workers.get(number)
        if worker is None:
            raise ControlError(f"worker {number} is being restarted; ask again in a second")
        try:
            return await worker.call(request, kind, timeout_s=30.0)
        except ControlError as error:
            raise ControlError(f"worker {number}: {error}") from None

    async def _ask_all(self, request: Request, kind: type[T]) -> list[T]:
        """Every worker's answer. Raises ControlError when one fails: half a queue would pass for all."""
        return list(
            await asyncio.gather(
                *(self._ask(number, request, kind) for number in range(self._supervisor.count))
            )
        )

    async def _view(self, worker: Worker) -> WorkerView:
        view = WorkerView(
            number=worker.number,
            pid=worker.pid,
            is_ready=worker.is_ready,
            up_s=time.monotonic() - worker.started_mono_s,
        )
        try:
            view.figures = await worker.call(StatusRequest(), dict[str, Any], timeout_s=2.0)
        except ControlError as error:
            view.error = str(error)
        return view


def _position(after: str) -> tuple[int, int]:
    """Worker and cursor of a page's start. Raises BadQuery for what is not from an earlier answer."""
    if not after:
        return 0, 0
    number, colon, cursor = after.partition(":")
    if not (colon and number.isascii() and number.isdigit() and cursor.isascii() and cursor.isdigit()):
        raise BadQuery(f'after: "{after}" is not from an earlier answer')
    return int(number), int(cursor)
