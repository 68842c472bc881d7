"""How busy each site is, added up over its ready queues in slices."""

from typing import final

from angarium.queue.facts import SiteRow
from angarium.queue.ready import ReadyQueue

@final
class SiteCount:
    """One site of a worker. rate: outcomes a second, of the last minute or so. deferral: the part of them that waits on."""

    waiting: int
    connections: int
    rate: float
    @property
    def deferral(self) -> float: ...
    @property
    def last_ms(self) -> int: ...
    @property
    def is_live(self) -> bool:
        """Something waits, is connected, or has happened within the last minute."""
    def row(self) -> SiteRow: ...

def count_some(
    queues: list[ReadyQueue], start: int, end: int, sites: dict[bytes, SiteCount], now_mono_s: float
) -> None:
    """Adds ready queues [start, end) to the SiteCount of their sites, by name."""
