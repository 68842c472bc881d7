"""What automation, and suspensions that are over and come back in steps, change for a time, as workers are told: limits
of ready queues and the choice of a source. One object for all that holds; a change is a new object.

What is about a site or a provider changes limits of ready queues that are there. What is about one source there is
counted for that source alone, besides those limits: it shares them with others. What is about a tenant or a campaign
has its mail wait in ready queues of its own while it holds (Apart), whose connections and rates are counted besides
what everybody's are: else a tenant that is slowed down would be kept waiting by how much others send.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from angarium.model.plan import Site
from angarium.model.units import Rate
from angarium.queue.shaping import Limits, scope_name
from angarium.queue.shaping_options import AllSites, ShapingOptions

# Whose mail is kept apart: tenant, and campaign or "" for all of the tenant's that no campaign is kept apart of.
Apart = tuple[str, str]


class Adjustment(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a site or a provider, for one source or ("") all; or of a tenant; or of a campaign of a tenant.

    factor       connections and rates are divided by it. Of a tenant or campaign: what it may have at each site.
    connections, message_rate  at most; 0: no cap. Of a tenant or campaign: over all sites.
    is_listed    the source is on their list: mail takes another one of its pool.
    by_host      site may name one of its hosts, in any case: an operator's order.
    """

    site: str = ""
    provider: str = ""
    source: str = ""
    tenant: str = ""
    campaign: str = ""
    factor: float = 1.0
    connections: int = 0
    message_rate: float = 0.0
    is_listed: bool = False
    by_host: bool = False


class Held(msgspec.Struct, frozen=True):
    """What holds at one place: of several rules the strictest."""

    factor: float = 1.0
    connections: int = 0
    message_rate: float = 0.0

    def with_(self, factor: float, connections: int, message_rate: float) -> Held:
        return Held(
            max(self.factor, factor),
            min(filter(None, (self.connections, connections)), default=0),
            min(filter(None, (self.message_rate, message_rate)), default=0.0),
        )


_NOTHING: Final = Held()

EVERYBODY: Final = "everybody"      # where a Restraint has `whose`: what is done to a site or a provider


class Adjustments:
    """Asked when a ready queue is configured, and where a message has a choice of sources.

    apart  whose mail is kept apart now.
    """

    def __init__(self, adjustments: Iterable[Adjustment]) -> None:
        self._limits: dict[tuple[str, str, str], Held] = {}
        self._listed: set[tuple[str, str, str]] = set()
        self._by_host: dict[tuple[str, str, str], Held] = {}
        self._of_whom: dict[Apart, Held] = {}
        for each in adjustments:
            key = (each.site, each.provider, each.source)
            if each.is_listed:
                self._listed.add(key)
                continue
            what = each.factor, each.connections, each.message_rate
            if each.tenant or each.campaign:
                whom = (each.tenant, each.campaign)
                self._of_whom[whom] = self._of_whom.get(whom, _NOTHING).with_(*what)
            elif each.by_host:
                key = (each.site.lower(), "", each.source)
                self._by_host[key] = self._by_host.get(key, _NOTHING).with_(*what)
            else:
                self._limits[key] = self._limits.get(key, _NOTHING).with_(*what)
        self.apart: frozenset[Apart] = frozenset(self._of_whom)

    @property
    def lists_sources(self) -> bool:
        return bool(self._listed)

    def of(self, site: str, provider: str) -> tuple[float, int, float]:
        """factor, and caps of connections and messages a second (0: none), the strictest of all that are about it and
        all sources."""
        held = self.of_source(site, provider, "")
        return held.factor, held.connections, held.message_rate

    def of_source(self, site: str, provider: str, source: str) -> Held:
        """What is done to one source there, and not to others."""
        held = _NOTHING
        for key in ((site, "", source), ("", provider, source)) if self._limits else ():
            if (key[0] or key[1]) and (found := self._limits.get(key)) is not None:
                held = held.with_(found.factor, found.connections, found.message_rate)
        for name in {site.lower(), *site.lower().split(",")} if self._by_host else ():
            if (found := self._by_host.get((name, "", source))) is not None:
                held = held.with_(found.factor, found.connections, found.message_rate)
        return held

    def apart_of(self, tenant: bytes, campaign: bytes) -> Apart | None:
        """With whom a message waits apart; None: with everybody."""
        name = tenant.decode("utf-8", "replace")
        for whom in ((name, campaign.decode("utf-8", "replace")), (name, "")):
            if whom in self.apart:
                return whom
        return None

    def of_whom(self, apart: Apart) -> Iterator[tuple[Apart, Held]]:
        """What is done to mail that waits apart: to that of its campaign, and to that of its tenant."""
        for whom in dict.fromkeys(((apart[0], ""), apart)):
            if (found := self._of_whom.get(whom)) is not None:
                yield whom, found

    def is_listed(self, site: str, provider: str, source: str) -> bool:
        return any(key in self._listed for key in _keys(site, provider, source))


