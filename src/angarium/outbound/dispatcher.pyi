"""The Egress of SMTP and LMTP: gives each ready queue its pool and ends them all at shutdown."""

from typing import Any, final

from angarium.model.outcome import Trouble
from angarium.outbound.connection import Connection
from angarium.outbound.dialer import Dialer
from angarium.outbound.options import OutboundOptions
from angarium.outbound.source_watch import SourceWatch
from angarium.queue.facts import QueueFacts
from angarium.queue.ready import Egress, ReadyQueue
from angarium.queue.scheduler import Scheduler
from angarium.routing.source_health import SourceHealth
from angarium.sasl.logins import Logins
from angarium.sockets.poll import Poll

@final
class Dispatcher(Egress):
    """One a worker; register it with Scheduler.set_egress for "smtp", "lmtp" and "lmtp+unix"."""

    options: OutboundOptions
    dialer: Dialer
    sources: SourceWatch
    poll: Poll
    def __init__(
        self,
        scheduler: Scheduler,
        options: OutboundOptions | None = None,
        *,
        health: SourceHealth | None = None,
        logins: Logins | None = None,
    ) -> None:
        """logins: who we are; None: nobody to anybody. health: of the sources, as those who choose them see it (routing/egress_pool.py)."""
    def source_down(self, name: str, trouble: Trouble) -> None: ...
    def source_up(self, name: str) -> None: ...
    async def drain(self, deadline_s: float) -> bool:
        """No new transactions; what is in hand ends, then QUIT. True when all ended in time.

        After the deadline connections are dropped: a message whose data was out is deferred (the peer may have it),
        everything else goes back untried. Call once.
        """
    def add_connections(self, ready: ReadyQueue, facts: QueueFacts) -> None:
        """Fills in what QueueFacts say of the connections of a ready queue."""
    def connections(self) -> list[Connection]:
        """All that are open, of a moment; not those being dialled."""
    def by_source(self) -> dict[str, dict[str, int]]:
        """Source name to "connections" and "waiting"."""
    def status(self) -> list[dict[str, Any]]:
        """One entry a pool: site, source, kind (shaping.kind_text()), waiting, busy, idle, dialling, window, average_ms."""
