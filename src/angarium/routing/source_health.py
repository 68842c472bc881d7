"""Which egress sources a worker cannot use now, and why. Only the memory of it: who finds out, and who tries them
again, is outbound/source_watch.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from angarium.model.plan import Source


class Suspension(msgspec.Struct):
    """reason: for people, a whole clause. since_utc_s, tries: of looking whether it is back."""

    reason: str
    since_utc_s: float
    tries: int = 0


class SourceHealth:
    """One per worker; it outlives reloads.

    down       names of sources of which nothing can be used: no message is given to them while there are others.
    addresses  (source, local address, or server of its proxy) that cannot be used.
    """

    def __init__(self) -> None:
        self.down: dict[str, Suspension] = {}
        self.addresses: dict[tuple[str, str], Suspension] = {}

    def suspend(self, source: Source, address: str, suspension: Suspension) -> bool:
        """True when nothing is left of the source by this."""
        self.addresses[source.name, address] = suspension
        if source.name in self.down or any(each not in self for each in places(source)):
            return False
        self.down[source.name] = suspension
        return True

    def resume(self, name: str, address: str) -> bool:
        """True when the source was down as a whole."""
        self.addresses.pop((name, address), None)
        return self.down.pop(name, None) is not None

    def keep(self, sources: Iterable[Source]) -> list[str]:
        """Forgets what is not of these sources any more. Returns the names of those that were down and are not now: an
        address has come to them, or the one that was down has gone."""
        kept = list(sources)
        known = {place for source in kept for place in places(source)}
        for place in [place for place in self.addresses if place not in known]:
            del self.addresses[place]
        before, self.down = set(self.down), self._all_down(kept)
        return [source.name for source in kept if source.name in before and source.name not in self.down]

    def _all_down(self, sources: Iterable[Source]) -> dict[str, Suspension]:
        down = {}
        for source in sources:
            of_it = places(source)
            if all(place in self for place in of_it):
                down[source.name] = self.addresses[of_it[-1]]
        return down

    def reason(self, source: Source, address: str) -> str:
        """Why this address of it cannot be used; "": it can."""
        suspension = self.addresses.get((source.name, address))
        return "" if suspension is None else suspension.reason

    def __contains__(self, place: tuple[str, str]) -> bool:
        return place in self.addresses


def places(source: Source) -> list[tuple[str, str]]:
    """What of a source can be down by itself: its proxy, or each address."""
    if source.proxy is not None:
        return [(source.name, source.proxy.server)]
    return [(source.name, address) for address in (source.address, source.address6) if address] or [(source.name, "")]
