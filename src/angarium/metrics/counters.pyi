"""Counters in memory shared by all processes of the daemon, one row per process."""

from typing import Literal, final

@final
class Counter:
    """One number; hot Cython code adds to `cell` directly, everyone else uses these."""

    index: int
    name: str
    help: str
    kind: Literal["counter", "gauge"]
    labels: dict[str, str]
    def add(self, amount: int = 1) -> None:
        """Adds to this process's row. Gauges may go down."""
    def set(self, value: int) -> None:
        """Sets this process's cell: for gauges."""
    @property
    def value(self) -> int:
        """This process's own cell."""
    def total(self) -> int:
        """The sum over all rows: any process may ask."""
    def of_row(self, row: int) -> int:
        """The cell of one row, 0..255. Raises IndexError."""

def counter(name: str, help_: str, labels: dict[str, str] | None = None) -> Counter:
    """Declares a counter at the top of the file that counts it. Raises ValueError when the name is taken.

    labels  one counter for each set of them, all declared before the fork: nothing that a peer says may be one.
    """

def gauge(name: str, help_: str) -> Counter:
    """Declares a gauge; same rules as counter()."""

def attach(row: int) -> None:
    """From now on this process counts in `row` (worker i uses i + 1). Call once, after the fork, before work."""

def forget_gauges(row: int) -> None:
    """Zeroes the gauges of a process that died: what it counted stays, what it held is gone."""

def registry() -> list[Counter]:
    """All counters in declaration order."""
