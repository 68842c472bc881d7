"""The shard on an event loop, through its slow API."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from angarium.model.errors import SpoolBusy, SpoolCorrupt, SpoolError
from angarium.spool.envelope import Envelope, Flag, RecipientState, Status, build_state, parse_state
from angarium.spool.shard import Recovered, Shard

SEGMENT = 1 << 20


@asynccontextmanager
async def opened(directory: Path, number: int = 0, *, window_ms: int = 100) -> AsyncIterator[Shard]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        shard = Shard(
            fd, "00", number, segment_octets=SEGMENT, spare_segments=1, duplicate_window_ms=window_ms
        )
    finally:
        os.close(fd)
    shard.attach(asyncio.get_running_loop())
    try:
        yield shard
    finally:
        shard.close()


async def recovered(shard: Shard) -> dict[int, Recovered]:
    found: dict[int, Recovered] = {}
    while (some := shard.recover()) is not None:
        found.update((message.id, message) for message in some)
        await asyncio.sleep(0.001)
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[None]], None]]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner.run


def test_a_message_with_all_its_parameters_comes_back(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as shard:
            stored = await shard.append(
                b"a@x.example",
                [b"b@y.example", b"postmaster"],
                b"Subject: x\r\n\r\nbody\r\n",
                envid=b"QQ1",
                helo=b"client.example",
                client_address=b"192.0.2.1",
                listener=b"[::]:25",
                flags=int(Flag.EIGHT_BIT),
                orcpt=b"rfc822;b@y.example",
                notify=3,
                received_utc_ms=1700000000123,
            )
            assert await shard.fetch(*stored.body_place) == b"Subject: x\r\n\r\nbody\r\n"
        async with opened(tmp_path) as shard:
            found = await recovered(shard)
            assert list(found) == [stored.id]
            envelope = Envelope.parse(found[stored.id].envelope)
            assert envelope.reverse_path == b"a@x.example"
            assert [r.forward_path for r in envelope.recipients] == [b"b@y.example", b"postmaster"]
            assert [r.domain_offset for r in envelope.recipients] == [2, 0]
            assert (envelope.envid, envelope.helo, envelope.client_address) == (
                b"QQ1",
                b"client.example",
                b"192.0.2.1",
            )
            assert envelope.received_utc_ms == 1700000000123
            assert envelope.flags == Flag.EIGHT_BIT | Flag.INLINE
            (chunk,) = envelope.chunks
            body = await shard.fetch(chunk.segment_serial, chunk.offset, chunk.length)
            assert body == b"Subject: x\r\n\r\nbody\r\n"

    run(main())


def test_state_survives_and_settled_mail_does_not(run, tmp_path: Path) -> None:
    state = (
        RecipientState(Status.DELIVERED, 1),
        RecipientState(Status.WAITING, 3, 1800000000, 451, (4, 7, 1), b"greylisted"),
    )

    async def main() -> None:
        async with opened(tmp_path) as shard:
            kept, settled = await asyncio.gather(
                *(shard.append(b"", [b"b@y", b"c@y"], b"x") for _ in range(2))
            )
            await shard.write_state(kept.id, kept.place[0], build_state(state))
            shard.settle(settled.id, settled.place[0])
        async with opened(tmp_path) as shard:
            found = await recovered(shard)
            assert list(found) == [kept.id]
            assert parse_state(found[kept.id].state) == state

    run(main())


def test_state_and_settling_are_durable_within_the_window_without_other_mail(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as shard:
            kept = await shard.append(b"", [b"b@y"], b"x")
            before = shard.statistics()["commits"]
            await asyncio.wait_for(
                shard.write_state(kept.id, kept.place[0], build_state([RecipientState()])), 20
            )
            assert shard.statistics()["commits"] == before + 1
            shard.settle(kept.id, kept.place[0])
            await until(lambda: shard.statistics()["commits"] == before + 2)

    run(main())


def test_a_streamed_message(run, tmp_path: Path) -> None:
    runs = [bytes([65 + i]) * 300_000 for i in range(6)]

    async def main() -> None:
        async with opened(tmp_path) as shard:
            message_id = shard.new_id()
            places = [
                (await shard.append_body(message_id, i * 300_000, part)).place for i, part in enumerate(runs)
            ]
            assert len({serial for serial, _, _ in places}) > 1
            stored = await shard.append(b"a@x", [b"b@y"], None, chunks=places, message_id=message_id)
            assert stored.id == message_id
            assert stored.body_place is None
        async with opened(tmp_path) as shard:
            found = await recovered(shard)
            envelope = Envelope.parse(found[message_id].envelope)
            assert envelope.message_octets == 1_800_000
            assert Flag.INLINE not in envelope.flags
            parts = [await shard.fetch(c.segment_serial, c.offset, c.length) for c in envelope.chunks]
            assert parts == runs

    run(main())


def test_many_at_once_share_syncs(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as shard:
            shard.expect_transactions(100)
            stored = await asyncio.gather(*(shard.append(b"a@x", [b"b@y"], b"m" * 4000) for _ in range(1000)))
            assert len({one.id for one in stored}) == 1000
            assert shard.statistics()["commits"] < 100

    run(main())


def test_disk_use_stays_bounded_under_traffic(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as shard:
            for _ in range(60):
                batch = await asyncio.gather(
                    *(shard.append(b"a@x", [b"b@y"], b"m" * 50_000) for _ in range(10))
                )
                for one in batch:
                    shard.settle(one.id, one.place[0])
            await until(lambda: shard.statistics()["segments"] <= 3)
            await until(lambda: len(list((tmp_path / "00").glob("seg-*"))) <= 5)

    run(main())


def test_a_damaged_body_is_told_and_reported(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as shard:
            stored = await shard.append(b"a@x", [b"b@y"], b"find me in the file")
        for file in (tmp_path / "00").glob("seg-*"):
            file.write_bytes(file.read_bytes().replace(b"find me", b"f1nd me"))
        async with opened(tmp_path) as shard:
            await recovered(shard)
            with pytest.raises(SpoolCorrupt):
                await shard.fetch(*stored.body_place)
            (notice,) = shard.notices()
            assert f"segment {stored.place[0]} offset {stored.body_place[1]}" in notice.text
            assert notice.text.endswith(f"kept in damaged/{stored.place[0]}-{stored.body_place[1]}.bin")
            assert shard.notices() == []

    run(main())


def test_damage_that_cannot_be_set_aside_says_so(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as shard:
            stored = await shard.append(b"a@x", [b"b@y"], b"find me in the file")
        for file in (tmp_path / "00").glob("seg-*"):
            file.write_bytes(file.read_bytes().replace(b"find me", b"f1nd me"))
        (tmp_path / "00" / "damaged").write_text("no directory")
        async with opened(tmp_path) as shard:
            await recovered(shard)
            with pytest.raises(SpoolCorrupt):
                await shard.fetch(*stored.body_place)
            (notice,) = shard.notices()
            assert notice.text.endswith("not kept: Not a directory")
            assert shard.statistics()["damaged_records"] == 1

    run(main())


def test_the_operator_is_told_how_many_reports_gave_way_to_others(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as shard:
            stored = [await shard.append(b"a@x", [b"b@y"], b"find me in the file") for _ in range(100)]
        for file in (tmp_path / "00").glob("seg-*"):
            file.write_bytes(file.read_bytes().replace(b"find me", b"f1nd me"))
        async with opened(tmp_path) as shard:
            await recovered(shard)
            for each in stored:
                with pytest.raises(SpoolCorrupt):
                    await shard.fetch(*each.body_place)
            first, *others = shard.notices()
            assert "36 earlier reports found no room" in first.text
            assert [each.offset for each in others] == [each.body_place[1] for each in stored[36:]]
            assert shard.notices() == []

    run(main())


def test_one_owner_at_a_time(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path):
            with pytest.raises(SpoolBusy, match=f"in use by process {os.getpid()}"):
                async with opened(tmp_path):
                    pass
        async with opened(tmp_path):
            pass

    run(main())


def test_a_last_write_that_fails_is_told_after_the_stop(run, tmp_path: Path) -> None:
    """Outcomes of the last moments are lost then, and deliveries repeated: not without a word."""

    async def main() -> None:
        async with opened(tmp_path, window_ms=10_000) as shard:
            stored = await shard.append(b"a@x", [b"b@y"], b"m")
            shard.notices()
            nowhere = os.open("/dev/full", os.O_RDONLY)
            for name in os.listdir("/proc/self/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{name}").startswith(f"{tmp_path}/00/seg-"):
                        os.dup2(nowhere, int(name))
            os.close(nowhere)
            shard.settle(stored.id, stored.place[0])
            shard.stop()
            assert any("failed: Bad file descriptor" in notice.text for notice in shard.notices())
            assert shard.statistics()["write_errors"] == 1

    run(main())


def test_a_closed_shard_says_so(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as shard:
            pending = shard.append(b"a@x", [b"b@y"], b"x")
        assert (await pending).id  # close() writes what was submitted
        with pytest.raises(SpoolError, match="is closed"):
            shard.append(b"a@x", [b"b@y"], b"x")
        shard.close()

    run(main())


WAITING = build_state([RecipientState(Status.WAITING, 1, 0, 450, (4, 2, 0), b"later", b"mx.example")])


def test_an_outcome_is_durable_within_the_window_however_late_in_another_it_came(run, tmp_path: Path) -> None:
    """The timer of one that had ridden on a commit long ago was taken for that of the next, which then waited for up to
    twice the time."""

    async def main() -> None:
        clock = time.monotonic
        async with opened(tmp_path, window_ms=1000) as shard:
            late_s = 9.0
            for _ in range(5):          # again where the machine itself was late
                stored = await shard.append(b"", [b"b@y.example"], b"x\r\n")
                riding = shard.write_state(stored.id, stored.place[0], WAITING)
                began = clock()
                await asyncio.sleep(0.5)
                assert not riding.done() or clock() - began > 0.9, "nothing to ride on"
                is_riding, began = not riding.done(), clock()
                await shard.append(b"", [b"b@y.example"], b"x\r\n")
                await riding
                sync_s, began = clock() - began, clock()
                await shard.write_state(stored.id, stored.place[0], WAITING, riding.result().place[0])
                assert clock() - began > 0.9
                if is_riding:
                    late_s = min(late_s, clock() - began - sync_s - 1.0)
                if late_s < 0.3:
                    break
            assert late_s < 0.3

    run(main())


def test_without_a_window_an_outcome_waits_for_nothing(run, tmp_path: Path) -> None:
    async def main() -> None:
        clock = time.monotonic
        async with opened(tmp_path, window_ms=0) as shard:
            outcome_s = message_s = 9.0
            for _ in range(20):
                began = clock()
                stored = await shard.append(b"", [b"b@y.example"], b"x\r\n")
                message_s, began = min(message_s, clock() - began), clock()
                await shard.write_state(stored.id, stored.place[0], WAITING)
                outcome_s = min(outcome_s, clock() - began)
            assert outcome_s < message_s + 0.05

    run(main())


def test_in_a_hurry_what_waits_goes_at_once(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, window_ms=100_000) as shard:
            stored = await shard.append(b"", [b"b@y.example"], b"x\r\n")
            waiting = shard.write_state(stored.id, stored.place[0], WAITING)
            await asyncio.sleep(0.2)
            assert not waiting.done()
            shard.hurry()
            async with asyncio.timeout(20):
                await waiting
                await shard.write_state(stored.id, stored.place[0], WAITING)

    run(main())
