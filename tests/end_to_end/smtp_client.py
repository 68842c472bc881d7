"""A blocking SMTP client that says exactly the octets it is told; every wait has a limit."""

from __future__ import annotations

import re
import socket
from typing import Self

PATIENCE_S = 60.0  # for one wait, or for sending a message of megabytes into a slow disk


class SmtpClient:
    """One connection; a context manager. Replies are (code, text of all lines)."""

    def __init__(
        self, port: int, hello: bytes = b"EHLO client.example\r\n", address: str = "127.0.0.1", source: str = ""
    ) -> None:
        self.socket = socket.create_connection((address, port), PATIENCE_S, (source, 0) if source else None)
        self.replies = self.socket.makefile("rb")
        if hello:
            assert self.reply()[0] == 220
            code, self.extensions = self.ask(hello)
            assert code == 250

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.replies.close()
        self.socket.close()

    def say(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> tuple[int, str]:
        """(0, "") at the end of the connection."""
        lines = []
        while line := self.replies.readline():
            lines.append(line[4:].rstrip(b"\r\n").decode())
            if line[3:4] != b"-":
                return int(line[:3]), "\n".join(lines)
        return 0, ""

    def codes(self, count: int) -> list[int]:
        return [self.reply()[0] for _ in range(count)]

    def ask(self, octets: bytes) -> tuple[int, str]:
        self.say(octets)
        return self.reply()

    def send(
        self, message: bytes, *to: str, reverse_path: str = "me@x.example", mail: str = "", rcpt: str = ""
    ) -> str:
        """One message by DATA; the queue id it got. mail, rcpt: parameters, with a space in front."""
        self.open(*to, reverse_path=reverse_path, mail=mail, rcpt=rcpt)
        assert self.ask(b"DATA\r\n")[0] == 354
        return self.queue_id(*self.ask(dot_stuffed(message) + b".\r\n"))

    def send_chunks(
        self, message: bytes, sizes: list[int], *to: str, mail: str = "", rcpt: str = ""
    ) -> str:
        """One message by BDAT: chunks of these sizes over and over, then BDAT 0 LAST."""
        self.open(*to, mail=mail, rcpt=rcpt)
        position, turn = 0, 0
        while position < len(message):
            chunk = message[position : position + sizes[turn % len(sizes)]]
            position, turn = position + len(chunk), turn + 1
            code, text = self.ask(b"BDAT %d\r\n" % len(chunk) + chunk)
            assert code == 250, text
        return self.queue_id(*self.ask(b"BDAT 0 LAST\r\n"))

    def open(
        self, *to: str, reverse_path: str = "me@x.example", mail: str = "", rcpt: str = ""
    ) -> None:
        """MAIL and RCPT, all accepted."""
        code, text = self.ask(f"MAIL FROM:<{reverse_path}>{mail}\r\n".encode())
        assert code == 250, text
        for mailbox in to or ("you@y.example",):
            code, text = self.ask(f"RCPT TO:<{mailbox}>{rcpt}\r\n".encode())
            assert code == 250, text

    @staticmethod
    def queue_id(code: int, text: str) -> str:
        assert code == 250, f"{code} {text}"
        found = re.search(r"[0-9A-Z]{13}", text)
        assert found is not None, text
        return found[0]


def dot_stuffed(message: bytes) -> bytes:
    """RFC 5321 §4.5.2; the message ends with CRLF or is empty."""
    return re.sub(rb"(?m)^\.", b"..", message)
