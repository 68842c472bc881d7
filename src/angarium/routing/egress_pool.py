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
from angarium.model.plan import Proxy, Site, Source
from angarium.routing.options import PoolOptions, SourceOptions
from angarium.routing.source_health import SourceHealth
from angarium.routing.warmup import Ration, Warmups

_DRAWS: Final = 16      # judged: three of four sources may be down, and one draw of a hundred ends in a look at all
_FAMILIES: Final = {(True, False): "4", (False, True): "6", (True, True): "46"}


class EgressPool:
    """Weighted sources.

    only     the source when there is just one: no choice is to be made then.
    sources  all of them, in order of configuration.
    health   of a worker; None: all sources are always there.
    warmups  None: all sources are warm.
    provider that they are drawn for ("": none that is known).
    """

    def __init__(
        self,
        sources: Mapping[Source, int],
        chance: random.Random | None = None,
        *,
        name: str = "default",
        health: SourceHealth | None = None,
        warmups: Warmups | None = None,
        provider: str = "",
    ) -> None:
        self.name = name
        self.sources = tuple(sources)
        self.only = self.sources[0] if len(self.sources) == 1 else None
        self._weights = tuple(sources.values())
        self._bounds = list(itertools.accumulate(self._weights))
        # By chance and not in turn: workers that took turns would take the same turn at the same time.
        self._chance = chance or random.Random()
        self._health = health or SourceHealth()
        self._warmups = None if warmups is None or warmups.is_empty else warmups
        self._rations: dict[str, Ration] = {}
        if self._warmups is not None:
            found = {source.name: self._warmups.ration(source.name, provider) for source in self.sources}
            self._rations = {name: ration for name, ration in found.items() if ration is not None}
        self._narrowed: dict[tuple[str, str], EgressPool] = {}

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
        if (self._health.down or self._rations) and self._is_out(source):
            return self._another(chance)
        return source

    def for_site(self, site: Site, provider: str = "") -> EgressPool:
        """The part of the pool that can reach a site: sources with an address of a family that its hosts have.

        provider  whose mail it is (queue/shaping.py): what warm-ups have left for it decides which source is drawn.

        The whole pool when there is none such: that is found, and told, when it is dialled. The same object for the
        same families and provider each time.
        """
        if not site.hosts:
            return self
        if self._warmups is None:
            provider = ""
        if self.only is not None and not provider:
            return self
        addresses = [address for host in site.hosts for address in host.addresses]
        has_v4 = any(":" not in address for address in addresses)
        has_v6 = any(":" in address for address in addresses)
        families = _FAMILIES.get((has_v4, has_v6), "46")
        key = families, provider
        if key not in self._narrowed:
            weights = dict(zip(self.sources, self._weights, strict=True))
            fit = {source: weight for source, weight in weights.items() if families_of(source) & set(families)}
            if len(fit) in (0, len(weights)) and not provider:
                self._narrowed[key] = self
            else:
                self._narrowed[key] = EgressPool(
                    fit or weights,
                    self._chance,
                    name=self.name,
                    health=self._health,
                    warmups=self._warmups,
                    provider=provider,
                )
        return self._narrowed[key]

    def can_use(self, source: Source) -> bool:
        return not self._is_out(source)

    def shown(self) -> list[tuple[Source, int, str]]:
        """For people: each source with its weight, and why it is not drawn now ("": it is)."""
        return [
            (source, weight, self._why_out(source)) for source, weight in zip(self.sources, self._weights, strict=True)
        ]

    def _why_out(self, source: Source) -> str:
        suspension = self._health.down.get(source.name)
        if suspension is not None:
            return f"suspended: {suspension.reason}"
        return "it has sent what its warm-up allows today" if self._is_out(source) else ""

    def _is_out(self, source: Source) -> bool:
        """It cannot be used, or has sent all that it may today."""
        if source.name in self._health.down:
            return True
        ration = self._rations.get(source.name)
        return ration is not None and ration.is_spent

    def _at(self, chance: float) -> Source:
        return self.sources[bisect.bisect_right(self._bounds, chance * self._bounds[-1])]

    def _another(self, chance: float) -> Source:
        """The same for the same chance, as long as the same sources are out; by weight among the others."""
        seed = int(chance * 2**53)
        for _ in range(_DRAWS):
            seed = (seed * 0x5851F42D4C957F2D + 0x14057B7EF767814F) % 2**64
            source = self._at((seed >> 11) / 2**53)
            if not self._is_out(source):
                return source
        # All are out, or all but some that are hardly ever drawn.
        return next((source for source in self.sources if not self._is_out(source)), self._at(chance))


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
    warmups: Warmups | None = None,
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
    return EgressPool(chosen or {Source("default", "", hostname): 1}, name=name, health=health, warmups=warmups)


def source_of(name: str, options: SourceOptions, hostname: str) -> Source:
    """A [source.NAME] as a value."""
    first, second = [*sorted(options.addresses(), key=lambda address: ":" in address), "", ""][:2]
    proxy = None
    if options.proxy is not None:
        proxy = Proxy(options.proxy.kind, options.proxy.server, options.proxy.user, options.proxy.password)
    return Source(name, first, options.ehlo or hostname, second, proxy)
