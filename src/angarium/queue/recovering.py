"""How what was held back comes back: in equal steps, until it is gone. For measures of automation and for an operator's
suspensions.

    until           in full until then: strength 1
    until .. ends   `steps` steps of the same length; of 4: strength 0.8, 0.6, 0.4, 0.2
    ends            gone: strength 0
"""

from __future__ import annotations

import math
from typing import Literal


def strength(now: float, until: float, ends: float, steps: int) -> float:
    """1.0 in full, 0.0 gone."""
    if now < until:
        return 1.0
    if now >= ends:
        return 0.0
    return 1.0 - step_of(now, until, ends, steps) / (steps + 1)


def step_of(now: float, until: float, ends: float, steps: int) -> int:
    """Which of `steps` it is at; 0 in full, and `steps` in the last one, behind which it is gone."""
    if now < until or ends <= until:
        return 0
    return min(math.floor((now - until) / (ends - until) * steps) + 1, steps)


def next_change(now: float, until: float, ends: float, steps: int) -> float:
    """When strength() changes next."""
    if now < until or ends <= until:
        return until
    width = (ends - until) / steps
    # A little behind the step: a sum of floats may fall short of it.
    return until + (math.floor((now - until) / width) + 1) * width + 0.001


News = Literal["recovering", "step", "again"]


class Progress:
    """What has been told of how each comes back, by name: so that each step is told once, whoever looks how often."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def news(self, name: str, step: int) -> News | None:
        """recovering: it has begun to come back; step: it is at a further one; again: it is in full again.

        None: nothing is new.
        step  step_of() now. Of steps that nobody looked at in time the last one is told.
        """
        told = self._told.pop(name, 0)
        if step:
            self._told[name] = step
        if step == told:
            return None
        return "again" if step < told and step == 0 else "step" if told and step > told else "recovering"

    def forget(self, name: str) -> None:
        self._told.pop(name, None)


def factor_back(strength: float) -> float:
    """By which connections and rates are divided of what nothing was tried of: 0.8 is a fifth of them."""
    return 1.0 / (1.0 - strength) if strength < 1.0 else 1.0


def spoken(strength: float) -> str:
    """For people."""
    return f"recovering, {100 * (1 - strength):.0f} % of connections and rates"
