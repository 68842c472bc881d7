"""What automation changes for a time, as workers are told: limits of ready queues and the choice of a source. One
object for all that holds; a change is a new object.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Adjustment(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a site or a provider, for one source or ("") all.

    factor       connections and rates are divided by it.
    connections  at most; 0: no cap.
    is_listed    the source is on their list: mail takes another one of its pool.
    """

    site: str = ""
    provider: str = ""
    source: str = ""
    factor: float = 1.0
    connections: int = 0
    is_listed: bool = False


class Adjustments:
    """Asked when a ready queue is configured, and where a message has a choice of sources."""

    def __init__(self, adjustments: Iterable[Adjustment]) -> None:
        self._limits: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._listed: set[tuple[str, str, str]] = set()
        for each in adjustments:
            key = (each.site, each.provider, each.source)
            if each.is_listed:
                self._listed.add(key)
                continue
            # Of several rules the strictest holds.
            factor, connections = self._limits.get(key, (1.0, 0))
            caps = [cap for cap in (connections, each.connections) if cap]
            self._limits[key] = max(factor, each.factor), min(caps, default=0)

    @property
    def lists_sources(self) -> bool:
        return bool(self._listed)

    def of(self, site: str, provider: str, source: str) -> tuple[float, int]:
        """factor and cap (0: none), the strictest of all that are about it."""
        factor, cap = 1.0, 0
        if self._limits:
            for key in _keys(site, provider, source):
                if (found := self._limits.get(key)) is not None:
                    factor = max(factor, found[0])
                    cap = min(filter(None, (cap, found[1])), default=0)
        return factor, cap

    def is_listed(self, site: str, provider: str, source: str) -> bool:
        return any(key in self._listed for key in _keys(site, provider, source))


def _keys(site: str, provider: str, source: str) -> Iterable[tuple[str, str, str]]:
    for name in (source, ""):
        yield site, "", name
        if provider:
            yield "", provider, name
