"""What an operator asks of a worker's queue: list, show, retry, delete.

Each in bounded slices, so that a backlog of millions never holds the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from angarium.queue import inspect
from angarium.queue.scheduler import Scheduler

T = TypeVar("T")

DELETIONS_AT_ONCE = 64  # each has its envelope read back, for the log


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


async def retry(scheduler: Scheduler, id: str | None = None, domain: str | None = None) -> int:
    """Tries deferred recipients now: of one message, of one domain, or all. How many."""
    if id is not None:
        number = inspect.id_number(id)
        return (inspect.retry_one(scheduler, number) or 0) if number is not None else 0
    moved, cursor, key = 0, 0, _key(domain)
    while cursor >= 0:
        cursor, more = inspect.retry_slice(scheduler, cursor, key)
        moved += more
        await asyncio.sleep(0)
    return moved


async def delete(scheduler: Scheduler, id: str | None = None, domain: str | None = None) -> int:
    """Deletes without report: one message, recipients of one domain, or all. How many recipients ended."""
    key = _key(domain)
    if id is not None:
        number = inspect.id_number(id)
        return 0 if number is None else await _delete(scheduler, number, key)
    ended, part = 0, 0
    while part >= 0:
        part, ids = inspect.ids_of_part(scheduler, part, key)
        for start in range(0, len(ids), DELETIONS_AT_ONCE):
            some = ids[start : start + DELETIONS_AT_ONCE]
            ended += sum(await asyncio.gather(*(_delete(scheduler, number, key) for number in some)))
        await asyncio.sleep(0)
    return ended


async def _delete(scheduler: Scheduler, number: int, key: bytes | None) -> int:
    return await _with_envelope(scheduler, number, partial(inspect.delete_one, scheduler, number, key)) or 0


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
