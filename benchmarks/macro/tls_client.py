"""A client of the TLS benchmark, a process of its own: threads that handshake or send mail until the time is up.

Usage: tls_client.py '{"ports": [...], "what": "echo" | "new", "tls": true, "seconds": 5, "threads": 8, "begin": 1.5}'.
"begin" is of the monotonic clock. "echo": a new connection, TLS at once, a line there and a line back. "new": a new
connection, STARTTLS, one message, QUIT.
Never resumes a session. Thread i takes ports[i % len(ports)]. Prints {"done": connections or messages, "seconds": ...,
"cpu_s": ...}.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import threading
import time
from typing import Any

LINE = b"Neither snow nor rain nor heat nor gloom of night.\r\n"
MESSAGE = (b"From: <a@x.example>\r\nSubject: x\r\n\r\n" + LINE * 80)[:4094]
ENVELOPE = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"


class Client:
    """One connection; every reply is waited for."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self.sock: socket.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""
        self.replies(1)
        self.ask(b"EHLO client.example\r\n")
        if context is not None:
            self.ask(b"STARTTLS\r\n")
            self.sock = context.wrap_socket(self.sock)
            self.ask(b"EHLO client.example\r\n")

    def replies(self, count: int) -> None:
        """Takes so many; SystemExit for one that is a refusal."""
        while count:
            line, found, rest = self.read.partition(b"\r\n")
            if not found:
                octets = self.sock.recv(65536)
                if not octets:
                    raise SystemExit("the server has closed")
                self.read += octets
                continue
            self.read = rest
            if line[:1] not in b"23":
                raise SystemExit(f"refused: {line!r}")
            count -= line[3:4] != b"-"

    def ask(self, octets: bytes, count: int = 1) -> None:
        self.sock.sendall(octets)
        self.replies(count)

    def send_message(self) -> None:
        self.ask(ENVELOPE, 3)
        self.ask(MESSAGE + b"\r\n.\r\n")


def echo(port: int, context: ssl.SSLContext) -> None:
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30)) as sock:
        sock.sendall(b"line\n")
        if not sock.recv(100):
            raise SystemExit("no line came back")


def work(order: dict[str, Any], port: int, end: float, done: list[int]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    count = 0
    time.sleep(max(0.0, order["begin"] - time.monotonic()))
    while time.monotonic() < end:
        if order["what"] == "echo":
            echo(port, context)
        else:
            client = Client(port, context if order["tls"] else None)
            client.send_message()
            client.ask(b"QUIT\r\n")
            client.sock.close()
        count += 1
    done.append(count)


def main() -> int:
    order = json.loads(sys.argv[1])
    done: list[int] = []
    began = order["begin"]
    ports, end = order["ports"], began + order["seconds"]
    threads = [
        threading.Thread(target=work, args=(order, ports[i % len(ports)], end, done)) for i in range(order["threads"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = os.times()
    if len(done) != len(threads):
        return 1
    print(json.dumps({"done": sum(done), "seconds": time.monotonic() - began, "cpu_s": times.user + times.system}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
