"""The connections of one ready queue: when to dial, who gets the next message, when to stop."""

from collections.abc import Callable
from typing import final

from angarium.outbound.connection import ConnectionOwner
from angarium.outbound.dialer import Dialer
from angarium.outbound.options import OutboundOptions
from angarium.outbound.tls_policy import TlsPolicy
from angarium.queue.ready import ReadyQueue

@final
class Pool(ConnectionOwner):
    """Made by the dispatcher. `on_empty(pool)` is called when it is drained.

    window      connections at most, by what the site has shown: grows with each transaction, halves with each failure.
    policy      what its connections must be.
    average_ms  from MAIL to the last reply of recent transactions.
    """

    ready: ReadyQueue
    idle_count: int
    busy_count: int
    window: float
    average_ms: float
    is_draining: bool
    policy: TlsPolicy
    def __init__(
        self, ready: ReadyQueue, dialer: Dialer, options: OutboundOptions, deadline_kind: int,
        on_empty: Callable[[Pool], object],
    ) -> None: ...
    @property
    def is_empty(self) -> bool:
        """No connection and no dial."""
