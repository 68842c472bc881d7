"""Taking in messages of other workers as the home worker of their site (Cython callers see more, in the .pxd)."""

from collections.abc import Callable
from typing import final

from angarium.handover.link import Link
from angarium.queue.guests import Answers
from angarium.queue.scheduler import Scheduler
from angarium.spool.foreign import ForeignShard

@final
class Desk(Answers):
    """Says what became of guests, on the link that they came by."""

@final
class HomeLink(Link):
    """The connection of one worker that hands over."""

@final
class Reception:
    """Everybody who hands messages to this worker. open_shard raises SpoolError, or RemoteProtocolError for one of our own."""

    configuration: str
    def __init__(self, scheduler: Scheduler, open_shard: Callable[[int], ForeignShard]) -> None: ...
    def link(self) -> HomeLink:
        """A protocol for a connection that came in."""
    @property
    def open_shards(self) -> list[ForeignShard]:
        """Of other workers, as long as this one lives."""
    @property
    def guest_count(self) -> int:
        """References that are here, begun or not."""
    def send_all_back(self) -> None:
        """Takes in nothing more, and gives back what has not begun."""
    def work_by(self, configuration: str) -> None:
        """What the configuration is known by that is worked by from now on; what was planned by another goes back."""
    def close(self) -> None:
        """Ends the connections: answers that are written go out."""
    def close_shards(self) -> None:
        """When nobody reads from them any more."""

def nothing(error: int) -> None: ...
