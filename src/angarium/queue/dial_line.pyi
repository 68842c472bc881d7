"""Who waits for a connection that a gate counts (Cython callers only)."""

from typing import final

@final
class DialLine:
    """Ready queues, each once: those that have no connection there before those that want one more, else as they came."""

    def __len__(self) -> int: ...
