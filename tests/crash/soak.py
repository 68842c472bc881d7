"""Rounds of kill -9 under load, and what became of the mail: the proof behind `make soak`.

    PYTHONPATH=src:tests .venv/bin/python -m crash.soak --rounds 100

A relay of two workers, with small segments so that compaction is at work all the while; a load that writes down each
250; a next hop that refuses one recipient in ten for now, and some for several rounds. In each round, at some moment,
processes are killed: one worker, both, the supervisor (its workers go with it), or all. At the end everything has to
leave, and is held against what was acknowledged. Exit status 1 when anything is missing, changed, or repeated without
a kill to excuse it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import enum
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from crash.arrivals import Arrivals, Kill, Verdict
from crash.load import Load, message_of
from end_to_end.next_hop import NextHop
from end_to_end.relay import fix_port, metrics, wait_until_empty
from relay_process import RelayProcess, is_alive, wait_for

WORKERS = 2
NODE = 'segment_size = "4MiB"\n'
RETRY = '[queue.default]\nretry = { first = "300ms", factor = 1.0, max = "300ms" }\n'
WINDOW_S = 0.1              # node.duplicate_window, by default
DEATHS_AT_MOST = 3          # of one worker in 10 s: five would end the relay (process/supervisor.py)
HELD_FOR = 12               # rounds for which those who are late are refused
COMPACTED_EVERY = 4         # so often a round waits until compaction moves messages, and kills it at that
MESSAGES_A_ROUND = 20
IDLE_S = 0.6                # longer than what arrivals.py lets pass as late
BACKLOG = 60                # messages that have not reached the next hop: then the load waits
MOVED = "angarium_compaction_messages_total"
EMPTIED = "angarium_compaction_segments_total"
COUNTED = (EMPTIED, MOVED)


class Way(enum.Enum):
    """How processes end in a round."""

    WORKER = "one worker"
    WORKERS = "both workers"
    SUPERVISOR = "the supervisor"
    TREE = "everything"
    RESTART = "told to stop"    # the one that is no crash: nothing may be repeated


# One worker in half of the rounds, the rest evenly.
KILLS = (Way.WORKER, Way.WORKER, Way.WORKER, Way.WORKERS, Way.SUPERVISOR, Way.TREE)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a soak has found. compacted: (segments emptied, messages moved)."""

    rounds: int
    sent: int
    lost_connections: int
    compacted: tuple[int, int]
    verdict: Verdict

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.sent} sent, {self.lost_connections} connections lost, "
            f"compaction emptied {self.compacted[0]} segments and moved {self.compacted[1]} messages: {self.verdict}"
        )


