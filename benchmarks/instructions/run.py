"""Instructions per message: what guards the speed of the hot path where a clock would not be a fair judge.

    python benchmarks/instructions/run.py             count, compare with expected.json; `make instructions`
    python benchmarks/instructions/run.py --update    count, and expect that from now on; the commit says why

One worker's relay (relay_process.py) runs under valgrind's callgrind. This process is its client and its next
hop, one message at a time in strict turns, so that every run takes the same path: session, spool, scheduler,
delivery, log line, outcome. Counting begins behind a few messages and ends with the last one: neither start
nor end of the interpreter is in it. User-space instructions are counted; system calls themselves and waiting
are not. What the clock brings in (timer ticks, threads that meet) is a percent or two: of several runs the
smallest figure counts. One message at a time is the most expensive way: under load, commits, reads and log
writes are shared. The figure belongs to a Python version, a compiler and, through the C library's choice of
memcpy, a kind of processor: where expected.json knows none it is only told.
Exit status: 0 within the margin, 1 above it, 2 when it could not be counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected.json"
WARM_UP = 50
MESSAGES = 500
ROUNDS = 3
MARGIN_PERCENT = 8.0  # where expected.json does not say
START_S = 240.0  # interpreter and imports are some fifty times slower under callgrind
REPLY_S = 60.0
BODY = b"Subject: counted\r\nMessage-ID: <counted@source.example>\r\n\r\n" + (b"x" * 70 + b"\r\n") * 56
ENVELOPE = (b"MAIL FROM:<from@source.example>\r\n", b"RCPT TO:<to@sink.example>\r\n", b"DATA\r\n")


class CannotCount(Exception):
    """The run did not come to its end."""


class Client:
    """The client's side: one session, one reply awaited at a time."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(REPLY_S)
        self.socket.connect(path)
        self.reply(b"220")
        self.say(b"EHLO source.example\r\n", b"250")

    def say(self, octets: bytes, expected: bytes) -> None:
        self.socket.sendall(octets)
        self.reply(expected)

    def reply(self, expected: bytes) -> None:
        said = b""
        while not (said.endswith(b"\r\n") and said[said.rfind(b"\n", 0, -1) + 1 :][3:4] == b" "):
            if not (octets := self.socket.recv(4096)):
                raise CannotCount("the relay closed the session")
            said += octets
        if not said.startswith(expected):
            raise CannotCount(f"the relay said {said!r}")

    def send_message(self) -> None:
        for command, expected in zip(ENVELOPE, (b"250", b"250", b"354"), strict=True):
            self.say(command, expected)
        self.say(BODY + b".\r\n", b"250")


