"""[automation.*]: rules on what remote hosts say. notices.py counts by them, automation.py decides."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from angarium.bounces.classes import CLASSES
from angarium.bounces.rules import Rule, condition
from angarium.model.units import Duration, Rate

Scope = Literal["site", "source-and-site", "provider", "source-and-provider", "tenant", "campaign"]
AutomaticAction = Literal["suspend", "slow", "cap", "pool", "list-source", "treat-as-temporary", "treat-as-permanent"]

TREATMENTS: Final = ("treat-as-temporary", "treat-as-permanent")
SITE_SCOPES: Final = ("site", "source-and-site", "provider", "source-and-provider")
SOURCE_SCOPES: Final = ("source-and-site", "source-and-provider")
RECOVERING: Final = ("suspend", "slow", "cap")

_USUAL_S: Final = 1800.0

_FACTOR_MAX: Final = 1000.0
_STEPS_MAX: Final = 100


class AutomationRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[automation.rule.NAME].

    Whom it is about; all that are given must hold:
      providers, sources, tenants, campaigns  names; empty: any.
    Which replies; all that are given must hold, of a list one:
      code, status, phase, mx, text, match  as in a rule for classes (docs/bounces.md).    classes  of replies.
    When:
      count, within   so many such replies for one scope in that time.
      deferral_rate, bounce_rate  instead: from this part of attempts on that ended so within `within`.
      minimum         of attempts, for a rate to say anything.
    What then:
      action, scope   to whom it is done: the site, the site as one source reaches it, the provider, ...
      factor          of slow: connections and rates are divided by it.    connections, message_rate  of cap.
      pool            of pool.
      duration        how long; each further match begins it anew. None: half an hour; a reply is taken for the other
                      kind for as long as the rule is there.
      recovery, steps  suspend, slow and cap: how long they take to go afterwards, and in how many steps.
    dry_run   True: it is counted, listed and told, and nothing is done.
    is_on     False: it is not there.
    """

    is_on: bool = True
    dry_run: bool = False
    providers: list[str] = []
    sources: list[str] = []
    tenants: list[str] = []
    campaigns: list[str] = []
    code: list[int | str] = []
    status: list[str] = []
    phase: list[str] = []
    mx: list[str] = []
    text: list[str] = []
    match: list[str] = []
    classes: list[str] = []
    count: int = 1
    within: Duration = Duration(600)
    deferral_rate: float = 0.0
    bounce_rate: float = 0.0
    minimum: int = 100
    action: AutomaticAction
    scope: Scope = "source-and-site"
    factor: float = 2.0
    connections: int = 0
    message_rate: Rate | None = None
    pool: str = ""
    duration: Duration | None = None
    recovery: Duration = Duration(0)
    steps: int = 4

    def __post_init__(self) -> None:
        for name in self.classes:
            if name not in CLASSES:
                raise ValueError(f'classes: there is no class "{name}"')
        self.replies()
        if not 1 <= self.count <= 1000000:
            raise ValueError("count: 1 to 1000000")
        if not 1 <= self.within <= 7 * 86400:
            raise ValueError("within: 1s to 7d")
        if not 1 <= self.holds_s <= 31 * 86400:
            raise ValueError("duration: 1s to 31d")
        if self.recovery > 31 * 86400:
            raise ValueError("recovery: at most 31d")
        if not 1 <= self.steps <= _STEPS_MAX:
            raise ValueError(f"steps: 1 to {_STEPS_MAX}")
        if self.recovery and self.action not in RECOVERING:
            raise ValueError(f"recovery: of {', '.join(RECOVERING)} only; the others end at once")
        self._check_rate()
        self._check_action()

    def _check_rate(self) -> None:
        for key in ("deferral_rate", "bounce_rate"):
            rate = getattr(self, key)
            if not 0 <= rate <= 1:
                raise ValueError(f"{key}: a part of 1, such as 0.3")
        if self.minimum < 1:
            raise ValueError("minimum: 1 or more")
        if self.is_of_rate:
            if self.deferral_rate and self.bounce_rate:
                raise ValueError("bounce_rate: either this or deferral_rate; make two rules")
            if self.asks_reply:
                raise ValueError("a rate is of all attempts: no code, status, text and so on")
            # They are counted by ready queue, or by tenant and campaign: not by both.
            if self.scope in SITE_SCOPES and (self.tenants or self.campaigns):
                raise ValueError(f"a rate of scope {self.scope} is of all attempts there: no tenants and campaigns")
            if self.scope not in SITE_SCOPES and (self.providers or self.sources):
                raise ValueError(f"a rate of scope {self.scope} is of all its attempts: no providers and sources")
        elif not self.asks_reply:
            raise ValueError("which replies? code, status, phase, mx, text, match or classes is needed, or a rate")

    def _check_action(self) -> None:
        if (self.action == "pool") != bool(self.pool):
            raise ValueError("pool: which one?" if self.action == "pool" else "pool: of action pool only")
        if self.action == "slow" and not 1 < self.factor <= _FACTOR_MAX:
            raise ValueError(f"factor: more than 1, at most {_FACTOR_MAX:g}")
        if not 0 <= self.connections <= 65535:
            raise ValueError("connections: 1 to 65535")
        if (self.action == "cap") != bool(self.connections or self.message_rate):
            raise ValueError("connections, message_rate: how many? cap needs one of them" if self.action == "cap" else
                             "connections, message_rate: of action cap only")  # fmt: skip
        if self.message_rate is not None and not self.message_rate.is_limited:
            raise ValueError('message_rate: "none" is no cap')
        if self.action == "list-source" and self.scope not in SOURCE_SCOPES:
            raise ValueError(f"scope: list-source is about {' or '.join(SOURCE_SCOPES)}")
        if self.action in TREATMENTS and self.is_of_rate:
            raise ValueError(f"action: {self.action} is about a reply, not a rate")
        if self.is_permanent and self.count != 1:
            raise ValueError(f"count: {self.action} without a duration is for each such reply; give it one")

    @property
    def holds_s(self) -> float:
        """How long it is in full force; of what is permanent it says nothing."""
        return _USUAL_S if self.duration is None else float(self.duration)

    @property
    def is_permanent(self) -> bool:
        """In force for as long as the configuration has the rule: such replies are taken for the other kind."""
        return self.action in TREATMENTS and self.duration is None

    @property
    def is_of_rate(self) -> bool:
        return bool(self.deferral_rate or self.bounce_rate)

    @property
    def asks_reply(self) -> bool:
        return bool(self.code or self.status or self.phase or self.mx or self.text or self.match or self.classes)

    def replies(self) -> Rule:
        """Raises ValueError that begins with the key."""
        asked: dict[str, Any] = {key: getattr(self, key) for key in ("code", "status", "phase", "mx", "text", "match")}
        for each in self.text:
            if not each.strip():
                raise ValueError("text: empty, it would match everything")
        return condition(**asked)


class AutomationOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[automation]: files of rules ("@shipped": those that come with the program), and rules by name."""

    files: list[str] = []
    rule: dict[str, AutomationRule] = {}

    @property
    def rules(self) -> dict[str, AutomationRule]:
        return {name: rule for name, rule in self.rule.items() if rule.is_on}
