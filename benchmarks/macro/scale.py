"""What the rows of outbound scale share: a relay over a backlog that is already in its spool, and the sink that
plays its receivers, each on an address of 127.0.0.0/8.

The backlog is there before the relay starts, so that no load generator shares the machine with what is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import drive
import process_tree
import uvloop
from angarium_relay import Angarium

from angarium.spool.shard import Shard

AT_ONCE = 2000
PATIENCE_S = 300.0
BODY = b"From: a@source.example\r\nSubject: scale\r\nMessage-ID: <%d@source.example>\r\n\r\n" + b"x" * 900 + b"\r\n"


class CountingSink:
    """A program that takes mail, writes what it has counted into a file each second, and prints sums at its end."""

    def __init__(self, directory: Path, command: Callable[[Path], list[str]]) -> None:
        """command: of the file for the seconds."""
        directory.mkdir(parents=True, exist_ok=True)
        self._seconds = directory / "seconds.jsonl"
        self._seconds.unlink(missing_ok=True)
        words = command(self._seconds)
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        if b"listening" not in (said := self.process.stderr.readline()):
            raise drive.RunFailed(f"{words[0]}: {said.decode()}{self.process.stderr.read().decode()}")

    def seconds(self) -> list[dict[str, Any]]:
        """What it has counted, line by line, until a second ago."""
        text = self._seconds.read_text() if self._seconds.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def messages(self) -> int:
        """Taken until a second ago."""
        return sum(line.get("messages", 0) for line in self.seconds())

    def end(self) -> dict[str, Any]:
        """Ends it; its counters."""
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=30)
        counters = json.loads(out.splitlines()[-1])
        assert isinstance(counters, dict)
        return counters

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class Relay(Angarium):
    """Angarium with a configuration of its own behind the common beginning."""

    BEGINNING = """\
[node]
hostname = "angarium.bench.example"
spool    = "{root}/spool"
workers  = {workers}

[[listener]]
address    = "127.0.0.1:{port}"
relay_from = ["127.0.0.0/8"]

"""

    def __init__(self, work_directory: Path, sink_port: int, workers: int, rest: str) -> None:
        super().__init__(work_directory, drive.free_port(), sink_port, workers)
        self._rest = rest.replace("{", "{{").replace("}", "}}")

    def configuration(self) -> str:
        return self.BEGINNING + self._rest

    def write_backlog(self, recipients: Iterator[bytes], messages: int) -> None:
        """Puts so many messages of one recipient each into the empty spool, a shard for each worker."""
        spool = self.root / "spool"
        spool.mkdir(parents=True, mode=0o700)
        (spool / "format").write_text("angarium-spool 1\n")
        for number in range(self.workers):
            uvloop.run(_write_shard(spool, number, recipients, messages // self.workers))


async def _write_shard(spool: Path, number: int, recipients: Iterator[bytes], messages: int) -> None:
    (spool / f"{number:02x}").mkdir(mode=0o700)
    fd = os.open(spool, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, f"{number:02x}", number)
    shard.attach(asyncio.get_running_loop())
    while shard.recover() is not None:
        await asyncio.sleep(0.01)
    for start in range(0, messages, AT_ONCE):
        await asyncio.gather(
            *(
                shard.append(b"a@source.example", [next(recipients)], BODY % i)
                for i in range(start, min(start + AT_ONCE, messages))
            )
        )
    shard.close()
    os.close(fd)


class Receivers(CountingSink):
    """`angarium sink` with a file of receivers, listening on one port of all of 127.0.0.0/8."""

    def __init__(self, directory: Path, port: int, receivers: str, *options: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / "receivers.toml"
        file.write_text(receivers)
        start = [sys.executable, "-m", "angarium.cli.main", "sink", "--listen", f"0.0.0.0:{port}", "--json"]
        super().__init__(
            directory, lambda seconds: [*start, "--receivers", str(file), "--seconds", str(seconds), *options]
        )


class SlowReceivers(CountingSink):
    """slow_receivers.c, the same way: they take their time for each reply, and next to none of the machine's."""

    def __init__(self, directory: Path, port: int, *, delay_s: float, connections_each: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        program = directory / "slow_receivers"
        source = Path(__file__).with_name("slow_receivers.c")
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
        words = [str(program), str(port), str(round(delay_s * 1000)), str(connections_each)]
        super().__init__(directory, lambda seconds: [*words, str(seconds)])


@dataclass(frozen=True)
class Delivered:
    """at_s: when (seconds since 1970); age_s: since it was taken in."""

    to: str
    at_s: float
    age_s: float


class Events:
    """What a relay has logged as delivered, read as it comes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = 0
        self._rest = b""
        self._lines: list[bytes] = []

    def _read(self) -> None:
        with self._file.open("rb") as file:
            file.seek(self._position)
            octets = file.read()
        self._position += len(octets)
        *lines, self._rest = (self._rest + octets).split(b"\n")
        self._lines += [line for line in lines if b'"event":"delivered"' in line]

    def count(self, to: bytes = b"") -> int:
        """Deliveries since forget() to recipients that begin so."""
        self._read()
        return sum(b'"to":"' + to in line for line in self._lines)

    def wait_for(self, messages: int, to: bytes = b"") -> list[Delivered]:
        """So many deliveries to recipients that begin so, since forget()."""
        last, then = -1, time.monotonic()
        while (found := self.count(to)) < messages:
            now = time.monotonic()
            if found > last:
                last, then = found, now
            elif now - then > drive.STALL_S:
                raise drive.RunFailed(f"{found} of {messages} messages arrived, then nothing for {drive.STALL_S:.0f} s")
            time.sleep(0.1)
        events = [json.loads(line) for line in self._lines if b'"to":"' + to in line]
        return [Delivered(e["to"], datetime.fromisoformat(e["time"]).timestamp(), e["age"]) for e in events]

    def forget(self) -> None:
        """What has come so far."""
        self._read()
        self._lines.clear()


def watch(relay: Relay, receivers: CountingSink, messages: int, look: Callable[[], None]) -> None:
    """Calls `look` twice a second until the receivers have so many messages. Raises RunFailed when nothing comes."""
    last, then = 0, time.monotonic()
    while (found := receivers.messages()) < messages:
        look()
        now = time.monotonic()
        if found > last:
            last, then = found, now
        elif now - then > drive.STALL_S:
            raise drive.RunFailed(f"{found} of {messages} messages arrived, then nothing for {drive.STALL_S:.0f} s")
        time.sleep(0.5)


def end_cleanly() -> None:
    """A TERM from outside ends what was started, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))


def cpu_s(receivers: CountingSink) -> float:
    """Of the sink so far."""
    return process_tree.cpu_s(receivers.process.pid)
