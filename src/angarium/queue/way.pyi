"""The gates that a ready queue passes: limits that hold besides those of its site (Cython callers only)."""

from typing import final

from angarium.queue.passage import Passage
from angarium.queue.ready import ReadyQueue

@final
class Way:
    """In the order in which the gates are asked: of its source, of its tenant, of what automation allows."""

    passages: list[Passage]
    def __init__(self, passages: list[Passage]) -> None: ...
    def kept_long_enough(self, ready: ReadyQueue) -> None: ...
