"""Dialogues as people look at them (angarium trace): what is written down of one, and how much is kept for a reader.

Who is looked at is said elsewhere (tracing.py). Secrets of AUTH are never written down; message data only when it is
asked for, and the beginning of each message alone.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, Final

from angarium.model.errors import AngariumError

TRACES_MAX: Final = 8
# Of one trace on one worker, between two pulls.
KEPT_EVENTS: Final = 2000
KEPT_OCTETS: Final = 256 << 10
LINE_OCTETS: Final = 1024
# Of the data of each message, unless the reader says how much; and the most that he may say: more is not kept.
DATA_OCTETS: Final = 16 << 10
DATA_OCTETS_MOST: Final = KEPT_OCTETS
# A pull waits so long for something to tell; without one for so long, nobody reads any more.
PULL_WAIT_S: Final = 1.0
IDLE_S: Final = 15.0

# What may stand in a trace behind an AUTH command. Anything else might be a password in the wrong place.
_VERBS: Final = re.compile(
    rb"(?:HELO|EHLO|LHLO|MAIL|RCPT|DATA|BDAT|RSET|NOOP|VRFY|EXPN|HELP|QUIT|STARTTLS|ETRN|XCLIENT|XFORWARD)(?: |$)", re.I
)
_AUTH: Final = re.compile(rb"auth", re.I)
_MECHANISM: Final = re.compile(rb"AUTH +[A-Za-z0-9_-]{1,20}(?= |$)", re.I)
_MASK: Final = "(masked)"

Event = dict[str, Any]


class TooManyTraces(AngariumError):
    """As many as there may be at once."""


class Trace:
    """One reader's: what has happened since it asked last.

    data_octets  of the data of each message that are told; 0: none.
    """

    def __init__(self, data_octets: int = 0) -> None:
        self.data_octets = data_octets
        self.pulled_mono_s = time.monotonic()
        self._events: list[Event] = []
        self._octets = 0
        self._dropped = 0
        self._is_filled = asyncio.Event()

    def note(self, event: Event, octets: int) -> None:
        if len(self._events) >= KEPT_EVENTS or self._octets + octets > KEPT_OCTETS:
            self._dropped += 1
            return
        self._events.append(event)
        self._octets += octets
        self._is_filled.set()

    async def take(self) -> list[Event]:
        """Waits for something to tell, but not for long."""
        self.pulled_mono_s = time.monotonic()
        try:
            async with asyncio.timeout(PULL_WAIT_S):
                await self._is_filled.wait()
        except TimeoutError:
            return []
        self.pulled_mono_s = time.monotonic()
        events, self._events = self._events, []
        if self._dropped:
            events.append({"time": _now(), "event": "dropped", "count": self._dropped})
        self._octets = self._dropped = 0
        self._is_filled.clear()
        return events


class Dialogue:
    """One session that is looked at: smtp.witness.Observer.

    role  of the other side, "client" or "remote": the key under which events name it, as `host`.
    """

    def __init__(self, traces: tuple[Trace, ...], session: str, host: str, role: str = "client") -> None:
        self.role = role
        self.traces = traces
        self.session = session
        self.host = host
        self._has_auth = False
        self._reply = b""
        self._message_octets = 0
        self._shown_octets = 0          # of the message
        self._line = b""                # of it, so far

    @property
    def data_octets(self) -> int:
        """So much of each message is to be told to somebody."""
        return max((trace.data_octets for trace in self.traces), default=0)

    def note(self, event: str, text: str = "") -> None:
        noted = self._event(event, text)
        for trace in self.traces:
            trace.note(noted, len(text) + 100)

    def command(self, line: bytes) -> None:
        self._end_message()
        if line[:4].upper() == b"AUTH":
            self._has_auth = True
            mechanism = _MECHANISM.match(line)
            begin = mechanism[0] if mechanism else line[:4]
            self.note("command", _text(begin) + (f" {_MASK}" if len(line) > len(begin) else ""))
        elif self._has_auth and _VERBS.match(line) is None:
            self.note("command", _MASK)
        else:
            self.note("command", _text(line))

    def response(self, length: int) -> None:
        self.note("command", _MASK)

    def noise(self, octets: bytes, length: int) -> None:
        self._end_message()
        auth = _AUTH.search(octets)
        if self._has_auth or auth is not None:
            octets = octets[: auth.end() if auth is not None else 0]
        text = _text(octets)
        self.note("noise", f"{text} ... {length} octets" if len(octets) < length else text)

    def message(self, length: int) -> None:
        """So many octets of message data more."""
        self._message_octets += length

    def data(self, octets: bytes) -> None:
        """The next octets of message data, or their beginning, when nobody wants the rest of the message."""
        if self._shown_octets >= self.data_octets:
            return
        *lines, self._line = (self._line + octets).split(b"\n")
        for line in lines:
            self._note_data(line.removesuffix(b"\r"), len(line) + 1)
        if len(self._line) > LINE_OCTETS:
            self._end_line()

    def reply(self, octets: bytes) -> None:
        self._end_message()
        self._reply += octets
        if not self._reply.endswith(b"\r\n"):
            return
        for line in self._reply.removesuffix(b"\r\n").split(b"\r\n"):
            # What a mechanism asks is half of a secret: with the salt in it passwords can be tried elsewhere.
            self.note("reply", f"334 {_MASK}" if line.startswith(b"334 ") else _text(line))
        self._reply = b""

    def _end_message(self) -> None:
        self._end_line()
        self._shown_octets = 0
        if not self._message_octets:
            return
        for trace in self.traces:
            text = f"{self._message_octets} octets"
            if 0 < trace.data_octets < self._message_octets:
                text += f", of which the first {trace.data_octets} are shown"
            trace.note(self._event("message", text), len(text) + 100)
        self._message_octets = 0

    def _end_line(self) -> None:
        if self._line:
            self._note_data(self._line.removesuffix(b"\r"), len(self._line))
            self._line = b""

    def _note_data(self, line: bytes, length: int) -> None:
        """length  of the line with its end."""
        begin, self._shown_octets = self._shown_octets, self._shown_octets + length
        for trace in self.traces:
            if begin < trace.data_octets:
                shown = line[: trace.data_octets - begin]
                text = _text(shown if len(shown) == len(line) else shown.removesuffix(b"\r"))
                trace.note(self._event("data", text), len(text) + 100)

    def _event(self, event: str, text: str) -> Event:
        noted: Event = {"time": _now(), "session": self.session, self.role: self.host, "event": event}
        if text:
            noted["text"] = text
        return noted


def _now() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03d}Z"


def _text(octets: bytes) -> str:
    """As text that obeys no terminal: what is not printable is escaped."""
    text = octets[:LINE_OCTETS].decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return f"{text} ... {len(octets)} octets" if len(octets) > LINE_OCTETS else text
