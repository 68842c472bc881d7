"""Who sends to a receiver, address by address: what it has sent, second by second, and whether it may send more."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

_GREYLIST_ENTRIES = 1_000_000


class Counts(msgspec.Struct):
    """What happened in some time. open: most connections at once; deferred and rejected: 4xx and 5xx to MAIL, RCPT and
    what follows; refused_connections: greeted with 4xx or 5xx.
    """

    connections: int = 0
    refused_connections: int = 0
    open: int = 0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    deferred: int = 0
    rejected: int = 0
    disconnects: int = 0

    def add(self, other: Counts) -> None:
        """Sums, but the larger of `open`."""
        for name in self.__struct_fields__:
            ours, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(ours, theirs) if name == "open" else ours + theirs)


class Pace:
    """At most so many a second, and a second's worth at once (GCRA)."""

    __slots__ = ("_due_s", "_interval_s", "_tolerance_s")

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._tolerance_s = max(1.0 - self._interval_s, 0.0)
        self._due_s = 0.0

    def allows(self, now_s: float) -> bool:
        """Whether one more may come now; it is counted if so."""
        due_s = max(self._due_s, now_s)
        if due_s - now_s > self._tolerance_s:
            return False
        self._due_s = due_s + self._interval_s
        return True


class Greylist:
    """Triples and when they were first seen; at most a million, the oldest goes first."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._first_seen_s: OrderedDict[tuple[str, bytes, bytes], float] = OrderedDict()

    def knows(self, triple: tuple[str, bytes, bytes], now_s: float) -> bool:
        """Whether the triple was first seen long enough ago; a new one is remembered."""
        first_s = self._first_seen_s.setdefault(triple, now_s)
        if len(self._first_seen_s) > _GREYLIST_ENTRIES:
            self._first_seen_s.popitem(last=False)
        return now_s - first_s >= self._wait_s


class Source:
    """One client address at one receiver, or at one of its addresses. `live()` is what is counted into, `total()` is
    everything so far.

    tell   gets each second in which something happened, once it is over.
    """

    __slots__ = (
        "_live", "_second", "_tell", "_total", "address", "busiest", "client", "connection_pace", "message_pace",
        "open", "receiver",
    )

    def __init__(
        self,
        receiver: str,
        client: str,
        address: str,
        *,
        connection_pace: Pace | None = None,
        message_pace: Pace | None = None,
        tell: Callable[[Source, int, Counts], None] | None = None,
    ) -> None:
        self.receiver = receiver
        self.client = client
        self.address = address
        self.connection_pace = connection_pace
        self.message_pace = message_pace
        self.open = 0
        self.busiest = 0            # most messages in one second
        self._second = 0
        self._live = Counts()
        self._total = Counts()
        self._tell = tell

    def names(self) -> dict[str, str]:
        """Whose counts these are, for a reader."""
        return {"source": self.client, **({"address": self.address} if self.address else {})}

    def live(self) -> Counts:
        """The counts of the second that is running."""
        second = int(time.time())
        if second != self._second:
            self.roll(second)
        return self._live

    def roll(self, second: int) -> None:
        """Ends the second that was running, unless it is this one (seconds since 1970)."""
        if second == self._second:
            return
        live, before, self._second = self._live, self._second, second
        self._live = Counts(open=self.open)
        self.busiest = max(self.busiest, live.messages)
        self._total.add(live)
        if self._tell is not None and before and live != Counts(open=live.open):
            self._tell(self, before, live)

    def total(self) -> Counts:
        """Everything so far."""
        found = msgspec.structs.replace(self._total)
        found.add(self._live)
        return found
