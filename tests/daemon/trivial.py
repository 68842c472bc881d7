"""A supervisor whose workers do nothing but what the command line says: for tests of the supervisor alone.

    python trivial.py MANNER COUNT

MANNER  serve             answers status, drains at once
        die-at-start      exits before it serves
        cannot-start      says that it cannot start, and why
        stubborn          does not stop when told
        patient           as stubborn, and would be given a minute
        drain-fails       as serve, but for that
        waiting           as serve; the owner waits for what never comes
        no-processes      as serve; the second fork and the third fail
        none-at-start     as serve; the first fork fails
        slow              as waiting; opens until the owner is told to stop
Events are JSON lines on stdout; the last line is {"event": "over", "status": ..., "failure": ...}.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import sys
from pathlib import Path
from typing import Any

from angarium.events.journal import Journal
from angarium.model.errors import SpoolError
from angarium.process import worker
from angarium.process.control import Status
from angarium.process.supervisor import Seat, Supervisor

# Whoever does what it is told has the time that it needs.
DRAIN_S = {"stubborn": 0.2, "waiting": 0.2, "patient": 60.0, "slow": 60.0}


class NothingRelay:
    def __init__(self, loop: asyncio.AbstractEventLoop, manner: str) -> None:
        self.journal = Journal(1, loop)
        self.manner = manner

    def wish_by(self, wish: Any) -> None:
        pass

    def notice_by(self, send: Any) -> None:
        pass

    def status(self) -> dict[str, Any]:
        self.journal.log("asked")
        return {"descriptors": len(os.listdir("/proc/self/fd")), "frozen": gc.get_freeze_count()}

    async def drain(self, deadline_s: float) -> None:
        self.journal.log("draining", deadline_s=deadline_s)
        if self.manner == "drain-fails":
            raise RuntimeError("a bug")
        if self.manner in ("stubborn", "patient"):
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)

    def close(self) -> None:
        self.journal.log("closed")


class TrivialOwner:
    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.journal = Journal(1)

    def descriptors(self, number: int) -> list[int]:
        return []

    def work(self, seat: Seat) -> int:
        if self.manner == "die-at-start":
            return 7

        async def open_relay(loop: asyncio.AbstractEventLoop) -> Any:
            if self.manner == "cannot-start":
                raise SpoolError("spool shard 00 is on fire")
            if self.manner == "slow":
                self.log("opening")
                while b'"stopping"' not in Path("/proc/self/fd/1").read_bytes():
                    await asyncio.sleep(0.01)
            return NothingRelay(loop, self.manner)

        return worker.run(seat, open_relay)

    def log(self, event: str, **fields: Any) -> None:
        self.journal.log(event, **fields)

    def buried(self, number: int) -> None:
        self.log("buried", worker=number)

    async def ready(self) -> None:
        for each in supervisor.workers.values():
            answer = await each.call(Status(), dict[str, int])
            self.log("ready", worker=each.number, pid=each.pid, **answer)
        if self.manner in ("waiting", "slow"):
            await asyncio.get_running_loop().create_future()

    async def reload(self) -> None:
        self.log("reload")

    async def stopping(self) -> None:
        self.log("stopping")


FAILING_FORKS = {"no-processes": (2, 3), "none-at-start": (1,)}


true_fork, forks = os.fork, itertools.count(1)


def fork_or_fail() -> int:
    if next(forks) in FAILING_FORKS.get(sys.argv[1], ()):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return true_fork()


os.fork = fork_or_fail
owner = TrivialOwner(sys.argv[1])
supervisor = Supervisor(owner, int(sys.argv[2]), drain_s=DRAIN_S.get(sys.argv[1], 15.0))
status = supervisor.run()
owner.log("over", status=status, failure=supervisor.failure)
