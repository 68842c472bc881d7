"""An SMTP and LMTP server that swallows mail, counts it, and misbehaves as told. An instrument: it stores
nothing.

Deliberately not made of the package's own sessions: it is the peer they are measured and tested against. It
is lenient where a real server is strict, but only CRLF "." CRLF ends data.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import Counter, deque
from typing import cast

import msgspec

from angarium.measure.recording import FLUSH_S, Maildir, Received, Record, field_body
from angarium.measure.rules import Rules

LINE_OCTETS_MAXIMUM = 12_288
EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN")
_END = b"\r\n.\r\n"
OK = b"250 2.0.0 OK\r\n"
_NAMES = {
    b"MAIL": "mail",
    b"RCPT": "rcpt",
    b"DATA": "data",
    b"BDAT": "bdat",
    b"EHLO": "ehlo",
    b"HELO": "helo",
    b"LHLO": "lhlo",
    b"RSET": "rset",
    b"NOOP": "noop",
    b"VRFY": "vrfy",
    b"QUIT": "quit",
}


class _Mode(enum.Enum):
    """What the next octets are."""

    COMMANDS = 0
    DATA = 1
    CHUNK = 2


class Statistics(msgspec.Struct):
    """Counters of a sink. octets: of message data as it came, dot-stuffing included, terminator not."""

    connections: int = 0
    open: int = 0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    commands: Counter[str] = msgspec.field(default_factory=Counter)
    replies: Counter[str] = msgspec.field(default_factory=Counter)
    first_mono_s: float = 0.0
    last_mono_s: float = 0.0

    def report(self) -> dict[str, object]:
        """What is printed. messages_per_s is from the first connection to the last message; 0 for under
        two.
        """
        seconds = self.last_mono_s - self.first_mono_s
        return {
            "connections": self.connections,
            "open": self.open,
            "messages": self.messages,
            "recipients": self.recipients,
            "octets": self.octets,
            "seconds": round(max(seconds, 0.0), 3),
            "messages_per_s": round(self.messages / seconds, 1) if self.messages > 1 and seconds > 0 else 0.0,
            "commands": dict(self.commands),
            "replies": dict(self.replies),
        }


class Sink:
    """What all connections of one sink share: rules, counters, recording. Make connections with `connection`.

    stop_after   messages until `finished` is set; 0: never.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        is_lmtp: bool = False,
        hostname: str = "sink.example",
        extensions: tuple[str, ...] = EXTENSIONS,
        size_octets: int = 0,
        stop_after: int = 0,
        record: Record | None = None,
        maildir: Maildir | None = None,
    ) -> None:
        self.rules = rules
        self.ruled = rules.verbs()
        self.is_lmtp = is_lmtp
        self.statistics = Statistics()
        self.record = record
        self.maildir = maildir
        self.keeps_messages = record is not None or maildir is not None
        self.stop_after = stop_after
        self.finished = asyncio.Event()
        self.greeting = f"220 {hostname} {'LMTP' if is_lmtp else 'ESMTP'} Angarium sink\r\n".encode()
        offered = [*extensions, *([f"SIZE {size_octets}"] if size_octets else [])]
        names = [hostname, *offered]
        self.ehlo = b"".join(
            f"250{' ' if i == len(names) - 1 else '-'}{name}\r\n".encode() for i, name in enumerate(names)
        )
        self._flush_is_due = False

    def connection(self) -> Connection:
        return Connection(self)

    def count_message(self, connection: Connection, octets: int, message: bytes | None) -> None:
        """One message has come to its end and been answered with success for at least one recipient."""
        s = self.statistics
        s.messages += 1
        s.octets += octets
        s.last_mono_s = time.monotonic()
        if message is not None:
            self._keep(connection, message)
        if s.messages == self.stop_after:
            self.finished.set()

    def _keep(self, connection: Connection, message: bytes) -> None:
        if self.maildir is not None:
            self.maildir.add(message)
        if self.record is not None:
            header_section = message.partition(b"\r\n\r\n")[0]
            self.record.add(
                Received(
                    time.time(),
                    connection.peer,
                    connection.reverse_path.decode("latin-1"),
                    [path.decode("latin-1") for path in connection.forward_paths],
                    len(message),
                    field_body(header_section, b"message-id"),
                    field_body(header_section, b"subject"),
                )
            )
            if not self._flush_is_due:
                self._flush_is_due = True
                asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self.record is not None:
            self.record.flush()


