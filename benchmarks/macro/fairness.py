"""How long single messages wait while a campaign of a million waits for the same site.

    python benchmarks/macro/fairness.py                       a million messages of one tenant, half a minute
    python benchmarks/macro/fairness.py --messages 50000      quicker; nothing is written down

The campaign lies in the spool when the relay starts, and all of it is ready at once: one tenant, one campaign, one
domain. The receiver takes ten connections and 20 ms for each message; the relay keeps to that (`connections = 10`) and
to `message_rate = "200/s"`, so that the campaign would take more than an hour. Meanwhile 100 sessions go on injecting
more of it as fast as they get their 250, and single messages come, each over a connection of its own, of kinds in turn:

    other tenant        a password reset of another tenant, to the same domain
    other campaign      of the campaign's own tenant
    higher priority     of the campaign itself, with priority 4
    the campaign's own  the same without: what all would wait without shares. It does not arrive while this runs

`accepted` is from the connection to the 250, `delivered` to when the receiver has the message. The bar: no message but
the campaign's own takes more than a second. Writes results/fairness.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import backlog
import drive
import machine
import uvloop
from angarium_relay import CONFIGURATION, Angarium

from angarium.spool.envelope import Attribute, Chunk, Envelope, Flag, Recipient

BAR_MS = 1000.0
CONNECTIONS, DELAY_S, RATE = 10, 0.02, 200
PAUSE_S = 0.25
BODY = b"From: a@bulk.example\r\nSubject: spring\r\n\r\n" + b"x" * 1900 + b"\r\n"
SINGLE = b"From: a@shop.example\r\nSubject: your password\r\n\r\n" + b"x" * 900 + b"\r\n.\r\n"
KINDS = {  # kind -> reverse-path, by which the hook tells them apart
    "other tenant": b"reset@shop.example",
    "other campaign": b"reset@bulk.example",
    "higher priority": b"urgent@bulk.example",
    "the campaign's own": b"plain@bulk.example",
}
CONTROL = "the campaign's own"
RESULTS = Path(__file__).resolve().parent.parent / "results" / "fairness.json"

HOOK = """
from angarium.policy import Accept, Message

BY_SENDER = {
    "reset@shop.example": Accept(tenant="shop"),
    "reset@bulk.example": Accept(tenant="bulk", campaign="reset"),
    "urgent@bulk.example": Accept(tenant="bulk", campaign="spring", priority=4),
}
CAMPAIGN = Accept(tenant="bulk", campaign="spring")


def on_message(message: Message) -> Accept:
    return BY_SENDER.get(message.reverse_path, CAMPAIGN)
"""


class Relay(Angarium):
    """With the hook, and the limits of the receiver."""

    def configuration(self) -> str:
        text = CONFIGURATION.replace("connections = 50", f'connections = {CONNECTIONS}\nmessage_rate = "{RATE}/s"')
        return text + '\n[policy]\nfile = "{root}/policy.py"\n'

    def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "policy.py").write_text(HOOK)
        super().start()


async def write_shard(spool: Path, number: int, messages: int) -> None:
    """A campaign as it was taken: no attempt has been made."""
    fd, shard = await backlog.new_shard(spool, number)
    attributes = ((Attribute.TENANT, b"bulk"), (Attribute.CAMPAIGN, b"spring"))
    now = int(time.time() * 1000)
    for start in range(0, messages, backlog.AT_ONCE):
        made = []
        for i in range(start, min(start + backlog.AT_ONCE, messages)):
            path = b"u%d@receiver.example" % i
            envelope = Envelope(
                shard.new_id(), now, len(BODY), Flag.INLINE, b"news@bulk.example", b"", b"", b"", b"",
                (Recipient(path, domain_offset=path.index(b"@") + 1),), (Chunk(0, 0, len(BODY)),), attributes,
            )  # fmt: skip
            made.append(shard.store(envelope.build(), BODY))
        await asyncio.gather(*made)
    shard.close()
    os.close(fd)


class Receiver:
    """Takes so many connections and no more, and its time for each message."""

    def __init__(self) -> None:
        self.messages = 0
        self.open = self.most_open = self.refused = 0
        self.arrived: dict[bytes, float] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.open >= CONNECTIONS:
            self.refused += 1
            writer.write(b"421 4.7.0 too many connections\r\n")
            writer.close()
            return
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        recipient = b""
        writer.write(b"220 receiver.example\r\n")
        try:
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-receiver.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    await asyncio.sleep(DELAY_S)
                    self.messages += 1
                    if not recipient.startswith(b"u"):
                        self.arrived[recipient] = time.perf_counter()
                    writer.write(b"250 2.0.0 ok\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 2.0.0 bye\r\n")
                    break
                else:
                    if verb == b"RCPT":
                        recipient = line[line.index(b"<") + 1 : line.index(b"@")]
                    writer.write(b"250 2.0.0 ok\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


async def send(port: int, reverse_path: bytes, name: bytes) -> tuple[float, float]:
    """One message over a connection of its own: when it was begun, and when it was taken."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for command in (
        None,
        b"HELO client.example\r\n",
        b"MAIL FROM:<%s>\r\n" % reverse_path,
        b"RCPT TO:<%s@receiver.example>\r\n" % name,
        b"DATA\r\n",
        SINGLE,
    ):
        if command is not None:
            writer.write(command)
        reply = await reader.readline()
        if reply[:1] not in b"23" or not reply:
            raise drive.RunFailed(f"{command!r} answered {reply!r}")
    taken = time.perf_counter()
    writer.write(b"QUIT\r\n")
    await reader.readline()
    writer.close()
    return begun, taken


