"""The event log: one JSON object per line, one line per event."""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import final

_Field = str | bytes | int | float | bool | list[str] | tuple[str, ...]

@final
class Journal:
    """Writes JSON lines to a file descriptor it borrows.

    fd    a file, terminal, pipe or socket; pipes are never waited for (lines are dropped past 4 MiB and counted).
    loop  flushes are scheduled there; None: every line is written at once (supervisor, tests).
    """

    outcomes: Callable[..., None] | None
    """Called with what an outcome's line says, positionally (policy/outcomes.py); None: nobody."""

    def __init__(self, fd: int, loop: AbstractEventLoop | None = None) -> None: ...
    def log(self, event: str, **fields: _Field) -> None:
        """One line. Floats are seconds with three decimals; octets that are not UTF-8 become U+FFFD.

        Never raises: a value whose text cannot be made is told by its type. A value may log while its text is made:
        what it logs is a line before this one.
        """
    def flush(self) -> None:
        """Writes what is buffered, as far as it goes without waiting."""
