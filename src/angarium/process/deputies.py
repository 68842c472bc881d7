"""Somebody else accepts for a worker that does not answer.

The kernel gives each connection to the socket of one worker (SO_REUSEPORT), whether that worker runs or not: while
one is stopped, or waits for a device that hangs, clients of its share are connected and hear nothing. The supervisor
has those sockets too. It asks every worker for a sign of life, and when none comes it has another worker accept on
them as well, those connections included that wait there already. Sessions that the silent worker has begun are its
own: they go on when it does.

What it is not: it ends nobody. A worker that is silent holds a shard with mail that nobody else can see, and what it
has on its way to the disk or to a next hop may still be done; ending it is for the operator (kill -9 loses nothing).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Final

from angarium.metrics.counters import counter
from angarium.process.control import Beat, ControlError, StandDown, StandIn
from angarium.process.listening import Listening
from angarium.process.supervisor import Supervisor, Worker

# By judgement: a healthy worker's loop is not held for more than tens of milliseconds (process/watchdog.py), a client
# waits five minutes for a greeting (RFC 5321 §4.5.3.2.1). A deputy that was not needed does no harm.
BEAT_S: Final = 0.5
LIMIT_S: Final = 1.5

silences = counter("angarium_worker_silences_total", "Times a worker gave no sign of life for over 1.5 s.")


class Deputies:
    """On the supervisor's loop, from run() to stop()."""

    def __init__(self, supervisor: Supervisor, listening: Listening) -> None:
        self._supervisor = supervisor
        self._listening = listening
        self._asked: set[Worker] = set()
        self._silent: set[Worker] = set()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Asks each worker that serves, and again when it has answered."""
        while not self._over.is_set():
            for worker in self._supervisor.workers.values():
                if worker.is_ready and worker not in self._asked:
                    self._asked.add(worker)
                    self._supervisor.spawn(self._ask(worker))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._over.wait()

    def stop(self) -> None:
        """Stopping began: workers close their listeners themselves."""
        self._over.set()

    async def _ask(self, worker: Worker) -> None:
        # Without a limit: one question waits in the channel of a silent worker, and not one more every second.
        answer = asyncio.ensure_future(worker.call(Beat(), type(None), timeout_s=math.inf))
        try:
            await asyncio.wait((answer,), timeout=LIMIT_S)
            if not answer.done() and not self._over.is_set():
                await self._stand_in(worker, answer)
            with contextlib.suppress(ControlError):     # it died: its successor is asked
                await answer
        finally:
            answer.cancel()
            self._asked.discard(worker)

    async def _stand_in(self, worker: Worker, answer: asyncio.Future[None]) -> None:
        """Until it answers or dies, or all is over."""
        silences.add(1)
        self._silent.add(worker)
        self._supervisor.owner.log("worker-silent", worker=worker.number, pid=worker.pid)
        deputy: Worker | None = None
        while not answer.done() and not self._over.is_set():
            if deputy is None or not self._is_fit(deputy):
                if deputy is not None:      # silent too: it reads this when it is back
                    deputy.tell(StandDown(number=worker.number))
                deputy = await self._appoint(worker)
            await asyncio.wait((answer,), timeout=BEAT_S)
        self._silent.discard(worker)
        if deputy is not None:
            deputy.tell(StandDown(number=worker.number))
        if answer.done() and answer.exception() is None:
            self._supervisor.owner.log("worker-back", worker=worker.number, pid=worker.pid)

    async def _appoint(self, worker: Worker) -> Worker | None:
        """Somebody who accepts for it now; None when there is nobody, or nothing that only it accepts from."""
        sockets = {
            address: sock
            for address, sock in self._listening.of_worker(worker.number).items()
            if not self._listening.is_shared(address)   # all workers accept from that one anyway
        }
        for deputy in list(self._supervisor.workers.values()):
            if not sockets or not self._is_fit(deputy):
                continue
            request = StandIn(number=worker.number, addresses=[str(address) for address in sockets])
            try:
                await deputy.call(request, type(None), fds=[sock.fileno() for sock in sockets.values()])
            except ControlError:
                # It died, or is silent too and will read this when it is back: both questions, in this order.
                deputy.tell(StandDown(number=worker.number))
            else:
                return deputy
        return None

    def _is_fit(self, worker: Worker) -> bool:
        is_there = self._supervisor.workers.get(worker.number) is worker
        return is_there and worker.is_ready and worker not in self._silent
