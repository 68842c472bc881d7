"""One thing that automation does: to whom, why, since when, until when, and how it goes back. Values only;
automation.py decides which there are.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

import msgspec

from angarium.queue.adjustments import Adjustment
from angarium.queue.automation_options import AutomationRule
from angarium.queue.notices import Place
from angarium.queue.recovering import factor_back, next_change, spoken, step_of, strength
from angarium.queue.selection import Selection
from angarium.queue.standing import NAME_CHARACTERS, Order

_PLACE: Final = ("site", "provider", "source", "tenant", "campaign")
_WHOM: Final = {"provider": "providers", "source": "sources", "tenant": "tenants", "campaign": "campaigns"}


class Evidence(msgspec.Struct, frozen=True):
    """One reply that led to a measure."""

    at_utc_s: float
    reply: str
    remote: str


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """Something that automation does now.

    name      rule and place; what it is listed and cancelled by.
    until_utc_s  in full until then, and gone at ends_utc_s; between them it goes back in `steps`.
    count     matching replies since it began (of a rate: attempts that it was reckoned from).
    why       in words.    replies  the last few.
    dry_run   it is told of, and nothing is done.
    is_permanent  it holds for as long as the configuration has its rule: until_utc_s and ends_utc_s are 0.
    cancelled_utc_s  since when what is permanent does not hold all the same; 0: it does.
    whom      of what is permanent: "provider" and so on, to the names that its rule is about.
    digest    of that rule, so that a changed one is another.
    """

    name: str
    rule: str
    place: Place
    action: str
    made_utc_s: float
    until_utc_s: float
    ends_utc_s: float
    steps: int = 1
    factor: float = 1.0
    connections: int = 0
    message_rate: float = 0.0
    pool: str = ""
    count: int = 0
    why: str = ""
    replies: list[Evidence] = []
    dry_run: bool = False
    is_permanent: bool = False
    cancelled_utc_s: float = 0.0
    whom: dict[str, list[str]] = {}
    digest: str = ""

    def where(self) -> Selection | None:
        """None: no order can name the place, whose names are a host's or a hook's. That must stop nobody else."""
        # A campaign of no tenant is not that of a tenant that is called alike: of each it was counted what happened.
        without_tenant = bool(self.place.campaign and not self.place.tenant)
        # What one site has said is no word of another that shares a host with it.
        exact_site = bool(self.place.site)
        try:
            return Selection(
                **{key: getattr(self.place, key) for key in _PLACE},
                exact_site=exact_site,
                without_tenant=without_tenant,
            )
        except ValueError:
            return None

    def strength(self, now: float) -> float:
        """1.0 in full, 0.0 gone."""
        if self.is_permanent:
            return 0.0 if self.cancelled_utc_s else 1.0
        return strength(now, self.until_utc_s, self.ends_utc_s, self.steps)

    def is_recovering(self, now: float) -> bool:
        return not self.is_permanent and self.until_utc_s <= now < self.ends_utc_s

    def step(self, now: float) -> int:
        """How many of `steps` it has gone back; 0: none."""
        return 0 if self.is_permanent else step_of(now, self.until_utc_s, self.ends_utc_s, self.steps)

    def next_change(self, now: float) -> float:
        """When strength() changes next; infinity: never by itself."""
        if self.is_permanent:
            return math.inf
        return next_change(now, self.until_utc_s, self.ends_utc_s, self.steps)

    def factor_now(self, now: float) -> float:
        """By which connections and rates are divided; of a suspension that is over, the part that is back."""
        held = self.strength(now)
        return factor_back(held) if self.action == "suspend" else float(self.factor**held)

    def connections_now(self, now: float) -> int:
        held = self.strength(now)
        return round(self.connections / held) if held else 0

    def message_rate_now(self, now: float) -> float:
        held = self.strength(now)
        return self.message_rate / held if held else 0.0

    def adjustment(self, now: float) -> Adjustment | None:
        """What it changes in limits and the choice of sources; None: nothing."""
        if self.dry_run:
            return None
        at = Adjustment(**{key: getattr(self.place, key) for key in _PLACE})
        match self.action:
            case "suspend" if self.is_recovering(now):
                return msgspec.structs.replace(at, factor=self.factor_now(now))
            case "slow":
                return msgspec.structs.replace(at, factor=self.factor_now(now))
            case "cap":
                return msgspec.structs.replace(
                    at, connections=self.connections_now(now), message_rate=self.message_rate_now(now)
                )
            case "list-source":
                return msgspec.structs.replace(at, is_listed=True)
        return None

    def order(self, now: float) -> Order | None:
        """What workers obey as they obey an operator's; None: nothing. It ends when it is here no more, so that
        prolonging the measure changes nothing for them."""
        return None if self.is_recovering(now) else self._order()

    def suspension(self) -> Order | None:
        """What it suspends, also while that comes back, when it may be in full again; None: nothing."""
        return None if self.action == "pool" else self._order()

    def _order(self) -> Order | None:
        if self.dry_run or self.action not in ("suspend", "pool", "list-source"):
            return None
        where = self.where()
        if where is None:
            return None
        return Order(
            name=self.name[:NAME_CHARACTERS],
            action="reroute" if self.action == "pool" else "suspend",
            where=where,
            made_utc_s=self.made_utc_s,
            pool=self.pool,
            by=f"automation {self.rule}",
        )

    def effect(self, now: float) -> str:
        """What it does now, in words."""
        does = self._does(now)
        if self.cancelled_utc_s:
            return f"cancelled: {does} no more"
        return f"dry run: {does}" if self.dry_run else does

    def _does(self, now: float) -> str:
        match self.action:
            case "slow":
                return f"connections and rates divided by {self.factor_now(now):.3g}"
            case "cap":
                caps = [f"{self.connections_now(now)} connections"] if self.connections else []
                caps += [f"{self.message_rate_now(now):.3g} messages a second"] if self.message_rate else []
                return f"at most {' and '.join(caps)}"
            case "pool":
                return f"mail leaves by pool {self.pool}"
            case "list-source":
                return "mail takes another source, or waits"
            case "treat-as-temporary":
                return "such replies are taken as temporary"
            case "treat-as-permanent":
                return "such replies are taken as permanent"
        if self.is_recovering(now):
            return spoken(self.strength(now))
        return "nothing is tried"


def measure_name(rule: str, place: Place) -> str:
    """ "google-rate/google/mail1"."""
    parts = (place.provider, place.site, place.tenant, place.campaign, place.source)
    return "/".join([rule, *filter(None, parts)])


def permanent(name: str, rule: AutomationRule, now: float) -> Measure:
    """What holds because the configuration has the rule."""
    return Measure(
        name=name,
        rule=name,
        place=Place(),
        action=rule.action,
        made_utc_s=now,
        until_utc_s=0.0,
        ends_utc_s=0.0,
        why="by the configuration",
        dry_run=rule.dry_run,
        is_permanent=True,
        whom={key: list(names) for key, field in _WHOM.items() if (names := getattr(rule, field))},
        digest=hashlib.blake2b(msgspec.json.encode(rule, enc_hook=float), digest_size=8).hexdigest(),
    )
