"""One client's dialogue with a sink: octets in, octets and what to do with the connection out. No socket and no timer.

Lenient where a real server is strict, but only CRLF "." CRLF ends data.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from angarium.measure.receivers import Receiver
    from angarium.measure.sink import Sink
    from angarium.measure.sources import Source

LINE_OCTETS_MAXIMUM = 12_288
FULL_OCTETS = 1 << 20
OK = b"250 2.0.0 OK\r\n"
_END = b"\r\n.\r\n"
_REPLIES_TO_LOGIN = {b"LOGIN": (b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"), b"PLAIN": (b"334 \r\n",)}
_NAMES = {
    b"MAIL": "mail",
    b"RCPT": "rcpt",
    b"DATA": "data",
    b"BDAT": "bdat",
    b"EHLO": "ehlo",
    b"HELO": "helo",
    b"LHLO": "lhlo",
    b"STAR": "starttls",
    b"AUTH": "auth",
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
    AUTH = 3


class Session:
    """Commands are answered as they come; a delay holds everything behind it back.

    After each call: send `take_out()`; then, if `is_over`, close; if `wants_tls`, begin TLS and call `tls_begun`; if
    `wait_s` is not None, call `resume` after so long.

    peer      as it is recorded.
    client    the address that limits count with.
    address   that it has connected to.
    """

    __slots__ = (
        "_carry", "_chunk_is_last", "_chunk_is_refused", "_chunk_left", "_due", "_has_mail",
        "_is_in_tls", "_kept", "_messages", "_mode", "_octets", "_others", "_out", "_prompts", "_receiver",
        "_receiver_of_message", "_sink", "_source", "_source_of_message", "_unread", "client", "forward_paths",
        "is_over", "peer", "reverse_path", "wait_s", "wants_tls",
    )

    def __init__(
        self,
        sink: Sink,
        found: tuple[Receiver, tuple[Receiver, ...]],
        *,
        client: str,
        address: str,
        peer: str,
        is_in_tls: bool = False,
    ) -> None:
        self._sink = sink
        self._receiver, self._others = found
        self._receiver_of_message = self._receiver
        self.client = client
        self.peer = peer
        self._source: Source = self._receiver.source(client, address)
        self._source_of_message = self._source
        self.is_over = False
        self.wants_tls = False
        self.wait_s: float | None = None
        self.reverse_path = b""
        self.forward_paths: list[bytes] = []
        self._is_in_tls = is_in_tls
        self._unread = b""
        self._out: list[bytes] = []
        self._has_mail = False
        self._messages = 0
        self._mode = _Mode.COMMANDS
        # Replies that wait for a delay, in order: (seconds, reply or b"", whether to close then).
        self._due: deque[tuple[float, bytes, bool]] | None = None
        self._prompts: list[bytes] = []
        # Of the message under way: octets so far, what is kept of it, and the last octets, which may begin the end.
        self._octets = 0
        self._kept: list[bytes] = []
        self._carry = b""
        self._chunk_left = 0
        self._chunk_is_last = False
        self._chunk_is_refused = False

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What TLS is begun with."""
        return self._receiver.tls

    def begin(self) -> None:
        """Greets."""
        refusal = self._receiver.opened(self._source)
        reply = self._answer("connect", self._receiver.greeting, refusal)
        if reply[:1] in b"45":
            self._source.live().refused_connections += 1

    def end(self) -> None:
        """The connection is gone."""
        self._receiver.closed(self._source)

    def take_out(self) -> bytes:
        """What is to be sent now."""
        out, self._out = self._out, []
        return out[0] if len(out) == 1 else b"".join(out)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read until resume()."""
        return len(self._unread) >= FULL_OCTETS

    def receive(self, octets: bytes) -> None:
        """What came from the client."""
        self._unread = self._unread + octets if self._unread else octets
        if self.wait_s is None:
            self._advance()

    def resume(self) -> None:
        """The wait is over."""
        assert self._due
        _, reply, closes = self._due.popleft()
        self._say(reply, closes)
        if self.is_over:
            return
        if self._due:
            self.wait_s = self._due[0][0]
        else:
            self.wait_s = None
            self._advance()

    def tls_begun(self) -> None:
        """What follows came under TLS; nothing that came before counts (RFC 3207 §4.2)."""
        self.wants_tls = False
        self._is_in_tls = True
        self._unread = b""
        self._forget()

    def _advance(self) -> None:
        """Works through what has arrived, mode by mode, as far as it goes."""
        has_more = True
        while has_more and self._unread and self.wait_s is None and not self.is_over and not self.wants_tls:
            if self._mode is _Mode.COMMANDS or self._mode is _Mode.AUTH:
                has_more = self._lines()
            elif self._mode is _Mode.DATA:
                has_more = self._data()
            else:
                has_more = self._chunk()

    # --- modes: each takes from _unread and returns whether there may be more to do

    def _lines(self) -> bool:
        data = self._unread
        position = 0
        while self.wait_s is None and not self.wants_tls and (self._mode is _Mode.COMMANDS or self._mode is _Mode.AUTH):
            end = data.find(b"\n", position)
            if end < 0:
                break
            line = data[position : end - 1] if data[end - 1 : end] == b"\r" else data[position:end]
            position = end + 1
            if self._mode is _Mode.AUTH:
                self._credentials(line)
            else:
                self._command(line)
            if self.is_over:
                return False
        self._unread = data[position:]
        if self._mode is _Mode.DATA or self._mode is _Mode.CHUNK:
            return True
        if len(self._unread) > LINE_OCTETS_MAXIMUM and b"\n" not in self._unread:
            self._say(b"500 5.5.2 Line too long\r\n", closes=True)
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
        if self._sink.keeps_messages:
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
            self._end_of_data(self._octets, b"".join(self._kept) if self._sink.keeps_messages else None)
        else:
            self._answer("bdat", OK)
        return True

    def _take(self, octets: bytes) -> None:
        self._octets += len(octets)
        if self._sink.keeps_messages:
            self._kept.append(octets)

    # --- replies

    def _say(self, reply: bytes, closes: bool) -> None:
        if reply:
            self._sink.statistics.replies[reply[:3]] += 1
            self._out.append(reply)
        if closes:
            self.is_over = True
            self.wait_s = None
            self._due = None

    def _answer(self, verb: str, usual: bytes, refusal: bytes | None = None) -> bytes:
        """Replies to one command as the rules say, or with `refusal`, or as usual; returns the reply, or b"" for a
        disconnect.

        With a delay the reply is returned at once and sent later, and nothing behind it is looked at before.
        """
        receiver = self._receiver_of_message
        delay_s, reply = 0.0, refusal or usual
        if verb in receiver.ruled:
            conduct = receiver.rules.conduct(verb)
            delay_s = conduct.delay_s
            reply = b"" if conduct.is_disconnect else conduct.reply or reply
        first = reply[:1]
        closes = not first or reply[:3] in (b"421", b"221") or (verb == "connect" and first != b"2")
        if first not in (b"2", b"3"):
            self._count_trouble(verb, first)
        if delay_s or self.wait_s is not None:
            if self._due is None:
                self._due = deque()
            self._due.append((delay_s, reply, closes))
            if self.wait_s is None:
                self.wait_s = delay_s
        else:
            self._say(reply, closes)
        return reply

    def _count_trouble(self, verb: str, first: bytes) -> None:
        live = self._source_of_message.live()
        if not first:
            live.disconnects += 1
        elif verb == "connect":
            pass        # counted as a refused connection
        elif first == b"4":
            live.deferred += 1
        else:
            live.rejected += 1

    # --- commands

    def _command(self, line: bytes) -> None:
        name = _NAMES.get(line[:4].upper())
        if name is None:
            self._sink.statistics.commands["unknown"] += 1
            self._say(b"500 5.5.1 Command unknown\r\n", closes=False)
            return
        self._sink.statistics.commands[name] += 1
        if name == "mail":
            self._mail(line)
        elif name == "rcpt":
            self._rcpt(line)
        elif name == "data":
            usual = b"354 End with a dot\r\n" if self.forward_paths else b"503 5.5.1 DATA needs RCPT\r\n"
            if self._answer(name, usual).startswith(b"3"):
                self._octets, self._kept, self._carry = -2, [], b"\r\n"
                self._mode = _Mode.DATA
        elif name == "bdat":
            self._bdat(line)
        elif name in {"ehlo", "lhlo"}:
            self._forget()
            is_wrong = (name == "lhlo") != self._sink.is_lmtp
            usual = self._receiver.ehlo if self._is_in_tls else self._receiver.ehlo_in_clear
            self._answer(name, b"500 5.5.1 The other greeting\r\n" if is_wrong else usual)
        elif name == "quit":
            self._answer(name, b"221 2.0.0 Bye\r\n")
        elif name == "starttls":
            self._starttls()
        elif name == "auth":
            self._auth(line)
        elif name == "vrfy":
            self._answer(name, b"252 2.1.5 Perhaps\r\n")
        else:  # HELO, RSET, NOOP
            if name != "noop":
                self._forget()
            self._answer(name, OK)

    def _mail(self, line: bytes) -> None:
        self._forget()
        refusal = None
        if self._receiver.limits_mail:
            refusal = self._receiver.refuses_mail(self._source, self._messages)
        if self._answer("mail", b"250 2.1.0 OK\r\n", refusal).startswith(b"2"):
            self._messages += 1
            self._has_mail = True
            self.reverse_path = _path(line)

    def _rcpt(self, line: bytes) -> None:
        if not self._has_mail:
            self._answer("rcpt", b"503 5.5.1 RCPT needs MAIL\r\n")
            return
        path = _path(line)
        refusal = self._choose(path) if self._others and not self.forward_paths else None
        receiver = self._receiver_of_message
        if refusal is None and receiver.limits_rcpt:
            source = self._source_of_message
            refusal = receiver.refuses_rcpt(source, len(self.forward_paths), self.reverse_path, path)
        if self._answer("rcpt", b"250 2.1.5 OK\r\n", refusal).startswith(b"2"):
            self.forward_paths.append(path)

    def _choose(self, path: bytes) -> bytes | None:
        """The first recipient that is taken says whose the message is. What that one's limits refuse it with, if
        they do.
        """
        domain = path.rpartition(b"@")[2].decode("latin-1").lower()
        receiver = next((each for each in self._others if each.takes(domain)), self._receiver)
        self._receiver_of_message, self._source_of_message = receiver, receiver.source(self.client, "")
        if receiver is not self._receiver and receiver.limits_mail:
            return receiver.refuses_mail(self._source_of_message, 0)
        return None

    def _bdat(self, line: bytes) -> None:
        words = line.split()
        if (
            len(words) not in {2, 3}
            or not words[1].isdigit()
            or (len(words) == 3 and words[2].upper() != b"LAST")
        ):
            # Where the chunk ends is unknown: nothing that follows can be read.
            self._say(b"501 5.5.4 BDAT length [LAST]\r\n", closes=True)
            return
        self._chunk_left = int(words[1])
        self._chunk_is_last = len(words) == 3
        self._chunk_is_refused = not self.forward_paths
        self._mode = _Mode.CHUNK
        if not self._chunk_left:
            self._chunk()

    def _starttls(self) -> None:
        if self._receiver.tls is None or self._is_in_tls:
            self._answer("starttls", b"503 5.5.1 No TLS here\r\n")
        elif self._answer("starttls", b"220 2.0.0 Begin\r\n").startswith(b"2"):
            self.wants_tls = True

    def _auth(self, line: bytes) -> None:
        """Any identity is believed: what becomes of AUTH is for the rules to say."""
        words = line.split()
        prompts = _REPLIES_TO_LOGIN.get(words[1].upper()) if len(words) > 1 else None
        if not self._receiver.options.auth or prompts is None:
            self._answer("auth", b"504 5.5.4 No such mechanism here\r\n")
            return
        self._prompts = list(prompts)[len(words) - 2 :]
        self._next_prompt()

    def _next_prompt(self) -> None:
        if self._prompts:
            self._say(self._prompts.pop(0), closes=False)
            self._mode = _Mode.AUTH
        else:
            self._mode = _Mode.COMMANDS
            self._answer("auth", b"235 2.7.0 As you say\r\n")

    def _credentials(self, line: bytes) -> None:
        if line == b"*":
            self._prompts = []
            self._mode = _Mode.COMMANDS
            self._answer("auth", b"501 5.7.0 Given up\r\n")
        else:
            self._next_prompt()

    def _end_of_data(self, octets: int, message: bytes | None) -> None:
        """Answers the message: once, or in LMTP once per recipient (RFC 2033 §4.2)."""
        accepted = 0
        for _ in range(len(self.forward_paths) if self._sink.is_lmtp else 1):
            if self.is_over:
                break
            accepted += self._answer(".", b"250 2.0.0 Swallowed\r\n").startswith(b"2")
        if accepted:
            recipients = accepted if self._sink.is_lmtp else len(self.forward_paths)
            live = self._source_of_message.live()
            live.messages += 1
            live.recipients += recipients
            live.octets += octets
            self._sink.count_message(self, recipients, octets, message)
        self._forget()

    def _forget(self) -> None:
        self._receiver_of_message, self._source_of_message = self._receiver, self._source
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
