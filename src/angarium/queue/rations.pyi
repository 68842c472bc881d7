"""How many messages sources that are warmed up have sent to providers today, over all workers of the machine."""

from collections.abc import Callable, Iterable
from typing import final

@final
class Rations:
    """The table in shared memory; make it before forking. clock: UTC seconds; None: the machine's."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None: ...
    @property
    def day(self) -> int:
        """Today (UTC), in days since 1970."""
    def ration(self, name: str, first_day: int, schedule: Iterable[int]) -> Ration:
        """The entry of a name.

        schedule  messages on each day from first_day (days since 1970) on; behind its end nothing is limited, before it
                  nothing may go.
        """

@final
class Ration:
    """One source and provider."""

    name: str
    first_day: int
    schedule: tuple[int, ...]
    @property
    def is_spent(self) -> bool:
        """No more may go today."""
    def try_message(self) -> bool:
        """Takes one message of today's; False when none is left."""
    def give_message_back(self, day: int) -> None:
        """What was taken for that day (since 1970) has not gone; nothing happens when the day is over."""
    def limit_today(self) -> int | None:
        """None: no limit (any more)."""
    def count(self) -> int:
        """Messages taken today, by all workers."""
    def restore(self, day: int, count: int) -> None:
        """As an earlier daemon left it; nothing happens when something has been counted already."""
