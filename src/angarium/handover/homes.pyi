"""Which worker serves a ready queue (Cython callers see more, in the .pxd)."""

from typing import final

from angarium.handover.outlet import HandOver
from angarium.queue.ready import Appointer
from angarium.queue.scheduler import Scheduler

@final
class Homes(Appointer):
    """The Scheduler's appointer where there are several workers: set_appointer()."""

    number: int
    def __init__(self, scheduler: Scheduler, handover: HandOver, number: int, count: int) -> None: ...
    def close(self) -> None:
        """Homes stay as they are from now on."""
    @property
    def limited_count(self) -> int:
        """Ready queues that have a home, here or elsewhere."""