class NextHop:
    """The server's side: takes one connection and message after message, offering PIPELINING."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(REPLY_S)
        self.port: int = self.listener.getsockname()[1]
        self.socket: socket.socket | None = None

    def take_message(self) -> None:
        """Answers until one message has been taken."""
        if self.socket is None:
            self.socket, _ = self.listener.accept()
            self.socket.settimeout(REPLY_S)
            self.socket.sendall(b"220 sink.example\r\n")
            self._until(b"\r\n")
            self.socket.sendall(b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        self._until(b"DATA\r\n")
        self.socket.sendall(b"250 2.1.0 OK\r\n250 2.1.5 OK\r\n354 Go on\r\n")
        self._until(b"\r\n.\r\n")
        self.socket.sendall(b"250 2.0.0 OK\r\n")

    def _until(self, end: bytes) -> None:
        assert self.socket is not None
        taken = b""
        while not taken.endswith(end):
            if not (octets := self.socket.recv(65536)):
                raise CannotCount("the relay closed its connection to the next hop")
            taken += octets


def count(messages: int, directory: Path) -> int:
    """Instructions that so many messages took."""
    next_hop = NextHop()
    totals = directory / "callgrind.out"
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    with (directory / "events.jsonl").open("wb") as events, (directory / "errors.txt").open("wb") as errors:
        relay = subprocess.Popen(
            [
                "valgrind",
                "--tool=callgrind",
                f"--callgrind-out-file={totals}",
                "--instr-atstart=no",
                sys.executable,
                str(HERE / "relay_process.py"),
                str(directory),
                str(next_hop.port),
            ],
            stdin=subprocess.DEVNULL,
            stdout=events,
            stderr=errors,
            env=environment,
        )
    try:
        deadline = time.monotonic() + START_S
        while not (directory / "intake").exists():
            if relay.poll() is not None or time.monotonic() > deadline:
                raise CannotCount(f"the relay did not start:\n{_errors(directory)}")
            time.sleep(0.1)
        client = Client(str(directory / "intake"))
        for number in range(WARM_UP + messages):
            if number == WARM_UP:
                _switch_counting("on", relay.pid)
            client.send_message()
            next_hop.take_message()
        _switch_counting("off", relay.pid)
        client.say(b"QUIT\r\n", b"221")
        relay.send_signal(signal.SIGTERM)
        if relay.wait(START_S) != 0:
            raise CannotCount(f"the relay ended badly:\n{_errors(directory)}")
    except (OSError, subprocess.TimeoutExpired) as trouble:
        raise CannotCount(f"{trouble}\n{_errors(directory)}") from trouble
    finally:
        relay.kill()
        relay.wait()
    found = re.search(r"^totals: (\d+)", totals.read_text(errors="replace"), re.MULTILINE)
    if not found:
        raise CannotCount("callgrind wrote no sum")
    return int(found[1])


def _switch_counting(state: str, pid: int) -> None:
    """Callgrind is told from outside, between two messages: the relay itself knows nothing of it."""
    done = subprocess.run(
        ["callgrind_control", "-i", state, str(pid)], check=False, capture_output=True, text=True, timeout=60
    )
    if done.returncode != 0 or "OK" not in done.stdout:
        raise CannotCount(f"callgrind_control -i {state}: {(done.stdout + done.stderr).strip()}")


def _errors(directory: Path) -> str:
    return (directory / "errors.txt").read_text(errors="replace")[-2000:]


def per_message(messages: int, kept: Path | None) -> float:
    """Instructions per message.

    kept   directory for callgrind's output, to be read with callgrind_annotate.
    """
    directory = Path(tempfile.mkdtemp(prefix="angarium-count-", dir="/var/tmp"))
    try:
        found = count(messages, directory) / messages
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(directory / "callgrind.out", kept / "callgrind.out")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


def build_key() -> str:
    """What the figure belongs to: `cpython-3.11 gcc-12 x86_64`."""
    compiler = subprocess.run(
        ["gcc", "-dumpversion"], check=False, capture_output=True, text=True
    ).stdout.strip()
    major = compiler.partition(".")[0] or "unknown"
    return f"cpython-{'.'.join(platform.python_version_tuple()[:2])} gcc-{major} {platform.machine()}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--update", action="store_true", help="make the counted figure the expected one")
    parser.add_argument(
        "--messages", type=int, default=MESSAGES, metavar="N", help="to count (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="runs (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep callgrind.out there")
    chosen = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: nothing was counted", file=sys.stderr)
        return 2
    try:
        found = min(per_message(chosen.messages, chosen.keep) for _ in range(max(1, chosen.rounds)))
    except CannotCount as trouble:
        print(f"could not count: {trouble}", file=sys.stderr)
        return 2
    key = build_key()
    known = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    expected: dict[str, float] = known.get("instructions_per_message", {})
    margin_percent: float = known.get("margin_percent", MARGIN_PERCENT)
    print(f"{found:,.0f} instructions per message ({key})")
    if chosen.update:
        expected[key] = round(found)
        kept = {"margin_percent": margin_percent, "instructions_per_message": expected}
        EXPECTED.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        print(f"kept in {EXPECTED}")
        return 0
    if key not in expected:
        print("expected.json has no figure for this build: nothing to hold it against")
        return 0
    change = (found / expected[key] - 1) * 100
    print(f"{change:+.1f} % against the {expected[key]:,.0f} expected; allowed +{margin_percent:g} %")
    if change < -margin_percent:
        print("well below: make it the new expectation with --update")
    return 1 if change > margin_percent else 0


if __name__ == "__main__":
    sys.exit(main())
