"""What a worker notices for automation: replies that rules ask about, and how many attempts ended how. It decides
nothing; the supervisor adds up what all workers notice (automation.py).

A reply is matched once: what it means for rules is remembered by its words. Recipients that end by the same reply (all
that wait for a host that turns us away) are one notice.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from angarium.bounces.classifier import Classifier, mx_of, status_text
from angarium.bounces.rules import Reply, words_of
from angarium.model.outcome import Trouble
from angarium.queue.automation_options import SITE_SCOPES, TREATMENTS, AutomationRule

FLUSH_S: Final = 1.0
_REMEMBERED: Final = 2000
_TEXT_CHARACTERS: Final = 300
_SCOPES_MAX: Final = 10000      # noticed between two flushes; more are dropped, and come again


class Place(msgspec.Struct, frozen=True, array_like=True):
    """To whom something was noticed, or is done; "" where it does not matter."""

    site: str = ""
    provider: str = ""
    source: str = ""
    tenant: str = ""
    campaign: str = ""


class Notice(msgspec.Struct, array_like=True):
    """Replies that rule `rule` asks about, since the last notice; reply and remote are of the last one."""

    rule: str
    place: Place
    count: int
    reply: str
    remote: str


class Tally(msgspec.Struct, array_like=True):
    """How attempts to a site from a source have ended since the last one."""

    place: Place
    delivered: int
    deferred: int
    failed: int


class Treated(msgspec.Struct, frozen=True, array_like=True):
    """Such replies to such mail are taken for the other kind now."""

    rule: str
    place: Place


class Treatments(msgspec.Struct, frozen=True):
    """off: rules by which replies are always taken for the other kind, and just now are not. now: what holds for a
    time."""

    off: list[str] = []
    now: list[Treated] = []


class Notices:
    """rules: by name, those that are on.

    send          what is noticed, at most once a second.
    take_tallies  from the queue; asked only when some rule is of a rate.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rules: Mapping[str, AutomationRule],
        classifier: Classifier,
        send: Callable[[list[Notice], list[Tally]], None],
        take_tallies: Callable[[], list[Tally]],
    ) -> None:
        self._loop = loop
        self._classifier = classifier
        self._send = send
        self._take_tallies = take_tallies
        self._rules = {name: rule for name, rule in rules.items() if not rule.is_of_rate}
        self._replies = {name: rule.replies() for name, rule in self._rules.items()}
        self.counts_rates = any(rule.is_of_rate for rule in rules.values())
        self.counts_flows = any(
            rule.is_of_rate and rule.scope in ("tenant", "campaign") for rule in rules.values()
        )
        self.asks_envelope = any(
            rule.tenants or rule.campaigns or rule.scope in ("tenant", "campaign") for rule in self._rules.values()
        )
        self._known: OrderedDict[tuple[int, tuple[int, int, int], str, str, str], tuple[str, ...]] = OrderedDict()
        self._noticed: dict[tuple[str, Place], Notice] = {}
        self._last: tuple[Trouble | None, bool, Place | None] = (None, False, None)
        self._timer: asyncio.TimerHandle | None = None
        self._off: frozenset[str] = frozenset()
        self._treated: frozenset[Treated] = frozenset()

    def set_treatments(self, treatments: Treatments) -> None:
        """As the supervisor has decided."""
        self._off, self._treated = frozenset(treatments.off), frozenset(treatments.now)
        self._last = (None, False, None)

    def failed(self, trouble: Trouble, is_permanent: bool, place: Place) -> bool:
        """An attempt has ended without delivery: whether for good, after rules that treat it otherwise.

        place  all of it is known; tenant and campaign only when asks_envelope.
        """
        last, verdict, where = self._last
        if last is trouble and where == place:      # the same reply, for another recipient
            return verdict
        names = self._matching(trouble)
        for name in names:
            rule = self._rules[name]
            if not _concerns(rule, place):
                continue
            if rule.action in TREATMENTS:
                is_permanent = self._treat(name, rule, place, trouble, is_permanent)
            else:
                self._notice(name, scoped(rule, place), trouble)
        self._last = trouble, is_permanent, place
        if self.counts_rates:
            self.await_flush()
        return is_permanent

    def _treat(self, name: str, rule: AutomationRule, place: Place, trouble: Trouble, is_permanent: bool) -> bool:
        """Whether it is for good: what makes up the count of a rule with a duration is taken as it is said."""
        where = Place() if rule.is_permanent else scoped(rule, place)
        holds = name not in self._off if rule.is_permanent else Treated(name, where) in self._treated
        if holds or not rule.is_permanent:
            self._notice(name, where, trouble)
        if not holds or rule.dry_run:
            return is_permanent
        return rule.action == "treat-as-permanent"

    def await_flush(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        self._timer = None
        noticed, self._noticed = list(self._noticed.values()), {}
        self._last = (None, False, None)
        tallies = self._take_tallies() if self.counts_rates else []
        if noticed or tallies:
            self._send(noticed, tallies)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _matching(self, trouble: Trouble) -> tuple[str, ...]:
        mx = mx_of(trouble.remote)
        key = (trouble.code, trouble.status, trouble.phase, mx, trouble.text)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        reply = Reply(
            trouble.code, status_text(trouble.status), trouble.phase, mx.rstrip("."), words_of(trouble.text[:2000])
        )
        found = []
        for name, rule in self._rules.items():
            if self._replies[name].holds(reply) is None:
                continue
            if rule.classes and self._classifier.name_of(trouble) not in rule.classes:
                continue
            found.append(name)
        self._known[key] = names = tuple(found)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return names

    def _notice(self, name: str, place: Place, trouble: Trouble) -> None:
        key = (name, place)
        notice = self._noticed.get(key)
        if notice is None:
            if len(self._noticed) >= _SCOPES_MAX:
                return
            notice = self._noticed[key] = Notice(name, place, 0, "", "")
        notice.count += 1
        notice.reply = f"{trouble.code or ''} {trouble.text}".strip()[:_TEXT_CHARACTERS]
        notice.remote = trouble.remote
        self.await_flush()


def scoped(rule: AutomationRule, place: Place) -> Place:
    """The part of a place that a rule acts on. Of a site without a provider a rule on providers acts on the site."""
    source = place.source if rule.scope.startswith("source") else ""
    if rule.scope == "tenant":
        return Place(tenant=place.tenant)
    if rule.scope == "campaign":
        return Place(tenant=place.tenant, campaign=place.campaign)
    if rule.scope.endswith("provider") and place.provider:
        return Place(provider=place.provider, source=source)
    return Place(site=place.site, source=source)


def _concerns(rule: AutomationRule, place: Place) -> bool:
    return (
        (not rule.providers or place.provider in rule.providers)
        and (not rule.sources or place.source in rule.sources)
        and (not rule.tenants or place.tenant in rule.tenants)
        and (not rule.campaigns or place.campaign in rule.campaigns)
        and (rule.scope != "tenant" or bool(place.tenant))
        and (rule.scope != "campaign" or bool(place.campaign))
    )


def concerns_tally(rule: AutomationRule, place: Place) -> bool:
    """Whether a rule of a rate counts attempts there."""
    is_of_queue = bool(place.site)      # a tally is of a ready queue, or of a tenant's or campaign's mail
    return is_of_queue == (rule.scope in SITE_SCOPES) and _concerns(rule, place)
