"""Appends, updates and settles messages until killed. One line on stdout per acknowledgement, after it came.

A ID LENGTH   message ID with LENGTH octets is acknowledged
S ID N        its state now says N attempts
D ID          it is about to be settled: from here on it may come back or not
"""

import asyncio
import os
import random
import sys

import uvloop

from angarium.spool.envelope import RecipientState, build_state
from angarium.spool.shard import Shard


def body_of(message_id: int, length: int) -> bytes:
    return random.Random(message_id).randbytes(length)


async def session(shard: Shard, chance: random.Random, say) -> None:
    while True:
        message_id = shard.new_id()
        length = chance.choice((0, 10, 4000, 4000, 20_000, 120_000))
        data = body_of(message_id, length)
        if length > 100_000:
            half = length // 2
            parts = [data[:half], data[half:]]
            stored_parts = [
                await shard.append_body(message_id, i * half, part) for i, part in enumerate(parts)
            ]
            stored = await shard.append(
                b"a@x", [b"b@y"], None, chunks=[part.place for part in stored_parts], message_id=message_id
            )
            chunk_serials = [part.place[0] for part in stored_parts]
        else:
            stored = await shard.append(b"a@x", [b"b@y"], data, message_id=message_id)
            chunk_serials = []
        say(f"A {message_id} {length}\n")
        state_serial = None
        for attempts in range(1, chance.choice((1, 1, 2, 4))):
            state = build_state([RecipientState(attempts=attempts)])
            state_serial = (await shard.write_state(message_id, stored.place[0], state, state_serial)).place[
                0
            ]
            say(f"S {message_id} {attempts}\n")
        if chance.random() < 0.9:
            say(f"D {message_id}\n")
            shard.settle(message_id, stored.place[0], state_serial, chunk_serials)


async def main() -> None:
    directory, seed = sys.argv[1], int(sys.argv[2])
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, "00", 0, segment_octets=1 << 20, spare_segments=1)
    shard.attach(asyncio.get_running_loop())
    shard.expect_transactions(20)
    while shard.recover() is not None:  # takes nothing over: what was live stays live
        await asyncio.sleep(0.001)
    chance = random.Random(seed)
    await asyncio.gather(
        *(session(shard, chance, lambda line: os.write(1, line.encode())) for _ in range(20))
    )


if __name__ == "__main__":
    uvloop.run(main())
