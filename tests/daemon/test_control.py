"""The channel between supervisor and worker: both ends on one loop."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from angarium.process.control import (
    Answer,
    Apply,
    Call,
    Caller,
    Channel,
    ControlError,
    Letter,
    Listing,
    Retry,
    Status,
)


class Pair:
    """A caller, and at the other end a worker whose answers `answer` makes."""

    def __init__(self, answer: Callable[[Call, list[int]], Answer | None]) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.raw = theirs
        self.ended = asyncio.Event()

        def at_worker(letter: Letter, fds: list[int]) -> None:
            assert isinstance(letter, Call)
            reply = answer(letter, fds)
            if reply is not None:
                self.worker.send(reply)

        def at_caller(letter: Letter, fds: list[int]) -> None:
            assert isinstance(letter, Answer)
            self.caller.answered(letter)

        self.worker = Channel(theirs, loop, at_worker, self.ended.set)
        self.channel = Channel(ours, loop, at_caller, self.at_end)
        self.caller = Caller(self.channel, loop)

    def pause_worker(self) -> None:
        asyncio.get_running_loop().remove_reader(self.raw)

    def go_on_with_worker(self) -> None:
        asyncio.get_running_loop().add_reader(self.raw, self.worker._on_readable)

    def at_end(self) -> None:
        self.caller.ended()

    def close(self) -> None:
        self.worker.close()
        self.channel.close()


def echo(call: Call, fds: list[int]) -> Answer:
    return Answer(serial=call.serial, value=msgspec.Raw(msgspec.msgpack.encode(call.request)))


def on_loop(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


def test_answers_find_their_requests() -> None:
    async def body() -> None:
        pair = Pair(echo)
        answers = await asyncio.gather(*(pair.caller.call(Retry(id=str(n)), Retry) for n in range(100)))
        assert [answer.id for answer in answers] == [str(n) for n in range(100)]
        pair.close()

    on_loop(body)


def test_a_letter_larger_than_any_buffer_arrives_whole() -> None:
    async def body() -> None:
        pair = Pair(echo)
        big = "x" * 5_000_000
        answer = await pair.caller.call(Listing(cursor=0, limit=1, domain=big), Listing)
        assert answer.domain == big
        pair.close()

    on_loop(body)


def test_descriptors_arrive_with_their_letter() -> None:
    async def body() -> None:
        inodes: list[list[int]] = []

        def answer(call: Call, fds: list[int]) -> Answer:
            inodes.append([os.fstat(fd).st_ino for fd in fds])
            for fd in fds:
                assert not os.get_inheritable(fd)
                os.close(fd)
            return Answer(serial=call.serial)

        pair = Pair(answer)
        files = [os.open("/", os.O_RDONLY), os.open("/tmp", os.O_RDONLY)]
        request = Apply(tables={"x": "y" * 1_000_000}, addresses=["a", "b"])
        await asyncio.gather(
            pair.caller.call(request, type(None), fds=files),
            pair.caller.call(Status(), type(None)),
            pair.caller.call(request, type(None), fds=files[1:]),
        )
        expected = [os.fstat(fd).st_ino for fd in files]
        assert inodes == [expected, [], expected[1:]]
        for fd in files:
            os.close(fd)
        pair.close()

    on_loop(body)


def test_descriptors_that_are_closed_while_they_wait_arrive_all_the_same() -> None:
    """A worker that is stopped reads nothing; meanwhile a reload is given up, and its sockets' numbers mean others."""

    async def body() -> None:
        inodes: list[list[int]] = []

        def answer(call: Call, fds: list[int]) -> Answer:
            inodes.append([os.fstat(fd).st_ino for fd in fds])
            for fd in fds:
                os.close(fd)
            return Answer(serial=call.serial)

        pair = Pair(answer)
        open_before = len(os.listdir("/proc/self/fd"))
        file = os.open("/", os.O_RDONLY)
        asked = [
            asyncio.create_task(pair.caller.call(request, type(None), fds=fds))
            for request, fds in (
                (Apply(tables={"x": "y" * 1_000_000}, addresses=[]), []),   # more than the socket takes
                (Apply(tables={}, addresses=["a"]), [file]),
                (Status(), []),
            )
        ]
        pair.pause_worker()
        while len(pair.channel._output) < 3:
            await asyncio.sleep(0)
        expected = os.fstat(file).st_ino
        os.close(file)
        other = os.open("/tmp", os.O_RDONLY)
        assert other == file
        pair.go_on_with_worker()
        await asyncio.gather(*asked)
        os.close(other)
        assert inodes == [[], [expected], []]
        assert len(os.listdir("/proc/self/fd")) == open_before
        with pytest.raises(ControlError, match="Bad file descriptor"):
            await pair.caller.call(Apply(tables={}, addresses=["a"]), type(None), fds=[other])
        pair.close()

    on_loop(body)


def test_descriptors_of_a_letter_that_never_leaves_are_closed() -> None:
    async def body() -> None:
        pair = Pair(lambda call, fds: None)
        pair.pause_worker()
        open_before = len(os.listdir("/proc/self/fd"))
        big = Apply(tables={"x": "y" * 1_000_000}, addresses=[])
        pair.channel.send(Call(1, big))
        pair.channel.send(Call(2, big, fd_count=1), [0])
        assert len(os.listdir("/proc/self/fd")) == open_before + 1
        pair.close()
        assert len(os.listdir("/proc/self/fd")) == open_before - 2

    on_loop(body)


def test_a_refusal_is_an_exception_with_the_reason() -> None:
    async def body() -> None:
        pair = Pair(lambda call, fds: Answer(serial=call.serial, error="no such thing"))
        with pytest.raises(ControlError, match=r"^no such thing$"):
            await pair.caller.call(Status(), dict)
        pair.close()

    on_loop(body)


def test_who_waits_is_told_when_the_other_side_dies() -> None:
    async def body() -> None:
        pair = Pair(lambda call, fds: None)
        waiting = asyncio.create_task(pair.caller.call(Status(), dict))
        await asyncio.sleep(0)
        pair.worker.close()
        with pytest.raises(ControlError, match="the worker died"):
            await waiting
        pair.close()

    on_loop(body)


def test_who_asks_the_dead_is_told_at_once() -> None:
    async def body() -> None:
        pair = Pair(lambda call, fds: None)
        pair.caller.ended()
        with pytest.raises(ControlError, match="the worker died"):
            await pair.caller.call(Status(), dict, timeout_s=math.inf)
        pair.close()

    on_loop(body)


def test_who_does_not_answer_in_time_is_given_up() -> None:
    async def body() -> None:
        late: list[Call] = []
        pair = Pair(lambda call, _: late.append(call))
        with pytest.raises(ControlError, match=r"no answer within 0\.05 s"):
            await pair.caller.call(Status(), dict, timeout_s=0.05)
        pair.worker.send(Answer(serial=late[0].serial))
        await asyncio.sleep(0.05)
        pair.close()

    on_loop(body)


def test_the_other_side_sees_the_end() -> None:
    async def body() -> None:
        pair = Pair(echo)
        pair.channel.close()
        await pair.ended.wait()
        pair.worker.send(Answer(serial=1))
        pair.close()

    on_loop(body)


def test_a_length_that_cannot_be_ends_the_channel() -> None:
    async def body() -> None:
        pair = Pair(echo)
        pair.worker._loop.remove_reader(pair.raw.fileno())
        pair.raw.send(b"\xff\xff\xff\xff")
        with pytest.raises(ControlError, match="the worker died"):
            await pair.caller.call(Status(), dict)
        pair.close()

    on_loop(body)
