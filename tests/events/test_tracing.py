"""Traces of one worker, whoever is looked at: how they end, and what they leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from angarium.events import dialogue, tracing
from angarium.events.dialogue import LINE_OCTETS, Dialogue, Trace
from angarium.events.tracing import TraceOf, Traces


class Session:
    observer: object | None = None
    witness: Any = None

    def watch(self, witness: Any) -> None:
        self.witness = witness
        self.observer = None if witness is None else witness.observer


class Everybody(TraceOf[Session]):
    def means(self, session: Session) -> bool:
        return True


class Pretended(Traces[Session]):
    def __init__(self) -> None:
        super().__init__("client", "0.")
        self.sessions = [Session()]
        self.is_told = False

    def _under_way(self) -> Iterable[Session]:
        return self.sessions

    def _look_at_new(self, are_watched: bool) -> None:
        self.is_told = are_watched

    def _name_of(self, session: Session) -> str:
        return "192.0.2.1"


class CountingLoop(asyncio.SelectorEventLoop):
    """Knows which timers of traces have not come and were not cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[asyncio.TimerHandle] = []

    def call_later(self, delay: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
        def come(*args: Any) -> None:
            self.pending.remove(handle)
            callback(*args)

        is_of_traces = isinstance(getattr(callback, "__self__", None), Traces)
        handle = super().call_later(delay, come if is_of_traces else callback, *args, **options)
        if is_of_traces:
            self.pending.append(handle)
        return handle

    @property
    def idle_timers(self) -> int:
        return sum(not each.cancelled() for each in self.pending)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "PULL_WAIT_S", 0.001)


def on_counting_loop(main: Any) -> None:
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(main())


def counting() -> CountingLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    return loop


def test_however_many_traces_begin_one_timer_looks_after_them() -> None:
    """Each new trace used to start a timer of its own, which went on for as long as there was any trace at all."""

    async def main() -> None:
        traces = Pretended()
        await traces._begin("first", Everybody())
        for number in range(200):
            await traces._begin(str(number), Everybody())
            traces.end(str(number))
        assert counting().idle_timers == 1
        traces.end("first")
        assert counting().idle_timers == 0 and not traces.is_told
        await traces._begin("again", Everybody())
        assert counting().idle_timers == 1 and traces.is_told

    on_counting_loop(main)


def test_a_timer_that_came_is_followed_by_one_while_somebody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "IDLE_S", 0.02)

    async def main() -> None:
        traces = Pretended()
        await traces._begin("read", Everybody())
        await traces._begin("left", Everybody())
        while "left" in traces._traces:
            assert await traces._pull("read") is not None
        assert counting().idle_timers == 1
        while traces.is_told:
            await asyncio.sleep(0.001)
        assert counting().idle_timers == 0 and traces.sessions[0].observer is None

    on_counting_loop(main)


def test_who_wants_more_data_gets_more_and_the_first_reader_no_more_than_before() -> None:
    async def main() -> None:
        traces = Pretended()
        await traces._begin("size", Everybody())
        (session,) = traces.sessions
        before = session.witness
        await traces._begin("data", Everybody(10))
        assert session.witness is not before and session.observer is before.observer
        assert isinstance(session.observer, Dialogue) and session.observer.data_octets == 10
        session.observer.data(b"0123\r\n6789abc\r\n")
        session.observer.message(15)
        session.observer.command(b"QUIT")
        of_size, of_data = await traces._pull("size"), await traces._pull("data")
        assert [each.get("text") for each in of_size or ()] == ["15 octets", "QUIT"]
        assert [each.get("text") for each in of_data or ()] == [
            "0123", "6789", "15 octets, of which the first 10 are shown", "QUIT",
        ]  # fmt: skip

    on_counting_loop(main)


def test_the_bound_of_data_is_each_messages_own_wherever_it_is_cut() -> None:
    octets = b"a\r\n" + b"b" * 20 + b"\r\nccc"
    for cut in range(1, len(octets)):
        trace = Trace(12)
        looking = Dialogue((trace,), "0.1", "192.0.2.1")
        for _ in range(2):
            for part in (octets[:cut], octets[cut:]):
                looking.data(part)
                looking.message(len(part))
            looking.command(b"RSET")
        told = [f"{each['event']} {each.get('text')}" for each in trace._events]
        one = ["data a", "data " + "b" * 9, "message 28 octets, of which the first 12 are shown", "command RSET"]
        assert told == one * 2, cut


def test_a_line_without_an_end_is_told_in_parts_and_not_kept() -> None:
    trace = Trace(100 * LINE_OCTETS)
    looking = Dialogue((trace,), "0.1", "192.0.2.1")
    for _ in range(300):
        looking.data(b"x" * 1000)
    assert len(looking._line) <= LINE_OCTETS
    assert sum(each["event"] == "data" for each in trace._events) <= 100
