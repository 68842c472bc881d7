"""The Egress of Maildirs: recipients from a ready queue into files, in a few worker threads."""

from typing import final

from angarium.queue.ready import Egress
from angarium.queue.scheduler import Scheduler

@final
class MaildirEgress(Egress):
    """One a worker; register it with Scheduler.set_egress for "maildir". `in_hand`: messages being delivered."""

    in_hand: int
    def __init__(self, scheduler: Scheduler) -> None: ...
    async def drain(self, deadline_s: float) -> bool:
        """No new messages; True when those in hand ended in time. The threads end then. Call once."""

@final
class MessageDelivery:
    """One message's recipients of one ready queue; made by MaildirEgress only."""