async def inject(port: int, receiver: Receiver, seconds: float) -> dict[bytes, tuple[str, float, float]]:
    """Single messages of all kinds in turn: name -> kind, begun, taken."""
    sent: dict[bytes, tuple[str, float, float]] = {}
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for kind, reverse_path in KINDS.items():
            name = b"single%d" % number
            number += 1
            sent[name] = (kind, *await send(port, reverse_path, name))
            await asyncio.sleep(PAUSE_S)
    last = time.monotonic() + 5.0
    wanted = [name for name, (kind, _, _) in sent.items() if kind != CONTROL]
    while time.monotonic() < last and not all(name in receiver.arrived for name in wanted):
        await asyncio.sleep(0.05)
    return sent


def is_loaded(relay: Relay) -> bool:
    figures = backlog.workers_of(backlog.status(relay))
    return len(figures) == relay.workers and not any(each.get("loading", 1) for each in figures)


def of_kind(kind: str, sent: dict[bytes, tuple[str, float, float]], arrived: dict[bytes, float]) -> dict[str, Any]:
    ours = {name: times for name, times in sent.items() if times[0] == kind}
    accepted = sorted((taken - begun) * 1000 for _, begun, taken in ours.values())
    delivered = sorted((arrived[name] - begun) * 1000 for name, (_, begun, _) in ours.items() if name in arrived)
    return {
        "sent": len(ours),
        "arrived": len(delivered),
        "accepted_ms": {"median": round(statistics.median(accepted), 1), "max": round(accepted[-1], 1)},
        "delivered_ms": {"median": round(statistics.median(delivered), 1), "max": round(delivered[-1], 1)}
        if delivered
        else None,
    }


async def measure(relay: Relay, seconds: float, sessions: int) -> dict[str, Any]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", relay.sink_port, limit=1 << 20)
    await asyncio.to_thread(relay.start)
    blast = None
    try:
        while not await asyncio.to_thread(is_loaded, relay):
            await asyncio.sleep(0.1)
        words = f"--server 127.0.0.1:{relay.port} --sessions {sessions} --size 2k --duration {seconds + 1} --json"
        blast = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "angarium.cli.main", "blast", *words.split(), "--no-progress",
            "--from", "more@bulk.example", "--to", "u{n}@receiver.example", stdout=subprocess.PIPE,
        )  # fmt: skip
        began, before = time.monotonic(), receiver.messages
        sent = await inject(relay.port, receiver, seconds)
        rate = (receiver.messages - before) / (time.monotonic() - began)
        injected = json.loads((await blast.communicate())[0])
    finally:
        if blast is not None and blast.returncode is None:
            blast.kill()
            await blast.wait()
        await asyncio.to_thread(relay.stop)
        server.close()
    return {
        "kinds": {kind: of_kind(kind, sent, receiver.arrived) for kind in KINDS},
        "receiver_messages_per_s": round(rate, 1),
        "receiver_connections": receiver.most_open,
        "receiver_refused": receiver.refused,
        "injected": injected,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--sessions", type=int, default=100, help="that inject meanwhile")
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        os.chmod(directory, 0o755)
        facts = machine.describe(Path(directory))
        relay = Relay(Path(directory), drive.free_port(), drive.free_port(), os.cpu_count() or 1)
        began = time.monotonic()
        backlog.write_backlog(relay, chosen.messages, relay.workers, write_shard)
        print(f"{chosen.messages} messages written in {time.monotonic() - began:.0f} s", file=sys.stderr)
        result = uvloop.run(measure(relay, chosen.seconds, chosen.sessions))
    is_met = True
    print(f"{'':20}  sent  arrived  accepted ms: median, max  delivered ms: median, max  (bar {BAR_MS:.0f})")
    for kind, row in result["kinds"].items():
        accepted, delivered = row["accepted_ms"], row["delivered_ms"] or {"median": "-", "max": "-"}
        print(
            f"{kind:20} {row['sent']:5} {row['arrived']:8}"
            f" {accepted['median']:>19} {accepted['max']:>6} {delivered['median']:>20} {delivered['max']:>6}"
        )
        if kind != CONTROL:
            is_met = is_met and row["arrived"] == row["sent"] and row["delivered_ms"]["max"] <= BAR_MS
    print(
        f"the receiver took {result['receiver_messages_per_s']:.0f} messages/s over at most"
        f" {result['receiver_connections']} connections and refused {result['receiver_refused']}"
    )
    if chosen.messages >= parser.get_default("messages"):
        RESULTS.write_text(
            json.dumps({"machine": facts, "messages": chosen.messages, "sessions": chosen.sessions, **result}, indent=1)
            + "\n"
        )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