class Restraint(NamedTuple):
    """A limit that automation sets besides all others: the name under which it is counted, how much it is, and for whom
    ("source mail1", or as apart_text() says)."""

    scope: str
    limits: AllSites
    whose: str


def restraints_of(
    adjustments: Adjustments, apart: Apart | None, site: Site, limits: Limits, *, provider: str, source: str
) -> list[Restraint]:
    """What holds for a ready queue besides its limits, where something is done to its source alone, or its mail waits
    apart."""
    found = []
    # Limits are the same wherever these are, so that ready queues that are counted together agree.
    scope = scope_name(site, limits.connection_scope) + limits.rate_scope + limits.dial_scope
    of_tenant = scope_name(site, limits.tenant_scope)
    if (held := adjustments.of_source(site.name, provider, source)) != _NOTHING:
        found.append(Restraint(f"{scope}\n held source {source}", _held(limits.options, held), f"source {source}"))
        if limits.tenant is not None and held.factor > 1.0:
            divided = _divided(limits.tenant, held.factor)
            found.append(Restraint(f"{of_tenant}\n held source {source}", divided, f"source {source}"))
    for whom, held in adjustments.of_whom(apart) if apart is not None else ():
        name, whose = "\0".join(whom), apart_text(whom)
        if held.connections or held.message_rate:
            rate = Rate(held.message_rate) if held.message_rate else None
            capped = AllSites(connections=held.connections or None, message_rate=rate)
            found.append(Restraint(f"\0\n capped {name}", capped, whose))
        if held.factor <= 1.0:
            continue
        found.append(Restraint(f"{scope}\n slowed {name}", _divided(limits.options, held.factor), whose))
        if limits.tenant is not None:
            divided = _divided(limits.tenant, held.factor)
            found.append(Restraint(f"{of_tenant}\n slowed tenant {name}", divided, whose))
    return found


def left_to_all(adjustments: Adjustments, site: Site, provider: str, options: ShapingOptions) -> AllSites | None:
    """What is done to all mail of a site or a provider leaves this in the place of `options`, as ReadyQueue.adjust()
    has it; of each key that stays as it is None. None: nothing is done."""
    held = adjustments.of_source(site.name, provider, "")
    connections = max(1, int(min(held.connections or options.connections, options.connections) / held.factor))
    rates = [_slower(options.message_rate, held.factor), Rate(held.message_rate) if held.message_rate else None]
    message_rate = min(filter(None, rates), default=None)
    left = AllSites(
        connections=connections if connections < options.connections else None,
        connection_rate=_slower(options.connection_rate, held.factor) if held.factor > 1.0 else None,
        message_rate=message_rate if _is_lower(message_rate, options.message_rate) else None,
    )
    return left if left != AllSites() else None


def apart_text(apart: Apart | None) -> str:
    """For people: "tenant shop, campaign spring"; "" for other mail."""
    named = zip(("tenant", "campaign"), apart or (), strict=False)
    return ", ".join(f"{level} {name}" for level, name in named if name)


def _held(limits: ShapingOptions, held: Held) -> AllSites:
    """The stricter of caps and what a factor leaves."""
    left = _divided(limits, held.factor) if held.factor > 1.0 else AllSites()
    rates = [left.message_rate] if left.message_rate is not None else []
    if held.message_rate:
        rates.append(Rate(held.message_rate))
    return AllSites(
        connections=min(filter(None, (left.connections, held.connections)), default=None),
        connection_rate=left.connection_rate,
        message_rate=min(rates, default=None),
    )


def _divided(limits: AllSites | ShapingOptions, factor: float) -> AllSites:
    return AllSites(
        connections=max(1, int(limits.connections / factor)) if limits.connections else None,
        connection_rate=_slower(limits.connection_rate, factor),
        message_rate=_slower(limits.message_rate, factor),
    )


def _is_lower(rate: Rate | None, other: Rate | None) -> bool:
    return rate is not None and (other is None or rate < other)


def _slower(rate: Rate | None, factor: float) -> Rate | None:
    return Rate(rate / factor) if rate is not None and rate.is_limited else None


def _keys(site: str, provider: str, source: str) -> Iterable[tuple[str, str, str]]:
    for name in (source, ""):
        yield site, "", name
        if provider:
            yield "", provider, name
