"""What the operator may set about the queue: [queue.default], [queue.memory]. Limits of sites: shaping_options.py."""

from __future__ import annotations

import msgspec

from angarium.model.units import Duration, Octets


class RetryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a deferred recipient is tried again: first * factor**(attempts - 1), at most max, +- jitter (a fraction)."""

    first: Duration = Duration(300)
    factor: float = 2.0
    max: Duration = Duration(4 * 3600)
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.first <= 0:
            raise ValueError("first: more than 0")
        if not 1.0 <= self.factor <= 100.0:
            raise ValueError("factor: between 1 and 100")
        if self.max < self.first:
            raise ValueError("max: not less than first")
        if not 0.0 <= self.jitter <= 0.9:
            raise ValueError("jitter: between 0 and 0.9")


class QueueOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Retry and expiry.

    max_age       a recipient not delivered after this long expires (RFC 5321 §4.5.4.1: 4 to 5 days).
    delay_report  after how long a sender who asked for it (NOTIFY=DELAY, RFC 3461) is told that a recipient waits
                  still, at the next attempt that fails; 0: never.
    """

    retry: RetryOptions = RetryOptions()
    max_age: Duration = Duration(5 * 86400)
    delay_report: Duration = Duration(4 * 3600)

    def __post_init__(self) -> None:
        if self.max_age <= 0:
            raise ValueError("max_age: more than 0")
        if self.delay_report < 0:
            raise ValueError("delay_report: 0 (never) or more")


class MemoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[queue.memory]: what the queue may take of each worker's memory.

    limit   of all of it; 0: half of the machine's memory, divided by the workers. Above it new mail gets 452.
    slow_from_percent  of it: from here on MAIL is kept waiting, the longer the nearer to the limit; 100: never.
    bodies  of envelopes and bodies kept for the first attempt; others are read back from the spool.
    """

    limit: Octets = Octets(0)
    slow_from_percent: int = 75
    bodies: Octets = Octets(24 << 20)

    def __post_init__(self) -> None:
        if self.limit and self.limit < 1 << 20:
            raise ValueError("limit: 0 (half of the machine's memory) or at least 1MiB")
        if not 1 <= self.slow_from_percent <= 100:
            raise ValueError("slow_from_percent: between 1 and 100 (never)")
        if self.limit and self.bodies > self.limit:
            raise ValueError("bodies: not more than limit")
