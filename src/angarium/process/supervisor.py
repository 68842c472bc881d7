"""The process that keeps workers running: starts them, restarts one that dies, stops them all.

It never touches mail, and knows neither configuration nor listeners: its Owner does (daemon.py; tests bring
their own). Its loop is plain asyncio and it has no threads, so that it can fork whenever a worker is needed;
every fork is made between two runs of the loop, from run(), where no coroutine is on the stack.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Final, Protocol, TypeVar

import msgspec

from angarium.metrics.counters import counter
from angarium.process.control import (
    Answer,
    Caller,
    CannotStart,
    Channel,
    ControlError,
    Drain,
    Granted,
    Letter,
    Noticed,
    Ready,
    Request,
    Wish,
)
from angarium.process.forking import fork, freeze

T = TypeVar("T")

# A worker that dies this often in this time is not helped by starting it once more.
DEATHS_MAX: Final = 5
DEATHS_WINDOW_S: Final = 10.0
WISH_TIMEOUT_S: Final = 60.0
START_AGAIN_S: Final = 1.0
KILL_AFTER_S: Final = 2.0  # beyond the drain deadline

deaths = counter("angarium_worker_deaths_total", "Workers that ended without being told to.")


class Seat(msgspec.Struct, frozen=True):
    """What a worker gets: it is worker `number` of `count` (from 0); `control` is its end of the channel."""

    number: int
    count: int
    control: socket.socket


class Owner(Protocol):
    """Whose workers they are. All but work() are called in the supervisor; the coroutines on its loop."""

    def descriptors(self, number: int) -> list[int]:
        """What worker `number` may keep open besides its control socket and 0, 1, 2."""

    def work(self, seat: Seat) -> int:
        """The worker's life, in the child. Returns its exit status."""

    def log(self, event: str, **fields: str | int | float) -> None:
        """One event."""

    def buried(self, number: int) -> None:
        """Worker `number` is gone; what it held in shared memory can be taken back."""

    async def ready(self) -> None:
        """All workers serve, for the first time."""

    async def reload(self) -> None:
        """SIGHUP came."""

    async def stopping(self) -> None:
        """Stopping began; workers are told next."""


