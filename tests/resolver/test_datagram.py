"""Questions by UDP, as many at once as a backlog of new domains asks."""

from __future__ import annotations

import asyncio
import collections
import socket

import pytest
import uvloop

from angarium.resolver.datagram import Arrivals, Exchange

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("new_loop", LOOPS)
def test_answers_that_come_at_once_are_dealt_with_over_several_turns_of_the_loop(new_loop):
    """A resolver on this machine answers two hundred questions in the time that one turn took: read in the next one,
    all of them, they made that turn 50 ms long, and so on for ever. Mail that needs no look-up waited for each of them.
    """
    read_in_turn: collections.Counter[int] = collections.Counter()
    turn = 0

    async def test() -> None:
        nonlocal turn
        loop = asyncio.get_running_loop()
        arrivals = Arrivals(at_once=4)

        def accept(octets: bytes) -> bytes:
            read_in_turn[turn] += 1
            return octets

        def next_turn() -> None:
            nonlocal turn
            turn += 1
            probe[0] = loop.call_soon(next_turn)

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
            asked = [Exchange(loop, "127.0.0.1", port, b"%d" % i, accept, arrivals=arrivals) for i in range(50)]
            for _ in asked:                     # all answers are there before the loop has its next turn
                octets, client = server.recvfrom(512)
                server.sendto(octets, client)
            probe = [loop.call_soon(next_turn)]
            async with asyncio.timeout(20):
                found = await asyncio.gather(*(each.outcome for each in asked))
            probe[0].cancel()
        assert found == [b"%d" % i for i in range(50)], "each has its own answer"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(test())
    assert sum(read_in_turn.values()) == 50
    assert max(read_in_turn.values()) <= 4, read_in_turn


@pytest.mark.parametrize("new_loop", LOOPS)
def test_who_gave_up_is_forgotten_and_others_get_their_answers(new_loop):
    async def test() -> None:
        loop = asyncio.get_running_loop()
        arrivals = Arrivals()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
            for _ in range(3):                  # nobody waits in between: the loop is asked for each time anew
                first, second = (Exchange(loop, "127.0.0.1", port, b"?", bytes, arrivals=arrivals) for _ in range(2))
                first.close()
                for _ in range(2):
                    octets, client = server.recvfrom(512)
                    server.sendto(octets, client)
                async with asyncio.timeout(20):
                    assert await second.outcome == b"?"
                assert not first.outcome.done()
                second.close()
                first.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(test())
        runner.run(test())


def test_a_server_that_is_not_there_is_known_at_once():
    async def test() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
        exchange = Exchange(asyncio.get_running_loop(), "127.0.0.1", port, b"?", bytes, arrivals=Arrivals())
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionRefusedError):
                await exchange.outcome
        exchange.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())
