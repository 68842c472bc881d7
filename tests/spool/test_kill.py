"""kill -9 of a writer, again and again on one spool: what was acknowledged is there, and nothing half."""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from angarium.spool.envelope import Envelope, parse_state
from angarium.spool.shard import Shard

ROUNDS = 8
LEAST = 70                  # messages that a round has acknowledged before its writer may be killed


def body_of(message_id: int, length: int) -> bytes:
    """As in crash_writer.py."""
    return random.Random(message_id).randbytes(length)


def run_and_kill(directory: Path, seed: int, seconds: float) -> list[str]:
    log = directory / "log"
    with log.open("wb") as out:
        writer = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crash_writer.py")), str(directory), str(seed)],
            stdout=out,
        )
        while log.read_bytes().count(b"A ") < LEAST and writer.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        writer.kill()
        assert writer.wait() == -9
    return log.read_text().splitlines()


async def check(
    directory: Path, lengths: dict[int, int], attempts: dict[int, int], leaving: set[int]
) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, "00", 0, segment_octets=1 << 20, spare_segments=1)
    os.close(fd)
    shard.attach(asyncio.get_running_loop())
    found = {}
    while (some := shard.recover()) is not None:
        for message in some:
            assert message.id not in found, "found twice"
            found[message.id] = message
        await asyncio.sleep(0.001)
    for message_id in lengths:
        assert message_id in found or message_id in leaving, f"{message_id} was acknowledged and is lost"
    for message_id, message in found.items():
        envelope = Envelope.parse(message.envelope)
        body = b"".join([await shard.fetch(c.segment_serial, c.offset, c.length) for c in envelope.chunks])
        assert body == body_of(message_id, envelope.message_octets)
        if message_id in lengths:
            assert len(body) == lengths[message_id]
        if message_id in attempts:
            assert message.state is not None
            assert parse_state(message.state)[0].attempts >= attempts[message_id]
        lengths[message_id] = len(body)  # committed, though its writer did not live to say so
    assert shard.statistics()["damaged_records"] == 0, shard.notices()
    leaving -= {message_id for message_id in leaving if message_id not in found}
    shard.close()


def test_acknowledged_messages_survive_kill_9(tmp_path: Path) -> None:
    chance = random.Random(20)
    lengths: dict[int, int] = {}
    attempts: dict[int, int] = {}
    leaving: set[int] = set()
    acknowledged = 0
    for round_number in range(ROUNDS):
        gone: set[int] = set()
        for line in run_and_kill(tmp_path, round_number, chance.uniform(0.05, 0.4)):
            match line.split():
                case ["A", message_id, length]:
                    lengths[int(message_id)] = int(length)
                    acknowledged += 1
                case ["S", message_id, count]:
                    attempts[int(message_id)] = int(count)
                case ["D", message_id]:
                    gone.add(int(message_id))
        leaving |= gone
        asyncio.run(check(tmp_path, lengths, attempts, leaving))
        for message_id in gone - leaving:  # settled for good: may not come back
            lengths.pop(message_id, None)
            attempts.pop(message_id, None)
    assert acknowledged > 500
