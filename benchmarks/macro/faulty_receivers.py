"""How mail leaves for receivers as the world has them, and whether each message arrives once.

    python benchmarks/macro/faulty_receivers.py          (half a minute)

`angarium sink` plays three kinds of receivers at once, on addresses of 127.0.0.0/8, each with a third of the mail:

- strict: one provider behind three sites, which counts connections, connections a second, messages a connection and
  messages a second of its client, and refuses what is over. The relay is told the same numbers, for the provider. What
  is measured is the rate: of what the provider allows, from one second behind its first message to its last; and how
  often it had to refuse anything.
- unsteady: ten sites that refuse a recipient in ten and a message in twenty (4xx), and hang up at DATA or in place of
  the reply to the message, one time in fifty each; they are tried again after a second.
- slow: four sites that take 50 to 150 ms for each reply, now and then seconds for the last.

Each message is for a recipient of its own, and all are answered 250. Each must be in what the sink has taken, once: a
message whose connection broke before the reply was not taken. Two workers, started empty. Writes
results/faulty_receivers.json when nothing was left out.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import drive
import machine
import scale

MESSAGES = 9000
RATE_BAR = 0.9
STRICT_PER_S, SETTLE_S = 200, 1.0
STRICT, UNSTEADY, SLOW = 3, 10, 4       # sites of each kind
KINDS = {"strict": STRICT, "unsteady": UNSTEADY, "slow": SLOW}
RESULTS = Path(__file__).resolve().parent.parent / "results" / "faulty_receivers.json"
LIMITS = {"connections": 20, "connection_rate": '"50/s"', "messages_per_connection": 100}

RECEIVERS = f"""\
[receiver.strict]
address      = ["127.44.0.0/24"]
message_rate = "{STRICT_PER_S}/s"
{{limits}}
[receiver.unsteady]
address    = ["127.44.1.0/24"]
reply      = ["rcpt@10=450 4.2.1 Not now", "dot@5=451 4.3.0 Not now"]
disconnect = ["data@2", "dot@2"]

[receiver.slow]
address = ["127.44.2.0/24"]
delay   = ["*=0.05-0.15", "dot@1=~2"]
"""
SHAPING = f"""\
[queue.default]
retry = {{ first = "1s", factor = 1.0, max = "1s" }}

[shaping.provider.strict]
domains      = [".strict.example"]
share        = true
message_rate = "{STRICT_PER_S}/s"
"""


def _limits() -> str:
    return "".join(f"{key} = {value}\n" for key, value in LIMITS.items())


def _configuration(port: int) -> str:
    routes = "".join(
        f'[[route]]\ndomain = "d{i}.{kind}.example"\nnext_hop = "smtp://127.44.{number}.{i}:{port}"\n'
        for number, (kind, sites) in enumerate(KINDS.items())
        for i in range(sites)
    )
    return routes + SHAPING + _limits()


def _paths(messages: int) -> list[str]:
    """A recipient for each message, the kinds in turn."""
    kinds = list(KINDS)
    paths = []
    for n in range(messages):
        kind, turn = kinds[n % len(kinds)], n // len(kinds)
        paths.append(f"u{n}@d{turn % KINDS[kind]}.{kind}.example")
    return paths


def measure(directory: Path, messages: int) -> dict[str, Any]:
    port = drive.free_port()
    record = directory / "record.jsonl"
    receivers = scale.Receivers(
        directory / "sink", port, RECEIVERS.format(limits=_limits()), "--record", str(record), "--seed", "1"
    )
    relay = scale.Relay(directory, port, 2, _configuration(port))
    file = directory / "paths"
    file.write_text("\n".join(paths := _paths(messages)) + "\n")
    try:
        relay.start()
        load = subprocess.run(
            [sys.executable, "-m", "angarium.cli.main", "blast", "--server", f"127.0.0.1:{relay.port}", "--json",
             "--to-file", str(file), "--messages", str(messages), "--sessions", "20", "--size", "2k", "--no-progress"],
            stdout=subprocess.PIPE, check=False,
        )   # fmt: skip
        accepted = json.loads(load.stdout)["sent"]
        if accepted != messages:        # who of them was refused is not said
            raise drive.RunFailed(f"only {accepted} of {messages} messages were answered 250")
        events = scale.Events(relay.root / "events.jsonl").wait_for(messages)
        relay.stop()
        counters = receivers.end()["receivers"]
    finally:
        relay.stop()
        receivers.kill()
    arrived: collections.Counter[str] = collections.Counter()
    strict_at_s = []
    for line in record.read_text().splitlines():
        message = json.loads(line)
        arrived.update(path.strip("<>") for path in message["forward_paths"])
        if ".strict.example" in message["forward_paths"][0]:
            strict_at_s.append(message["time_utc"])
    strict_at_s = [at_s for at_s in sorted(strict_at_s) if at_s >= min(strict_at_s) + SETTLE_S]
    strict_per_s = (len(strict_at_s) - 1) / (strict_at_s[-1] - strict_at_s[0])
    taken_s = max(each.at_s for each in events) - min(each.at_s - each.age_s for each in events)
    return {
        "messages": messages,
        "messages_per_s": round(messages / taken_s, 1),
        "strict_per_s": round(strict_per_s, 1),
        "strict_of_allowed": round(strict_per_s / STRICT_PER_S, 4),
        "strict_refusals": counters["strict"]["refused_connections"] + counters["strict"]["deferred"],
        "refusals": sum(each["deferred"] for each in counters.values()),
        "disconnects": sum(each["disconnects"] for each in counters.values()),
        "lost": sum(arrived[path] == 0 for path in paths),
        "twice": sum(arrived[path] > 1 for path in paths),
        "unknown": sum(arrived.values()) - sum(arrived[path] for path in paths),
    }


def is_good(found: dict[str, Any]) -> bool:
    return found["strict_of_allowed"] >= RATE_BAR and not found["lost"] + found["twice"] + found["unknown"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    scale.end_cleanly()
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        facts = machine.describe(Path(directory))
        found = measure(Path(directory), chosen.messages)
    print(json.dumps(found, indent=1))
    if chosen.messages >= MESSAGES:
        RESULTS.write_text(json.dumps({"machine": facts, **found}, indent=1) + "\n")
    return 0 if is_good(found) else 1


if __name__ == "__main__":
    sys.exit(main())
