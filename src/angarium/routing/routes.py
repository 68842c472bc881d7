"""[[route]]: which configured next hop a domain takes. First match wins; without one it is MX. No DNS."""

from __future__ import annotations

from collections.abc import Sequence

from angarium.routing.next_hop import NextHop, parse_next_hop
from angarium.routing.options import RouteOptions, domain_key

MX = parse_next_hop("mx")


class RouteTable:
    """The routes, in order. A look-up costs a dictionary access per label, however many routes there are."""

    def __init__(self, routes: Sequence[RouteOptions]) -> None:
        # Pattern to place and next hop; of the same pattern twice the first counts.
        self._of_pattern: dict[str, tuple[int, NextHop]] = {}
        for index, route in enumerate(routes):
            self._of_pattern.setdefault(domain_key(route.domain), (index, parse_next_hop(route.next_hop)))
        self._has_only_any = set(self._of_pattern) <= {"*"}
        self._any = self._of_pattern.get("*", (len(routes), MX))

    @property
    def next_hops(self) -> tuple[NextHop, ...]:
        """Every next hop that a domain may get, MX included."""
        return (MX, *(next_hop for _, next_hop in self._of_pattern.values()))

    def match(self, domain: str) -> NextHop:
        """The next hop of a domain: A-labels in lower case, or an address literal with its brackets."""
        first = self._any
        if self._has_only_any:
            return first[1]
        found = self._of_pattern.get(domain)
        if found is not None and found[0] < first[0]:
            first = found
        if domain.startswith("["):
            return first[1]
        dot = domain.find(".")
        while dot != -1:
            found = self._of_pattern.get(domain[dot:])
            if found is not None and found[0] < first[0]:
                first = found
            dot = domain.find(".", dot + 1)
        return first[1]
