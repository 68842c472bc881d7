"""How what was held back comes back: in equal steps, until it is gone. For measures of automation and for an operator's
suspensions.

    until           in full until then: strength 1
    until .. ends   `steps` steps of the same length; of 4: strength 0.8, 0.6, 0.4, 0.2
    ends            gone: strength 0
"""

from __future__ import annotations

import math


def strength(now: float, until: float, ends: float, steps: int) -> float:
    """1.0 in full, 0.0 gone."""
    if now < until:
        return 1.0
    if now >= ends:
        return 0.0
    step = math.floor((now - until) / (ends - until) * steps)
    return 1.0 - (step + 1) / (steps + 1)


def next_change(now: float, until: float, ends: float, steps: int) -> float:
    """When strength() changes next."""
    if now < until or ends <= until:
        return until
    width = (ends - until) / steps
    # A little behind the step: a sum of floats may fall short of it.
    return until + (math.floor((now - until) / width) + 1) * width + 0.001


def factor_back(strength: float) -> float:
    """By which connections and rates are divided of what nothing was tried of: 0.8 is a fifth of them."""
    return 1.0 / (1.0 - strength) if strength < 1.0 else 1.0


def spoken(strength: float) -> str:
    """For people."""
    return f"recovering, {100 * (1 - strength):.0f} % of connections and rates"
