"""Mail of other workers in ready queues of this one (Cython callers see more, in the .pxd)."""

from typing import final

class Answers:
    """Who tells the owner of a guest what became of it."""

@final
class Lodger:
    """One worker's mail in one ready queue."""

    def __init__(self, answers: Answers, channel: int) -> None: ...

@final
class Guests:
    """All lodgers of a ready queue, and whose turn it is. waiting: recipients."""

    waiting: int
