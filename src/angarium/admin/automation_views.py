"""What the HTTP API answers about automation, as values."""

from __future__ import annotations

from typing import Any

import msgspec

from angarium.queue.measure import Evidence


class MeasureView(msgspec.Struct, omit_defaults=True):
    """Something that automation does now; see queue.measure.Measure. effect: what it does now, in words.

    step  how many of `steps` it has gone back; 0: it is in full force.
    """

    name: str
    rule: str
    action: str
    effect: str
    made_utc_s: float
    until_utc_s: float
    ends_utc_s: float
    is_recovering: bool
    count: int
    why: str
    replies: list[Evidence]
    step: int = 0
    steps: int = 1
    site: str = ""
    provider: str = ""
    source: str = ""
    tenant: str = ""
    campaign: str = ""
    is_permanent: bool = False
    cancelled_utc_s: float = 0.0
    dry_run: bool = False
    whom: dict[str, list[str]] = {}


class AutomationView(msgspec.Struct):
    """measures: what holds for as long as the configuration says so, then what rules have begun, the oldest first.
    rules: those that are on, by name; durations in seconds."""

    measures: list[MeasureView]
    rules: dict[str, dict[str, Any]]
