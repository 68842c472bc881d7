"""Taking over what the spool found at start."""

from angarium.queue.scheduler import Scheduler
from angarium.spool.shard import Shard

AT_ONCE: int

def recover(scheduler: Scheduler, shard: Shard, limit: int = ...) -> int:
    """Takes over messages found in the shard's old segments, at most `limit` in one call.

    How many: fewer than `limit` when no more have been found yet. -1: the scan has ended and all are taken over.
    """
