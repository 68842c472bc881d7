"""What the HTTP API takes and answers about orders, as values."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from angarium.queue.selection import ALL, Selection
from angarium.queue.standing import Order


class OrderRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be done with mail.

    where, all   exactly one: filters, or `all` for the whole queue.
    name, for_s  either makes it a standing order, which meets later mail too: until it is cancelled, or for so long.
                 Without them it is about what is queued now.
    dry_run      nothing is done; the answer says whom it is about.
    reason       shown with the order; of a bounce the text of the report.
    code, status  of a bounce.    next_hop, pool  of a reroute.    every_s  of a retry with a time; 0: a minute.
    recovery_s, steps  of a suspension with a time: how it comes back (queue/recovering.py).
    """

    action: Literal["suspend", "resume", "bounce", "delete", "retry", "reroute"]
    where: Selection = ALL
    all: bool = False
    name: str = ""
    for_s: float = 0.0
    dry_run: bool = False
    reason: str = ""
    code: int = 0
    status: str = "5.7.1"
    next_hop: str = ""
    pool: str = ""
    every_s: float = 0.0
    recovery_s: float = 0.0
    steps: int = 4

    def __post_init__(self) -> None:
        if self.where.is_all != self.all:
            raise ValueError('either a filter in "where" or "all": true is needed, and not both')
        if not 0 <= self.for_s <= 3660 * 86400:
            raise ValueError("for_s: 0 (until it is cancelled) to ten years")
        if self.action == "retry" and (self.name or self.every_s) and not self.for_s:
            raise ValueError("name, every_s: of a retry with for_s; without it is done once")
        if self.recovery_s and not self.for_s:
            raise ValueError("recovery_s: of a suspension with for_s")

    @property
    def stands(self) -> bool:
        return bool(self.name or self.for_s)


class OrderAnswer(msgspec.Struct):
    """Whom it was about, or with dry_run would be.

    unknown_domains  of which it could not be found out in time where their mail goes; theirs is not among it. Only
               of filters that ask for a site, a provider, a source or a pool.
    sample     a few of the messages, with dry_run.
    order      what holds from now on, or would.
    cancelled  names of orders that hold no more.
    incomplete  why not all of the queue was gone through, of an order that holds all the same: the numbers are of the
               rest. "": it was. An order that holds for nothing later is an error then.
    """

    recipients: int
    messages: int
    unknown_domains: int = 0
    sample: list[dict[str, Any]] = []
    order: Order | None = None
    cancelled: list[str] = []
    incomplete: str = ""


class OrdersView(msgspec.Struct):
    """Those that hold, the oldest first."""

    orders: list[Order]
