from angarium.queue.scheduler import Scheduler
from angarium.spool.shard import Shard

class Compactor:
    """Empties segments that hold little, one at a time. One for each shard of a worker."""

    scheduler: Scheduler
    shard: Shard
    def __init__(self, scheduler: Scheduler, shard: Shard) -> None: ...
    @property
    def is_busy(self) -> bool:
        """Whether a segment is being emptied."""
    @property
    def owed_s(self) -> float:
        """What it has moved since it last rested takes so long at the pace for a spool within its bound."""
    @property
    def rest_s(self) -> float:
        """How long until the next victim from which something is moved."""
    def start(self) -> None:
        """To be called when the shard's backlog has been taken over."""
    async def stop(self) -> None:
        """Begins nothing more; returns when nothing is under way."""
