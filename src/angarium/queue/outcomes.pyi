"""What attempts end in (Cython callers see more, in the .pxd)."""

from collections.abc import Callable

from angarium.bounces.classifier import Classifier
from angarium.model.outcome import Trouble
from angarium.queue.keeper import Keeper
from angarium.queue.notices import Notices, Tally

TOO_LATE: Trouble

class Outcomes(Keeper):
    """Ends attempts, and brings back who is to be tried again. A base of the Scheduler."""

    classifier: Classifier
    notices: Notices | None
    on_failed: Callable[[str, bytes, bytes], object] | None
    """Told of each recipient that failed or expired: class, tenant (b"": none), forward-path. Reports (DSN) are left out."""
    def notice_by(self, notices: Notices | None) -> None:
        """Rules of automation from now on."""
    def take_tallies(self) -> list[Tally]:
        """How attempts have ended since this was asked last."""
