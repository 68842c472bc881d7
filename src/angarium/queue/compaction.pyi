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
    def start(self) -> None:
        """To be called when the shard's backlog has been taken over."""
    async def stop(self) -> None:
        """Begins nothing more; returns when nothing is under way."""
