"""Sessions that send without end, and know of each message whether it was answered 250.

What a message with a given number looks like is a function of the number alone, so whoever gets it can hold it
against what was sent. Small ones stay in memory, those in the middle are one chunk record, the largest are streamed
in several.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

SIZES = (60, 300, 2_000, 4_000, 4_000, 4_000, 20_000, 100_000, 300_000, 700_000)
PATIENCE_S = 20.0
PAUSE_S = 0.02              # after a refusal or a lost connection
# One message in so many has a recipient whom the next hop may refuse for long (soak.py): mail that stays.
LATE = 15


class Load:
    """A context manager: `sessions` sessions in a thread of their own, by DATA and by BDAT in turns.

    acknowledged      of each message answered 250: number -> (queue id, forward-paths).
    refused           how often each code and enhanced code ended a transaction: "452 4.3.1" -> count.
    lost_connections  ended by the other side in mid-dialogue, or not to be had.
    patience_s        how long a session may last, waits included, before its client gives up.
    is_held           asked before each message; while it says so, sessions wait: a next hop in Python is slower than
                      the relay, and what piles up before it is not what is to be looked at.
    Recipients are r0 ... r2 of five domains, and late.NUMBER@late.example.
    """

    def __init__(
        self,
        port: int,
        *,
        seed: int,
        sessions: int = 12,
        sizes: tuple[int, ...] = SIZES,
        is_held: Callable[[], bool] = lambda: False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.port = port
        self.is_held = is_held
        self.acknowledged: dict[int, tuple[str, list[str]]] = {}
        self.refused: Counter[str] = Counter()
        self.sent = 0
        self.lost_connections = 0
        self._sessions = sessions
        self._patience_s = patience_s
        self._sizes = sizes
        self._chance = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends at message boundaries."""
        self._over = True
        self._thread.join()

    def message(self, number: int) -> bytes:
        return message_of(number, self._sizes)

    def _run(self) -> None:
        async def main() -> None:
            await asyncio.gather(*(self._session(number) for number in range(self._sessions)))

        self._loop.run_until_complete(main())
        self._loop.close()

    async def _session(self, number: int) -> None:
        while not self._over:
            ended_well = False
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    try:
                        ended_well = await self._talk(number, reader, writer)
                    finally:
                        writer.close()
            if not ended_well:
                self.lost_connections += 1
                await asyncio.sleep(PAUSE_S)

    async def _talk(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One session; False when it was cut short."""
        await self._reply(reader)
        writer.write(b"EHLO load.example\r\n")
        if not (await self._reply(reader)).startswith(b"250"):
            return False                # 421: it is shutting down
        for _ in range(self._chance.randint(5, 40)):
            while self.is_held() and not self._over:
                await asyncio.sleep(0.01)
            if self._over:
                break
            if not await self._transaction(number, reader, writer):
                return False
        writer.write(b"QUIT\r\n")
        await self._reply(reader)
        return True

    async def _transaction(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self.sent += 1
        serial = self.sent
        to = [
            f"r{index}@d{self._chance.randrange(5)}.example" for index in range(self._chance.choice((1, 1, 1, 3)))
        ]
        if self._chance.randrange(LATE) == 0:
            to.append(f"late.{serial}@late.example")
        message = self.message(serial)
        head = b"MAIL FROM:<>\r\n" + b"".join(f"RCPT TO:<{mailbox}>\r\n".encode() for mailbox in to)
        if number % 2:
            writer.write(head + b"BDAT %d LAST\r\n" % len(message) + message)
            replies = [await self._reply(reader) for _ in range(len(to) + 2)]
        else:
            writer.write(head + b"DATA\r\n")
            replies = [await self._reply(reader) for _ in range(len(to) + 2)]
            if replies[-1].startswith(b"354"):
                writer.write(message + b".\r\n")
                replies.append(await self._reply(reader))
        if found := re.fullmatch(rb"250 2.0.0 .*([0-9A-Z]{13}).*\r\n", replies[-1]):
            self.acknowledged[serial] = (found[1].decode(), to)
            return True
        # 452 without room, 451 while a disk fails or a worker dies, 421: not acknowledged, so nothing is promised.
        reason = next(reply for reply in replies if reply[:1] not in b"23")
        self.refused[reason[:9].decode("latin-1").strip()] += 1
        return False

    @staticmethod
    async def _reply(reader: asyncio.StreamReader) -> bytes:
        """The last line of the next reply."""
        while (line := await reader.readuntil(b"\n"))[3:4] == b"-":
            pass
        return line


def message_of(serial: int, sizes: tuple[int, ...] = SIZES) -> bytes:
    """The same octets whenever it is asked for: lines without a leading dot, of odd lengths."""
    chance = random.Random(serial)
    size = chance.choice(sizes)
    lines = [b"Subject: crash\r\nX-Serial: %d\r\n\r\n" % serial]
    pattern = chance.randbytes(40).hex().encode()
    written = 0
    while written < size:
        line = b"%d:" % written + pattern[: 1 + written % 79] + b"\r\n"
        lines.append(line)
        written += len(line)
    return b"".join(lines)
