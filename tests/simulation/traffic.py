"""What is sent on the simulated day, by a seeded generator: messages, and for each recipient all that was promised."""

from __future__ import annotations

import random
from typing import Final

import msgspec
from simulation.hosts import HOUR
from simulation.world import HOME, World

from angarium.mime.notify import Notify
from angarium.spool.envelope import Attribute

HELD_MOST_S: Final = 8 * HOUR
# How much of the mail is for whom; a kind that is not here gets one part for each domain.
_PARTS: Final = {"good": 4, "big": 12}
# Messages that come at once for a domain: when (a part of the day), and how many.
_BURSTS: Final = {
    "overloaded0.example": [(0.001, 400)],
    "closing0.example": [(0.2, 40), (0.7, 40)],
    "big2.example": [(0.05, 40), (0.3, 100), (0.6, 40)],
}
# Of a day: nights are quieter.
_BY_HOUR: Final = [1] * 6 + [2, 4, 6, 8, 8, 7, 6, 7, 8, 7, 6, 5, 4, 4, 3, 3, 2, 1]


class Promise(msgspec.Struct):
    """One recipient of one message. Mailboxes are used once, so that each says whose it is."""

    recipient: str
    domain: str
    kind: str
    sender: str
    notify: int
    hold_until_utc_s: float = 0.0
    by_utc_s: float = 0.0
    accepted_utc_s: float = 0.0

    @property
    def begins_utc_s(self) -> float:
        """When it may be tried first."""
        return max(self.accepted_utc_s, self.hold_until_utc_s)

    def wants(self, what: Notify) -> bool:
        """A report of that."""
        if not self.sender or self.notify & Notify.NEVER:
            return False
        return bool((self.notify or Notify.FAILURE) & what)


class Message(msgspec.Struct):
    due_utc_s: float
    sender: str
    promises: list[Promise]
    notify: int
    attributes: dict[int, bytes]
    octets: int


def traffic(chance: random.Random, world: World, begins_utc_s: float, hours: float, count: int) -> list[Message]:
    """By due time."""
    names = [name for name in world.domains if name != HOME]
    weights = [_PARTS.get(world.kinds[name], 1) for name in names]
    found = []
    for number in range(count):
        while True:
            due = begins_utc_s + chance.uniform(0, hours * HOUR)
            if chance.random() * max(_BY_HOUR) < _BY_HOUR[int(due // HOUR) % 24]:
                break
        domains = chance.choices(names, weights, k=chance.choice((1, 1, 1, 2, 4)))
        found.append(_message(chance, world, number, due, domains))
    bursts = [(name, begins_utc_s + part * hours * HOUR, size) for name, all_ in _BURSTS.items() for part, size in all_]
    # So that rules on what they say then have something to go by.
    limiting = [name for name in names if world.kinds[name] == "limiting"]
    bursts += [(name, begin + 60.0, 8) for name in limiting for begin, _ in world.host(name).windows]
    for domain, due, size in bursts:
        found += [_message(chance, world, len(found) + number, due, [domain]) for number in range(size)]
    return sorted(found, key=lambda each: each.due_utc_s)


def _message(chance: random.Random, world: World, number: int, due: float, domains: list[str]) -> Message:
    sender = "" if chance.random() < 0.05 else f"s{number}@{HOME}"
    notify = chance.choices((0, Notify.NEVER, Notify.FAILURE | Notify.DELAY, Notify.SUCCESS), (70, 5, 15, 10))[0]
    attributes: dict[int, bytes] = {}
    hold = by = 0.0
    # Whole seconds, as the attributes say them.
    if chance.random() < 0.05:
        hold = float(int(due + chance.uniform(60, HELD_MOST_S)))
        attributes[Attribute.HOLD_UNTIL] = b"%d" % hold
    elif chance.random() < 0.03:
        by = float(int(due + chance.uniform(0.5, 6) * HOUR))
        attributes[Attribute.DELIVER_BY] = b"%d;R" % by
    promises = [
        Promise(f"r{number}.{index}@{domain}", domain, world.kinds[domain], sender, int(notify), hold, by)
        for index, domain in enumerate(domains)
    ]
    return Message(due, sender, promises, int(notify), attributes, chance.choice((200, 200, 200, 2000, 20000)))
