"""Asking a Selection of recipients (Cython callers see more, in the .pxd)."""

from typing import final

from angarium.queue.domains import DomainQueue
from angarium.queue.selection import Selection

@final
class Matcher:
    """before_utc_s: only mail that came before; 0: any."""

    where: Selection
    needs_envelope: bool
    asks_plan: bool
    """For site, provider, source or pool: it must be known where the mail of a domain goes."""
    def meets_name(self, domain: DomainQueue) -> bool:
        """Whether the domain is one that is named; True where none is."""
    def __init__(self, where: Selection, before_utc_s: float = 0.0) -> None: ...
