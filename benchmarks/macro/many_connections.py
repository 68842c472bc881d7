"""10,000 connections out at once, to receivers that take 200 ms for each reply.

    python benchmarks/macro/many_connections.py

500 sites take 20 connections each from one source; a relay with two workers has a backlog for all of them. A
message takes four replies (MAIL, RCPT, DATA, end), so receivers allow 10,000 / 0.8 s: the rate of the three busiest
seconds is held against that, with all connections open at once; what each second brought stands beside it. The
receivers are slow_receivers.c, which takes a tenth of what is measured; `angarium sink` takes more than the relay.
Memory is the largest PSS of the relay's process tree, sampled twice a second. Writes results/many_connections.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import drive
import machine
import process_tree
import scale

SITES, CONNECTIONS_EACH, DELAY_S, MESSAGES_EACH = 500, 20, 0.2, 6
REPLIES = 4
MEMORY_BAR_MIB, RATE_BAR = 143, 0.9         # 150 MB
RESULTS = Path(__file__).resolve().parent.parent / "results" / "many_connections.json"


def measure(directory: Path, sites: int, messages_each: int, delay_s: float = DELAY_S) -> dict[str, Any]:
    port = drive.free_port()
    routes = "".join(
        f'[[route]]\ndomain = "d{i}.example"\nnext_hop = "smtp://127.20.{i >> 8}.{i & 255}:{port}"\n'
        for i in range(sites)
    )
    shaping = f"[shaping.default]\nconnections = {CONNECTIONS_EACH}\n"
    relay = scale.Relay(directory, port, 2, routes + shaping)
    connections = sites * CONNECTIONS_EACH
    messages = connections * messages_each
    to = (b"user%d@d%d.example" % (i, i % sites) for i in itertools.count())
    relay.write_backlog(to, messages)
    receivers = scale.SlowReceivers(
        directory / "sink", port, delay_s=delay_s, connections_each=CONNECTIONS_EACH
    )
    memories: list[process_tree.Memory] = []
    try:
        relay.start()
        began = process_tree.cpu_s(relay.pid)
        scale.watch(relay, receivers, messages, lambda: memories.append(process_tree.memory(relay.pid)))
        cpu = process_tree.cpu_s(relay.pid) - began
        sink_cpu = scale.cpu_s(receivers)
        lines = receivers.seconds()
        relay.stop()
        counters = receivers.end()
    finally:
        relay.stop()
        receivers.kill()
    by_second: dict[int, int] = {}
    for line in lines:
        by_second[line["second"]] = by_second.get(line["second"], 0) + line.get("messages", 0)
    busiest = sorted(by_second.values())[-3:]
    allowed = connections / (REPLIES * delay_s)
    return {
        "connections": connections,
        "peak_open": counters["peak_open"],
        "refused": counters["refused_connections"],
        "messages": messages,
        "messages_per_s": round(sum(busiest) / len(busiest), 1),
        "by_second": [by_second[second] for second in sorted(by_second)],
        "allowed_per_s": allowed,
        "pss_mib": round(max(each.pss_octets for each in memories) / 2**20, 1),
        "cpu_us_per_message": round(cpu / messages * 1e6, 1),
        "sink_cpu_us_per_message": round(sink_cpu / messages * 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sites", type=int, default=SITES)
    parser.add_argument("--messages-each", type=int, default=MESSAGES_EACH)
    parser.add_argument("--delay", type=float, default=DELAY_S)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    process_tree.raise_descriptor_limit(65_536)
    scale.end_cleanly()
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        facts = machine.describe(Path(directory))
        found = measure(Path(directory), chosen.sites, chosen.messages_each, chosen.delay)
    print(json.dumps(found, indent=1))
    if chosen.sites >= SITES and chosen.delay == DELAY_S:
        RESULTS.write_text(json.dumps({"machine": facts, **found}, indent=1) + "\n")
    is_fast = found["messages_per_s"] >= found["allowed_per_s"] * RATE_BAR
    were_at_once = found["peak_open"] >= found["connections"]
    return 0 if is_fast and were_at_once and found["pss_mib"] <= MEMORY_BAR_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
