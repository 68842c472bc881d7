"""Ids of refusals: eight digits and letters, as in the log and, if wanted, in the reply."""

from typing import final

@final
class RefusalIds:
    """Counts from a random start; one per worker, handed to ServerSettings."""

    def __init__(self) -> None: ...