class Soak:
    """One relay under load; use opened(), round() as often as wanted, end().

    is_idle  while set, no message is begun.
    """

    def __init__(self, relay: RelayProcess, load: Load, hop: NextHop, arrivals: Arrivals, seed: int) -> None:
        self.relay = relay
        self.load = load
        self.kills: list[Kill] = []
        self.is_idle = False
        self._arrivals = arrivals
        self._chance = random.Random(seed)
        self._odds = random.Random(seed)
        self._rounds = 0
        self._deaths: dict[int, deque[float]] = {number: deque() for number in range(WORKERS)}
        self._released = 0      # who is late is taken up to this number
        self._is_over = False
        self._compacted = dict.fromkeys(COUNTED, 0)     # by trees that are gone
        hop.faults["RCPT"] = self._refuse

    def round(self, way: Way) -> Way:
        """Waits for mail to flow, then does it; returns the way that was taken."""
        before = len(self.load.acknowledged)
        self._wait_until_served()
        wait_for(lambda: len(self.load.acknowledged) >= before + MESSAGES_A_ROUND, "mail flows", 60)
        self._rounds += 1
        if self._rounds % HELD_FOR == 0:
            self._released = self.load.sent
        if self._rounds % COMPACTED_EVERY == 0:
            self._wait_for_compaction()
        elif self._rounds % COMPACTED_EVERY == 2:
            # Nothing comes, so no commit takes outcomes along: they must have been written for their own sake.
            self.is_idle = True
            time.sleep(IDLE_S)
        else:
            time.sleep(self._chance.uniform(0.0, 0.4))     # a moment of its own, not something to wait for
        if way is Way.RESTART:
            assert self.relay.stop() == 0
            self.relay.start()
            self.is_idle = False
            return way
        pids = numbered_workers(self.relay)
        number = self._chance.randrange(WORKERS)
        if way is Way.WORKER and self._may_die(number) and number in pids:
            self._kill([pids[number]], [number])
        elif way is Way.WORKERS and len(pids) == WORKERS and all(map(self._may_die, pids)):
            self._kill(list(pids.values()), list(pids))
        else:
            way = Way.SUPERVISOR if way is Way.SUPERVISOR else Way.TREE
            self._kill_tree(way)
        self.is_idle = False
        return way

    def end(self) -> Report:
        """Has everything leave, stops the relay, and judges."""
        self._wait_until_served()
        self.load.stop()
        self._released = self.load.sent
        self._is_over = True
        assert self.relay.command("queue", "retry", "--all").returncode == 0
        wait_until_empty(self.relay, 120)
        self._count_compaction()
        assert self.relay.stop() == 0, self.relay.errors()
        assert not self.relay.events("error", "failed", "expired")
        checked = self.relay.command("spool", "check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        verdict = self._arrivals.judge(
            self.load.acknowledged, self.kills, self.relay.all_events(), WINDOW_S
        )
        compacted = (self._compacted[EMPTIED], self._compacted[MOVED])
        return Report(self._rounds, self.load.sent, self.load.lost_connections, compacted, verdict)

    def story(self, serial: int) -> list[dict[str, object]]:
        """What the log says of an acknowledged message."""
        id_ = self.load.acknowledged[serial][0]
        return [event for event in self.relay.all_events() if event.get("id") == id_]

    def _refuse(self, line: bytes) -> bytes | None:
        late = re.search(rb"<late\.(\d+)@", line)
        is_refused = int(late[1]) > self._released if late else not self._is_over and self._odds.random() < 0.1
        return b"450 4.2.1 not now" if is_refused else None

    def _wait_until_served(self) -> None:
        wait_for(lambda: len(self.relay.workers()) == WORKERS, "both workers run")

    def _wait_for_compaction(self) -> None:
        """Until messages are being moved: who is late has mail in many segments, or will have soon."""
        before = self._counted()[MOVED]
        wait_for(lambda: self._counted()[MOVED] > before, "compaction is at work", 60)

    def _may_die(self, number: int) -> bool:
        deaths = self._deaths[number]
        while deaths and deaths[0] < time.monotonic() - 10:
            deaths.popleft()
        return len(deaths) < DEATHS_AT_MOST

    def _kill(self, pids: Sequence[int], numbers: Sequence[int]) -> None:
        with self._noted(numbers):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not any(map(is_alive, pids)), "those who were killed are gone")

    def _kill_tree(self, way: Way) -> None:
        """Everything at once, or the supervisor, and the workers have to follow."""
        process = self.relay.process
        assert process is not None
        self._count_compaction()
        with self._noted(range(WORKERS)):
            if way is Way.SUPERVISOR:
                followers = self.relay.workers()
                process.kill()
                process.wait()
                wait_for(lambda: not any(map(is_alive, followers)), "no worker outlives its supervisor")
            else:
                self.relay.kill()
        for deaths in self._deaths.values():
            deaths.clear()
        self.relay.start()

    @contextlib.contextmanager
    def _noted(self, numbers: Sequence[int]) -> Iterator[None]:
        """These workers die in the block."""
        self.relay.is_log_torn = True
        began_utc_s = time.time()
        yield
        self.kills.append(Kill(began_utc_s, time.time(), frozenset(numbers)))
        for number in numbers:
            self._deaths[number].append(time.monotonic())

    def _count_compaction(self) -> None:
        """Counters outlive a worker and not the supervisor."""
        for name, value in self._counted().items():
            self._compacted[name] += value

    def _counted(self) -> dict[str, int]:
        """Since this supervisor's start."""
        values = metrics(self.relay)
        return {name: int(values[name]) for name in COUNTED}


def numbered_workers(relay: RelayProcess) -> dict[int, int]:
    """Worker number -> process id, of those that run; by the names they give themselves (process/forking.py)."""
    found: dict[int, int] = {}
    for pid in relay.workers():
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name.startswith("angarium:"):
                found[int(name.removeprefix("angarium:"))] = pid
    return found


@contextlib.contextmanager
def opened(directory: Path, seed: int) -> Iterator[Soak]:
    """A soak whose relay serves and whose load has begun."""
    arrivals = Arrivals(message_of)
    with NextHop(take=arrivals.take) as hop:
        relay = RelayProcess(directory, workers=WORKERS)
        relay.node = NODE
        relay.write_config(hop.route + RETRY)
        with relay:
            fix_port(relay, hop.route + RETRY)
            load = Load(relay.port, seed=seed)
            soak = Soak(relay, load, hop, arrivals, seed)
            load.is_held = lambda: soak.is_idle or len(load.acknowledged) > arrivals.messages + BACKLOG
            with load:
                yield soak


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 under load: what was acknowledged is delivered.")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--directory", type=Path, help="for spool and log, kept; default: a temporary one")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = given.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        directory.mkdir(exist_ok=True)
        soak = stack.enter_context(opened(directory, given.seed))
        chance = random.Random(given.seed)
        for number in range(1, given.rounds + 1):
            way = soak.round(chance.choice(KILLS))
            print(f"round {number:3}: {way.value:14} {len(soak.load.acknowledged)} acknowledged", flush=True)
        report = soak.end()
        print(report)
        for serial in list(report.verdict.missing)[:10]:
            print(f"missing {serial}: {soak.story(serial)}")
        for name in ("unexcused", "corrupt"):
            if found := getattr(report.verdict, name):
                print(f"{name}: {found[:50]}")
        if not report.compacted[1]:
            print("compaction never moved a message: too little was waiting to prove anything about it")
    return 0 if report.verdict.is_good and report.compacted[1] else 1


if __name__ == "__main__":
    sys.exit(main())
