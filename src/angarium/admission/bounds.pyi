"""What holds for all workers together, whoever the clients are (csrc/admission/bounds.h)."""

from typing import final

@final
class Bounds:
    """The table in shared memory; make it before forking, attach() in each worker.

    workers  how many there are (1..64): how much each may keep in reserve follows from it.
    """

    worker: int
    workers: int
    def __init__(self, workers: int = 1) -> None: ...
    def attach(self, worker: int) -> None:
        """From now on this process counts as `worker` (0..63)."""
    def forget_worker(self, worker: int) -> None:
        """A worker died: its sessions and their memory are counted no more. Supervisor only."""
    def places(self, name: bytes, limit: int) -> Places:
        """This worker's places among the `limit` (1 or more) sessions of the listener `name`; the same object each time."""
    def memory_with(self, own: int) -> int:
        """Says how many octets this worker's sessions hold; those of all workers, as each said last."""

@final
class Places:
    """The sessions that one worker has of a listener.

    used      of this worker. held: reserved for it, the used ones among them. limit: of the machine.
    reserved  by all workers.
    """

    limit: int
    used: int
    held: int
    @property
    def reserved(self) -> int: ...
    def try_take(self) -> bool:
        """One more session; False: the machine has as many as may be."""
    def give_back(self) -> None:
        """One session less. Only what try_take() gave."""
    def look(self) -> int:
        """A few times a second: gives back what is kept in reserve for nothing. How many percent of `limit` all workers use."""
