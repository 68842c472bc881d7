"""The life of a worker process: open, serve, answer the supervisor, drain, close.

What it serves is a Relay built by relay.py (tests build others). Here is only what any worker needs: the
loop, the control channel, signals, the watchdog, and the rule that a worker whose supervisor is gone ends at
once. It may: nothing that was acknowledged is lost by dying, and the spool must be free for the next
supervisor.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import uvloop

from angarium.events.journal import Journal
from angarium.metrics import counters
from angarium.model.errors import AngariumError
from angarium.outbound.explanation import Explanation, Subject
from angarium.policy.hook_file import HookSource
from angarium.process.control import (
    Answer,
    Apply,
    Beat,
    Call,
    CannotStart,
    Channel,
    Delete,
    Drain,
    EndTrace,
    Explain,
    Granted,
    Letter,
    Listing,
    Look,
    Noticed,
    Ready,
    Refusal,
    Request,
    Retry,
    Sample,
    Show,
    SitesNamed,
    Sources,
    StandDown,
    StandIn,
    Standing,
    Status,
    Top,
    Trace,
    Walk,
    Wish,
)
from angarium.process.supervisor import Seat
from angarium.process.watchdog import Watchdog
from angarium.queue.facts import QueueFacts, SiteRow, SitesPart
from angarium.queue.notices import Notice, Tally

DRAIN_S = 10.0  # when told by SIGTERM and not by the supervisor


class Relay(Protocol):
    """What a worker serves. All methods are called on the loop."""

    journal: Journal

    def notice_by(self, send: Callable[[list[Notice], list[Tally]], None]) -> None:
        """How it says what automation counts; called once, first."""

    def wish_by(self, wish: Callable[[Retry], Awaitable[int]]) -> None:
        """How it asks all workers, itself too, for something; called once, first."""

    async def apply(
        self, tables: dict[str, Any], sockets: list[tuple[str, socket.socket]], hooks: HookSource | None
    ) -> None:
        """Works by this configuration and these hooks from now on; takes over the sockets.

        Raises AngariumError, and stays as it was.
        """

    async def stand_in(self, number: int, sockets: list[tuple[str, socket.socket]]) -> None:
        """Accepts on the sockets of worker `number` as well, which does not answer; takes them over."""

    def stand_down(self, number: int) -> None:
        """And no more. Sessions that came that way stay."""

    def status(self) -> dict[str, Any]: ...

    def sources(self) -> list[dict[str, Any]]: ...

    async def listing(self, query: Listing) -> tuple[int, list[dict[str, Any]]]: ...

    async def show(self, id_: str) -> dict[str, Any] | None: ...

    async def retry(self, id_: str | None, domain: str | None) -> int: ...

    async def delete(self, id_: str | None, domain: str | None) -> int: ...

    async def walk(self, walk: Walk) -> tuple[int, int, int]: ...

    async def sample(self, query: Sample) -> list[dict[str, Any]]: ...

    def set_orders(self, standing: Standing) -> None: ...

    def refusal(self, id_: str) -> dict[str, Any] | None: ...

    async def explain(self, query: Explain) -> Explanation | None: ...

    def look(self, subject: Subject) -> tuple[int, int, list[QueueFacts]]: ...

    async def top(self, order: str, limit: int) -> SitesPart: ...

    def sites_named(self, names: list[str]) -> list[SiteRow]: ...

    async def trace(self, query: Trace) -> list[dict[str, Any]]: ...

    def end_trace(self, id_: str) -> None: ...

    async def drain(self, deadline_s: float) -> None:
        """Stops accepting and finishes what is in hand within the deadline.

        May be cancelled and then called again with a deadline of nothing.
        """

    def close(self) -> None: ...


def run(seat: Seat, open_relay: Callable[[asyncio.AbstractEventLoop], Awaitable[Relay]]) -> int:
    """The worker's main function; returns its exit status. Called once, in the forked child.

    open_relay  raises AngariumError or OSError when it cannot serve: the supervisor is told why.
    """
    counters.attach(seat.number + 1)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(_Life(seat, loop).live(open_relay))


class _Life:
    def __init__(self, seat: Seat, loop: asyncio.AbstractEventLoop) -> None:
        self._seat = seat
        self._loop = loop
        self._relay: Relay | None = None
        self._stop = asyncio.Event()
        self._deadline_mono_s = 0.0
        self._apply_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._early: list[tuple[Call, list[int]]] = []
        self._wish_serial = 0
        self._wishes: dict[int, asyncio.Future[int]] = {}
        self._channel = Channel(seat.control, loop, self._on_letter, self._on_end)

    async def live(self, open_relay: Callable[[asyncio.AbstractEventLoop], Awaitable[Relay]]) -> int:
        self._loop.add_signal_handler(signal.SIGTERM, self._stop_within, DRAIN_S)
        try:
            relay = self._relay = await open_relay(self._loop)
        except (AngariumError, OSError) as error:
            self._channel.send(CannotStart(reason=_sendable(str(error))))
            return 2
        relay.wish_by(self._wish)
        relay.notice_by(lambda notices, tallies: self._channel.send(Noticed(notices, tallies)))
        watchdog = Watchdog(self._loop, relay.journal)
        for call, fds in self._early:
            self._begin(call, fds)
        self._channel.send(Ready())
        await self._stop.wait()
        try:
            await self._drain(relay)
        finally:                        # whatever kept it from its end: what was to be written is on disk afterwards
            watchdog.stop()
            relay.close()
            relay.journal.flush()
        return 0

    async def _drain(self, relay: Relay) -> None:
        """Drains once; a nearer deadline that comes meanwhile cuts it short."""
        drain = self._loop.create_task(relay.drain(self._deadline_mono_s - self._loop.time()))
        self._stop.clear()
        while not drain.done():
            sooner = self._loop.create_task(self._stop.wait())
            await asyncio.wait((drain, sooner), return_when=asyncio.FIRST_COMPLETED)
            sooner.cancel()
            self._stop.clear()
            if not drain.done() and self._deadline_mono_s <= self._loop.time():
                drain.cancel()
                await asyncio.wait((drain,))
        if drain.cancelled():
            await relay.drain(0.0)
        else:
            drain.result()

    def _stop_within(self, deadline_s: float) -> None:
        deadline = self._loop.time() + deadline_s
        self._deadline_mono_s = min(self._deadline_mono_s or deadline, deadline)
        self._stop.set()

    def _on_end(self) -> None:
        if self._relay is not None:
            self._relay.journal.flush()
        os._exit(3)

    async def _wish(self, request: Retry) -> int:
        self._wish_serial += 1
        serial = self._wish_serial
        answer: asyncio.Future[int] = self._loop.create_future()
        self._wishes[serial] = answer
        try:
            self._channel.send(Wish(serial=serial, request=request))
            return await answer
        finally:
            del self._wishes[serial]

    def _on_letter(self, letter: Letter, fds: list[int]) -> None:
        if isinstance(letter, Granted):
            answer = self._wishes.get(letter.serial)
            if answer is not None and not answer.done():
                answer.set_result(letter.count)
        if not isinstance(letter, Call):
            return
        if isinstance(letter.request, Drain):
            self._stop_within(letter.request.deadline_s)
        elif self._relay is None:
            self._early.append((letter, fds))
        else:
            self._begin(letter, fds)

    def _begin(self, call: Call, fds: list[int]) -> None:
        task = self._loop.create_task(self._answer(call, fds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: Call, fds: list[int]) -> None:
        answer = Answer(serial=call.serial)
        try:
            answer.value = msgspec.Raw(msgspec.msgpack.encode(await self._perform(call.request, fds)))
        except (AngariumError, OSError) as error:
            answer.error = _sendable(str(error))
        except Exception as error:
            # A bug in answering must not look like a dead worker, nor become one: mail goes on.
            answer.error = _sendable(f"internal error: {error!r}")
        if self._relay is not None:
            self._relay.journal.flush()     # whoever is told that a message is gone finds in the log where it went
        self._channel.send(answer)

    async def _perform(self, request: Request, fds: list[int]) -> object:
        relay = self._relay
        assert relay is not None
        match request:
            case Status():
                return relay.status()
            case Sources():
                return relay.sources()
            case Listing():
                return await relay.listing(request)
            case Show():
                return await relay.show(request.id)
            case Retry():
                return await relay.retry(request.id, request.domain)
            case Delete():
                return await relay.delete(request.id, request.domain)
            case Walk():
                return await relay.walk(request)
            case Sample():
                return await relay.sample(request)
            case Standing():
                relay.set_orders(request)
                return None
            case Refusal():
                return relay.refusal(request.id)
            case Explain():
                return await relay.explain(request)
            case Look():
                return relay.look(request.subject)
            case Top():
                return await relay.top(request.order, request.limit)
            case SitesNamed():
                return relay.sites_named(request.names)
            case Trace():
                return await relay.trace(request)
            case EndTrace():
                relay.end_trace(request.id)
                return None
            case Apply():
                sockets = [socket.socket(fileno=fd) for fd in fds]
                async with self._apply_lock:
                    bound = list(zip(request.addresses, sockets, strict=True))
                    await relay.apply(request.tables, bound, request.hooks)
                return None
            case StandIn():
                sockets = [socket.socket(fileno=fd) for fd in fds]
                async with self._apply_lock:
                    await relay.stand_in(request.number, list(zip(request.addresses, sockets, strict=True)))
                return None
            case StandDown():
                async with self._apply_lock:
                    relay.stand_down(request.number)
                return None
            case Beat() | Drain():
                return None


def _sendable(text: str) -> str:
    """What an operator's hook raises may be no text that UTF-8 has; without an answer somebody waits."""
    return text.encode("utf-8", "backslashreplace").decode()
