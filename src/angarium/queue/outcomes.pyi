"""What attempts end in (Cython callers see more, in the .pxd)."""

from collections.abc import Callable

from angarium.bounces.classifier import Classifier
from angarium.model.outcome import Trouble
from angarium.queue.keeper import Keeper

TOO_LATE: Trouble

class Outcomes(Keeper):
    """Ends attempts, and brings back who is to be tried again. A base of the Scheduler."""

    classifier: Classifier
    on_failed: Callable[[str, bytes, bytes], object] | None
    """Told of each recipient that failed or expired: class, tenant (b"": none), forward-path. Reports (DSN) are left out."""
