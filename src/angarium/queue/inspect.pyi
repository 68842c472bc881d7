"""Looking at the queue and giving it orders, slice by slice (see orders.py for whole operations)."""

from collections.abc import Callable
from typing import Any, Literal

from angarium.mime.notify import Outcome
from angarium.model.outcome import Trouble
from angarium.queue.scheduler import Scheduler
from angarium.spool.shard import Shard

PLACES: dict[int, str]
OUTCOMES: dict[int, str]

def id_text(id: int) -> str:
    """13 characters of Crockford base32."""

def id_number(text: str) -> int | None: ...
def list_slice(scheduler: Scheduler, slot: int, limit: int, domain: bytes | None, look: int = 5000) -> tuple[int, list[dict[str, Any]]]: ...
def summary_of(scheduler: Scheduler, id: int) -> dict[str, Any]: ...
def has_message(scheduler: Scheduler, id: int) -> bool: ...
def read_back(scheduler: Scheduler, id: int, done: Callable[[int], None]) -> bool: ...
def show(scheduler: Scheduler, id: int) -> dict[str, Any] | None: ...

class RecipientFacts:
    """One recipient a report is due for."""

    index: int
    forward_path: bytes
    orcpt: bytes
    notify: int
    outcome: Outcome
    is_asked_by_terms: bool
    is_late: bool
    trouble: Trouble | None

class ReportFacts:
    """What a report needs to know of a message.

    content           its octets when they are in memory; else first_chunk says where its beginning lies (Shard.fetch).
    deliver_by_utc_s  of BY (RFC 2852); None: nothing was asked.
    hold_until_utc_s  that MAIL asked for (RFC 4865), else None; hold_for_s is more than 0 where it was with HOLDFOR.
    """

    id: int
    shard: Shard
    reverse_path: bytes
    envid: bytes
    helo: bytes
    ret: Literal["", "FULL", "HDRS"]
    is_smtputf8: bool
    requires_tls: bool
    is_binary: bool
    will_retry_until_utc_s: float
    deliver_by_utc_s: float | None
    hold_until_utc_s: float | None
    hold_for_s: int
    priority: int
    message_octets: int
    received_utc_s: float
    content: bytes | None
    first_chunk: tuple[int, int, int] | None
    recipients: list[RecipientFacts]

def fetch_for_report(scheduler: Scheduler, pointer: int, done: Callable[[int], object]) -> None: ...
def report_facts(scheduler: Scheduler, pointer: int) -> ReportFacts:
    """Of a message the scheduler holds. Raises SpoolCorrupt when its envelope cannot be read."""
