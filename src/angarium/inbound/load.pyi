"""How much sessions take of the machine, over all workers."""

from collections.abc import Callable, Iterable
from typing import Final, final

from angarium.admission.options import AdmissionOptions
from angarium.inbound.context import InboundContext, Intake

LOOK_S: Final[float]

@final
class LoadWatch:
    """One per worker, on its loop. apply() first and at a reload; looks from start() to stop().

    contexts  the listeners whose bounds on sessions count.
    """

    def __init__(self, intake: Intake, contexts: Callable[[], Iterable[InboundContext]]) -> None: ...
    def apply(self, options: AdmissionOptions) -> None: ...
    def start(self) -> None:
        """The first look is now."""
    def stop(self) -> None: ...
    def look(self) -> None:
        """Judges the load as of now. Deadlines that run are cut when it has become high."""
