"""Taking over what the spool found at start."""

from angarium.queue.scheduler import Scheduler
from angarium.spool.shard import Shard

def recover(scheduler: Scheduler, shard: Shard, limit: int = 500) -> bool:
    """Takes over messages found in the shard's old segments, at most `limit` in one call.

    True: more may come (call again next turn). False: the scan has ended and all are taken over.
    """
