"""What the operator may set about the suppression list: the [suppression] table. What it is: suppression.py."""

from __future__ import annotations

from typing import Literal

import msgspec

from angarium.bounces.classes import CLASSES
from angarium.model.units import Duration

_DAY: int = 86400


class SuppressionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """So many failures of a class within that time put an address on the list for so long.

    within  from the first of them; of no account where count is 1.
    """

    keep: Duration
    count: int = 1
    within: Duration = Duration(7 * _DAY)

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 1000:
            raise ValueError("count: between 1 and 1000")
        if not 60 <= self.keep <= 3650 * _DAY:
            raise ValueError("keep: between 1 m and 3650 d")
        if not 60 <= self.within <= 366 * _DAY:
            raise ValueError("within: between 1 m and 366 d")


class SuppressionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """action   "off"; "refuse": RCPT is answered 550; "bounce": it is taken, and fails at once.
    scope       "global": one list for all; "tenant": what fails for one tenant is not sent to for this one alone.
    rules       by class.
    max_entries of the list, those counted and not listed yet included.
    """

    action: Literal["off", "refuse", "bounce"] = "off"
    scope: Literal["global", "tenant"] = "global"
    rules: dict[str, SuppressionRule] = msgspec.field(
        default_factory=lambda: {
            "bad-mailbox": SuppressionRule(keep=Duration(90 * _DAY)),
            "inactive-mailbox": SuppressionRule(keep=Duration(30 * _DAY), count=2),
            "bad-domain": SuppressionRule(keep=Duration(30 * _DAY), count=3),
            "mailbox-full": SuppressionRule(keep=Duration(7 * _DAY), count=5, within=Duration(14 * _DAY)),
            "complaint": SuppressionRule(keep=Duration(365 * _DAY)),
            "unsubscribed": SuppressionRule(keep=Duration(365 * _DAY)),
        }
    )
    max_entries: int = 1_000_000

    def __post_init__(self) -> None:
        for name in self.rules:
            if name not in CLASSES:
                raise ValueError(f"rules.{name}: there is no such class; `angarium classify --list` has them")
            if name == "suppressed":
                raise ValueError("rules.suppressed: whoever is on the list would never leave it")
        if not 1000 <= self.max_entries <= 100_000_000:
            raise ValueError("max_entries: between 1000 and 100000000")
