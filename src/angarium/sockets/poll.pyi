"""The sockets of a worker's connections, in an epoll set of their own."""

from asyncio import AbstractEventLoop
from typing import final

@final
class Poll:
    """For compiled owners of sockets; the loop sees one descriptor, and none while nothing is watched."""

    def __init__(self, loop: AbstractEventLoop) -> None: ...
    def turn(self) -> None:
        """What the loop calls: takes what is ready."""
    def later(self) -> None:
        """What the loop calls for those that were postponed outside of a turn."""
