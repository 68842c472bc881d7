"""Mail that stays for days must not hold the segments of mail that has long gone; and moving it must not change it."""

import asyncio
import hashlib
import pathlib

from queue_harness import NextHop, Queue, run, until

from angarium.queue import orders
from angarium.queue.compaction import Compactor
from angarium.queue.options import QueueOptions, RetryOptions

MEGABYTE = 1 << 20
FILLER_OCTETS = 200000
LATER = QueueOptions(retry=RetryOptions(first=3600, max=3600, jitter=0.1))
# What a spool may hold beyond twice its live octets: see csrc/spool/compact.c.
SLACK_SEGMENTS = 4
CALM_SEGMENTS = 12


def body(number: int, octets: int) -> bytes:
    text = hashlib.sha256(str(number).encode()).hexdigest().encode()
    line = text + b"\r\n"
    return b"Subject: " + str(number).encode() + b"\r\n\r\n" + line * (octets // len(line) + 1)


async def pass_through(queue: Queue, hop: NextHop, octets: int) -> None:
    """Mail that is delivered at once, so much of it."""
    count = octets // FILLER_OCTETS
    target = len(hop.messages) + count
    for number in range(count):
        await queue.send("good@ok.example", body=body(number, FILLER_OCTETS))
    await until(lambda: len(hop.messages) >= target)


async def fill(queue: Queue, hop: NextHop, staying: int, size: int) -> dict[str, bytes]:
    """`staying` messages that are put off, among much that is delivered. Returns their octets by recipient."""
    kept = {}
    for number in range(staying):
        recipient = f"later{number}@busy.example"
        hop.rcpt[recipient] = "451 4.2.1 not now"
        kept[recipient] = body(number, size)
        await queue.send(recipient, f"good{number}@ok.example", body=kept[recipient])
        await pass_through(queue, hop, 2 * MEGABYTE)
    await until(lambda: queue.depth["deferred"] == staying)
    return kept


async def settled(queue: Queue, live_octets: int) -> None:
    segments = SLACK_SEGMENTS + 2 * live_octets // MEGABYTE
    assert queue.shard.statistics()["segments"] > segments
    compactor = Compactor(queue.scheduler, queue.shard)
    compactor.start()
    await until(lambda: queue.shard.statistics()["segments"] <= segments and not compactor.is_busy, 40)
    await compactor.stop()


async def deliver_all(queue: Queue, hop: NextHop, kept: dict[str, bytes]) -> None:
    hop.rcpt.clear()
    before = len(hop.messages)
    await orders.retry(queue.scheduler, None, "busy.example")
    await until(lambda: queue.is_empty)
    delivered = {recipients[0]: data for _, recipients, data in hop.messages[before:]}
    assert set(delivered) == set(kept), "each of those that waited, and nobody else again"
    for recipient, expected in kept.items():
        assert delivered[recipient].endswith(expected), recipient


def test_mail_that_stays_keeps_a_fixed_number_of_segments_and_arrives_unchanged(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await queue.recover()
        kept = await fill(queue, hop, staying=8, size=20000)
        await settled(queue, sum(map(len, kept.values())))
        assert queue.depth["deferred"] == len(kept)
        await deliver_all(queue, hop, kept)
        await queue.close()
        hop.stop()

    run(test, tmp_path)


def test_what_was_moved_is_found_with_its_outcomes_after_a_restart(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await queue.recover()
        kept = await fill(queue, hop, staying=6, size=300000)
        await settled(queue, sum(map(len, kept.values())))
        attempts = sorted(each["attempts"] for each in await recipients_waiting(queue))
        await queue.close()

        again = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await again.recover()
        assert again.depth["deferred"] == len(kept), "waiting, not tried at once: its retry time was moved too"
        assert sorted(each["attempts"] for each in await recipients_waiting(again)) == attempts
        await deliver_all(again, hop, kept)
        await again.close()

        last = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await last.recover()
        assert last.is_empty, "neither copy comes back"
        await last.close()
        hop.stop()

    run(test, tmp_path)


def test_mail_that_is_being_delivered_meanwhile_is_delivered_once(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await queue.recover()
        kept = await fill(queue, hop, staying=8, size=100000)
        compactor = Compactor(queue.scheduler, queue.shard)
        compactor.start()
        await until(lambda: compactor.is_busy, 40)
        await deliver_all(queue, hop, kept)
        await until(lambda: queue.shard.statistics()["segments"] <= SLACK_SEGMENTS, 40)
        await compactor.stop()
        await queue.close()

        again = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await again.recover()
        assert again.is_empty
        await again.close()
        hop.stop()

    run(test, tmp_path)


def test_a_stop_in_the_middle_loses_nothing(tmp_path):
    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await queue.recover()
        kept = await fill(queue, hop, staying=8, size=100000)
        compactor = Compactor(queue.scheduler, queue.shard)
        compactor.start()
        await until(lambda: compactor.is_busy, 40)
        for _ in range(3):
            await asyncio.sleep(0)
        queue.shard.close()  # copies are under way: their ends find a shard that takes nothing more
        await queue.close()

        again = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await again.recover()
        assert again.depth["deferred"] == len(kept)
        await deliver_all(again, hop, kept)
        await again.close()
        hop.stop()

    run(test, tmp_path)


def test_it_rests_the_less_the_more_segments_there_are_far_beyond_the_bound(tmp_path):
    """So that it keeps up, however fast mail comes of which some stays: benchmarks/macro/spool/bound.py. A few segments
    beyond are no reason to take the disk from commits: benchmarks/macro/spool/compaction.py."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        queue = Queue(directory / "spool", await hop.start(), options=LATER, segment_octets=MEGABYTE)
        await queue.recover()
        for number in range(1200):
            hop.rcpt[f"later{number}@busy.example"] = "451 4.2.1 not now"
            await queue.send(f"later{number}@busy.example", body=body(number, 4000))
            if number % 60 == 59:
                await pass_through(queue, hop, 3 * MEGABYTE)
        compactor = Compactor(queue.scheduler, queue.shard)
        compactor.start()
        while not (rest_s := compactor.rest_s):         # one of milliseconds may be over before it is seen
            await asyncio.sleep(0)
        excess, owed_s = queue.shard.statistics()["excess_segments"], compactor.owed_s
        assert excess > CALM_SEGMENTS + 2
        assert rest_s <= owed_s / (1 + excess - CALM_SEGMENTS)
        await compactor.stop()
        await queue.close()
        hop.stop()

    run(test, tmp_path)


def test_segments_that_it_may_not_touch_count_for_nothing_in_its_pace(tmp_path):
    """A disk that fails: what could not be read is kept whatever compaction does, and it would hurry for ever."""

    async def test(directory: pathlib.Path) -> None:
        hop = NextHop()
        site = await hop.start()
        queue = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await queue.recover()
        await fill(queue, hop, staying=8, size=3000)
        await queue.close()
        damaged = 0
        for path in (directory / "spool" / "00").glob("seg-*.ang"):
            octets = bytearray(path.read_bytes())
            if (at := octets.find(b"later")) >= 0:
                octets[at] ^= 1
                path.write_bytes(octets)
                damaged += 1
        assert damaged > SLACK_SEGMENTS + 2

        again = Queue(directory / "spool", site, options=LATER, segment_octets=MEGABYTE)
        await again.recover()
        assert again.shard.statistics()["unread_segments"] == damaged
        compactor = Compactor(again.scheduler, again.shard)
        compactor.start()
        await until(lambda: again.shard.statistics()["segment_octets"])     # it has looked
        await until(lambda: again.shard.statistics()["excess_segments"] == 0)
        await compactor.stop()
        await again.close()
        hop.stop()

    run(test, tmp_path)


async def recipients_waiting(queue: Queue) -> list[dict]:
    _, messages = await orders.listing(queue.scheduler, 100, 0, None)
    details = [await orders.show(queue.scheduler, each["id"]) for each in messages]
    return [r for each in details for r in each["recipients"] if r["outcome"] == "waiting"]
