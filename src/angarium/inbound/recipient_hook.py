"""Asking a hook of the operator's who is known: knows_recipient(Recipient), for domains whose `recipients` say "hook".

Yes and no are kept, each for its time, until the next reload, which may bring another hook; whoever asks for a mailbox
that is being asked for waits for the same answer. What cannot be said (`Defer`, an error, no answer in time) is not
kept. Calling the hook, with its deadline and its errors, is policy/hooks.py's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Final, cast

import msgspec

from angarium.metrics.counters import counter
from angarium.policy.arguments import Recipient
from angarium.policy.decisions import Defer, Redirect, Reject
from angarium.policy.hooks import BoundHook
from angarium.recipients.options import HookAnswerOptions
from angarium.resolver.cache import ExpiringCache

asked_total = counter("angarium_recipient_hook_total", "Questions to the hook knows_recipient.")

MISSING: Final = Defer("Local policy error, try again later", status="4.3.0")

# True: known. Reject: not, in these words. Redirect: others stand for it. Defer: nobody can say.
Verdict = bool | Reject | Redirect | Defer


class _Kept(msgspec.Struct, frozen=True):
    verdict: Verdict
    expires_mono_s: float


class RecipientHook:
    """Lives on the loop. apply() first, and at each reload; close() last.

    hook  the one of this moment (Policy.recipient_hook).
    """

    def __init__(self, hook: Callable[[], BoundHook | None]) -> None:
        self._hook = hook
        self._tasks: set[asyncio.Task[Verdict]] = set()
        self.apply(HookAnswerOptions())

    def apply(self, options: HookAnswerOptions) -> None:
        """Another hook file may know others: what the one before has answered, or still will, is not kept."""
        self._options = options
        self._kept: ExpiringCache[bytes, _Kept] = ExpiringCache(options.cache_entries, time.monotonic)
        self._under_way: dict[bytes, asyncio.Task[Verdict]] = {}

    def ask(self, recipient: Recipient, key: bytes) -> Verdict | Coroutine[Any, Any, Verdict]:
        """At once what is kept, or what a hook that does not wait says. key: one for all spellings of the mailbox."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept.verdict
        task = self._under_way.get(key)
        if task is None:
            hook = self._hook()
            if hook is None:
                return MISSING      # a reload is about to take the question away, too
            asked_total.add(1)
            answer: Any = hook(recipient)
            if type(answer) is not CoroutineType:
                self._keep(self._kept, key, answer)
                return cast(Verdict, answer)
            task = self._begin(answer, key)
        # A client that leaves must not take the answer from others who wait for it.
        return _shared(task)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _begin(self, answer: Coroutine[Any, Any, Verdict], key: bytes) -> asyncio.Task[Verdict]:
        kept, under_way = self._kept, self._under_way

        async def rest() -> Verdict:
            verdict = await answer
            self._keep(kept, key, verdict)
            return verdict

        def over(done: asyncio.Task[Verdict]) -> None:
            under_way.pop(key, None)
            self._tasks.discard(done)
            if not done.cancelled():
                done.exception()        # seen, also when whoever asked is gone

        task = asyncio.get_running_loop().create_task(rest())
        under_way[key] = task
        self._tasks.add(task)
        task.add_done_callback(over)
        return task

    def _keep(self, kept: ExpiringCache[bytes, _Kept], key: bytes, verdict: Verdict) -> None:
        if isinstance(verdict, Defer):
            return
        is_no = verdict is False or isinstance(verdict, Reject)
        time_s = self._options.unknown_time if is_no else self._options.known_time
        if time_s:
            kept.put(key, _Kept(verdict, time.monotonic() + time_s))


async def _shared(task: asyncio.Task[Verdict]) -> Verdict:
    return await asyncio.shield(task)
