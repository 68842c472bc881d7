"""Standing orders in a worker's queue (Cython callers see more, in the .pxd)."""

from collections.abc import Sequence
from typing import final

from angarium.model.outcome import Trouble
from angarium.queue.adjustments import Adjustments
from angarium.queue.outcomes import Outcomes
from angarium.queue.quiet import QuietHours
from angarium.queue.standing import Order

@final
class Rule:
    """An order, or quiet hours."""

    order: Order | None
    quiet: QuietHours | None
    def __init__(self, order: Order | None = None, quiet: QuietHours | None = None) -> None: ...

def bounce_trouble(reason: str, code: int, status: str) -> Trouble:
    """Why an order of the operator ends a recipient."""

class Steering(Outcomes):
    """Obeys standing orders. A base of the Scheduler."""

    def set_rules(self, orders: Sequence[Order], quiet: Sequence[QuietHours] = ()) -> bool:
        """What holds from now on. True: some rule is gone, and who it had suspended is to be let go (orders.release())."""
    def set_adjustments(self, adjustments: Adjustments | None) -> None:
        """What automation changes in limits and the choice of sources, at once."""
    def ask_ready_again(self) -> None:
        """Quiet hours have begun: who is ready is held back."""
