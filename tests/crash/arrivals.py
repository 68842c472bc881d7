"""What came out of a relay, held against what had gone in: missing, changed, repeated, and repeated without excuse.

A delivery may be repeated when the worker that made it was killed before the outcome was durable. When the worker knew
of the outcome stands in its log: the event `delivered`, written within 20 ms. So one that was logged may be repeated if
the worker was killed within the duplicate window after that; one that was not, if it was killed at all in between. All
times here are of the wall clock: processes share no other.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from typing import Any

from end_to_end.next_hop import Delivery

from angarium.spool.envelope import decode_id

# By judgement: a sync on a machine whose disk and cores are shared by load, relay and next hop may take that much
# longer. A relay that kept outcomes back for longer would still be seen.
LATE_S = 0.4
# The next hop may note a delivery after its worker's death: the octets were in its socket already.
BEHIND_S = 2.0
# An event's time is that of the turn of the loop in which it happened.
RESOLUTION_S = 0.01


@dataclasses.dataclass(frozen=True)
class Kill:
    """When workers ended without a word, and which; their numbers are those of the shards they write.

    at_utc_s, gone_utc_s  before the signal was sent, and when they were seen to be gone: on a busy machine a process
                          gets to die later than it is told to.
    """

    at_utc_s: float
    gone_utc_s: float
    workers: frozenset[int]


@dataclasses.dataclass(frozen=True)
class Arrival:
    """One delivery to one mailbox: when the next hop had it, which worker made it."""

    at_utc_s: float
    worker: int


@dataclasses.dataclass(frozen=True)
class Verdict:
    """missing: of acknowledged messages, number -> queue id. The numbers in the others are messages' too.

    oldest_repeated_s  the longest time from an outcome in the log to the kill that let it be repeated.
    """

    acknowledged: int
    deliveries: int
    repeated: int
    unexcused: list[int]
    missing: dict[int, str]
    corrupt: list[int]
    oldest_repeated_s: float

    @property
    def is_good(self) -> bool:
        return not (self.unexcused or self.missing or self.corrupt)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {self.deliveries} deliveries, {self.repeated} repeated "
            f"(the oldest {self.oldest_repeated_s * 1000:.0f} ms before its kill), {len(self.unexcused)} of them "
            f"outside the duplicate window, {len(self.missing)} missing, {len(self.corrupt)} corrupt"
        )


class Arrivals:
    """Takes deliveries in the next hop's thread, keeps no octets. message_of: what each number was sent as."""

    def __init__(self, message_of: Callable[[int], bytes]) -> None:
        self._message_of = message_of
        self._of_mailbox: dict[tuple[int, str], list[Arrival]] = {}
        self._corrupt: list[int] = []
        self._ids: dict[int, str] = {}
        self.count = 0

    @property
    def messages(self) -> int:
        """How many different messages have come, at least for one recipient."""
        return len(self._ids)

    def take(self, delivery: Delivery) -> None:
        """A message that cannot even be told is number 0."""
        found = re.match(rb"Received: (?:[^\r]|\r\n[ \t])* id ([0-9A-Z]{13})", delivery.message)
        serial = serial_of(delivery.message)
        if found is None or serial == 0 or delivery.content != self._message_of(serial):
            self._corrupt.append(serial)
            return
        self._ids[serial] = found[1].decode()
        at_utc_s = delivery.at_mono_s + time.time() - time.monotonic()
        arrival = Arrival(at_utc_s, decode_id(self._ids[serial]) >> 56)
        for mailbox in delivery.to:
            self._of_mailbox.setdefault((serial, mailbox), []).append(arrival)
            self.count += 1

    def judge(
        self,
        acknowledged: dict[int, tuple[str, list[str]]],
        kills: list[Kill],
        events: Iterable[dict[str, Any]],
        window_s: float,
    ) -> Verdict:
        """Once nothing is on its way any more. events: the relay's log."""
        logged: dict[tuple[str, str], list[float]] = {}
        for event in events:
            if event["event"] == "delivered":
                at_utc_s = datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()
                logged.setdefault((event["id"], event["to"]), []).append(at_utc_s)
        unexcused, oldest_s = list[int](), 0.0
        for (serial, mailbox), arrivals in self._of_mailbox.items():
            known = logged.get((self._ids[serial], mailbox), [])
            for first, again in pairwise(arrivals):
                age_s = excuse(first, again, known, kills, window_s)
                if age_s is None:
                    unexcused.append(serial)
                else:
                    oldest_s = max(oldest_s, age_s)
        return Verdict(
            acknowledged=len(acknowledged),
            deliveries=self.count,
            repeated=sum(len(arrivals) - 1 for arrivals in self._of_mailbox.values()),
            unexcused=unexcused,
            missing={
                serial: id_
                for serial, (id_, to) in acknowledged.items()
                if any((serial, mailbox) not in self._of_mailbox for mailbox in to)
            },
            corrupt=self._corrupt,
            oldest_repeated_s=oldest_s,
        )


def excuse(
    first: Arrival, again: Arrival, known_utc_s: list[float], kills: list[Kill], window_s: float
) -> float | None:
    """How long before the kill the outcome of `first` was known, 0 when it was not; None: nothing excuses `again`.

    known_utc_s  when this message was logged as delivered to this mailbox, each time.
    """
    known = [at for at in known_utc_s if first.at_utc_s - RESOLUTION_S <= at < again.at_utc_s - RESOLUTION_S]
    ages = [
        max(kill.at_utc_s - (known[0] if known else kill.at_utc_s), 0.0)
        for kill in kills
        if first.worker in kill.workers and first.at_utc_s - BEHIND_S <= kill.at_utc_s < again.at_utc_s
        and (not known or kill.gone_utc_s >= known[0] - RESOLUTION_S)
    ]
    return min((age for age in ages if age <= window_s + LATE_S), default=None)


def serial_of(message: bytes) -> int:
    """A message's number by its own word; 0 without one."""
    digits = message.partition(b"\r\nX-Serial: ")[2].partition(b"\r\n")[0]
    return int(digits) if digits.isdigit() else 0
