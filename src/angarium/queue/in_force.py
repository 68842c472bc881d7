"""What standing orders, quiet hours and automation say of some mail now: one answer for who explains it to people."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from angarium.model.units import Duration
from angarium.queue.adjustments import EVERYBODY, apart_text
from angarium.queue.automation_options import TREATMENTS
from angarium.queue.measure import Measure
from angarium.queue.notes import Note
from angarium.queue.notices import Place
from angarium.queue.quiet import QuietHours
from angarium.queue.recovering import spoken
from angarium.queue.selection import Selection, domain_key, is_site
from angarium.queue.shaping import normal_domain
from angarium.queue.standing import Order
from angarium.routing.route_key import SenderPatterns, sender_key


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the mail; "" for what is not. A filter on what is not known is taken to be about it."""

    domain: str = ""
    site: str = ""
    provider: str = ""
    source: str = ""
    pool: str = ""
    tenant: str = ""
    campaign: str = ""
    sender: str = ""
    recipient: str = ""


class InForce(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that holds.

    kind    "order", "quiet" or "automation".   effect  what it does, in words.
    is_certain  False: it asks something besides that is not known here (age, size, id, what the facts left open).
    is_aside    it changes nothing for mail that waits: only what some replies are taken for, or (a dry run) nothing.
    until_utc_s  0: until it is cancelled.
    rule    of automation.
    slows   whom it leaves fewer connections or a lower rate: adjustments.Restraint.whose or EVERYBODY; "": nobody.
    """

    kind: str
    name: str
    effect: str
    where: str
    is_certain: bool
    since_utc_s: float = 0.0
    until_utc_s: float = 0.0
    reason: str = ""
    is_aside: bool = False
    rule: str = ""
    slows: str = ""


_SUSPENDED: Final = "nothing is tried"
_RESUMED: Final = "is tried although suspended"
_NAMES: Final = ("provider", "source", "pool", "tenant", "campaign")


def in_force(
    facts: Facts,
    *,
    orders: Iterable[Order] = (),
    quiet: Iterable[QuietHours] = (),
    measures: Iterable[Measure] = (),
    now_utc_s: float | None = None,
) -> list[InForce]:
    """All that is about the mail, the newest order first, then quiet hours that hold now, then automation.

    orders  of the operator; those that automation makes are in the measures.
    """
    now = time.time() if now_utc_s is None else now_utc_s
    found = []
    for order in sorted(orders, key=lambda each: each.made_utc_s, reverse=True):
        if order.ends_utc_s and order.ends_utc_s <= now:
            continue
        verdict = concerns(order.where, facts)
        if verdict is not None:
            is_certain = verdict and order.meets_later
            times = order.made_utc_s, order.ends_utc_s
            found.append(
                InForce("order", order.name, _effect(order, now), str(order.where), is_certain, *times, order.reason,
                        slows=_counted_alone(order.where) if order.is_recovering(now) else "")
            )
    for each in quiet:
        ends = each.ends(now)
        verdict = concerns(each.where, facts)
        if ends and verdict is not None:
            name = f"{each.start} to {each.end} {each.zone}"
            found.append(InForce("quiet", name, _SUSPENDED, str(each.where), verdict, 0.0, ends))
    for measure in measures:
        where = measure.where()
        verdict = concerns(where, facts) if where is not None else None
        if verdict is not None and measure.whom:
            verdict = _is_of(measure.whom, facts)
        if verdict is not None and measure.strength(now):
            text = ", ".join(f"{key} {' or '.join(names)}" for key, names in measure.whom.items()) or str(where)
            reason = "; ".join([measure.why, *(reply.reply for reply in measure.replies[-1:])])
            times = measure.made_utc_s, measure.ends_utc_s
            found.append(
                InForce(
                    "automation", measure.name, measure.effect(now), text, verdict, *times, reason,
                    measure.dry_run or measure.action in TREATMENTS, measure.rule,
                    _counted_alone(measure.place) if _changes_limits(measure, now) else "",
                )
            )  # fmt: skip
    return found


_KINDS: Final = {"order": "standing order", "quiet": "quiet hours", "automation": "automation"}


def spoken_kind(kind: str) -> str:
    """Of an InForce, for people."""
    return _KINDS[kind]


def as_notes(found: Iterable[InForce]) -> list[Note]:
    """What in_force() found, as sentences. What is suspended holds mail back, unless a newer order resumes it."""
    notes = []
    is_resumed = False
    for each in found:
        text = f"{_KINDS[each.kind]} {each.name} ({each.where}): {each.effect}"
        if each.until_utc_s:
            text += f" until {datetime.fromtimestamp(each.until_utc_s, UTC):%Y-%m-%d %H:%M:%SZ}"
        if each.reason:
            text += f"; {each.reason}"
        if not each.is_certain:
            text += "; it may concern this mail, it asks for more than is known here"
        is_resumed = is_resumed or (each.is_certain and each.effect == _RESUMED)
        holds_back = each.is_certain and each.effect == _SUSPENDED and not (is_resumed and each.kind == "order")
        notes.append(Note(text, holds_back, each.is_aside))
    return notes


def _changes_limits(measure: Measure, now: float) -> bool:
    change = measure.adjustment(now)
    return change is not None and not change.is_listed


def _counted_alone(where: Selection | Place) -> str:
    return apart_text((where.tenant, where.campaign)) or (f"source {where.source}" if where.source else EVERYBODY)


def concerns(where: Selection, facts: Facts) -> bool | None:
    """True: it is about the mail. False: it may be, something is not known. None: it is not."""
    is_certain = not (
        where.id or where.older_than_s or where.younger_than_s or where.larger_than_octets or where.smaller_than_octets
    )
    for name in _NAMES:
        wanted, known = getattr(where, name), getattr(facts, name)
        if wanted and known and wanted != known:
            return None
        is_certain = is_certain and (not wanted or bool(known))
    if where.without_tenant:
        if facts.tenant:
            return None
        is_certain = is_certain and bool(facts.campaign)       # who knows that would know of a tenant, too
    for wanted, known, matches in (
        (where.domain, facts.domain, _domain),
        (where.site, facts.site, lambda _, known: is_site(where, known)),
        (where.sender, facts.sender, _path),
        (where.recipient, facts.recipient, _path),
    ):
        if wanted and known and not matches(wanted, known):
            return None
        is_certain = is_certain and (not wanted or bool(known))
    return is_certain


def _is_of(whom: Mapping[str, Collection[str]], facts: Facts) -> bool | None:
    """As concerns(), of several names a key."""
    is_certain = True
    for key, names in whom.items():
        known = getattr(facts, key)
        if known and known not in names:
            return None
        is_certain = is_certain and bool(known)
    return is_certain


def _effect(order: Order, now: float) -> str:
    if order.is_recovering(now):
        return spoken(order.strength(now))
    ways = [f"to {order.next_hop}" if order.next_hop else "", f"by pool {order.pool}" if order.pool else ""]
    effect = {
        "suspend": _SUSPENDED, "resume": _RESUMED, "bounce": "given back to the sender",
        "delete": "dropped", "reroute": f"goes {' '.join(filter(None, ways))}",
        "retry": f"what is deferred is tried again after {Duration(order.every_s)} at the latest",
    }[order.action]  # fmt: skip
    return effect if order.meets_later else f"{effect} (what was queued then)"


def _domain(pattern: str, name: str) -> bool:
    wanted = domain_key(pattern.removeprefix("@"))
    known = normal_domain(name.encode())
    if wanted.startswith("."):
        return known.endswith(wanted)
    return known == wanted or (pattern.startswith("@") and known.endswith("." + wanted))


def _path(pattern: str, path: str) -> bool:
    return bool(SenderPatterns([sender_key(pattern)]).matching(b"" if path == "<>" else path.encode()))
