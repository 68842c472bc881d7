"""A connection between two workers; used by compiled code, and by the loop as a protocol."""

from asyncio import AbstractEventLoop

from angarium.events.journal import Journal

class Link:
    loop: AbstractEventLoop
    is_closed: bool
    def __init__(self, loop: AbstractEventLoop, journal: Journal) -> None: ...
