"""Handing messages over to the home worker of their site (Cython callers see more, in the .pxd)."""

import socket
from collections.abc import Callable
from typing import Any, final

from angarium.handover.link import Link
from angarium.model.outcome import Trouble
from angarium.model.plan import Source
from angarium.queue.ready import Egress, ReadyQueue
from angarium.queue.scheduler import Scheduler

@final
class Room:
    """How many references of a ready queue may be out, 2 to 32."""

    count: int
    def __init__(self, count: int = ...) -> None: ...
    def waited(self, begun_ms: int, elapsed_ms: int, now_ms: int) -> None:
        """A reference that went out at begun_ms has its outcome, the attempt having taken elapsed_ms."""

@final
class Outlet:
    """One ready queue on its way to its home worker."""

    ready: ReadyQueue
    worker: int
    out: int
    def __init__(self, handover: HandOver, ready: ReadyQueue) -> None: ...

@final
class OwnerLink(Link):
    """The connection to one home worker."""

    worker: int
    @property
    def out_count(self) -> int: ...

@final
class HandOver(Egress):
    """The egress of ready queues that another worker serves.

    connect         a connected socket to a worker; raises OSError.
    on_source_down  told of a source of which the home can use nothing, before mail for it is routed anew.
    first_room      references of a ready queue that may be out until some have come back.
    """

    number: int
    configuration: str
    def __init__(
        self,
        scheduler: Scheduler,
        number: int,
        connect: Callable[[int], socket.socket],
        on_source_down: Callable[[Source, Trouble], None] | None = None,
        *,
        first_room: int = ...,
    ) -> None: ...
    @property
    def out_count(self) -> int:
        """References that are out."""
    def work_by(self, configuration: str) -> None:
        """What the configuration is known by that messages are planned by from now on; before it is applied, in the same turn."""
    def recall_all(self) -> None:
        """Begins nothing more; what has not begun comes back."""
    def close(self) -> None:
        """Whatever is still out goes back to its ready queue."""
    def status(self) -> list[dict[str, Any]]:
        """Ready queues that other workers serve."""
