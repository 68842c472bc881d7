"""What a client that trusts every reply comes to believe of a session: a slow, obvious reader of octets and replies.

It knows the order of RFC 5321, 2033, 2920, 3030, 3207 and 4954, and nothing of how the server is made. Each command
gets one reply, each chunk one, message data one behind its end (LMTP: one for each recipient that was accepted); a
session may end behind any of them, and says nothing after that. AssertionError when a reply is missing, is one too
many, or when something was taken that this client has not sent. `accepted` has the commands that were not refused, each
with its code. Where CHUNKING is not offered a chunk is refused, as a whole, and the transaction with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LINE = re.compile(rb"[^\r\n]*(\r\n|\r\Z|\Z)?")
_CHUNK = re.compile(rb"(?i:BDAT) +(\d+)( +(?i:LAST))? *")
_REPLY = re.compile(rb"(?:(\d{3})-[^\r\n]*\r\n)*(\d{3}) [^\r\n]*\r\n")


class Ended(Exception):
    """No reply is left, as it may be when the session is over."""


@dataclass
class Taken:
    """A message that was answered 250: the RCPT commands that were accepted for it, and its octets."""

    recipients: list[bytes]
    message: bytes


@dataclass
class TrustingClient:
    octets: bytes
    output: bytes
    is_closed: bool
    is_lmtp: bool
    is_chunking: bool = True
    taken: list[Taken] = field(default_factory=list)
    accepted: list[tuple[bytes, int]] = field(default_factory=list)
    _at: int = 0
    _recipients: list[bytes] | None = None  # of the open transaction
    _chunks: bytes = b""

    def read(self) -> list[Taken]:
        self._replies = [int(match[2]) for match in _REPLY.finditer(self.output)]
        self._replies.reverse()
        try:
            self._reply()  # the greeting
            while self._at < len(self.octets):
                self._command()
        except Ended:
            assert self.is_closed, (self._at, self.octets[self._at - 40 : self._at + 40])
            return self.taken
        assert not self._replies, "a reply to nothing"
        return self.taken

    def _reply(self) -> int:
        if not self._replies:
            raise Ended
        return self._replies.pop()

    def _unfinished(self) -> None:
        """The server waits for the rest; but it may have ended the session over what there is."""
        self._at = len(self.octets)
        if self._replies:
            assert self.is_closed, "a reply in the middle of a command"
            self._reply()

    def _line(self) -> bytes | None:
        match = _LINE.match(self.octets, self._at)
        assert match is not None
        if match[1] == b"\r\n":
            self._at = match.end()
            return match[0][:-2]
        if match[1] is None:  # a bare CR or LF
            assert self.is_closed
            self._at = len(self.octets)
            self._reply()
            raise Ended
        self._unfinished()
        return None

    def _command(self) -> None:
        line = self._line()
        if line is None:
            return
        verb = line[:4].upper()
        if verb == b"BDAT" and (chunk := _CHUNK.fullmatch(line)) is not None:
            self._chunk(int(chunk[1]), chunk[2] is not None)
            return
        code = self._reply()
        if code < 400:
            self.accepted.append((line, code))
        if code == 354:
            assert verb == b"DATA"
            self._data()
        elif verb == b"AUTH":
            while code == 334:
                if self._line() is None:
                    return
                code = self._reply()
        elif code == 334:
            raise AssertionError("334 to no AUTH")
        elif code >= 400:
            pass
        elif verb == b"MAIL":
            self._recipients = []
            self._chunks = b""
        elif verb == b"RCPT":
            assert self._recipients is not None
            self._recipients.append(line)
        elif verb in (b"EHLO", b"HELO", b"LHLO", b"RSET", b"XCLI", b"STAR"):
            self._recipients = None

    def _data(self) -> None:
        assert self._recipients, "354 without a recipient"
        rest = b"\r\n" + self.octets[self._at :]
        end = rest.find(b"\r\n.\r\n")
        if end < 0:
            self._unfinished()
            return
        self._at += end + 3
        self._message(rest[2 : end + 2].replace(b"\r\n.", b"\r\n").removeprefix(b"."))

    def _chunk(self, length: int, is_last: bool) -> None:
        if self._at + length > len(self.octets):
            self._unfinished()
            return
        chunk = self.octets[self._at : self._at + length]
        self._at += length
        if not self._recipients or not self.is_chunking:
            assert self._reply() >= 400, "a chunk without a recipient, or without CHUNKING"
            if not self.is_chunking:
                self._recipients = None
        elif is_last:
            self._message(self._chunks + chunk)
        elif self._reply() >= 400:
            self._recipients = None
        else:
            self._chunks += chunk

    def _message(self, message: bytes) -> None:
        recipients, self._recipients = self._recipients, None
        assert recipients is not None
        codes = [self._reply() for _ in range(len(recipients) if self.is_lmtp else 1)]
        assert len({code // 100 for code in codes}) == 1, codes
        if codes[0] == 250:
            self.taken.append(Taken(recipients, message))
