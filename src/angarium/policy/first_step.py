"""Runs a coroutine to its first pause at once: most hooks never pause, and a task for each would cost a turn of the
loop and a write of its own to every reply of a pipelined group.

Python 3.12 can do that (eager tasks). Before, the step is made under a stand-in for the task to come, because
asyncio.timeout() and TaskGroup keep the current task to cancel it later.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from typing import Any, Final, cast

HAS_EAGER_TASKS: Final = sys.version_info >= (3, 12)


class _StandIn:
    """What asyncio.current_task() is during the first step; becomes another name for the task that does the rest."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._is_cancelled = False

    def become(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task
        if self._is_cancelled and task is not None:
            task.cancel()

    def cancel(self, msg: object = None) -> bool:
        self._is_cancelled = self._task is None
        return True if self._task is None else self._task.cancel(msg)

    def cancelling(self) -> int:
        return int(self._is_cancelled) if self._task is None else self._task.cancelling()

    def uncancel(self) -> int:
        if self._task is not None:
            return self._task.uncancel()
        self._is_cancelled = False
        return 0

    def __getattr__(self, name: str) -> Any:
        if self._task is None:
            raise AttributeError(f"the task of a hook has no {name} before its first pause")
        return getattr(self._task, name)


class FirstStep:
    """One coroutine, from its first step on. is_done: it has ended, and `result` is its result; otherwise the caller
    awaits this object in a task. What the coroutine raises in its first step is raised by the constructor."""

    __slots__ = ("_coroutine", "_stand_in", "_task", "_yielded", "is_done", "result")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.is_done = False
        self.result: Any = None
        if HAS_EAGER_TASKS:
            task = cast(Any, asyncio.Task)(coroutine, loop=loop, eager_start=True)
            if task.done():
                self.is_done, self.result = True, task.result()
            self._task: asyncio.Task[Any] = task
            return
        self._coroutine = coroutine
        self._stand_in = _StandIn()
        outer = asyncio.current_task(loop)
        if outer is not None:
            asyncio._leave_task(loop, outer)
        asyncio._enter_task(loop, cast(Any, self._stand_in))
        try:
            self._yielded = coroutine.send(None)
        except StopIteration as end:
            self.is_done, self.result = True, end.value
        finally:
            asyncio._leave_task(loop, cast(Any, self._stand_in))
            if outer is not None:
                asyncio._enter_task(loop, outer)

    def __await__(self) -> Generator[Any, Any, Any]:
        if HAS_EAGER_TASKS:
            return (yield from self._task.__await__())
        self._stand_in.become(asyncio.current_task())
        yielded = self._yielded
        while True:
            try:
                sent = yield yielded
            except BaseException as error:
                resume: Any = self._coroutine.throw
                argument: Any = error
            else:
                resume, argument = self._coroutine.send, sent
            try:
                yielded = resume(argument)
            except StopIteration as end:
                return end.value
