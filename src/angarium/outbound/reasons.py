"""Why a recipient waits, in one sentence: the decision that was made where nobody looked, told afterwards.

One function, a table in order: the first that holds is the reason. It reads facts (queue/facts.py) and decides
nothing; whoever adds a way to wait adds its sentence here.
"""

from __future__ import annotations

import time

import msgspec

from angarium.model.units import Duration
from angarium.queue.facts import Allowed, QueueFacts, RecipientFacts, Reply


class Reason(msgspec.Struct):
    """text: goes behind "waits because".

    limit        the key of the limit that is used up, as an explanation names it: "connections",
                 "all_sites.message_rate"; "" when it is none. whose: of "automation.KEY", for whom it is set.
    until_utc_s  when that changes, as far as known.
    """

    text: str
    limit: str = ""
    until_utc_s: float | None = None
    whose: str = ""


def of_recipient(facts: RecipientFacts, queue: QueueFacts | None, *, now_utc_s: float | None = None) -> Reason:
    """Why a recipient waits.

    queue  the ready queue that it is in; None: it is in none.
    """
    now_utc_s = time.time() if now_utc_s is None else now_utc_s
    if facts.outcome != "waiting":
        return Reason(f"it has {facts.outcome}, and its report is not written yet")
    match facts.place:
        case "held":
            return Reason(
                "its sender, or a hook, set a time before which it is not tried", until_utc_s=facts.next_attempt_utc_s
            )
        case "deferred":
            return _of_back_off(facts)
        case "unrouted" | "routing":
            return Reason(
                f"the mail exchangers of {facts.domain} are being looked up"
                if facts.is_resolving
                else f"{facts.domain} stands in line for a look-up of its mail exchangers"
            )
        case "suspended":
            return Reason("it is suspended: by a standing order, by automation or in quiet hours")
        case "in hand":
            return Reason("a connection has it in hand, and the next hop has not answered yet")
    if facts.place.startswith("handed"):
        return Reason(f"it is {facts.place}, which sends for its site, and the next hop has not answered yet")
    if queue is None:
        return Reason("it is about to be tried")
    if facts.place == "behind":
        return _of_place_behind(queue, now_utc_s)
    return of_queue(queue, now_utc_s=now_utc_s)


def of_queue(queue: QueueFacts, *, now_utc_s: float | None = None) -> Reason:
    """Why what is in a ready queue has not left yet."""
    now_utc_s = time.time() if now_utc_s is None else now_utc_s
    if queue.home >= 0:
        limit, key = queue.connections_limit, "connections"
        for used, whose in ((queue.source_used, "all_sites"), (queue.tenant_used, "tenant")):
            if used is not None and 0 < used.connections_limit < limit:
                limit, key = used.connections_limit, f"{whose}.connections"
        return Reason(
            f"worker {queue.home} sends for its site, which may have fewer connections than there are workers,"
            f" and has {queue.handed} before it",
            key,
        )
    by_source = _of_source(queue, now_utc_s)
    if queue.is_deferring:
        return Reason(f"all that waits for the site is being deferred: {_last(queue)}")
    if by_source is not None:
        return by_source
    if queue.paused_s > 0:
        until = now_utc_s + queue.paused_s
        if not queue.is_paced:
            return Reason(f"the site is paused for {_span(queue.paused_s)}", until_utc_s=until)
        key = "tenant.message_rate" if queue.tenant_rate_wait_s > queue.message_rate_wait_s else "message_rate"
        whose = "the tenant" if key != "message_rate" else "the site"
        return Reason(f"the message rate of {whose} is used up", key, until)
    if queue.busy + queue.idle == 0 and queue.retry_dial_s > 0:
        return Reason(
            f"the site could not be reached ({_last(queue)}); it is tried again in {_span(queue.retry_dial_s)}",
            until_utc_s=now_utc_s + queue.retry_dial_s,
        )
    if queue.busy + queue.dialling == 0 and queue.connection_rate_wait_s > 0:
        return Reason(
            "the connection rate of the site is used up",
            "connection_rate",
            now_utc_s + queue.connection_rate_wait_s,
        )
    if queue.is_in_dial_line and (of_places := _of_places(queue)) is not None:
        return of_places
    if queue.connections_limit and queue.connections >= queue.connections_limit:
        number, verb = (queue.connections_limit, "is") if queue.connections_limit == 1 else (queue.connections, "are")
        which = "the one connection" if queue.connections_limit == 1 else f"all {number} connections"
        return Reason(f"{which} that the site is allowed {verb} in use", "connections")
    if queue.is_in_dial_line:
        gates = (queue.source_used, "source"), (queue.tenant_used, "tenant")
        whose = next((name for each, name in gates if each is not None), "provider")
        return Reason(f"it stands in line for a connection of its {whose}")
    if queue.busy == 0 and queue.dialling:
        return Reason("a connection to the site is being opened")
    if queue.is_narrowed and queue.busy + queue.idle + queue.dialling >= int(queue.window):
        return Reason(
            f"after trouble the site gets {int(queue.window)} of {queue.connections_limit} connections for now"
            f" ({_last(queue)}), and they are in use",
            "connections",
        )
    if queue.busy:
        return Reason(f"{queue.waiting + queue.guests} are in line before {queue.busy} busy connections")
    return Reason("it is about to be tried")


