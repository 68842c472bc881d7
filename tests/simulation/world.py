"""Who there is in the simulated world: domains, their hosts, and in which hours they are in which mood.

Times are hours since the beginning, and move with the seed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from simulation.hosts import HOUR, MailHost, Window

from angarium.model.plan import Plan, RoutingTrouble, Site

PROVIDER: Final = "big"
HOME: Final = "home.example"        # where reports go
NEVER: Final = float("inf")


class World:
    """domains: name to host or, of a domain without any, to what DNS says; kinds: name to what is special about it."""

    def __init__(self, chance: random.Random, begins_utc_s: float) -> None:
        self._begins = begins_utc_s
        self._chance = chance
        self.domains: dict[str, MailHost | RoutingTrouble] = {}
        self.kinds: dict[str, str] = {}
        self.resolves_from: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._people()
        self._add("deadhost", 2, "down", lambda: [(0.0, NEVER)])
        self._add("silent", 2, "silent", list)
        self.domains["nowhere.example"] = RoutingTrouble(True, (5, 1, 2), "no such domain")
        self.kinds["nowhere.example"] = "nowhere"
        for number in range(2):
            name = f"unresolved{number}.example"
            self._give(name, "unresolved", MailHost(f"mx.{name}"))
            self.resolves_from[name] = begins_utc_s + HOUR * self._chance.uniform(6, 20)
        self._give(HOME, "home", MailHost(f"mx.{HOME}", "rcpt", self._hours(1, 26)))

    def _people(self) -> None:
        self._add("good", 12, "good", list)
        self._add("grey", 5, "greylisting", list)
        for mood in ("mail", "rcpt", "data", "greeting", "down"):
            self._add(mood, 2, mood, lambda: self._hours(self._chance.uniform(1, 7), 26, count=2))
        self._add("picky", 2, "picky", list)
        self._add("narrow", 1, "narrow", list)
        self._add("closing", 2, "closing", list)
        self._add("banning", 1, "banning", list)
        self._add("quiet", 2, "good", list)
        self._add("limiting", 2, "limiting", lambda: self._hours(2.0, 26, count=3))
        self._add("overloaded", 1, "overloaded", lambda: [(self._begins, self._begins + 0.3 * HOUR)])
        for number, mood in enumerate(("good", "greylisting", "closing")):
            self._give(f"big{number}.example", "big", MailHost(f"mx{number}.big.example", mood))

    def _add(self, kind: str, count: int, mood: str, windows: Callable[[], Sequence[Window]]) -> None:
        for number in range(count):
            name = f"{kind}{number}.example"
            self._give(name, kind, MailHost(f"mx.{name}", mood, windows()))

    def _give(self, name: str, kind: str, host: MailHost) -> None:
        self.domains[name] = host
        self.kinds[name] = kind

    def _hours(self, length: float, until: float, count: int = 1) -> list[Window]:
        """That many windows of `length` hours, one behind the other."""
        part = until / count
        starts = [part * number + self._chance.uniform(0, max(part - length, 0.0)) for number in range(count)]
        return [(self._begins + HOUR * start, self._begins + HOUR * (start + length)) for start in starts]

    @property
    def hosts(self) -> list[MailHost]:
        return [each for each in self.domains.values() if isinstance(each, MailHost)]

    def host(self, domain: str) -> MailHost:
        found = self.domains[domain]
        assert isinstance(found, MailHost)
        return found

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(host.live()) for host in self.hosts]

    def end(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()
            task.cancel()
        for host in self.hosts:
            host.close()


class Router:
    """Sites of the world, as DNS would name them: it is asked anew every quarter of an hour."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.route_of_sender: Callable[[bytes], bytes | None] | None = None

    def plan_now(self, domain: bytes) -> Plan | None:
        return None

    async def plan(self, domain: bytes) -> Plan:
        return Plan(self._site(domain.decode()), asyncio.get_running_loop().time() + 900.0)

    def _site(self, domain: str) -> Site:
        if time.time() < self._world.resolves_from.get(domain, 0.0):
            raise RoutingTrouble(False, (4, 4, 3), "the name server does not answer")
        found = self._world.domains[domain]
        if isinstance(found, RoutingTrouble):
            raise found
        return found.site
