"""Limits that hold besides those of the site: of an egress source, of a tenant, and what automation allows (Cython
callers only)."""

from asyncio import AbstractEventLoop
from collections import deque
from typing import final

from angarium.queue.dial_line import DialLine
from angarium.queue.ready import ReadyQueue
from angarium.queue.shares import Shares

@final
class Gate:
    """One such limit as one worker sees it. scope: the name under which it is counted."""

    line: deque[ReadyQueue]
    dial_line: DialLine
    def __init__(self, loop: AbstractEventLoop, shares: Shares, scope: str) -> None: ...
    def next_in_line(self) -> None: ...
    def serve(self) -> None: ...
    def next_to_dial(self) -> None: ...
    def see_turns(self, given: list[Passage]) -> None: ...

@final
class Passage:
    """One ready queue at one gate. whose: limits these are: "source", "tenant", "shared" (of a provider, say, over its
    sites) or "automation". for_whom: of automation, adjustments.Restraint.whose."""

    # turns: so many messages, and one, it may take before those in line; 1: it has had its turn.
    whose: str
    for_whom: str
    held: int
    turns: int
    is_in_line: bool
    def __init__(self, gate: Gate) -> None: ...
