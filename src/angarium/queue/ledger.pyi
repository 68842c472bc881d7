"""The queue's inner interface (Cython callers only)."""

from asyncio import AbstractEventLoop

from angarium.events.journal import Journal
from angarium.queue.adjustments import Adjustments
from angarium.queue.flows import Flows
from angarium.queue.shaping import Shaping
from angarium.queue.shares import Shares
from angarium.queue.wheel import Wheel

class Ledger:
    """Who keeps messages, as ready queues and readers see it: the Scheduler."""

    wheel: Wheel
    flows: Flows
    journal: Journal
    shares: Shares
    loop: AbstractEventLoop
    shaping: Shaping
    adjustments: Adjustments | None
