"""Standing orders: what an operator has said about mail, and how long it holds. Values only; see steering.pyx for what
becomes of them in a worker, and order_book.py for who keeps them.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from angarium.queue.selection import Selection

Action = Literal["suspend", "resume", "bounce", "delete", "reroute"]

NAME_CHARACTERS: Final = 128


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One that holds.

    name        what it is listed and cancelled by.
    made_utc_s  newer ones go before older ones.
    until_utc_s  0: until it is cancelled.
    meets_later  mail that comes after made_utc_s, too; else only what was queued then.
    reason      for people; of a bounce it is the text of the report.
    code, status  of a bounce: reply code (0: none) and enhanced status code (RFC 3463), class 5.
    next_hop, pool  of a reroute, either or both.
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


def status_numbers(text: str) -> tuple[int, int, int]:
    """"5.7.1" as numbers. Raises ValueError unless it is of class 5 (RFC 3463 §2)."""
    parts = text.split(".")
    if len(parts) != 3 or parts[0] != "5" or not all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts):
        raise ValueError(f'status: "{text}" is not an enhanced status code of class 5 such as "5.7.1"')
    return 5, int(parts[1]), int(parts[2])
