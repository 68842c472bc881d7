"""A day of traffic on one simulated clock, with everything in the queue at work together: retries and expiry, warm-up,
automation, quiet hours, holds, by-times, reports, and a restart in the middle of the night.

    make day SEEDS=20         or, for one seed, and from 18:00 of the first of March:
    PYTHONPATH=src:tests .venv/bin/python -m simulation.day --seed 7

Hosts refuse for hours, cannot be reached, greylist, never answer, have enough of connections, of recipients and of us.
At the end every recipient has to have one end, and its sender what he asked for; nothing was done before its time; and
the spool is empty (ledger.py). Exit status 1 and what was wrong otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from simulation import clock
from simulation.clock import run_simulated
from simulation.hosts import HOUR
from simulation.ledger import HOURS_UNTIL_ALL_IS_OVER, Ledger
from simulation.machine import Machine
from simulation.traffic import Message, Promise, traffic
from simulation.world import PROVIDER, World

from angarium.routing.warmup import WarmupOptions
from angarium.spool.contents import Contents

BEGINS_UTC_S: Final = datetime(2026, 3, 1, 18, tzinfo=UTC).timestamp()
NIGHT_H: Final = 9.2            # 03:12: then the machine is restarted
DOWN_S: Final = 240.0
TRAFFIC_H: Final = 26.0
# Of the messages of the traffic, for each day: on the first two there is more mail for the new source than it may send.
RATIONS: Final = {"": [0.04, 0.16, 0.4, 0.6], PROVIDER: [0.02, 0.06, 0.16, 0.24]}


async def _send(machine: Machine, message: Message) -> list[Promise]:
    now = time.time()
    header = b"From: <%s>\r\nSubject: day\r\n\r\n" % message.sender.encode()
    await machine.queue.send(
        *(each.recipient for each in message.promises),
        sender=message.sender,
        body=header + (b"x" * 68 + b"\r\n") * (message.octets // 70),
        notify=message.notify,
        attributes=message.attributes or None,
    )
    for each in message.promises:
        each.accepted_utc_s = now
    return message.promises


async def live(directory: Path, seed: int, count: int) -> list[str]:
    """What was wrong."""
    chance = random.Random(seed)
    world = World(chance, BEGINS_UTC_S)
    rations = {provider: [int(part * count) for part in parts] for provider, parts in RATIONS.items()}
    plan = WarmupOptions(
        sources=["new"], begins="2026-03-01", schedule=rations[""], providers={PROVIDER: rations[PROVIDER]}
    )
    machine = Machine(directory, world, plan)
    world.begin()
    await machine.start()
    promises: list[Promise] = []
    restart = BEGINS_UTC_S + NIGHT_H * HOUR
    stops: list[tuple[float, float]] = []
    for message in traffic(chance, world, BEGINS_UTC_S, TRAFFIC_H, count):
        if message.due_utc_s >= restart and not stops:
            await asyncio.sleep(max(restart - time.time(), 0))
            begin = time.time()
            await machine.stop()
            await asyncio.sleep(DOWN_S)
            await machine.start()
            stops.append((begin, time.time()))
        await asyncio.sleep(max(message.due_utc_s - time.time(), 0))
        promises += await _send(machine, message)
    end = BEGINS_UTC_S + (TRAFFIC_H + HOURS_UNTIL_ALL_IS_OVER) * HOUR
    while not machine.queue.is_empty and time.time() < end:
        await asyncio.sleep(60)
    left = machine.queue.depth
    log = machine.queue.log_path
    await machine.stop()
    world.end()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    wrong = [f"log: {line}" for line in lines if line["event"] == "error"]
    if left["messages"]:
        wrong.append(f"queue: {left}")
    wrong += _left_in_spool(directory)
    ledger = Ledger(world, promises, lines, measures=machine.measures, stops=stops, rations=rations)
    wrong += ledger.breaches()
    attempts = sum(map(len, ledger.attempts.values()))
    reports = sum(ledger.reports.values())
    hours = (time.time() - BEGINS_UTC_S) / HOUR
    print(f"seed {seed}: {len(promises)} recipients, {attempts} attempts, {reports} reports, {hours:.0f} hours")
    return wrong


def _left_in_spool(directory: Path) -> list[str]:
    fd = os.open(directory, os.O_RDONLY)
    contents = Contents(fd, ["00"])
    messages = [message for shard in contents.shards for message in contents.messages(shard)]
    left = [f"spool: {message.envelope.id} is left" for message in messages]
    os.close(fd)
    return left + [f"spool: {damage}" for damage in contents.damage]


def main() -> int:
    parser = argparse.ArgumentParser(description="A day of simulated traffic.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="this many, from --seed on")
    parser.add_argument("--messages", type=int, default=2500)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.directory is None:
        return _in_processes(arguments)
    clock.begin(BEGINS_UTC_S)
    wrong = uvloop.run(live(arguments.directory / "spool", arguments.seed, arguments.messages))
    for each in wrong[:100]:
        print(each)
    return 1 if wrong else 0


def _in_processes(arguments: argparse.Namespace) -> int:
    """One for each seed: the clock of a process begins once."""
    failed = 0
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        with tempfile.TemporaryDirectory() as directory:
            command = [sys.executable, "-m", "simulation.day", "--seed", str(seed), "--directory", directory]
            ended = run_simulated([*command, "--messages", str(arguments.messages)], Path(directory), 600)
        print(ended.stdout + ended.stderr, end="", flush=True)
        failed += ended.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
