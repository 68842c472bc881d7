"""Going through the whole queue, slice by slice; see walk.pyx. queue/orders.py strings the slices together."""

from angarium.queue.matching import Matcher
from angarium.queue.scheduler import Scheduler

class Walk:
    """One action on everybody whom a Matcher meets.

    action   "count", "count-origins" (who was re-routed is asked for where it came from), "retry", "delete", "bounce" or
             "release" (who is suspended is routed again; of the Matcher nothing is asked).
    recipients, messages  concerned so far.
    reads    every message's envelope is wanted in memory when act() is called.
    """

    recipients: int
    messages: int
    reads: bool
    missed_domains: int
    """Set by who began it: see carry_out()."""
    def __init__(self, scheduler: Scheduler, matcher: Matcher, action: str, *, trouble: object = None) -> None: ...
    def find(self) -> list[int] | None:
        """Ids of messages that may be concerned, after some milliseconds of looking; None: that was all. With `reads` not set,
        what is to be done has been done for all but these."""
    def act(self, id: int) -> None:
        """Does it for one message whose envelope is in memory (see inspect.read_back)."""
    def called_back(self) -> list[int]:
        """Ids of messages with recipients that were with another worker, and have been called back: act() on them once more in a
        moment. Each is told once."""
