"""What an operator asks of a worker's queue: list, show, and what is done at once to all that filters mean. Orders
that go on holding are steering.pyx.

Each in bounded slices, so that a backlog of millions never holds the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from angarium.model.outcome import Trouble
from angarium.queue import inspect
from angarium.queue.matching import Matcher
from angarium.queue.scheduler import Scheduler
from angarium.queue.selection import ALL, Selection
from angarium.queue.unplanned import look_up_unplanned
from angarium.queue.walk import Walk
from angarium.spool.envelope import decode_id

T = TypeVar("T")

READS_AT_ONCE = 8  # envelopes read back for one walk; one of many recipients takes its time to be looked at
CALL_BACK_S = 0.02  # for another worker to answer in
LOOKS = 5
PAUSE_S = 0.003  # between two slices of a walk, for mail


async def listing(
    scheduler: Scheduler, limit: int = 100, cursor: int = 0, domain: str | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """(cursor of the next page or -1, summaries). Order is by id within a page."""
    found: list[dict[str, Any]] = []
    key = _key(domain)
    while cursor >= 0 and len(found) < limit:
        cursor, more = inspect.list_slice(scheduler, cursor, limit - len(found), key)
        found += more
        await asyncio.sleep(0)
    return cursor, sorted(found, key=lambda each: str(each["id"]))


async def show(scheduler: Scheduler, id: str) -> dict[str, Any] | None:
    """One message with its envelope, read back from the spool when needed; None when it is not here."""
    number = inspect.id_number(id)
    if number is None:
        return None
    return await _with_envelope(scheduler, number, lambda: inspect.show(scheduler, number))


async def carry_out(
    scheduler: Scheduler,
    action: str,
    where: Selection,
    *,
    trouble: Trouble | None = None,
    before_utc_s: float = 0.0,
) -> Walk:
    """Goes through the queue once and does it to everybody whom `where` means; the walk has the numbers.

    Domains of which it could not be found out where their mail goes (unplanned.py) are not met; it counts them.

    action   "count", "count-origins" (whom a reroute means: who was re-routed already is asked for where it came from),
             "retry" (deferred recipients are tried now), "delete" (no report), "bounce" (by `trouble`) or "release"
             (who was suspended is routed again). What a connection has in hand is not touched.
             What another worker has, the home of its site, is called back first ("delete", "bounce").
    before_utc_s  only messages that came before; 0: any.

    A loop that relays mail meanwhile keeps most of its time: a slice is a millisecond, and then others have three.
    """
    matcher = Matcher(where, before_utc_s)
    missed = 0 if action == "release" else await look_up_unplanned(scheduler, matcher)
    walk = Walk(scheduler, matcher, action, trouble=trouble)
    walk.missed_domains = missed
    if where.id:
        await _read(scheduler, walk, [decode_id(where.id)])
        await _look_again(scheduler, walk)
        return walk
    while (ids := walk.find()) is not None:
        await _act_in_turn(scheduler, walk, ids)
        if not ids:
            await asyncio.sleep(PAUSE_S)
    await _look_again(scheduler, walk)
    return walk


async def sample(scheduler: Scheduler, where: Selection, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` messages with recipients whom `where` means, as listing() shows them."""
    matcher = Matcher(where)
    await look_up_unplanned(scheduler, matcher)
    walk = Walk(scheduler, matcher, "count")
    found: list[dict[str, Any]] = []

    def look(number: int) -> None:
        before = walk.recipients
        walk.act(number)
        if walk.recipients > before and len(found) < limit:
            found.append(inspect.summary_of(scheduler, number))

    walk.reads = True       # one by one, not all of a part
    if where.id:
        await _with_envelope(scheduler, decode_id(where.id), partial(look, decode_id(where.id)))
        return found
    while len(found) < limit and (ids := walk.find()) is not None:
        for number in ids:
            await _with_envelope(scheduler, number, partial(look, number))
            if len(found) >= limit:
                break
        await asyncio.sleep(0)
    return sorted(found, key=lambda each: str(each["id"]))


async def retry(scheduler: Scheduler, id: str | None = None, domain: str | None = None) -> int:
    """Tries deferred recipients now: of one message, of one domain, or all. How many."""
    where = _selection(id, domain)
    return 0 if where is None else (await carry_out(scheduler, "retry", where)).recipients


async def delete(scheduler: Scheduler, id: str | None = None, domain: str | None = None) -> int:
    """Deletes without report: one message, recipients of one domain, or all. How many recipients ended."""
    where = _selection(id, domain)
    return 0 if where is None else (await carry_out(scheduler, "delete", where)).recipients


async def release(scheduler: Scheduler) -> int:
    """Who is suspended is routed again, and suspended again where an order still says so."""
    return (await carry_out(scheduler, "release", ALL)).recipients


async def _look_again(scheduler: Scheduler, walk: Walk) -> None:
    """At who was with another worker, and has been called back. Who has not come after a few looks is on the wire."""
    looks = 0
    while (ids := walk.called_back()) and looks < LOOKS:
        looks += 1
        await asyncio.sleep(CALL_BACK_S)
        await _act_in_turn(scheduler, walk, ids)


async def _act_in_turn(scheduler: Scheduler, walk: Walk, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), READS_AT_ONCE):
        await _read(scheduler, walk, ids[start : start + READS_AT_ONCE])
        await asyncio.sleep(PAUSE_S)


async def _read(scheduler: Scheduler, walk: Walk, ids: Sequence[int]) -> None:
    await asyncio.gather(*(_with_envelope(scheduler, number, partial(walk.act, number)) for number in ids))


def _selection(id: str | None, domain: str | None) -> Selection | None:
    """None: what cannot be an id or a domain is nobody's."""
    try:
        return Selection(id=id or "", domain=domain or "")
    except ValueError:
        return None


async def _with_envelope(scheduler: Scheduler, number: int, action: Callable[[], T | None]) -> T | None:
    """What action() returns, called while the message's envelope is in memory; None when there is no such message."""
    answer: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()

    def read_back(error: int) -> None:
        # Here and now: once the callback returns, the envelope may leave memory again.
        if answer.done():
            return
        try:
            answer.set_result(action())
        except Exception as problem:
            answer.set_exception(problem)

    if not inspect.read_back(scheduler, number, read_back):
        return None
    return await answer


def _key(domain: str | None) -> bytes | None:
    return None if domain is None else domain.lower().encode()
