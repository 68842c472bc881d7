"""A backlog: memory for each queued recipient, how soon all of it is scheduled, and what it costs new mail.

    python benchmarks/macro/backlog.py                        a million deferred recipients over 100,000 domains
    python benchmarks/macro/backlog.py --messages 100000      quicker
    python benchmarks/macro/backlog.py --messages 10000000    ten million: a quarter of an hour, 8 GB of disk

The backlog is written into an empty spool: messages of one recipient each, with an outcome that puts the next attempt
hours ahead. Then the relay starts over it, as after a crash: the last segments have no index and are scanned.
`greeted` is the time until a client is greeted, `accepts` until a message that it sends at once has its 250,
`scheduled` until every message is in the queue; memory is the growth of RSS of the process tree against the same relay
without a backlog, after it has come to rest. Then the relay's first row (4 KiB, 100 sessions) with the backlog and
without, in turn. Writes results/backlog.json, an entry for each size from 100,000 on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import smtplib
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import drive
import machine
import process_tree
import uvloop
from angarium_relay import Angarium
from rows import ROWS

from angarium.cli.admin_client import AdminClient, NoAnswer
from angarium.config.location import admin_socket
from angarium.spool.shard import Shard

DOMAINS = 100_000
LATER_S = 6 * 3600
BODY = b"From: a@source.example\r\nSubject: backlog\r\n\r\n" + b"x" * 70 + b"\r\n"
REPLY, REMOTE = b"4.2.1 try again later", b"mx.busy.example[192.0.2.1]:25"
AT_ONCE = 2000
KEPT_FROM = 100_000  # of fewer the relay itself is what is measured
ACCEPT_BAR_S, SCHEDULED_BAR_S, MEMORY_BAR_OCTETS, RATE_BAR = 1.0, 5.0, 200, 0.9
WriteShard = Callable[[Path, int, int], Coroutine[Any, Any, None]]
RESULTS = Path(__file__).resolve().parent.parent / "results" / "backlog.json"


def outcome(next_attempt_utc_s: int) -> bytes:
    """The state of one recipient that has been tried once (csrc/spool/state.c)."""
    entry = struct.pack("<BBHQHHHBBBB", 0, 0, 1, next_attempt_utc_s, 450, 2, 1, 4, len(REPLY), len(REMOTE), 0)
    return struct.pack("<II", 1, 1) + entry + REPLY + REMOTE


async def new_shard(spool: Path, number: int) -> tuple[int, Shard]:
    """An empty one, ready to be written to, and a descriptor of the spool to be closed behind it."""
    (spool / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
    fd = os.open(spool, os.O_RDONLY | os.O_DIRECTORY)
    shard = Shard(fd, f"{number:02x}", number)
    shard.attach(asyncio.get_running_loop())
    while shard.recover() is not None:
        await asyncio.sleep(0.01)
    return fd, shard


async def write_shard(
    spool: Path, number: int, messages: int, received_utc_ms: Callable[[int], int | None] = lambda number: None
) -> None:
    """`received_utc_ms` of each, by its number: None is now."""
    directory = spool / f"{number:02x}"
    fd, shard = await new_shard(spool, number)
    due = int(time.time()) + LATER_S
    for start in range(0, messages, AT_ONCE):
        count = min(AT_ONCE, messages - start)
        stored = await asyncio.gather(
            *(
                shard.append(
                    b"a@source.example",
                    [b"user%d@domain%d.example" % (i, i % DOMAINS)],
                    BODY,
                    received_utc_ms=received_utc_ms(i),
                )
                for i in range(start, start + count)
            )
        )
        await asyncio.gather(
            *(shard.write_state(each.id, each.place[0], outcome(due + i % 3600)) for i, each in enumerate(stored))
        )
    # No close(): the relay finds what a crash leaves.
    shutil.copytree(directory, spool / "copy")
    shard.close()
    os.close(fd)
    shutil.rmtree(directory)
    (spool / "copy").rename(directory)


def write_backlog(relay: Angarium, messages: int, workers: int, write: WriteShard = write_shard) -> None:
    spool = relay.root / "spool"
    spool.mkdir(parents=True, mode=0o700)
    (spool / "format").write_text("angarium-spool 1\n")
    for number in range(workers):
        uvloop.run(write(spool, number, messages // workers))


def status(relay: Angarium) -> dict[str, Any]:
    """What `angarium status --json` prints; asked from here: a process for each question would take half a core."""
    try:
        answer: dict[str, Any] = AdminClient(admin_socket(str(relay.root / "spool"))).get("/v1/status")
    except NoAnswer:
        return {}
    return answer


def numbers(tree: Any, name: str) -> Iterator[int]:
    """All numbers under this key, wherever they are."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == name and isinstance(value, int):
                yield value
            else:
                yield from numbers(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from numbers(value, name)


def workers_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [each.get("figures") or {} for each in answer.get("workers", [])]


def resident(relay: Angarium) -> int:
    """RSS of the process tree."""
    return process_tree.memory(relay.pid).rss_octets


def start(relay: Angarium, messages: int) -> dict[str, float]:
    began = time.monotonic()
    relay.start()
    greeted_s = time.monotonic() - began
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=60) as client:  # raises unless it is taken
        client.sendmail("a@source.example", ["first@relay.example"], "Subject: first\r\n\r\nfirst\r\n")
        accepts_s = time.monotonic() - began
    while True:
        figures = workers_of(status(relay))
        is_loading = not figures or any(each.get("loading", 1) for each in figures)
        if not is_loading and sum(each["messages"] for each in figures) >= messages:
            break
        if time.monotonic() - began > 120:
            raise drive.RunFailed(f"not loaded after two minutes: {figures}")
        time.sleep(0.05)
    scheduled_s = time.monotonic() - began
    time.sleep(1.0)
    return {"greeted_s": greeted_s, "accepts_s": accepts_s, "scheduled_s": scheduled_s, "rss": float(resident(relay))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput")
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    workers = os.cpu_count() or 1
    work = ROWS[0].work
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        os.chmod(directory, 0o755)
        facts = machine.describe(Path(directory))
        full = Angarium(Path(directory) / "full", drive.free_port(), drive.free_port(), workers)
        none = Angarium(Path(directory) / "none", drive.free_port(), drive.free_port(), workers)
        began = time.monotonic()
        write_backlog(full, chosen.messages, workers)
        print(f"{chosen.messages} messages written in {time.monotonic() - began:.0f} s", file=sys.stderr)
        rates: dict[str, list[float]] = {"with": [], "without": []}
        empty = start(none, 0)
        loaded = start(full, chosen.messages)
        try:
            for number in range(chosen.rounds):
                pair = [("with", full), ("without", none)]
                for name, relay in pair if number % 2 == 0 else reversed(pair):
                    os.sync()
                    rates[name].append(drive.run(work, relay).messages_per_s)
        finally:
            full.stop()
            none.stop()
    memory = (loaded["rss"] - empty["rss"]) / chosen.messages
    ratio = statistics.median(rates["with"]) / statistics.median(rates["without"])
    result = {
        "messages": chosen.messages,
        "domains": DOMAINS,
        "greeted_s": round(loaded["greeted_s"], 2),
        "accepts_s": round(loaded["accepts_s"], 2),
        "scheduled_s": round(loaded["scheduled_s"], 2),
        "octets_per_recipient": round(memory, 1),
        "messages_per_s": rates,
        "rate_with_against_without": round(ratio, 3),
    }
    is_met = (
        loaded["accepts_s"] <= ACCEPT_BAR_S
        and loaded["scheduled_s"] <= SCHEDULED_BAR_S
        and memory <= MEMORY_BAR_OCTETS
        and ratio >= RATE_BAR
    )
    print(
        f"{chosen.messages} recipients over {DOMAINS} domains: accepts after {loaded['accepts_s']:.2f} s (bar "
        f"{ACCEPT_BAR_S:.0f}), all scheduled after {loaded['scheduled_s']:.2f} s (bar {SCHEDULED_BAR_S:.0f}), "
        f"{memory:.0f} octets of memory each (bar {MEMORY_BAR_OCTETS}); new mail at {ratio:.0%} of the rate without "
        f"(bar {RATE_BAR:.0%}): {rates}"
    )
    if chosen.messages >= KEPT_FROM:
        runs = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        runs[str(chosen.messages)] = {"machine": facts, **result}
        RESULTS.write_text(json.dumps(runs, indent=1) + "\n")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
