"""What an egress source may do besides what its sites allow (Cython callers only)."""

from asyncio import AbstractEventLoop
from collections import deque
from typing import final

from angarium.queue.rations import Ration
from angarium.queue.ready import ReadyQueue
from angarium.queue.shares import Shares

@final
class Allowance:
    def __init__(self, shares: Shares, name: str) -> None: ...

@final
class Gate:
    """A source as one worker sees it."""

    line: deque[ReadyQueue]
    dial_line: deque[ReadyQueue]
    def __init__(self, loop: AbstractEventLoop, shares: Shares, name: str) -> None: ...
    def next_in_line(self) -> None: ...
    def next_to_dial(self) -> None: ...

@final
class Passage:
    """One ready queue's way past the limits of its source."""

    ration: Ration | None
    held: int
    def __init__(self, gate: Gate, pair: Allowance, ration: Ration | None) -> None: ...
