"""Standing orders: what an operator has said about mail, and how long it holds. Values only; see steering.pyx for what
becomes of them in a worker, and order_book.py for who keeps them.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from angarium.queue.recovering import next_change, step_of, strength
from angarium.queue.selection import Selection

Action = Literal["suspend", "resume", "bounce", "delete", "reroute", "retry"]

NAME_CHARACTERS: Final = 128
# Judged. More often is no good to anybody who has deferred mail a moment ago, and is what gets a source on lists.
EVERY_LEAST_S: Final = 30.0
_EVERY_MOST_S: Final = 86400.0
_RECOVERY_MOST_S: Final = 31 * 86400.0
_STEPS_MOST: Final = 100
# Filters whose mail has limits of its own: the first must be there, the second may.
_WITH_LIMITS: Final = (("site", "source"), ("provider", "source"), ("tenant", "campaign"))


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One that holds.

    name        what it is listed and cancelled by.
    made_utc_s  newer ones go before older ones.
    until_utc_s  0: until it is cancelled.
    meets_later  mail that comes after made_utc_s, too; else only what was queued then.
    reason      for people; of a bounce it is the text of the report.
    code, status  of a bounce: reply code (0: none) and enhanced status code (RFC 3463), class 5.
    next_hop, pool  of a reroute, either or both.
    every_s     of a retry: a deferral is tried again after that, and not later.
    recovery_s, steps  of a suspension: so long behind until_utc_s connections and rates come back in steps.
    by          who made it: "operator", or the automation rule's name.
    """

    name: str
    action: Action
    where: Selection
    made_utc_s: float
    until_utc_s: float = 0.0
    meets_later: bool = True
    reason: str = ""
    code: int = 0
    status: str = "5.7.1"
    next_hop: str = ""
    pool: str = ""
    every_s: float = 0.0
    recovery_s: float = 0.0
    steps: int = 4
    by: str = "operator"

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= NAME_CHARACTERS or not self.name.isprintable():
            raise ValueError(f"name: 1 to {NAME_CHARACTERS} printable characters")
        if len(self.reason) > 500 or not self.reason.isprintable():
            raise ValueError("reason: at most 500 printable characters")
        if self.code and not 500 <= self.code <= 599:
            raise ValueError(f"code: {self.code} is not permanent: 500 to 599")
        status_numbers(self.status)
        if (self.action == "reroute") != bool(self.next_hop or self.pool):
            raise ValueError("reroute needs a next hop or a pool" if self.action == "reroute" else
                             "next_hop, pool: of a reroute only")  # fmt: skip
        self._check_retry()
        if self.recovery_s:
            self._check_recovery()

    def _check_retry(self) -> None:
        if self.action != "retry":
            if self.every_s:
                raise ValueError("every_s: of a retry only")
        elif not self.until_utc_s:
            raise ValueError("a retry that goes on needs its time")
        elif not EVERY_LEAST_S <= self.every_s <= _EVERY_MOST_S:
            raise ValueError(f"every_s: {EVERY_LEAST_S:g} to {_EVERY_MOST_S:g}")

    def _check_recovery(self) -> None:
        where = self.where
        if self.action != "suspend" or not self.until_utc_s:
            raise ValueError("recovery_s: of a suspension with a time only")
        if not 0 < self.recovery_s <= _RECOVERY_MOST_S:
            raise ValueError(f"recovery_s: at most {_RECOVERY_MOST_S:g}")
        if not 1 <= self.steps <= _STEPS_MOST:
            raise ValueError(f"steps: 1 to {_STEPS_MOST}")
        filters = {key for key in Selection.__struct_fields__ if getattr(where, key)} - {"exact_site"}
        if any(must in filters and filters <= {must, may} for must, may in _WITH_LIMITS):
            return
        raise ValueError("recovery_s: limits come back for a site or a provider (and a source), or for a tenant (and "
                         "a campaign); by other filters a suspension ends at once")  # fmt: skip

    @property
    def ends_utc_s(self) -> float:
        """When nothing of it is left; 0: it has no end."""
        return self.until_utc_s + self.recovery_s if self.until_utc_s else 0.0

    def is_recovering(self, now: float) -> bool:
        return bool(self.recovery_s) and self.until_utc_s <= now < self.ends_utc_s

    def strength(self, now: float) -> float:
        """1.0 in full, 0.0 gone (recovering.py)."""
        return strength(now, self.until_utc_s, self.ends_utc_s, self.steps) if self.until_utc_s else 1.0

    def step(self, now: float) -> int:
        """How many of `steps` it has come back; 0: none."""
        return step_of(now, self.until_utc_s, self.ends_utc_s, self.steps) if self.recovery_s else 0

    def next_change(self, now: float) -> float:
        """When that is another; infinity: never by itself."""
        return next_change(now, self.until_utc_s, self.ends_utc_s, self.steps) if self.until_utc_s else math.inf


def status_numbers(text: str) -> tuple[int, int, int]:
    """"5.7.1" as numbers. Raises ValueError unless it is of class 5 (RFC 3463 §2)."""
    parts = text.split(".")
    if len(parts) != 3 or parts[0] != "5" or not all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts):
        raise ValueError(f'status: "{text}" is not an enhanced status code of class 5 such as "5.7.1"')
    return 5, int(parts[1]), int(parts[2])
