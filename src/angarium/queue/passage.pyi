"""What an egress source may do towards all sites together, or a tenant, besides what each site allows (Cython callers
only)."""

from asyncio import AbstractEventLoop
from collections import deque
from typing import final

from angarium.queue.ready import ReadyQueue
from angarium.queue.shares import Shares

@final
class Gate:
    """A source or tenant as one worker sees it. scope: under which it is counted."""

    is_of_tenant: bool
    line: deque[ReadyQueue]
    dial_line: deque[ReadyQueue]
    def __init__(
        self, loop: AbstractEventLoop, shares: Shares, scope: str, is_of_tenant: bool = False
    ) -> None: ...
    def next_in_line(self) -> None: ...
    def next_to_dial(self) -> None: ...

@final
class Passage:
    """One ready queue's way past the limits of its source, of its tenant, or of what automation allows that."""

    held: int
    def __init__(self, gate: Gate) -> None: ...
