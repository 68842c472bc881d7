"""Mail to 100,000 domains: names that nobody has asked for, the same again with all of them cached, and both at
once.

    python benchmarks/macro/many_domains.py

A relay with one worker, unbound as its name server (name_server.py), `angarium blast` in front and `angarium sink`
behind. All domains are at 100 hosts, as most of the world's are at few: what is measured is domains, not
connections.

- cold: each message is for a domain that was never seen: an MX query for each. Until all are delivered.
- own hosts: no mail, the resolver and the router in a process of their own: domains with a mail host each, so three
  queries (MX, A, AAAA) for each. CPU of that process.
- cached: messages by Zipf's law (exponent 1) over the same domains, against as many to one of them, in turn.
- beside: mail at a steady rate to a hundred domains that are known, at hosts of their own: alone, while other mail
  comes as fast as it can whose domains are known as well (busy), and while it comes as fast as it can to cold domains.
  What the hundred wait from acceptance to delivery, as the event log says, in rounds of the three. Cold domains may
  make the slowest hundredth wait twice as long as mail does that costs no look-up.

Writes results/many_domains.json.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drive
import machine
import name_server
import process_tree
import scale
import uvloop

from angarium.resolver.caching_resolver import CachingResolver
from angarium.resolver.options import ResolverOptions
from angarium.routing.ourselves import Ourselves
from angarium.routing.router import Router

DOMAINS, HOSTS, STEADY_DOMAINS, STEADY_HOSTS, STEADY_PER_S = 100_000, 100, 100, 10, 200
COLD_BAR, CACHED_BAR, BESIDE_BAR = 1500, 0.8, 2.0
RESULTS = Path(__file__).resolve().parent.parent / "results" / "many_domains.json"
QUIET_S, MOST_PER_S = 0.5, 50_000
PLANS_AT_ONCE = 256     # queue/planner.pyx


def zone(domains: int) -> Iterator[str]:
    """d: for cold and cached. e: cold beside known ones. s, w: these, steady and busy. o: with hosts of their own."""
    yield from (f"mx{i} A 127.41.0.{i + 1}\n" for i in range(HOSTS + STEADY_HOSTS))
    for prefix in "de":
        yield from (f"{prefix}{i} MX 10 mx{i % HOSTS}\n" for i in range(domains))
    yield from (f"s{i} MX 10 mx{HOSTS + i % STEADY_HOSTS}\n" for i in range(STEADY_DOMAINS))
    yield from (f"w{i} MX 10 mx{i}\n" for i in range(HOSTS))
    for i in range(domains):
        yield f"o{i} MX 10 mx.o{i}\nmx.o{i} A 127.42.{i >> 8 & 255}.{i & 255}\n"


def zipf(domains: int, messages: int, seed: int) -> Iterator[int]:
    """Ranks from 0, the first the most frequent."""
    chance = random.Random(seed)
    sums = list(itertools.accumulate(1 / rank for rank in range(1, domains + 1)))
    for _ in range(messages):
        yield bisect.bisect(sums, chance.random() * sums[-1])


class Bench:
    """A relay, its receivers and its name server, and mail through them."""

    def __init__(self, directory: Path, domains: int, name_port: int) -> None:
        self.directory = directory
        self.domains = domains
        hosts = [option for i in range(HOSTS + STEADY_HOSTS) for option in ("--listen", f"127.41.0.{i + 1}:25")]
        self.receivers = scale.Receivers(directory / "sink", drive.free_port(), "", *hosts)
        self.relay = scale.Relay(
            directory, 25, 1,
            f'[resolver]\nnameservers = ["127.0.0.1:{name_port}"]\ncache_entries = {domains * 4}\n',
        )
        self.relay.start()
        self.events = scale.Events(self.relay.root / "events.jsonl")

    def close(self) -> None:
        self.relay.stop()
        self.receivers.kill()

    def blast(self, name: str, to: Iterator[str], messages: int, *options: str) -> subprocess.Popen[bytes]:
        """Begins to send; a path for each message."""
        file = self.directory / name
        file.write_text("\n".join(to) + "\n")
        return subprocess.Popen(
            [sys.executable, "-m", "angarium.cli.main", "blast", "--server", f"127.0.0.1:{self.relay.port}", "--json",
             "--to-file", str(file), "--messages", str(messages), "--pipelining", "--bdat", "--size", "1k", *options],
            stdout=subprocess.PIPE,
        )

    def through(self, name: str, to: Iterator[str], messages: int) -> dict[str, float]:
        """All of it, from the first that is taken in until the last is delivered."""
        self.events.forget()
        cpu = process_tree.cpu_s(self.relay.pid)
        load = self.blast(name, to, messages, "--sessions", "50")
        try:
            found = self.events.wait_for(messages)
        finally:
            load.communicate()
        taken = max(each.at_s for each in found) - min(each.at_s - each.age_s for each in found)
        return {
            "messages_per_s": round(messages / taken, 1),
            "cpu_us": round((process_tree.cpu_s(self.relay.pid) - cpu) / messages * 1e6, 1),
        }

    def cold(self) -> dict[str, float]:
        return self.through("cold", (f"u@d{i}.{name_server.ZONE}" for i in range(self.domains)), self.domains)

    def cached(self, rounds: int, messages: int) -> dict[str, list[dict[str, float]]]:
        """Zipf and one domain in turn."""
        found: dict[str, list[dict[str, float]]] = {"zipf": [], "one": []}
        for turn in range(rounds):
            for kind in ("zipf", "one") if turn % 2 == 0 else ("one", "zipf"):
                ranks = zipf(self.domains, messages, turn) if kind == "zipf" else itertools.repeat(0, messages)
                to = (f"u@d{rank}.{name_server.ZONE}" for rank in ranks)
                found[kind].append(self.through(kind, to, messages))
        return found

    def beside(self, rounds: int, seconds: int) -> dict[str, Any]:
        """What mail to known domains waits in each round: alone, while other mail comes as fast as it can whose domains
        are known too (busy), and while none of that has a domain that is known (cold)."""
        steady = [f"u@s{i}.{name_server.ZONE}" for i in range(STEADY_DOMAINS)]
        warm = [f"u@w{i}.{name_server.ZONE}" for i in range(HOSTS)]
        self.through("known", iter(steady + warm), len(steady) + len(warm))
        each = self.domains // rounds
        found: dict[str, list[dict[str, float]]] = {"alone": [], "busy": [], "cold": []}
        for turn in range(rounds):
            cold = [f"u@e{i}.{name_server.ZONE}" for i in range(turn * each, (turn + 1) * each)]
            for name, others in (("alone", []), ("busy", warm), ("cold", cold)):
                found[name].append(self._waits(seconds, steady, others))
        # Of neighbours in time: what else the machine does meets both.
        ratios = [cold["p99_ms"] / busy["p99_ms"] for cold, busy in zip(found["cold"], found["busy"], strict=True)]
        return {**found, "p99_ratio": round(statistics.median(ratios), 2)}

    def _waits(self, seconds: int, steady: list[str], others: list[str]) -> dict[str, float]:
        messages = seconds * STEADY_PER_S
        self.events.forget()
        loads = [self.blast("steady", iter(steady), messages, "--sessions", "10", "--rate", str(STEADY_PER_S))]
        if others:
            # Known ones in turn, more than can be taken; cold ones once each.
            count = len(others) if len(others) > HOSTS else seconds * MOST_PER_S
            loads.append(self.blast("others", iter(others), count, "--sessions", "50"))
        try:
            waits = sorted(each.age_s for each in self.events.wait_for(messages, b"u@s"))
            meanwhile = self.events.count() - messages
        finally:
            for load in loads:
                load.terminate()
                load.communicate()
        self._until_quiet()
        return {
            "median_ms": round(statistics.median(waits) * 1000, 1),
            "p99_ms": round(waits[len(waits) * 99 // 100] * 1000, 1),
            "largest_ms": round(waits[-1] * 1000, 1),
            "others_meanwhile": meanwhile,
        }

    def _until_quiet(self) -> None:
        """What has been taken in of others is gone, too: it is not to meet the next round."""
        last = -1
        while (found := self.events.count()) > last:
            last = found
            time.sleep(QUIET_S)


def own_hosts(name_port: int, first: int, domains: int) -> dict[str, float]:
    """The resolver and the router alone, in a process of their own."""
    done = subprocess.run(
        [sys.executable, __file__, "--plan", f"{name_port},{first},{domains}"], capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def plan(name_port: int, first: int, domains: int) -> dict[str, float]:
    """Plans for domains that were never seen, as many at once as a worker asks for."""
    resolver = CachingResolver(ResolverOptions(nameservers=[f"127.0.0.1:{name_port}"], cache_entries=1_000_000))
    router = Router([], resolver, Ourselves(["angarium.bench.example"]))
    numbers = iter(range(first, first + domains))

    async def one() -> None:
        for number in numbers:
            await router.plan(f"o{number}.{name_server.ZONE}".encode())

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(PLANS_AT_ONCE)))

    began, cpu = time.monotonic(), time.process_time()
    uvloop.run(all_of_them())
    took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    return {"domains_per_s": round(domains / took_s, 1), "cpu_us": round(cpu_s / domains * 1e6, 1)}


def measure(directory: Path, domains: int, rounds: int, messages: int, seconds: int) -> dict[str, Any]:
    with name_server.resolver(directory / "names", zone(domains)) as name_port:
        own = [own_hosts(name_port, i * domains // 10, domains // 10) for i in range(rounds)]
        bench = Bench(directory, domains, name_port)
        try:
            found: dict[str, Any] = {"own_hosts": own, "cold": bench.cold(), "cached": bench.cached(rounds, messages)}
            found["beside"] = bench.beside(rounds, seconds)
        finally:
            bench.close()
    rate = {kind: statistics.median(run["messages_per_s"] for run in runs) for kind, runs in found["cached"].items()}
    return {"domains": domains, **found, "cached_ratio": round(rate["zipf"] / rate["one"], 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--domains", type=int, default=DOMAINS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=20_000, help="of each round with names cached")
    parser.add_argument("--seconds", type=int, default=5, help="of mail beside others: of each kind and round")
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.plan:
        print(json.dumps(plan(*map(int, chosen.plan.split(",")))))
        return 0
    scale.end_cleanly()
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        facts = machine.describe(Path(directory))
        found = measure(Path(directory), chosen.domains, chosen.rounds, chosen.messages, chosen.seconds)
    print(json.dumps(found, indent=1))
    if chosen.domains >= DOMAINS:
        RESULTS.write_text(json.dumps({"machine": facts, **found}, indent=1) + "\n")
    is_fast = found["cold"]["messages_per_s"] >= COLD_BAR and found["cached_ratio"] >= CACHED_BAR
    return 0 if is_fast and found["beside"]["p99_ratio"] <= BESIDE_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
