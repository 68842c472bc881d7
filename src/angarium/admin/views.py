"""What the HTTP API answers, as values. Messages in the queue are described by queue/inspect, as plain
tables.
"""

from __future__ import annotations

from typing import Any

import msgspec

from angarium.model.errors import AngariumError


class BadQuery(AngariumError):
    """The request makes no sense; the text says why."""


class Fault(msgspec.Struct):
    """Why not, in one sentence."""

    error: str


class Health(msgspec.Struct):
    """status: "ok" while all workers serve, else "starting", "degraded" or "stopping"."""

    status: str
    workers: int
    workers_ready: int


class Listener(msgspec.Struct):
    """address: as configured; actual: with the port it really has."""

    address: str
    actual: str


class Facts(msgspec.Struct):
    """What status tells of the daemon itself."""

    hostname: str
    spool: str
    config: str
    listeners: list[Listener]


class WorkerView(msgspec.Struct):
    """One worker. figures: what it says of itself; empty while it does not answer, error says why."""

    number: int
    pid: int
    is_ready: bool
    up_s: float
    figures: dict[str, Any] = {}
    error: str = ""


class Status(msgspec.Struct):
    """The whole daemon."""

    version: str
    hostname: str
    spool: str
    config: str
    pid: int
    up_s: float
    listeners: list[Listener]
    workers: list[WorkerView]
    messages: int = 0
    recipients: int = 0


class Suspended(msgspec.Struct):
    """An address of a source that cannot be used, "" of one without any; in how many workers that is so."""

    address: str
    reason: str
    since_utc_s: float
    tries: int = 0
    workers: int = 1


class SourceView(msgspec.Struct):
    """An egress source. connections: open now. waiting: recipients that may leave from it now."""

    name: str
    addresses: list[str]
    ehlo: str
    connections: int = 0
    waiting: int = 0
    suspended: list[Suspended] = []


class WarmupView(msgspec.Struct):
    """A source that is warmed up: messages of today (UTC). provider: "" for all sites of none."""

    source: str
    provider: str
    sent: int
    limit: int


class SourcesView(msgspec.Struct):
    """All egress sources, in order of configuration, and warm-ups that have a limit today."""

    sources: list[SourceView]
    warmups: list[WarmupView] = []


class QueuePage(msgspec.Struct):
    """Some messages. next: give it as `after` for the next page; None: there is none."""

    messages: list[dict[str, Any]]
    next: str | None = None


class RefusalView(msgspec.Struct):
    """event: the `rejected` line of the log. sentence, keys: of its reason (smtp/reasons.py)."""

    event: dict[str, Any]
    sentence: str
    keys: list[str]


class RetryOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly one of the three."""

    id: str | None = None
    domain: str | None = None
    all: bool = False

    def __post_init__(self) -> None:
        if (self.id is not None) + (self.domain is not None) + self.all != 1:
            raise ValueError('exactly one of "id", "domain" and "all" is needed')


class Changed(msgspec.Struct):
    """How many recipients were concerned."""

    count: int
