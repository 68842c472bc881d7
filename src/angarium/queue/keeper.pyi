"""The messages of a worker, their memory and records (Cython callers see more, in the .pxd)."""

from typing import Protocol

from angarium.queue.planner import Planner
from angarium.queue.scheduler import Scheduler

class Reporter(Protocol):
    """What queue/reports.py offers."""

    def report(self, scheduler: Scheduler, pointer: int) -> None: ...

class Keeper(Planner):
    """Keeps messages from their envelope to their freed record. A base of the Scheduler."""

    hot_octets: int
    hot_limit_octets: int
    states_in_flight: int
    reporter: Reporter | None
    def reported(self, pointer: int, indexes: list[int] | None, error: int) -> None:
        """The reporter's answer: these recipients (None: all) need no report any more (0), or try again later."""