class Connection(asyncio.Protocol):
    """One client. Commands are answered in one write per arrival of octets; a delay holds everything behind
    it back.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.peer = ""
        self.reverse_path = b""
        self.forward_paths: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._out: list[bytes] = []
        self._has_mail = False
        self._mode = _Mode.COMMANDS
        # Replies that wait for a delay, in order: (seconds, reply or b"", whether to close then).
        self._due: deque[tuple[float, bytes, bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        # Of the message under way: octets so far, what is kept of it, and the last octets, which may begin
        # the end.
        self._octets = 0
        self._kept: list[bytes] = []
        self._carry = b""
        self._chunk_left = 0
        self._chunk_is_last = False
        self._chunk_is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        s = self.sink.statistics
        s.connections += 1
        s.open += 1
        s.first_mono_s = s.first_mono_s or time.monotonic()
        self._answer("connect", self.sink.greeting)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.sink.statistics.open -= 1
        self._transport = None
        self._drop_due()

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._unread = self._unread + data if self._unread else data
        if not self._due:
            self._advance()

    def _advance(self) -> None:
        """Works through what has arrived, mode by mode, as far as it goes."""
        has_more = True
        while has_more and self._unread and not self._due and self._transport is not None:
            if self._mode is _Mode.COMMANDS:
                has_more = self._commands()
            elif self._mode is _Mode.DATA:
                has_more = self._data()
            else:
                has_more = self._chunk()
        self._send()

    def _send(self) -> None:
        if self._out and self._transport is not None:
            out, self._out = self._out, []
            self._transport.write(b"".join(out))

    # --- modes: each takes from _unread and returns whether there may be more to do

    def _commands(self) -> bool:
        data = self._unread
        position = 0
        while not self._due and self._mode is _Mode.COMMANDS:
            end = data.find(b"\n", position)
            if end < 0:
                break
            line = data[position : end - 1] if data[end - 1 : end] == b"\r" else data[position:end]
            position = end + 1
            self._command(line)
            if self._transport is None:
                return False
        self._unread = data[position:]
        if self._mode is not _Mode.COMMANDS:
            return True
        if len(self._unread) > LINE_OCTETS_MAXIMUM and b"\n" not in self._unread:
            self._reply(b"500 5.5.2 Line too long\r\n")
            self._close()
        return False

    def _data(self) -> bool:
        data = self._carry + self._unread
        end = data.find(_END)
        if end < 0:
            # The terminator may straddle: its first four octets stay for the next look.
            keep = max(len(data) - 4, 0)
            self._take(data[:keep])
            self._carry, self._unread = data[keep:], b""
            return False
        self._take(data[: end + 2])
        self._unread = data[end + len(_END) :]
        self._mode = _Mode.COMMANDS
        message = None
        if self.sink.keeps_messages:
            # The carry began with the CRLF of the DATA line, which is not part of the message.
            message = b"".join(self._kept).replace(b"\r\n.", b"\r\n")[2:]
        self._end_of_data(self._octets, message)
        return True

    def _chunk(self) -> bool:
        taken = self._unread[: self._chunk_left]
        self._unread = self._unread[len(taken) :]
        self._chunk_left -= len(taken)
        self._take(taken)
        if self._chunk_left:
            return False
        self._mode = _Mode.COMMANDS
        if self._chunk_is_refused:
            self._octets, self._kept = 0, []
            self._answer("bdat", b"503 5.5.1 BDAT needs MAIL and RCPT\r\n")
        elif self._chunk_is_last:
            self._end_of_data(self._octets, b"".join(self._kept) if self.sink.keeps_messages else None)
        else:
            self._answer("bdat", OK)
        return True

    def _take(self, octets: bytes) -> None:
        self._octets += len(octets)
        if self.sink.keeps_messages:
            self._kept.append(octets)

    # --- replies

    def _reply(self, reply: bytes) -> None:
        self.sink.statistics.replies[reply[:3].decode("ascii")] += 1
        self._out.append(reply)

    def _close(self) -> None:
        """Sends what is due and closes; nothing more is read."""
        self._send()
        self._drop_due()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _drop_due(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answer(self, verb: str, usual: bytes) -> bytes:
        """Replies to one command as the rules say; returns the reply, or b"" for a disconnect.

        With a delay the reply is returned at once and sent later, and nothing behind it is looked at before.
        """
        delay_s, reply = 0.0, usual
        if verb in self.sink.ruled:
            conduct = self.sink.rules.conduct(verb)
            delay_s = conduct.delay_s
            reply = b"" if conduct.is_disconnect else conduct.reply or usual
        closes = (
            reply.startswith((b"421", b"221")) or not reply or (verb == "connect" and reply[:3] != b"220")
        )
        if delay_s or self._due:
            self._due.append((delay_s, reply, closes))
            if len(self._due) == 1:
                self._await_due()
        else:
            self._say(reply, closes)
        return reply

    def _say(self, reply: bytes, closes: bool) -> None:
        if reply:
            self._reply(reply)
        if closes:
            self._close()

    def _await_due(self) -> None:
        self._send()
        self._timer = asyncio.get_running_loop().call_later(self._due[0][0], self._release)

    def _release(self) -> None:
        _, reply, closes = self._due.popleft()
        self._say(reply, closes)
        if self._due:
            self._await_due()
        else:
            self._advance()

    # --- commands

    def _command(self, line: bytes) -> None:
        name = _NAMES.get(line[:4].upper())
        if name is None:
            self.sink.statistics.commands["unknown"] += 1
            self._reply(b"500 5.5.1 Command unknown\r\n")
            return
        self.sink.statistics.commands[name] += 1
        if name == "mail":
            self._forget()
            if self._answer(name, b"250 2.1.0 OK\r\n").startswith(b"2"):
                self._has_mail = True
                self.reverse_path = _path(line)
        elif name == "rcpt":
            usual = b"250 2.1.5 OK\r\n" if self._has_mail else b"503 5.5.1 RCPT needs MAIL\r\n"
            if self._answer(name, usual).startswith(b"2") and self._has_mail:
                self.forward_paths.append(_path(line))
        elif name == "data":
            usual = b"354 End with a dot\r\n" if self.forward_paths else b"503 5.5.1 DATA needs RCPT\r\n"
            if self._answer(name, usual).startswith(b"3"):
                self._octets, self._kept, self._carry = -2, [], b"\r\n"
                self._mode = _Mode.DATA
        elif name == "bdat":
            self._bdat(line)
        elif name in {"ehlo", "lhlo"}:
            self._forget()
            is_wrong = (name == "lhlo") != self.sink.is_lmtp
            self._answer(name, b"500 5.5.1 The other greeting\r\n" if is_wrong else self.sink.ehlo)
        elif name == "quit":
            self._answer(name, b"221 2.0.0 Bye\r\n")
        elif name == "vrfy":
            self._answer(name, b"252 2.1.5 Perhaps\r\n")
        else:  # HELO, RSET, NOOP
            if name != "noop":
                self._forget()
            self._answer(name, OK)

    def _bdat(self, line: bytes) -> None:
        words = line.split()
        if (
            len(words) not in {2, 3}
            or not words[1].isdigit()
            or (len(words) == 3 and words[2].upper() != b"LAST")
        ):
            self._reply(b"501 5.5.4 BDAT length [LAST]\r\n")
            self._close()  # where the chunk ends is unknown: nothing that follows can be read
            return
        self._chunk_left = int(words[1])
        self._chunk_is_last = len(words) == 3
        self._chunk_is_refused = not self.forward_paths
        self._mode = _Mode.CHUNK
        if not self._chunk_left:
            self._chunk()

    def _end_of_data(self, octets: int, message: bytes | None) -> None:
        """Answers the message: once, or in LMTP once per recipient (RFC 2033 §4.2)."""
        accepted = 0
        for _ in range(len(self.forward_paths) if self.sink.is_lmtp else 1):
            if self._transport is None:
                break
            accepted += self._answer(".", b"250 2.0.0 Swallowed\r\n").startswith(b"2")
        if accepted:
            self.sink.statistics.recipients += accepted if self.sink.is_lmtp else len(self.forward_paths)
            self.sink.count_message(self, octets, message)
        self._forget()

    def _forget(self) -> None:
        self._has_mail = False
        self.reverse_path = b""
        self.forward_paths = []
        self._octets = 0
        self._kept = []


def _path(line: bytes) -> bytes:
    """What stands between the angle brackets of MAIL or RCPT, however odd."""
    start = line.find(b"<")
    end = line.rfind(b">")
    return line[start + 1 : end] if 0 <= start < end else line.partition(b":")[2].strip()
