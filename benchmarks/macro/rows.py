"""What is measured: the rows of the table, the work behind each, and the bar each must clear.

`ratio` bars are Angarium against Postfix in the same run; `absolute` bars are for what Postfix cannot do at
all.
"""

from __future__ import annotations

from dataclasses import dataclass

from drive import Work

QUICK_DIVISOR = 5
ROUNDS = 5
IDLE_CONNECTIONS = 15_000


@dataclass(frozen=True)
class Bar:
    """What must be reached. Exactly one of the two is set.

    at_least   ratio angarium / postfix, for rates (10.0: ten times as fast).
    at_most    ratio angarium / postfix, for costs (1 / 12), or the value itself when `is_absolute`.
    """

    text: str
    at_least: float | None = None
    at_most: float | None = None
    is_absolute: bool = False

    def is_met(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


@dataclass(frozen=True)
class Row:
    """One kind of work. `rate_bar` judges messages/s; `cpu_bar`, where there is one, the CPU of the same
    runs.
    """

    key: str
    title: str
    work: Work
    rate_bar: Bar
    cpu_bar: Bar | None = None


ROWS = (
    Row(
        "4k",
        "4 KiB, 100 sessions",
        Work(20_000, 100, 4096),
        Bar("10x", at_least=10),
        cpu_bar=Bar("1/12", at_most=1 / 12),
    ),
    Row("100k", "100 KiB, 20 sessions", Work(4_000, 20, 102_400), Bar("4x", at_least=4)),
    Row("one", "4 KiB, one session", Work(4_000, 1, 4096), Bar("4x", at_least=4)),
    Row(
        "new",
        "4 KiB, a new connection each, 100 at a time",
        Work(10_000, 100, 4096, is_kept_open=False),
        Bar("8x", at_least=8),
    ),
)
MEMORY_WORK = Work(20_000, 100, 4096)
MEMORY_BAR = Bar("1/2", at_most=1 / 2)
IDLE_MEMORY_BAR = Bar("4 KiB", at_most=4.0, is_absolute=True)
IDLE_LOSS_BAR = Bar("under 10 %", at_most=10.0, is_absolute=True)
SCALE_KEYS = ("connections", "domains", "refusing", "limits", "faulty")     # scale_rows.py
ANGARIUM_ALONE = ("idle", *SCALE_KEYS)      # Postfix has none of these
KEYS = (*(row.key for row in ROWS), "memory", "idle", *SCALE_KEYS)


def scaled(work: Work, divisor: int) -> Work:
    """The same work with fewer messages."""
    return Work(
        max(work.messages // divisor, work.sessions), work.sessions, work.size_octets, work.is_kept_open
    )