class Worker:
    """One worker process as the supervisor sees it.

    is_ready      it has said that it serves.
    cannot_start  the reason it gave for not starting, "" when it gave none.
    """

    def __init__(self, number: int, pid: int, control: socket.socket) -> None:
        self.number = number
        self.pid = pid
        self.started_mono_s = time.monotonic()
        self.is_ready = False
        self.cannot_start = ""
        self._control = control
        self._channel: Channel | None = None
        self._caller: Caller | None = None

    def attach(self, supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to listen to it."""

        def on_letter(letter: Letter, fds: list[int]) -> None:
            if isinstance(letter, Answer):
                caller.answered(letter)
            elif isinstance(letter, Ready):
                self.is_ready = True
                supervisor.became_ready()
            elif isinstance(letter, Wish):
                supervisor.spawn(supervisor.grant(self, letter))
            elif isinstance(letter, Noticed):
                supervisor.on_noticed(letter)
            elif isinstance(letter, CannotStart):
                self.cannot_start = letter.reason

        self._channel = channel = Channel(self._control, loop, on_letter)
        self._caller = caller = Caller(channel, loop)

    async def call(
        self, request: Request, kind: type[T], fds: list[int] | None = None, timeout_s: float = 5.0
    ) -> T:
        """Its answer. Raises ControlError when it refuses, dies or does not answer in time."""
        if self._caller is None:
            raise ControlError("not started")
        return await self._caller.call(request, kind, fds=fds or (), timeout_s=timeout_s)

    def grant(self, granted: Granted) -> None:
        if self._channel is not None:
            self._channel.send(granted)

    def tell(self, request: Request) -> None:
        """Sends a request whose answer nobody waits for."""
        if self._caller is not None:
            self._caller.tell(request)

    def bury(self) -> None:
        """The process is gone: reads what it last said, and closes."""
        if self._channel is not None:
            self._channel.drain_input()
            self._channel.close()
        else:
            self._control.close()
        if self._caller is not None:
            self._caller.ended()


class Supervisor:
    """Keeps `count` workers running from run() until stop(), or until one cannot be kept running.

    workers  those that run now, by number.
    failure  why it ended by itself, "" otherwise.
    """

    def __init__(self, owner: Owner, count: int, drain_s: float = 10.0) -> None:
        self.owner = owner
        self.count = count
        self.drain_s = drain_s
        self.workers: dict[int, Worker] = {}
        self.failure = ""
        self.is_ready = False
        self.is_stopping = False
        self.exit_status = 0
        self.on_noticed: Callable[[Noticed], None] = lambda noticed: None
        self._due = set(range(count))
        self._deaths: dict[int, list[float]] = {number: [] for number in range(count)}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._reaping: asyncio.TimerHandle | None = None

    def run(self) -> int:
        """Until everything has stopped; returns the exit status (2: could not start)."""
        loop = self._loop
        asyncio.set_event_loop(loop)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        freeze()
        try:
            while not self._is_over():
                while self._due and not self.is_stopping:
                    self._start(self._due.pop())
                loop.run_forever()
        finally:
            # Only after an error of ours: nothing may go on without its supervisor.
            for worker in self.workers.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        return self.exit_status

    def stop(self) -> None:
        """Lets workers finish what they have in hand, for drain_s at most; asked a second time: at once."""
        if self.is_stopping:
            self._tell_all(0.0)
            self._loop.call_later(KILL_AFTER_S, self._kill_all)
            return
        self.is_stopping = True
        self.spawn(self._stop())

    def fail(self, reason: str, exit_status: int) -> None:
        """Stops because going on makes no sense."""
        if not self.failure:
            self.failure = reason
            self.exit_status = exit_status
        if not self.is_stopping:
            self.stop()

    def became_ready(self) -> None:
        if (
            self.is_ready
            or self.is_stopping     # a worker that was told to drain while it opened says so first
            or len(self.workers) < self.count
            or not all(w.is_ready for w in self.workers.values())
        ):
            return
        self.is_ready = True
        self.spawn(self.owner.ready())

    async def grant(self, worker: Worker, wish: Wish) -> None:
        """Asks all workers what one of them wishes, and tells it the sum."""

        async def of(each: Worker) -> int:
            # A queue of millions is walked in slices; whoever waits for the answer has given up long before.
            try:
                return await each.call(wish.request, int, timeout_s=WISH_TIMEOUT_S)
            except ControlError:
                return 0

        counts = await asyncio.gather(*(of(each) for each in list(self.workers.values()) if each.is_ready))
        worker.grant(Granted(serial=wish.serial, count=sum(counts)))

    def spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        """Runs it on the loop; an exception there ends the supervisor."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _is_over(self) -> bool:
        return self.is_stopping and not self.workers and not self._tasks

    def _wake(self) -> None:
        """Back to run(): a fork is due or all is over."""
        self._loop.stop()

    def _start(self, number: int) -> None:
        try:
            pid, ours = self._fork(number)
        except OSError as error:        # no memory or no processes left: the other workers cannot be spared either
            reason = f"worker {number} cannot be started: {error.strerror or error}"
            if not self.is_ready:
                self.fail(reason, 2)
                return
            self.owner.log("error", where="supervisor", reason=reason)
            self._loop.call_later(START_AGAIN_S, self._make_due, number)
            return
        self.workers[number] = worker = Worker(number, pid, ours)
        worker.attach(self, self._loop)
        if self.is_ready:
            self.owner.log("worker-restarted", worker=number, pid=pid)

    def _fork(self, number: int) -> tuple[int, socket.socket]:
        """Process id and our end of the channel. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        seat = Seat(number=number, count=self.count, control=theirs)
        keep = [theirs.fileno(), *self.owner.descriptors(number)]
        try:
            return fork(f"angarium:{number}", keep, lambda: self.owner.work(seat)), ours
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()

    def _on_hangup(self) -> None:
        if self.is_ready and not self.is_stopping:
            self.spawn(self.owner.reload())

    async def _stop(self) -> None:
        await self.owner.stopping()
        self._tell_all(self.drain_s)
        self._loop.call_later(self.drain_s + KILL_AFTER_S, self._kill_all)
        if not self.workers:
            self._wake()

    def _tell_all(self, deadline_s: float) -> None:
        for worker in self.workers.values():
            worker.tell(Drain(deadline_s=deadline_s))

    def _kill_all(self) -> None:
        for worker in self.workers.values():
            self.owner.log(
                "worker-killed", worker=worker.number, pid=worker.pid, reason="it did not stop in time"
            )
            os.kill(worker.pid, signal.SIGKILL)
        # Nor is anybody waited for who waits for one of them, or for a client.
        for task in self._tasks:
            task.cancel()

    def _reap(self) -> None:
        """SIGCHLD. Signals merge, so each of ours is asked; ends of other processes are not ours to take."""
        for worker in list(self.workers.values()):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._ended(worker, os.waitstatus_to_exitcode(status))
        if self._is_over():
            self._wake()

    def _ended(self, worker: Worker, exit_status: int) -> None:
        del self.workers[worker.number]
        worker.bury()
        self.owner.buried(worker.number)
        reason = worker.cannot_start or _manner(exit_status)
        if self.is_stopping:
            return
        if self.is_ready:
            self.owner.log("worker-died", worker=worker.number, pid=worker.pid, reason=reason)
        deaths.add(1)
        if not self.is_ready:
            # Before anything was served nothing is lost by giving up, and whoever started us is told at once.
            self.fail(worker.cannot_start or f"worker {worker.number} died at start: {reason}", 2)
            return
        self._schedule(worker.number, reason)

    def _schedule(self, number: int, reason: str) -> None:
        """The first restart is immediate, each further one within the window waits twice as long."""
        now = time.monotonic()
        recent = [at for at in self._deaths[number] if now - at < DEATHS_WINDOW_S]
        self._deaths[number] = [*recent, now]
        if len(recent) + 1 >= DEATHS_MAX:
            self.fail(f"worker {number} died {DEATHS_MAX} times in {DEATHS_WINDOW_S:g} s: {reason}", 1)
            return
        delay_s = 0.1 * (1 << len(recent) - 1) if recent else 0.0
        self._loop.call_later(delay_s, self._make_due, number)

    def _make_due(self, number: int) -> None:
        self._due.add(number)
        self._wake()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(f"internal error: {error!r}", 1)
        if self._is_over():
            self._wake()


def _manner(exit_status: int) -> str:
    """How a process ended, in words."""
    if exit_status >= 0:
        return f"exit status {exit_status}"
    try:
        return f"killed by {signal.Signals(-exit_status).name}"
    except ValueError:
        return f"killed by signal {-exit_status}"
