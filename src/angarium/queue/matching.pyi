"""Asking a Selection of recipients (Cython callers see more, in the .pxd)."""

from typing import final

from angarium.queue.selection import Selection

@final
class Matcher:
    """before_utc_s: only mail that came before; 0: any."""

    where: Selection
    needs_envelope: bool
    def __init__(self, where: Selection, before_utc_s: float = 0.0) -> None: ...
