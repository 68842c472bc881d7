"""Live traces of one worker (angarium trace): when one begins and ends, and which sessions are looked at for it.

Who is meant is said elsewhere: clients in inbound/tracing.py, next hops in outbound/tracing.py; what is told of a
session in dialogue.py. A trace is asked for again and again by whoever reads it and ends by itself when nobody asks any
more. Between two pulls a worker keeps so much and drops the rest, and says how much that was: neither a flood nor a
slow reader costs more.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeVar

from angarium.events.dialogue import IDLE_S, TRACES_MAX, Dialogue, Event, TooManyTraces, Trace
from angarium.smtp.witness import Witness

_SLICE: Final = 200     # sessions looked at in one turn of the loop


class Watched(Protocol):
    """A session, as it is looked at."""

    @property
    def observer(self) -> object | None: ...

    def watch(self, witness: Witness | None) -> None: ...


S = TypeVar("S", bound=Watched)


class TraceOf(Trace, ABC, Generic[S]):
    """A trace that knows whom it is about."""

    @abstractmethod
    def means(self, session: S) -> bool: ...


class Traces(ABC, Generic[S]):
    """All of one worker and one direction.

    role    of the other side in events, as Dialogue has it.
    prefix  of sessions' names, to which a number is added.
    """

    def __init__(self, role: str, prefix: str) -> None:
        self._role = role
        self._prefix = prefix
        self._traces: dict[str, TraceOf[S]] = {}
        self._sessions = 0
        self._idle_timer: asyncio.TimerHandle | None = None

    def end(self, id_: str) -> None:
        """Nobody reads it any more. Sessions that were looked at for it alone are so no more."""
        if self._traces.pop(id_, None) is None:
            return
        if not self._traces:
            self._look_at_new(False)
            if self._idle_timer is not None:
                self._idle_timer.cancel()
                self._idle_timer = None
        for session in self._under_way():
            if session.observer is not None:
                self.look_at(session)

    def look_at(self, session: S) -> None:
        """Decides anew who looks on at a session: it has begun, or more is known of the other side."""
        traces = tuple(trace for trace in self._traces.values() if trace.means(session))
        observer = session.observer
        if not traces:
            if observer is not None:
                session.watch(None)
            return
        name = self._name_of(session)
        is_new = not isinstance(observer, Dialogue)
        if isinstance(observer, Dialogue):
            if observer.traces == traces and observer.host == name:
                return
            observer.traces, observer.host = traces, name
        else:
            self._sessions += 1
            observer = Dialogue(traces, f"{self._prefix}{self._sessions}", name, self._role)
        session.watch(Witness(observer, observer.data_octets))
        if is_new:
            observer.note("seen", self._seen_text(session))

    async def _pull(self, id_: str) -> list[Event] | None:
        """What has happened since the last pull; None: there is no such trace, and _begin() has to come first."""
        trace = self._traces.get(id_)
        return None if trace is None else await trace.take()

    async def _begin(self, id_: str, trace: TraceOf[S]) -> list[Event]:
        """The first pull. Raises TooManyTraces."""
        self._end_idle()
        if len(self._traces) >= TRACES_MAX:
            raise TooManyTraces(f"{TRACES_MAX} traces are under way, and more may not be")
        self._traces[id_] = trace
        self._look_at_new(True)
        if self._idle_timer is None:
            self._watch_idle()
        for count, session in enumerate(self._under_way()):
            if count % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            self.look_at(session)
        return await trace.take()

    # One timer for all traces, for as long as there are any.

    def _watch_idle(self) -> None:
        self._idle_timer = asyncio.get_running_loop().call_later(IDLE_S, self._idle_time_is_over)

    def _idle_time_is_over(self) -> None:
        self._idle_timer = None
        self._end_idle()
        if self._traces:
            self._watch_idle()

    def _end_idle(self) -> None:
        now = time.monotonic()
        for id_ in [id_ for id_, trace in self._traces.items() if now - trace.pulled_mono_s >= IDLE_S]:
            self.end(id_)

    # What each direction knows.

    @abstractmethod
    def _under_way(self) -> Iterable[S]:
        """All sessions now; they may come and go while they are looked at."""

    @abstractmethod
    def _look_at_new(self, are_watched: bool) -> None:
        """Whether look_at() is called for sessions that begin."""

    @abstractmethod
    def _name_of(self, session: S) -> str:
        """The other side, as events name it."""

    def _seen_text(self, session: S) -> str:
        return ""