def _of_back_off(facts: RecipientFacts) -> Reason:
    attempts = "1 attempt has" if facts.attempts == 1 else f"{facts.attempts} attempts have"
    last = f": {spoken(facts.last)}" if facts.last is not None else ""
    return Reason(f"{attempts} failed{last}", until_utc_s=facts.next_attempt_utc_s)


def _of_place_behind(queue: QueueFacts, now_utc_s: float) -> Reason:
    if queue.waiting < queue.max_ready:
        return Reason("its ready queue was full, and it is about to be taken in")
    first = of_queue(queue, now_utc_s=now_utc_s)
    text = f"its ready queue is full (it is one of {queue.behind} behind the {queue.waiting} in it), and {first.text}"
    return Reason(text, "max_ready", first.until_utc_s)


def _of_source(queue: QueueFacts, now_utc_s: float) -> Reason | None:
    """The rate of the source, and what is left of a warm-up."""
    if queue.today_limit is not None and queue.sent_today >= queue.today_limit:
        text = f"source {queue.source} is warmed up, and has sent its {queue.today_limit} messages of today"
        return Reason(text, "warmup", now_utc_s - now_utc_s % 86400 + 86400)
    if queue.is_in_line:
        wait_s = queue.source_used.rate_wait_s if queue.source_used is not None else 0.0
        text = f"the rate of source {queue.source} is used up, and others stand in line before it"
        return Reason(text, "all_sites.message_rate", now_utc_s + wait_s if wait_s else None)
    if queue.is_in_restrained_line:
        # Who stands there only so that others get their turn waits for none of them.
        used = max(queue.restrained, key=lambda each: each.rate_wait_s)
        text = f"the message rate that automation leaves {used.whose} is used up"
        until = now_utc_s + used.rate_wait_s if used.rate_wait_s else None
        return Reason(text, "automation.message_rate", until, used.whose)
    return None


def _of_places(queue: QueueFacts) -> Reason | None:
    """Which limit of the source or tenant keeps it from connecting."""
    for used, whose, prefix in (
        (queue.source_used, f"source {queue.source}", "all_sites"),
        (queue.tenant_used, "its tenant", "tenant"),
    ):
        if used is not None and _is_full(used):
            return Reason(f"all {used.connections} connections of {whose} are in use", f"{prefix}.connections")
        if used is not None and used.connection_rate_wait_s > 0:
            return Reason(f"the connection rate of {whose} is used up", f"{prefix}.connection_rate")
    for used in queue.restrained:
        if _is_full(used):
            text = f"all {used.connections} connections that automation leaves {used.whose} are in use"
            return Reason(text, "automation.connections", whose=used.whose)
        if used.connection_rate_wait_s > 0:
            text = f"the connection rate that automation leaves {used.whose} is used up"
            return Reason(text, "automation.connection_rate", whose=used.whose)
    return None


def _is_full(used: Allowed) -> bool:
    return used.connections_limit > 0 and used.connections >= used.connections_limit


def _last(queue: QueueFacts) -> str:
    return spoken(queue.replies[-1]) if queue.replies else "nothing is known of it"


def spoken(reply: Reply) -> str:
    """"450 4.2.0 try later (mx.example.net[192.0.2.1]:25)"."""
    head = " ".join(filter(None, (str(reply.code) if reply.code else "", reply.status if reply.code else "")))
    text = " ".join(reply.text.split())
    if head and text.startswith(reply.status):
        head = str(reply.code)
    return " ".join(filter(None, (head, text, f"({reply.remote})" if reply.remote and reply.code else "")))


def _span(seconds: float) -> str:
    return str(Duration(max(round(seconds), 1)))
