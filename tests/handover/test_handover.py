"""What is handed over and what comes back, with both workers in one process."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import random
import socket

import pytest
from handover.pair import FakeTransport, Pair, feed, pair
from queue_harness import MESSAGE, NextHop, run, until

from angarium.handover.outlet import Room
from angarium.model.plan import Site
from angarium.queue import inspect
from angarium.spool.envelope import Attribute

HELLO = b"\x07\0\0\0\x01ANGH\x01\0"
DOMAIN = b"\x09y.example"            # as a reference names it


class OnceTooMany(dict[str, str]):
    """Replies to RCPT: these mailboxes are too many the first time."""

    def __init__(self, mailboxes: set[str]) -> None:
        super().__init__(dict.fromkeys(mailboxes, "452 4.5.3 too many recipients"))

    def get(self, mailbox: str, usual: str = "") -> str:  # type: ignore[override]
        return self.pop(mailbox, usual)


def places(both: Pair, id_: int) -> list[str]:
    shown = inspect.show(both.owner.scheduler, id_)
    return [] if shown is None else [each["place"] for each in shown["recipients"]]


def test_the_owner_alone_tells_what_became_of_its_mail(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.rcpt["gone@y.example"] = "550 5.1.1 no such user"
            hop.rcpt["later@y.example"] = "450 4.2.0 try again"
            await both.owner.send("a@y.example", "gone@y.example", "later@y.example")
            await until(lambda: len(both.owner.events("delivered", "failed", "deferred")) == 4)     # and the report
            lines = {line["to"]: line for line in both.owner.events("delivered", "failed", "deferred")}
            assert lines["a@y.example"]["event"] == "delivered"
            assert lines["a@y.example"]["remote"].endswith(f":{hop.port}")
            assert (lines["gone@y.example"]["code"], lines["gone@y.example"]["status"]) == (550, "5.1.1")
            assert lines["later@y.example"]["reply"] == "4.2.0 try again"
            assert not both.home.events("delivered", "failed", "deferred")
            await until(lambda: both.incoming.guest_count == 0 == both.outgoing.out_count)
            assert both.home.depth["messages"] == both.home.depth["hot_octets"] == 0
            assert hop.sessions == 1

    run(test, tmp_path)


def test_a_message_that_is_not_in_memory_is_handed_over_and_its_recipient_named(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            both.owner.scheduler.hot_limit_octets = 0
            ids = [await both.owner.send(f"r{number}@y.example") for number in range(40)]
            assert len(ids) == 40
            await until(lambda: both.owner.is_empty)
            assert {line["to"] for line in both.owner.events("delivered")} == {f"r{n}@y.example" for n in range(40)}
            assert [data.split(b"\r\n\r\n")[1] for _, _, data in hop.messages] == [b"Hello\r\n"] * 40

    run(test, tmp_path)


def test_recipients_over_what_the_peer_takes_at_once_follow_in_the_next_transaction(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.rcpt = OnceTooMany({f"r{number}@y.example" for number in range(3, 6)})
            await both.owner.send(*(f"r{number}@y.example" for number in range(6)))
            await until(lambda: both.owner.is_empty)
            assert hop.recipients() == [f"r{number}@y.example" for number in range(6)]
            assert not both.owner.events("deferred")

    run(test, tmp_path)


def test_a_site_that_cannot_be_reached_defers_what_was_handed_over(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.stop()
            await both.owner.send("a@y.example", "b@y.example")
            await until(lambda: len(both.owner.events("deferred")) == 2)
            assert "Connection refused" in both.owner.events("deferred")[0]["reply"]
            await until(lambda: both.outgoing.out_count == 0)

    run(test, tmp_path)


def test_few_are_out_at_a_time_and_the_rest_waits_with_its_owner(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            for number in range(100):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.outgoing.out_count == 32)
            assert both.owner.depth["ready"] == 68
            assert both.incoming.guest_count == 32
            hop.release()
            await until(lambda: both.owner.is_empty)
            assert len(hop.messages) == 100

    run(test, tmp_path)


def test_own_mail_of_the_home_and_mail_handed_to_it_take_turns(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            await both.home.send("first@y.example")
            await until(lambda: hop.transactions == 1)
            for number in range(20):
                await both.home.send(f"own{number}@y.example")
            for number in range(20):
                await both.owner.send(f"handed{number}@y.example")
            await until(lambda: both.incoming.guest_count == 20)
            hop.release()
            await until(lambda: len(hop.messages) == 41)
            order = "".join("o" if to.startswith("own") else "h" for _, (to,), _ in hop.messages[1:])
            assert "ooo" not in order and "hhh" not in order, order

    run(test, tmp_path)


def test_an_owner_that_goes_leaves_nothing_behind_but_what_is_on_the_wire(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            for number in range(10):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.incoming.guest_count == 10 and hop.transactions)
            both.outgoing.recall_all()
            both.outgoing.close()
            await until(lambda: both.incoming.guest_count == 0)
            assert both.home.depth["ready"] == 0
            hop.release()
            await until(lambda: hop.messages)
            await until(lambda: both.home.depth["hot_octets"] == 0)
            assert len(hop.messages) <= 2, "what the connection had in hand"
            assert both.owner.depth["messages"] == 10, "and the owner knows of none of it"

    run(test, tmp_path)


def test_what_has_not_begun_is_called_back_and_takes_a_new_route(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            for number in range(10):
                await both.owner.send(f"r{number}@y.example")
            await until(lambda: both.incoming.guest_count == 10 and hop.transactions)
            other = NextHop()
            both.owner.router.by_domain[b"y.example"] = await other.start()
            scheduler = both.owner.scheduler
            scheduler.plan_anew(router=both.owner.router, pool=scheduler.pool, shaping=scheduler.shaping)
            await until(lambda: len(other.messages) >= 8)       # two at the most were in hand of the connection
            assert not hop.messages
            hop.release()
            await until(lambda: both.owner.is_empty)
            assert sorted(hop.recipients() + other.recipients()) == [f"r{number}@y.example" for number in range(10)]
            assert not both.owner.events("deferred")
            other.stop()

    run(test, tmp_path)


def test_a_recipient_is_shown_where_it_is(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            hop.is_held = True
            id_ = await both.owner.send("a@y.example")
            await until(lambda: hop.transactions)
            assert places(both, id_) == ["handed to worker 1"]
            hop.release()
            await until(lambda: both.owner.is_empty)

    run(test, tmp_path)


def test_limits_of_more_connections_than_workers_are_nobodys_home(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory, connections=2) as (both, _):
            await both.owner.send("a@y.example")
            await until(lambda: both.owner.is_empty)
            assert both.homes.limited_count == 0
            assert both.outgoing.status() == []

    run(test, tmp_path)


# ---- peers that are broken ----


def frame(kind: int, *fields: bytes) -> bytes:
    octets = bytes([kind]) + b"".join(fields)
    return len(octets).to_bytes(4, "little") + octets


def number(value: int, octets_count: int = 4) -> bytes:
    return value.to_bytes(octets_count, "little")


NOBODY = [
    ("over", frame(18, number(0), number(99))),
    ("a slot that there is not", frame(18, number(70000), number(0))),
    ("refused", frame(17, number(0), number(0), number(7), b"\0", number(1, 8), b"\x80")),
    ("not msgpack", frame(17, number(0), number(0), number(0), b"\0", number(1, 8), b"\xc1")),
    ("delivered", frame(16, number(0), number(0), number(9), b"\0", number(250, 2), number(1, 8), b"\0\0" * 6)),
    ("cut short", frame(16, number(0), number(0), number(0), b"\0", number(250, 2))),
    ("too much", frame(18, number(0), number(0), b"more")),
    ("an unknown kind", frame(99)),
    ("a request", frame(4, number(1))),
    ("too long", number(1 << 30)),
    ("empty", number(0)),
]


@pytest.mark.parametrize("answer", [answer for _, answer in NOBODY], ids=[name for name, _ in NOBODY])
def test_a_home_that_answers_nonsense_loses_its_connection_and_no_mail(tmp_path: pathlib.Path, answer: bytes) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            both.connect = lambda: ours
            await both.owner.send("a@y.example", "b@y.example")
            loop = asyncio.get_running_loop()
            heard = b""
            while DOMAIN not in heard:
                heard += await loop.sock_recv(theirs, 65536)
            both.connect = both.connect_home
            await loop.sock_sendall(theirs, answer)
            await until(lambda: both.owner.is_empty)
            theirs.close()
            assert len(both.owner.events("handover-broken")) == 1
            assert [line["attempt"] for line in both.owner.events("delivered")] == [1, 1]
            assert hop.recipients() == ["a@y.example", "b@y.example"]

    run(test, tmp_path)


def test_an_outcome_told_twice_counts_once(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, hop):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            both.connect = lambda: ours
            await both.owner.send("a@y.example", "b@y.example")
            loop = asyncio.get_running_loop()
            heard = b""
            while DOMAIN not in heard:
                heard += await loop.sock_recv(theirs, 65536)
            both.connect = both.connect_home
            texts = [b"\2\0ok", b"\0\0" * 5]
            told = frame(16, number(0), number(0), number(0), b"\0", number(250, 2), number(1, 8), *texts)
            await loop.sock_sendall(theirs, told + told)
            await until(lambda: both.owner.is_empty)
            theirs.close()
            assert sorted(line["to"] for line in both.owner.events("delivered")) == ["a@y.example", "b@y.example"]
            assert len(hop.recipients()) == 1, "who was told of is not tried again"

    run(test, tmp_path)


def test_a_home_that_reads_no_more_does_not_keep_outcomes_from_the_spool(tmp_path: pathlib.Path) -> None:
    """At the end of the owner, while the home is stopped: what was delivered is written, or it is again."""

    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, _):
            ours, theirs = socket.socketpair()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            ours.setblocking(False)
            theirs.setblocking(False)
            both.connect = lambda: ours
            id_ = await both.owner.send("a@y.example", "b@y.example")
            loop = asyncio.get_running_loop()
            heard = b""
            while DOMAIN not in heard:
                heard += await loop.sock_recv(theirs, 65536)
            texts = [b"\2\0ok", b"\0\0" * 5]
            told = frame(16, number(0), number(0), number(0), b"\0", number(250, 2), number(1, 8), *texts)
            await loop.sock_sendall(theirs, told)
            await until(lambda: both.owner.events("delivered"))
            assert sorted(places(both, id_)) == ["handed to worker 1", "settled"]
            for _ in range(1000):       # more than the socket takes
                both.outgoing.recall_all()
                await asyncio.sleep(0)
            both.outgoing.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert both.outgoing.out_count == 0
            assert sorted(places(both, id_)) == ["ready", "settled"]
            theirs.close()

    run(test, tmp_path)


async def what_an_owner_says(directory: pathlib.Path) -> bytes:
    """HELLO, OPEN and references to a small and a streamed message."""
    async with pair(directory) as (both, _):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        both.connect = lambda: ours
        both.owner.scheduler.hot_limit_octets = 0
        await both.owner.send("a@y.example", "b@y.example")
        await both.owner.send("c@y.example", body=MESSAGE * 3000)
        await until(lambda: both.outgoing.out_count == 2)
        loop = asyncio.get_running_loop()
        heard = b""
        while heard.count(DOMAIN) < 2:
            heard += await loop.sock_recv(theirs, 65536)
        theirs.close()
        return heard


def test_an_owner_that_says_nonsense_loses_its_connection_and_does_no_harm(tmp_path: pathlib.Path) -> None:
    """Any octets in place of those of a good peer end that connection, or mean something harmless: never an exception,
    never mail of others."""

    async def test(directory: pathlib.Path) -> None:
        said = await what_an_owner_says(directory / "first")
        assert said.startswith(HELLO)
        numbers = random.Random(2)
        (directory / "second").mkdir()
        async with pair(directory / "second") as (both, hop):
            os.mkdir(directory / "second" / "02")
            for turn in range(400):
                octets = bytearray(said)
                for _ in range(numbers.randrange(1, 4)):
                    at = numbers.randrange(len(octets))
                    match turn % 4:
                        case 0:
                            octets[at] = numbers.randrange(256)
                        case 1:
                            del octets[at : at + numbers.randrange(1, 9)]
                        case 2:
                            octets[at:at] = numbers.randbytes(numbers.randrange(1, 9))
                        case 3:
                            octets[at : at + 4] = numbers.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\0\0"])
                link = both.incoming.link()
                link.connection_made(FakeTransport())
                feed(link, bytes(octets))
                await asyncio.sleep(0)
                link.connection_lost(None)
            assert both.incoming.guest_count == 0
            await until(lambda: both.home.depth["hot_octets"] == 0)
            # A site of its own: what a worker says of another's hosts is believed.
            both.home.router.by_domain[b"own.example"] = Site("smtp://own:25", "smtp", both.home.router.default.hosts)
            await both.home.send("a@own.example")
            await until(lambda: "a@own.example" in hop.recipients())
            for line in map(json.loads, both.home.log_path.read_text().splitlines()):
                assert line["event"] != "error" or "cannot be read: No such file" in line["reason"], line
                assert "internal error" not in line.get("reason", ""), line

    run(test, tmp_path)


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frame(1, b"ANGH\x02\0"),
        frame(1, b"ANGH\x01\x40"),
        HELLO + frame(3, number(5)),
        HELLO + frame(4, number(5)),
        HELLO + frame(2, number(5), b"\xc1"),
        HELLO + HELLO,
        HELLO + number((1 << 20) + 1),
    ],
    ids=["HTTP", "version", "worker", "reference", "withdraw", "open", "HELLO twice", "length"],
)
def test_who_is_no_worker_is_turned_away(tmp_path: pathlib.Path, octets: bytes) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory) as (both, _):
            link, transport = both.incoming.link(), FakeTransport()
            link.connection_made(transport)
            feed(link, octets)
            assert transport.has_ended
            assert both.home.events("handover-broken")
            link.connection_lost(None)

    run(test, tmp_path)


def answers(octets: bytes) -> list[int]:
    """Kinds of frames."""
    found = []
    while octets:
        end = 4 + int.from_bytes(octets[:4], "little")
        found.append(octets[4])
        octets = octets[end:]
    return found


def test_frames_are_the_same_for_every_cut(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        said = await what_an_owner_says(directory / "said")
        for step in (len(said), 1000, 7, 1):
            async with pair(directory / str(step)) as (both, _):
                link, transport = both.incoming.link(), FakeTransport()
                link.connection_made(transport)
                for at in range(0, len(said), step):
                    feed(link, said[at : at + step])
                # Nobody listens at its site any more: three recipients are deferred, two references over.
                await until(lambda transport=transport: answers(transport.written).count(18) == 2)
                assert answers(transport.written).count(17) == 3
                link.connection_lost(None)

    run(test, tmp_path)


def test_what_must_not_wait_has_few_of_its_own_worker_before_it(tmp_path: pathlib.Path) -> None:
    """What is out is in line at the home: at a slow site 32 of them were five seconds."""

    async def test(directory: pathlib.Path) -> None:
        async with pair(directory, first_room=4) as (both, hop):
            hop.is_held = True
            for number in range(60):
                await both.owner.send(f"bulk{number}@y.example")
            await until(lambda: both.outgoing.out_count == 4)
            await both.owner.send("reset@y.example", attributes={Attribute.PRIORITY: b"5"})
            hop.release()
            await until(lambda: both.owner.is_empty)
            before = next(place for place, (_, (to,), _) in enumerate(hop.messages) if to.startswith("reset"))
            assert before <= 6, "those that were out, and those that followed before its turn"

    run(test, tmp_path)


def test_more_are_out_at_a_home_that_is_quick(tmp_path: pathlib.Path) -> None:
    async def test(directory: pathlib.Path) -> None:
        async with pair(directory, first_room=4) as (both, hop):
            for number in range(200):
                await both.owner.send(f"quick{number}@y.example")
            await until(lambda: both.owner.is_empty)
            hop.is_held = True
            for number in range(60):
                await both.owner.send(f"held{number}@y.example")
            await until(lambda: both.outgoing.out_count > 4)

    run(test, tmp_path)


def delivered_by(connections: int, takes_ms: float, seconds: int) -> tuple[float, int]:
    """Messages a second of a home with so many connections, and how many are out at the end."""
    room, free_at_ms, out = Room(), [0.0] * connections, list[tuple[float, float]]()
    now_ms, done = 0.0, 0
    while now_ms < seconds * 1000:
        while len(out) < room.count:
            at = min(range(connections), key=free_at_ms.__getitem__)
            free_at_ms[at] = max(free_at_ms[at], now_ms) + takes_ms
            out.append((free_at_ms[at], now_ms))
        now_ms, begun_ms = out.pop(0)
        done += 1
        room.waited(int(begun_ms), int(takes_ms), int(now_ms))
    return done / seconds, room.count


@pytest.mark.parametrize("takes_ms", [1, 20, 100, 200, 300, 1000, 5000])
@pytest.mark.parametrize("connections", [1, 3, 15, 31])
def test_few_are_out_and_yet_enough(connections: int, takes_ms: float) -> None:
    rate, out = delivered_by(connections, takes_ms, 200)
    assert rate >= 0.9 * connections * 1000 / takes_ms
    assert out <= connections * 2 + 2 + connections * 300 / takes_ms, "those under way, and what goes in 250 ms"
