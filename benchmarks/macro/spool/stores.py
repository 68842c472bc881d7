"""The stores that are compared: each takes so many messages of one size as it can in so many seconds, every one of them
on stable storage before it is counted.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from angarium.measure.spool_load import SpoolLoad
from angarium.spool.shard import Shard

RING = 1000  # messages that a store keeps: older ones are overwritten or removed, as a spool does
RAW_FILE_OCTETS = 256 << 20
FIRST_OCTETS = 8 * (64 << 20)  # segments: a shard keeps four free ones beside the two in hand
ENVELOPE = b"from@source.example to@sink.example source.example 127.0.0.1"


@dataclass(frozen=True)
class Outcome:
    messages_per_s: float
    syncs_per_s: float
    octets_per_s: float  # written to the disk, framing included

    @property
    def octets_per_sync(self) -> int:
        return round(self.octets_per_s / self.syncs_per_s) if self.syncs_per_s else 0


async def use_all_segments(shard: Shard) -> None:
    """Until every segment is one that was in use before, as after a relay's first seconds. New files are filled with
    zeros between commits, and what `raw` is held against is allocated and written already too.
    """
    load = SpoolLoad(shard, 64, 100 << 10)
    load.start()
    while shard.statistics()["octets_written"] < FIRST_OCTETS and not load.error:
        await asyncio.sleep(0.01)
    await ended(load)


async def ended(load: SpoolLoad) -> None:
    load.stop()
    while load.under_way and not load.error:
        await asyncio.sleep(0.01)
    if load.error:
        raise OSError(load.error, os.strerror(load.error))


def angarium(directory: Path, writers: int, size: int, seconds: float) -> Outcome:
    """One shard, its commit thread, and the writers as callbacks on one event loop."""

    async def main() -> Outcome:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        shard = Shard(fd, "00", 0)
        shard.attach(asyncio.get_running_loop())
        while shard.recover() is not None:
            await asyncio.sleep(0.01)
        await use_all_segments(shard)
        load = SpoolLoad(shard, writers, size)
        load.start()
        await asyncio.sleep(0.1)
        before, messages, start = shard.statistics(), load.messages, time.perf_counter()
        await asyncio.sleep(seconds)
        took, after, done = time.perf_counter() - start, shard.statistics(), load.messages - messages
        await ended(load)
        shard.close()
        os.close(fd)
        return Outcome(
            done / took,
            (after["commits"] - before["commits"]) / took,
            (after["octets_written"] - before["octets_written"]) / took,
        )

    return uvloop.run(main())


def raw(directory: Path, octets: int, seconds: float) -> Outcome:
    """pwrite + fdatasync of so many octets, one after the other, over a file that is allocated and written already."""
    path = directory / "raw"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    block = mmap.mmap(-1, max(octets, 1 << 20))
    block.write(b"x" * len(block))
    data = memoryview(block)[:octets]
    for at in range(0, RAW_FILE_OCTETS, 1 << 20):
        os.pwrite(fd, memoryview(block)[: 1 << 20], at)
    os.fsync(fd)
    count, at, start = 0, 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        if at + octets > RAW_FILE_OCTETS:
            at = 0
        os.pwrite(fd, data, at)
        os.fdatasync(fd)
        at += -(-octets // 512) * 512
        count += 1
    os.close(fd)
    data.release()
    return Outcome(count / took, count / took, count * octets / took)


def sqlite(directory: Path, writers: int, size: int, seconds: float) -> Outcome:
    """WAL, synchronous=FULL; as many messages in a transaction as there are writers: no server could do better."""
    database = sqlite3.connect(directory / "mail.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE mail (id INTEGER PRIMARY KEY, envelope BLOB, message BLOB)")
    body, count, syncs, start = b"x" * size, 0, 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "REPLACE INTO mail VALUES (?, ?, ?)",
            [((count + i) % RING, ENVELOPE, body) for i in range(writers)],
        )
        database.execute("COMMIT")
        count += writers
        syncs += 1
    database.close()
    return Outcome(count / took, syncs / took, count * size / took)


def files(directory: Path, writers: int, size: int, seconds: float) -> Outcome:
    """One file per message: written under another name, fsync, rename, fsync of the directory. A thread per writer."""
    (directory / "new").mkdir()
    (directory / "tmp").mkdir()
    body = ENVELOPE + b"x" * size
    counts = [0] * writers
    end = time.perf_counter() + seconds

    def write(number: int) -> None:
        new = os.open(directory / "new", os.O_RDONLY | os.O_DIRECTORY)
        while time.perf_counter() < end:
            name = f"{number}-{counts[number]}"
            fd = os.open(directory / "tmp" / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, body)
            os.fsync(fd)
            os.close(fd)
            os.rename(directory / "tmp" / name, directory / "new" / name)
            os.fsync(new)
            counts[number] += 1
            if counts[number] > RING // writers:
                os.unlink(directory / "new" / f"{number}-{counts[number] - 1 - RING // writers}")
        os.close(new)

    start = time.perf_counter()
    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    done = sum(counts)
    return Outcome(done / took, 2 * done / took, done * len(body) / took)


def in_new_directory(parent: Path, run: Callable[[Path], Outcome]) -> Outcome:
    """`run` in a directory of its own, removed afterwards; the disk is quiet before it begins."""
    directory = parent / "store"
    directory.mkdir()
    os.sync()
    try:
        return run(directory)
    finally:
        shutil.rmtree(directory)
