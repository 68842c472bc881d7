"""Holds idle SMTP connections: each has been greeted, has said EHLO and then says nothing. Its own process.

Usage: idle_connections.py PORT COUNT. Prints "ready N" when N connections stand; on each line of standard
input prints "alive N", the connections that are still open; ends at end of input. Source addresses
127.0.0.2 and up are taken in turn, so that no single one runs out of ports.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

from process_tree import raise_descriptor_limit

SOURCES = 16
SPARE_DESCRIPTORS = 100


def connect(port: int, number: int) -> socket.socket:
    """One connection after its EHLO reply. OSError or ConnectionError when the server would not."""
    s = socket.socket()
    s.settimeout(30)
    s.bind((f"127.0.0.{2 + number % SOURCES}", 0))
    s.connect(("127.0.0.1", port))
    if not s.recv(1000).startswith(b"220"):
        raise ConnectionError("no 220 greeting")
    s.sendall(b"EHLO idle.example\r\n")
    reply = b""
    while not (reply.endswith(b"\r\n") and reply[reply.rfind(b"\n", 0, -1) + 1 :].startswith(b"250 ")):
        octets = s.recv(4000)
        if not octets or reply[:3] not in (b"", b"250"):
            raise ConnectionError(f"EHLO got {reply + octets!r}")
        reply += octets
    return s


def alive(held: list[socket.socket]) -> int:
    """How many have neither been closed nor been sent anything."""
    poll = select.poll()
    for s in held:
        poll.register(s, select.POLLIN)
    return len(held) - len(poll.poll(0))


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
    with contextlib.suppress(KeyboardInterrupt):
        for _ in sys.stdin:
            print(f"alive {alive(held)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
