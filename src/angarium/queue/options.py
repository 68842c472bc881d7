"""What the operator may set about the queue: [queue.default]. Limits towards sites: shaping_options.py."""

from __future__ import annotations

import msgspec

from angarium.model.units import Duration


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
