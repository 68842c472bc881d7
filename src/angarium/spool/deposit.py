"""Messages put into a shard from outside of a relay: what `import` and `repair` have in common. What it is not: a way
for new mail, which has the session's commit (inbound/commit.pyx).
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from angarium.spool.envelope import Chunk, Envelope, Flag, RecipientState, build_state
from angarium.spool.shard import Shard, Stored

INLINE_OCTETS_MAX: Final = 128 << 10  # as a session keeps at most before it streams

# Octets handed to the shard and not yet durable: many, so that one sync covers many; few enough for memory.
_UNDER_WAY_OCTETS_MAX: Final = 16 << 20
_UNDER_WAY_MAX: Final = 2000

# What belongs to the message and not to the way it lies in one spool.
_KEPT_FLAGS: Final = (
    Flag.SMTPUTF8 | Flag.BODY_8BITMIME | Flag.RET_FULL | Flag.RET_HDRS | Flag.IS_DSN
    | Flag.BINARYMIME | Flag.REQUIRETLS | Flag.TLS_OPTIONAL | Flag.EIGHT_BIT | Flag.DOT_LINE | Flag.NO_FINAL_CRLF
)  # fmt: skip


class Deposit:
    """Puts messages into one shard, many under way at a time. Durable is what was put once drain() has returned.

    durable  ids of the messages of which that is known, in the order of put().
    failed   ids and reasons of those that were put and are not durable.
    """

    def __init__(self, shard: Shard) -> None:
        self.durable: list[int] = []
        self.failed: list[tuple[int, BaseException]] = []
        self._shard = shard
        self._messages: list[tuple[asyncio.Future[Stored], int, tuple[RecipientState, ...] | None]] = []
        self._states: list[asyncio.Future[Stored]] = []
        self._octets = 0

    async def put(
        self, envelope: Envelope, states: tuple[RecipientState, ...] | None, pieces: list[bytes]
    ) -> None:
        """The envelope's id is kept; its chunks and the flags that tell how it lies are made anew. Raises SpoolError,
        ValueError.
        """
        flags = envelope.flags & _KEPT_FLAGS
        octets = sum(map(len, pieces))
        if octets <= INLINE_OCTETS_MAX:
            built = msgspec.structs.replace(envelope, flags=flags | Flag.INLINE, chunks=()).build()
            future = self._shard.store(built, b"".join(pieces))
        else:
            chunks = await self._put_chunks(envelope.id, pieces)
            built = msgspec.structs.replace(envelope, flags=flags, chunks=chunks).build()
            future = self._shard.store(built, None)
        self._messages.append((future, envelope.id, states))
        self._octets += octets
        if self._octets >= _UNDER_WAY_OCTETS_MAX or len(self._messages) >= _UNDER_WAY_MAX:
            await self._wait_for_messages()

    async def drain(self) -> None:
        """Raises SpoolError when something could not be made durable."""
        await self._wait_for_messages()
        await asyncio.gather(*self._states)
        self._states.clear()

    async def _put_chunks(self, message_id: int, pieces: list[bytes]) -> tuple[Chunk, ...]:
        chunks = []
        position = 0
        for piece in pieces:
            for start in range(0, len(piece), INLINE_OCTETS_MAX):
                part = piece[start : start + INLINE_OCTETS_MAX]
                stored = await self._shard.append_body(message_id, position, part)
                chunks.append(Chunk(*stored.place))
                position += len(part)
        return tuple(chunks)

    async def _wait_for_messages(self) -> None:
        # Not gather(): it would give up the rest with the first that fails, or when the program is interrupted; and
        # which of them are durable has to be known then.
        if self._messages:
            await asyncio.wait([future for future, _, _ in self._messages])
        messages, self._messages, self._octets = self._messages, [], 0
        first_error = None
        states_of = []
        for future, message_id, states in messages:
            if (error := future.exception()) is not None:
                self.failed.append((message_id, error))
                first_error = first_error or error
                continue
            self.durable.append(message_id)
            if states is not None:
                states_of.append((future.result(), states))
        for stored, states in states_of:
            self._states.append(self._shard.write_state(stored.id, stored.place[0], build_state(states)))
        if first_error is not None:
            raise first_error
