"""Finding a message by its id (Cython callers only)."""

from typing import final

@final
class MessageIndex:
    """All messages of a worker by id."""

    count: int
