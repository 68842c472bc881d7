"""What hooks print, as events of the log: print(), sys.stdout and sys.stderr, logging without a handler, warnings.

The log is one JSON object a line on stdout, which a line of somebody else's would tear. While a worker has hooks,
sys.stdout and sys.stderr are therefore streams that make an event `printed` of each line, with the hook and the line of
the operator's file that printed it. Bounded in length and in number: a hook that prints for each recipient must not
make a log larger than the relay's own.

Not the descriptors 1 and 2: a program that a hook starts prints where it is told to. Told "sys.stdout", it prints to
the relay's stderr (fileno()), so that at least the log stays whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, TextIO, cast

from angarium.events.journal import Journal
from angarium.metrics.counters import counter
from angarium.policy.hook_file import hook_of, line_of
from angarium.policy.options import HOOKS

printed_total = counter("angarium_policy_printed_lines_total", "Lines that hooks printed.")
dropped_total = counter(
    "angarium_policy_printed_dropped_total", "Lines that hooks printed and that were not logged: too many in a second."
)

# By judgement: a line of the log stays below PIPE_BUF whatever has to be escaped in it.
TEXT_OCTETS: Final = 500
# Likewise: everything of a hook that tells now and then, and never more than what a busy relay logs of its mail.
LINES_PER_S: Final = 100
STDERR: Final = 2


class _Line:
    """One that is being printed."""

    __slots__ = ("at", "hook", "is_cut", "octets")

    def __init__(self, frame: FrameType | None) -> None:
        self.octets = b""
        self.is_cut = False
        hook = hook_of(frame)
        self.hook = hook if hook in HOOKS else ""  # a task, a thread
        self.at = line_of(frame)

    def add(self, text: str) -> None:
        room = TEXT_OCTETS - len(self.octets)
        octets = text[: room + 1].encode("utf-8", "backslashreplace")
        self.is_cut = self.is_cut or len(octets) > room or len(text) > room + 1
        self.octets += octets[:room]

    def text(self) -> str:
        """What was cut ends in "...", and never within a character."""
        if not self.is_cut:
            return self.octets.decode("utf-8", "replace")
        return self.octets.decode("utf-8", "ignore") + "..."


class _Octets(io.RawIOBase):
    """`buffer` of a stream: octets are text, so that none of them gets by."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, octets: object) -> int:
        view = memoryview(octets)  # type: ignore[arg-type]
        self._stream.write(bytes(view).decode("utf-8", "replace"))
        return view.nbytes

    def flush(self) -> None:
        self._stream.flush()


class _Stream(io.TextIOBase):
    """sys.stdout or sys.stderr. Any thread may write; each has its own line."""

    def __init__(self, name: str, printed: Printed) -> None:
        self._printed = printed
        self._name = name
        self._own = threading.local()
        self._is_due = False
        self.buffer = _Octets(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return STDERR

    def reconfigure(self, **_: object) -> None:
        """Nothing: files say so of the streams they know, and of these all of it holds already."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        first, *others = text.split("\n")
        self._add(first)
        for piece in others:
            self._end()
            self._add(piece)
        if getattr(self._own, "line", None) is not None and not self._is_due and self._printed.is_own_thread():
            # `print(x, end="")` may be all that comes. What else is printed in this step still belongs to it.
            self._is_due = True
            self._printed.soon(self._wind_up)
        return len(text)

    def flush(self) -> None:
        """Nothing: whoever flushes after each piece (print(flush=True), handlers of logging) has not ended the line."""

    def close(self) -> None:
        """Never: it is everybody's."""

    def _add(self, text: str) -> None:
        if not text:
            return
        line: _Line | None = getattr(self._own, "line", None)
        if line is None:
            line = self._own.line = _Line(sys._getframe(2))
        line.add(text)

    def _end(self) -> None:
        line: _Line | None = getattr(self._own, "line", None)
        if line is not None:
            self._own.line = None
            self._printed.tell(self._name, line)

    def _wind_up(self) -> None:
        self._is_due = False
        self._end()


class Printed:
    """start() on the worker's loop and in its thread, before the first hook file is run; stop() last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._thread = 0
        self._since_mono_s = 0.0
        self._left = 0
        self._dropped = 0
        self._streams: tuple[TextIO, TextIO] | None = None
        self._former: tuple[TextIO, TextIO] | None = None

    def start(self) -> None:
        """Once more: nothing."""
        if self._streams is not None:
            return
        self._thread = threading.get_ident()
        self._former = sys.stdout, sys.stderr
        self._streams = cast(tuple[TextIO, TextIO], (_Stream("stdout", self), _Stream("stderr", self)))
        sys.stdout, sys.stderr = self._streams

    def stop(self) -> None:
        if self._streams is None or self._former is None:
            return
        for stream in self._streams:
            cast(_Stream, stream)._end()
        self._tell_dropped()
        if sys.stdout is self._streams[0]:
            sys.stdout = self._former[0]
        if sys.stderr is self._streams[1]:
            sys.stderr = self._former[1]
        self._streams = None

    def is_own_thread(self) -> bool:
        return threading.get_ident() == self._thread

    def soon(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon(call)

    def tell(self, stream: str, line: _Line) -> None:
        """Any thread's. Two at once may take one place: one line more or less in a second."""
        printed_total.add(1)
        now = time.monotonic()
        if now - self._since_mono_s >= 1:
            self._since_mono_s, self._left = now, LINES_PER_S
        if self._left > 0:
            self._left -= 1
            self._on_loop(self._log, stream, line)
            return
        dropped_total.add(1)
        self._dropped += 1
        if self._dropped == 1:
            self._on_loop(self._loop.call_later, 1.0, self._tell_dropped)

    def _on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        """The journal is the loop's."""
        with contextlib.suppress(RuntimeError):
            if self.is_own_thread():
                call(*arguments)
            else:
                self._loop.call_soon_threadsafe(call, *arguments)

    def _log(self, stream: str, line: _Line) -> None:
        where = {key: text for key, text in (("hook", line.hook), ("at", line.at)) if text}
        self._journal.log("printed", **where, stream=stream, text=line.text())

    def _tell_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._journal.log("printed-dropped", lines=dropped)
