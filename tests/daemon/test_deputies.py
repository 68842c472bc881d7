"""Who accepts for a worker that is silent, with workers that are sockets only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from angarium.model.address import ListenAddress
from angarium.process import deputies as deputies_module
from angarium.process.control import Answer, Call, Channel, Letter, Request, StandDown, StandIn
from angarium.process.deputies import Deputies
from angarium.process.listening import Listening
from angarium.process.supervisor import Owner, Supervisor, Worker


class NoOwner:
    def log(self, event: str, **fields: Any) -> None:
        raise AssertionError(f"{event} {fields}")


class Quiet:
    def log(self, event: str, **fields: Any) -> None:
        pass


class Peer:
    """A worker's end: answers at once, or when it is back. asked: all but beats, and of whom."""

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self.is_silent = False
        self.asked: list[tuple[type[Request], int]] = []
        self._held: list[Call] = []
        ours, theirs = socket.socketpair()
        worker = supervisor.workers[number] = Worker(number, -1, ours)
        worker.attach(supervisor, supervisor._loop)
        worker.is_ready = True
        self._channel = Channel(theirs, supervisor._loop, self._on_letter)
        self._worker = worker

    def _on_letter(self, letter: Letter, fds: list[int]) -> None:
        assert isinstance(letter, Call)
        for fd in fds:
            socket.close(fd)
        if self.is_silent:
            self._held.append(letter)
            return
        if isinstance(letter.request, StandIn | StandDown):
            self.asked.append((type(letter.request), letter.request.number))
        self._channel.send(Answer(serial=letter.serial))

    def come_back(self) -> None:
        self.is_silent = False
        held, self._held = self._held, []
        for letter in held:
            self._on_letter(letter, [])

    def close(self) -> None:
        self._channel.close()
        self._worker.bury()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_deputy_that_falls_silent_too_accepts_for_nobody_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deputies_module, "BEAT_S", 0.02)
    monkeypatch.setattr(deputies_module, "LIMIT_S", 0.05)
    supervisor = Supervisor(cast(Owner, Quiet()), 3)
    loop = supervisor._loop
    listening = Listening(3)
    listening.open([ListenAddress("127.0.0.1", 0)])

    async def body() -> None:
        first, second, third = peers = [Peer(supervisor, number) for number in range(3)]
        deputies = Deputies(supervisor, listening)
        running = loop.create_task(deputies.run())
        first.is_silent = True
        await until(lambda: (StandIn, 0) in second.asked)
        second.is_silent = True
        await until(lambda: (StandIn, 0) in third.asked)
        first.come_back()
        await until(lambda: (StandDown, 0) in third.asked)
        second.come_back()
        await until(lambda: (StandDown, 1) in (*first.asked, *third.asked))
        assert second.asked[-1] == (StandDown, 0)
        deputies.stop()
        await running
        for peer in peers:
            peer.close()
        await asyncio.gather(*supervisor._tasks)

    try:
        loop.run_until_complete(asyncio.wait_for(body(), 20))
    finally:
        loop.close()
        listening.close_all()


def test_a_worker_that_dies_as_it_is_about_to_be_asked_holds_nobody_up() -> None:
    supervisor = Supervisor(cast(Owner, NoOwner()), 1)
    loop = supervisor._loop

    async def body() -> None:
        ours, theirs = socket.socketpair()
        worker = supervisor.workers[0] = Worker(0, -1, ours)
        worker.attach(supervisor, loop)
        worker.is_ready = True
        deputies = Deputies(supervisor, Listening(1, []))
        running = loop.create_task(deputies.run())
        await asyncio.sleep(0)
        assert supervisor._tasks, "somebody is about to ask"
        del supervisor.workers[0]
        worker.bury()
        theirs.close()
        deputies.stop()
        await running
        await asyncio.gather(*supervisor._tasks)

    try:
        loop.run_until_complete(asyncio.wait_for(body(), 20))
    finally:
        loop.close()
