"""Limits per site that hold over all workers of the machine (csrc/queue/shares.h)."""

from collections.abc import Mapping
from typing import final

@final
class Shares:
    """The table in shared memory; make it before forking, attach() in each worker."""

    worker: int
    worker_count: int
    def __init__(self, worker_count: int = 1, slots: int = 65536) -> None: ...
    def attach(self, worker: int) -> None:
        """From now on this process counts as `worker` (0..63)."""
    def forget_worker(self, worker: int) -> None:
        """A worker died: its connections are counted no more. Supervisor only."""
    def set_living(self, is_living: bool) -> None:
        """This worker serves, or is about to end."""
    @property
    def living(self) -> int:
        """Workers that serve, bit by number."""
    @property
    def secret(self) -> bytes:
        """What names are hashed with to keys."""
    def arrivals(self) -> dict[int, int]:
        """By key, of every rate that has something to give back: when it will have, in monotonic ns. Reads the whole
        table."""
    def restore(self, secret: bytes, arrivals: Mapping[int, int]) -> None:
        """What arrivals() gave, hashed with that secret; before the first share(). Raises ValueError for a secret of
        another length, OverflowError for what is no unsigned 64-bit number."""
    def share(self, name: str) -> Share:
        """The entry of a site, or of what else is counted, by name."""

@final
class Share:
    """One site as this worker sees it."""

    own: int
    name: str
    def try_connection(self, limit: int) -> bool:
        """Takes one of `limit` places of the machine; False when all are taken."""
    def give_back(self) -> None:
        """Gives one place back."""
    def try_leaving(self, limit: int) -> bool:
        """One of ours is to end, for there are more than `limit` on the machine; False: enough of them are to, already."""
    def has_left(self) -> None:
        """It has ended: its place is given back."""
    def wait_ns(self, interval_ns: int, burst: int) -> int:
        """Takes one message of the site's rate: 0, or nanoseconds to wait."""
    def give_message_back(self, interval_ns: int) -> None:
        """What wait_ns() took last was not used."""
    def peek_ns(self, interval_ns: int, burst: int) -> int:
        """Nanoseconds until wait_ns() would take one, without taking it or a place in the table."""
    @property
    def wanted(self) -> bool:
        """Another worker asked in vain within the last half second."""
    @property
    def machine_count(self) -> int:
        """Connections of all workers to the site."""
