"""[source.NAME] and [pool.default]: from which address, and under which name, mail leaves."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Mapping

from angarium.model.errors import ConfigError
from angarium.model.plan import Source
from angarium.routing.options import PoolOptions, SourceOptions


class EgressPool:
    """Weighted sources.

    only     the source when there is just one: no choice is to be made then.
    sources  all of them, in order of configuration.
    """

    def __init__(self, sources: Mapping[Source, int], chance: random.Random | None = None) -> None:
        self.sources = tuple(sources)
        self.only = self.sources[0] if len(self.sources) == 1 else None
        self._bounds = list(itertools.accumulate(sources.values()))
        # By chance and not in turn: workers that took turns would take the same turn at the same time.
        self._chance = chance or random.Random()

    def choose(self, chance: float | None = None) -> Source:
        """A source for one message, each as often as its weight says.

        chance  0 <= chance < 1; given by who must get the same source again (the recipients of one message).
        """
        if self.only is not None:
            return self.only
        if chance is None:
            chance = self._chance.random()
        return self.sources[bisect.bisect_right(self._bounds, chance * self._bounds[-1])]


def egress_pool(sources: Mapping[str, SourceOptions], pool: PoolOptions, hostname: str) -> EgressPool:
    """The pool that the configuration asks for.

    A pool without sources takes all that are configured, evenly; when none are, one whose address the kernel
    chooses. Raises ConfigError with the key's path when the pool names a source that is not there.
    """
    weights = pool.sources or dict.fromkeys(sources, 1)
    chosen = {}
    for name, weight in weights.items():
        source = sources.get(name)
        if source is None:
            raise ConfigError(f"pool.default.sources.{name}: there is no [source.{name}]")
        chosen[Source(name, source.address, source.ehlo or hostname)] = weight
    return EgressPool(chosen or {Source("default", "", hostname): 1})
