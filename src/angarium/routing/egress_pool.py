"""[source.NAME] and [pool.NAME]: from which address, and under which name, mail leaves.

Which pool it is, is said in egress_rules.py; which sources cannot be used now, in source_health.py.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Mapping
from typing import Final

from angarium.model.errors import ConfigError
from angarium.model.plan import Limits, Site, Source
from angarium.routing.options import PoolOptions, SiteLimitOptions, SourceOptions
from angarium.routing.source_health import SourceHealth

_DRAWS: Final = 16      # judged: three of four sources may be down, and one draw of a hundred ends in a look at all
_FAMILIES: Final = {(True, False): "4", (False, True): "6", (True, True): "46"}


class EgressPool:
    """Weighted sources.

    only     the source when there is just one: no choice is to be made then.
    sources  all of them, in order of configuration.
    health   of a worker; None: all sources are always there.
    """

    def __init__(
        self,
        sources: Mapping[Source, int],
        chance: random.Random | None = None,
        *,
        name: str = "default",
        health: SourceHealth | None = None,
    ) -> None:
        self.name = name
        self.sources = tuple(sources)
        self.only = self.sources[0] if len(self.sources) == 1 else None
        self._weights = tuple(sources.values())
        self._bounds = list(itertools.accumulate(self._weights))
        # By chance and not in turn: workers that took turns would take the same turn at the same time.
        self._chance = chance or random.Random()
        self._health = health or SourceHealth()
        self._narrowed: dict[str, EgressPool] = {}

    def choose(self, chance: float | None = None) -> Source:
        """A source for one message, each as often as its weight says; of those that can be used, when there are any.

        chance  0 <= chance < 1; given by who must get the same source again (the recipients of one message, at each
                attempt). Only who had a source that is out gets another meanwhile.
        """
        if self.only is not None:
            return self.only
        if chance is None:
            chance = self._chance.random()
        source = self._at(chance)
        return source if not self._health.down or source.name not in self._health.down else self._another(chance)

    def for_site(self, site: Site) -> EgressPool:
        """The part of the pool that can reach a site: sources with an address of a family that its hosts have.

        The whole pool when there is none such: that is found, and told, when it is dialled. The same object for the same
        families each time.
        """
        if self.only is not None or not site.hosts:
            return self
        addresses = [address for host in site.hosts for address in host.addresses]
        has_v4 = any(":" not in address for address in addresses)
        has_v6 = any(":" in address for address in addresses)
        families = _FAMILIES.get((has_v4, has_v6), "46")
        if families not in self._narrowed:
            fit = {
                source: weight
                for source, weight in zip(self.sources, self._weights, strict=True)
                if families_of(source) & set(families)
            }
            if len(fit) in (0, len(self.sources)):
                self._narrowed[families] = self
            else:
                self._narrowed[families] = EgressPool(fit, self._chance, name=self.name, health=self._health)
        return self._narrowed[families]

    def _at(self, chance: float) -> Source:
        return self.sources[bisect.bisect_right(self._bounds, chance * self._bounds[-1])]

    def _another(self, chance: float) -> Source:
        """The same for the same chance, as long as the same sources are out; by weight among the others."""
        down = self._health.down
        seed = int(chance * 2**53)
        for _ in range(_DRAWS):
            seed = (seed * 0x5851F42D4C957F2D + 0x14057B7EF767814F) % 2**64
            source = self._at((seed >> 11) / 2**53)
            if source.name not in down:
                return source
        # All are out, or all but some that are hardly ever drawn.
        return next((source for source in self.sources if source.name not in down), self._at(chance))


def families_of(source: Source) -> set[str]:
    """The families of addresses it can connect to: "4", "6" or both."""
    if not source.address:
        return {"4", "6"}
    return {"6" if ":" in each else "4" for each in (source.address, source.address6) if each}


def egress_pool(
    sources: Mapping[str, SourceOptions],
    pool: PoolOptions,
    hostname: str,
    *,
    name: str = "default",
    health: SourceHealth | None = None,
) -> EgressPool:
    """The pool that the configuration asks for.

    A pool without sources takes all that are configured, evenly; when none are, one whose address the kernel
    chooses. Raises ConfigError with the key's path when the pool names a source that is not there.
    """
    weights = pool.sources or dict.fromkeys(sources, 1)
    chosen = {}
    for each, weight in weights.items():
        options = sources.get(each)
        if options is None:
            raise ConfigError(f"pool.{name}.sources.{each}: there is no [source.{each}]")
        chosen[source_of(each, options, hostname)] = weight
    return EgressPool(chosen or {Source("default", "", hostname): 1}, name=name, health=health)


def source_of(name: str, options: SourceOptions, hostname: str) -> Source:
    """A [source.NAME] as a value."""
    first, second = [*sorted(options.addresses(), key=lambda address: ":" in address), "", ""][:2]
    return Source(name, first, options.ehlo or hostname, second, _limits(options), _limits(options.per_site))


def _limits(options: SourceOptions | SiteLimitOptions) -> Limits | None:
    limits = Limits(
        options.connections,
        *(0.0 if rate is None or not rate.is_limited else float(rate) for rate in (options.connection_rate, options.rate)),
    )
    return limits if limits != Limits() else None
