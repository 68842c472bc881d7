"""The Egress of SMTP and LMTP: gives each ready queue its pool and ends them all at shutdown."""

from typing import Any, final

from angarium.outbound.dialer import Dialer
from angarium.outbound.options import OutboundOptions
from angarium.queue.ready import Egress
from angarium.queue.scheduler import Scheduler

@final
class Dispatcher(Egress):
    """One a worker; register it with Scheduler.set_egress for "smtp", "lmtp" and "lmtp+unix"."""

    options: OutboundOptions
    dialer: Dialer
    def __init__(self, scheduler: Scheduler, options: OutboundOptions | None = None) -> None: ...
    async def drain(self, deadline_s: float) -> bool:
        """No new transactions; what is in hand ends, then QUIT. True when all ended in time.

        After the deadline connections are dropped: a message whose data was out is deferred (the peer may have it),
        everything else goes back untried. Call once.
        """
    def status(self) -> list[dict[str, Any]]:
        """One entry a pool: site, source, kind (shaping.kind_text()), waiting, busy, idle, dialling, window, average_ms."""
