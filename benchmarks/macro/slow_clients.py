"""Holds SMTP connections that are of no use: half of them say nothing after EHLO, half one octet of a command a minute.
Its own process.

Usage: slow_clients.py PORT COUNT. Prints "ready N" when N connections stand; on a line of standard input prints "alive
N", the connections that are still open, and ends at its end.
"""

from __future__ import annotations

import select
import socket
import sys
import time

from idle_connections import SPARE_DESCRIPTORS, alive, connect
from process_tree import raise_descriptor_limit

MINUTE_S = 60.0


def main() -> int:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    if raise_descriptor_limit(count + SPARE_DESCRIPTORS) < count + SPARE_DESCRIPTORS:
        print(f"cannot open {count} files in one process (ulimit -n)", file=sys.stderr)
        return 1
    held: list[socket.socket] = []
    try:
        for number in range(count):
            held.append(connect(port, number))
    except OSError as trouble:
        print(f"connection {len(held)}: {trouble}", file=sys.stderr)
        return 1
    print(f"ready {len(held)}", flush=True)
    crawl(held[::2])
    if sys.stdin.readline():
        print(f"alive {alive(held)}", flush=True)
    return 0


def crawl(slow: list[socket.socket]) -> None:
    """An octet from each a minute, evenly, until there is something on standard input."""
    began, said = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        due = int((time.monotonic() - began) / MINUTE_S * len(slow))
        while said < due:
            slow[said % len(slow)].send(b"N")
            said += 1


if __name__ == "__main__":
    sys.exit(main())
