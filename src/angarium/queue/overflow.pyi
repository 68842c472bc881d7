"""Who waits behind a ready queue that is full (Cython callers only)."""

from typing import final

@final
class Overflow:
    count: int
