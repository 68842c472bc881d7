"""[[route]]: which configured next hop a domain takes. First match wins; without one it is MX. No DNS."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from angarium.routing.next_hop import NextHop, parse_next_hop
from angarium.routing.options import RouteOptions, domain_key
from angarium.routing.route_key import sender_key

MX = parse_next_hop("mx")

_Places = dict[str, tuple[int, NextHop]]    # pattern of domains to place among the routes and next hop


class RouteTable:
    """The routes, in order. A look-up costs a dictionary access per label, however many routes there are, and as many
    again for each pattern that matches the sender."""

    def __init__(self, routes: Sequence[RouteOptions]) -> None:
        self._of_anybody: _Places = {}
        self._of_sender: dict[str, _Places] = {}
        for index, route in enumerate(routes):
            places = self._of_anybody
            if route.sender != "*":
                places = self._of_sender.setdefault(sender_key(route.sender), {})
            # Of the same pattern twice the first counts.
            next_hop = msgspec.structs.replace(
                parse_next_hop(route.next_hop), tls=route.tls or "", login=route.login
            )
            places.setdefault(domain_key(route.domain), (index, next_hop))
        self._has_only_any = set(self._of_anybody) <= {"*"}
        self._count = len(routes)
        self._any = self._of_anybody.get("*", (len(routes), MX))

    @property
    def next_hops(self) -> tuple[NextHop, ...]:
        """Every next hop that a domain may get, MX included."""
        tables = (self._of_anybody, *self._of_sender.values())
        return (MX, *(next_hop for places in tables for _, next_hop in places.values()))

    @property
    def senders(self) -> frozenset[str]:
        """The patterns of all routes that look at senders."""
        return frozenset(self._of_sender)

    def match(self, domain: str, senders: Sequence[str] = ()) -> NextHop:
        """The next hop of a domain: A-labels in lower case, or an address literal with its brackets.

        senders  patterns that match the sender (SenderPatterns.matching()); one that no route has any more is nothing.
        """
        return self._first(domain, senders)[1]

    def place(self, domain: str, senders: Sequence[str] = ()) -> int | None:
        """Which of the routes that is, by its place in order; None: none of them, it goes to its mail exchangers."""
        place, _ = self._first(domain, senders)
        return place if place < self._count else None

    def _first(self, domain: str, senders: Sequence[str]) -> tuple[int, NextHop]:
        first = self._any
        if not self._has_only_any:
            first = _first(self._of_anybody, domain, first)
        for sender in senders:
            if (places := self._of_sender.get(sender)) is not None:
                first = _first(places, domain, min(first, places.get("*", first), key=_place))
        return first


def names_domain(routes: Sequence[RouteOptions], domain: str) -> bool:
    """Whether the route that everybody's mail for this domain takes names it, or those that it is among, and a next
    hop: "*" names nobody, and "mx" nobody either. domain: as an operator writes it."""
    of_all = [route for route in routes if route.sender == "*"]
    table = RouteTable(of_all)
    name = domain_key(domain)
    place = table.place(name)
    return place is not None and of_all[place].domain != "*" and table.match(name).protocol != "mx"


def _place(found: tuple[int, NextHop]) -> int:
    return found[0]


def _first(places: _Places, domain: str, first: tuple[int, NextHop]) -> tuple[int, NextHop]:
    """`first`, or what stands before it among the routes and matches the domain."""
    found = places.get(domain)
    if found is not None and found[0] < first[0]:
        first = found
    if domain.startswith("["):
        return first
    dot = domain.find(".")
    while dot != -1:
        found = places.get(domain[dot:])
        if found is not None and found[0] < first[0]:
            first = found
        dot = domain.find(".", dot + 1)
    return first
