"""Calling the operator's hooks: whatever one does, there is a decision or none, in time, and a line in the log that
says where it went wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Final

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.policy.decisions import Accept, Decision, Defer, Discard, Redirect, Reject, route_text
from angarium.policy.first_step import FirstStep
from angarium.policy.hook_file import Hook, HookSource, defined_at, describe, load_hooks, place_of
from angarium.policy.options import PolicyOptions

errors_total = counter("angarium_policy_hook_errors_total", "Hooks that raised, or answered what is no decision.")
timeouts_total = counter("angarium_policy_hook_timeouts_total", "Hooks that did not answer in time.")

_SAY: Final = (Accept, Reject, Defer)
# What each may answer besides None.
ALLOWED: Final[dict[str, tuple[type, ...]]] = {
    "on_connect": _SAY,
    "on_auth": (str, Reject, Defer),
    "on_mail": _SAY,
    "on_rcpt": (*_SAY, Discard, Redirect),
    "knows_recipient": (bool, Reject, Defer, Redirect),
    "on_message": (*_SAY, Discard, Redirect),
    "route": _SAY,
}

FAILED: Final = Defer("Local policy error, try again later", status="4.3.0")
LATE: Final = Defer("Local policy takes too long, try again later")

# Of these what they cannot say is never "no objection": it would be somebody's password, or mail for nobody.
_MUST_SAY: Final = frozenset(("on_auth", "knows_recipient"))

# on_auth: an identity instead of a decision. knows_recipient: yes or no.
Answer = Decision | None | Coroutine[Any, Any, Decision | None]


class Hooks:
    """What one run of a hook file defines; each is a BoundHook or None. Made on the worker's loop.

    make  what they are made by, where somebody listens in (rehearsal.py).
    Raises HookFileError.
    """

    def __init__(
        self,
        source: HookSource,
        options: PolicyOptions,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        make: Callable[..., BoundHook] | None = None,
    ) -> None:
        found = load_hooks(source)
        make = make or BoundHook

        def bound(name: str) -> BoundHook | None:
            if name not in found:
                return None
            return make(name, found[name], source, options, loop=loop, journal=journal)

        self.on_connect = bound("on_connect")
        self.on_auth = bound("on_auth")
        self.on_mail = bound("on_mail")
        self.on_rcpt = bound("on_rcpt")
        self.knows_recipient = bound("knows_recipient")
        self.on_message = bound("on_message")
        self.route = bound("route")
        self.on_outcome = bound("on_outcome")


class BoundHook:
    """One hook. Called with its argument it answers at once, or with a coroutine that will; it never raises."""

    __slots__ = (
        "_allowed", "_deadline_s", "_hook", "_is_question", "_journal", "_loop", "_on_error", "_on_timeout", "_source",
        "name",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        hook: Hook,
        source: HookSource,
        options: PolicyOptions,
        *,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
    ) -> None:
        self.name = name
        self._hook = hook
        self._source = source
        self._loop = loop
        self._journal = journal
        self._deadline_s = options.deadline_s(name)
        self._on_timeout = LATE if options.on_timeout == "defer" or name in _MUST_SAY else None
        self._on_error = FAILED if options.on_error == "defer" or name in _MUST_SAY else None
        self._is_question = name == "knows_recipient"
        self._allowed = ALLOWED.get(name, ())

    def __call__(self, argument: object) -> Answer:
        try:
            result = self._hook(argument)
            if result is None and not self._is_question:
                return None
            if type(result) is CoroutineType:
                step = FirstStep(result, self._loop)
                if not step.is_done:
                    return self._rest(step, argument)
                result = step.result
                if result is None and not self._is_question:
                    return None
            return self._checked(result, argument)
        except Exception as error:
            return self._failed(error)

    async def _rest(self, step: FirstStep, argument: object) -> Decision | None:
        deadline = asyncio.timeout(self._deadline_s)
        try:
            async with deadline:
                result = await step
            return None if result is None and not self._is_question else self._checked(result, argument)
        except TimeoutError as error:
            if not deadline.expired():
                return self._failed(error)  # one of the hook's own
            timeouts_total.add(1)
            at = self._place_of(error.__cause__ or error)
            self._journal.log("hook-timeout", hook=self.name, at=at, limit_s=self._deadline_s)
            return self._on_timeout
        except Exception as error:
            return self._failed(error)

    def _checked(self, result: object, argument: object) -> Decision:
        """Raises TypeError."""
        if self.name == "route" and isinstance(result, str):
            return Accept(route=route_text(result).decode())
        if not isinstance(result, self._allowed):
            allowed = ", ".join(each.__name__ for each in self._allowed)
            if self._is_question:       # None would be a guess whether somebody exists
                raise TypeError(f"returned {type(result).__name__}: expected one of {allowed}")
            raise TypeError(f"returned {type(result).__name__}: expected None or one of {allowed or 'nothing else'}")
        if self.name != "on_message" and isinstance(result, Accept | Redirect):
            accept = result.accept if isinstance(result, Redirect) else result
            if accept.fields:
                raise TypeError("returned changes of fields: only on_message can")
            if self._is_question and accept != Accept():
                raise TypeError("returned what shall hold for a message: answers are kept for others; on_rcpt can")
        if isinstance(result, Discard):
            path = getattr(argument, "forward_path", "")
            self._journal.log(
                "hook-discard", hook=self.name, reason=result.reason, sender=getattr(argument, "reverse_path", ""),
                **({"to": path} if path else {}),
            )  # fmt: skip
        return result  # type: ignore[return-value]

    def _failed(self, error: Exception) -> Decision | None:
        errors_total.add(1)
        self._journal.log("hook-error", hook=self.name, at=self._place_of(error), reason=describe(error))
        return self._on_error

    def _place_of(self, error: BaseException) -> str:
        """Of what it answers we find out when it is over: that is told with the line where it is defined."""
        return place_of(error, self._source.paths, defined_at(self._hook, self._source.path))
