"""What a worker remembers of its refusals."""

from typing import final

@final
class Refusals:
    """The last refusals, a mebibyte of them; one per worker."""

    def find(self, refusal_id: str) -> bytes | None:
        """The `rejected` line of the log with this id; None: there was none, or too many have come since."""
