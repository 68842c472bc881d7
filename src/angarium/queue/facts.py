"""How a ready queue and a recipient are at a moment, as values: made by queue/explain.pyx, told to people elsewhere."""

from __future__ import annotations

import msgspec


class Reply(msgspec.Struct):
    """What attempts ended in. utc_s: the last time; count: how often in a row. phase: bounces.classes.PHASES.

    code    of the peer's reply; 0: there was none, and text is ours. remote: who said it, "" when nobody was reached.
    """

    utc_s: float
    text: str
    code: int = 0
    status: str = ""
    remote: str = ""
    phase: str = ""
    count: int = 1


class Allowed(msgspec.Struct):
    """What of an egress source's limits over all sites is used, of a tenant's on connections, or of what automation
    allows, over all workers.

    0: no limit. *_wait_s: until the next one may go. whose: of what automation allows, adjustments.Restraint or
    EVERYBODY.
    rate, connection_rate: a second; known of those only.
    """

    connections: int = 0
    connections_limit: int = 0
    rate_wait_s: float = 0.0
    connection_rate_wait_s: float = 0.0
    whose: str = ""
    rate: float = 0.0
    connection_rate: float = 0.0


class QueueFacts(msgspec.Struct):
    """One ready queue of one worker.

    waiting             recipients in it, at most max_ready; behind: recipients that wait for a place in it.
    connections         counted against connections_limit, over all workers (and all sites, where the limit is shared).
    *_wait_s            until the rate lets the next one go; 0: now, or there is no such limit.
    paused_s            nothing is taken until then; is_paced: a rate asked for it.
    is_in_line          it waits for its turn at its source's rate. is_in_dial_line: for a place among connections of
                        its source or tenant.
    is_deferring        everybody in it is being deferred just now.
    source_used         limits of the source over all sites; None: it has none. tenant_used: those of the tenant on
                        connections.
    apart               whose mail automation keeps here (queue/adjustments.py); restrained: what of its limits is used,
                        each by itself. is_in_restrained_line: it waits for its turn at such a rate.
    left                what automation leaves all mail of the site in the place of its limits; None: it changes none,
                        or nobody has asked (explain.used_now() does).
    sent_today          of the warm-up; today_limit None: there is none.
    replies             the last troubles, oldest first.
    delivered_s         seconds since a message was delivered; None: none was, as long as this queue is remembered.
    home                the worker that serves it, where the site may have fewer connections than there are workers;
                        -1: this one. handed: recipients that it has. guests: recipients in it besides `waiting`, handed
                        to us by others.
    The rest is of its connections: outbound/pool.pyx. retry_dial_s: until a site that could not be reached is tried.
    window              connections that feedback allows at most; is_narrowed: fewer than there were, after trouble.
    """

    site: str
    source: str
    kind: str = ""
    wish: int = 0
    waiting: int = 0
    behind: int = 0
    max_ready: int = 0
    connections: int = 0
    connections_limit: int = 0
    message_rate_wait_s: float = 0.0
    tenant_rate_wait_s: float = 0.0
    connection_rate_wait_s: float = 0.0
    paused_s: float = 0.0
    is_paced: bool = False
    is_in_line: bool = False
    is_in_dial_line: bool = False
    is_deferring: bool = False
    source_used: Allowed | None = None
    tenant_used: Allowed | None = None
    apart: str = ""
    restrained: list[Allowed] = []
    is_in_restrained_line: bool = False
    left: Allowed | None = None
    sent_today: int = 0
    today_limit: int | None = None
    replies: list[Reply] = []
    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    delivered_s: float | None = None
    home: int = -1
    handed: int = 0
    guests: int = 0
    busy: int = 0
    idle: int = 0
    dialling: int = 0
    window: float = 0.0
    is_narrowed: bool = False
    retry_dial_s: float = 0.0
    average_ms: float = 0.0
    tls: str = ""
    encrypted: int = 0
    worker: int = 0


class RecipientFacts(msgspec.Struct):
    """One recipient of a message.

    key      of its domain queue. place: "routing", "unrouted", "ready", "behind" (a full ready queue), "in hand",
             "handed to worker N", "deferred", "held", "suspended" or "settled".
    outcome  "waiting" unless it is over and only its report is still to be written.
    source   that it leaves from, or would as far as that is known. queue_number: of the ready queue it is in.
    """

    to: str
    domain: str
    key: bytes
    place: str
    outcome: str
    attempts: int
    is_resolving: bool = False
    next_attempt_utc_s: float | None = None
    last: Reply | None = None
    source: str = ""
    queue_number: int = 0


class MessageFacts(msgspec.Struct):
    """A message. sender, client: as far as its envelope can be read. attributes: tenant, campaign, pool ...

    recipients  those asked for, `more` of them not told.
    """

    id: str
    sender: str
    received_utc_s: float
    octets: int
    waiting: int
    wish: int
    recipients: list[RecipientFacts]
    more: int = 0
    attributes: dict[str, str] = {}


class SiteRow(msgspec.Struct):
    """One site, over its ready queues.

    waiting    recipients that may go now. connections: open or being opened.
    rate       outcomes a second, of the last minute or so; 0 at the first look. deferral: the part of them that waits
               on, 0 to 1; of all outcomes that are remembered while there are no recent ones.
    delivered, deferred, failed  since the site is remembered.
    last       the last reply that was no delivery, or what kept us from connecting.
    """

    site: str
    waiting: int = 0
    connections: int = 0
    rate: float = 0.0
    deferral: float = 0.0
    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    last: Reply | None = None


class SitesPart(msgspec.Struct):
    """The busiest sites of a worker, and sums over all that are live."""

    rows: list[SiteRow]
    sites: int = 0
    waiting: int = 0
    connections: int = 0
    rate: float = 0.0
