"""Counts that hold for the whole machine and are given back steadily: failures of AUTH, and what an identity may send.

Each is GCRA in a table of shares (csrc/queue/shares.h), which all workers see: `count` at once, and then one every
period/count. Quotas are kept over a restart (quota_file.py), failures are not. A table has 65,536 places; when a new
name finds none near its own, what has least to give back is forgotten for it.
"""

from __future__ import annotations

from typing import Final

from angarium.queue.shares import Share, Shares
from angarium.sasl.options import QuotaOptions

HOUR_NS: Final = 3600 * 10**9
DAY_NS: Final = 24 * HOUR_NS


class Counts:
    """The tables, mapped once before the fork. Strangers name addresses by having them, and identities by inventing
    them: each kind has its own table, so that a flood of one makes no other be forgotten, and quotas are among known
    identities only."""

    def __init__(self, worker_count: int = 1) -> None:
        self.sent = Shares(worker_count)
        self.failures_of_addresses = Shares(worker_count)
        self.failures_of_identities = Shares(worker_count)
        self.orders = Shares(worker_count)      # of ETRN, by domain: nothing of a quota, but as common to all workers

    def attach(self, worker: int) -> None:
        """In the worker, behind the fork."""
        for table in (self.sent, self.failures_of_addresses, self.failures_of_identities, self.orders):
            table.attach(worker)


class Allowance:
    """`count` in `period_ns`, under a name."""

    def __init__(self, shares: Shares, name: str, count: int, period_ns: int) -> None:
        self._share: Share = shares.share(name)
        self._interval_ns = period_ns // count
        self._count = count

    def wait_ns(self) -> int:
        """0: one may be taken now."""
        return self._share.peek_ns(self._interval_ns, self._count)

    def take(self) -> bool:
        return self._share.wait_ns(self._interval_ns, self._count) == 0

    def give_back(self) -> None:
        """Of one take() that was True, by the same object: at most once."""
        self._share.give_message_back(self._interval_ns)


class Quota:
    """What one identity may still send. A transaction counts when MAIL is accepted, a recipient when RCPT is."""

    def __init__(self, shares: Shares, identity: str, options: QuotaOptions) -> None:
        def allowances(kind: str, per_hour: int, per_day: int) -> list[Allowance]:
            periods = ((per_hour, HOUR_NS, "hour"), (per_day, DAY_NS, "day"))
            return [
                Allowance(shares, f"{kind} {word} {identity}", count, period)
                for count, period, word in periods
                if count
            ]

        self._messages = allowances("messages", options.messages_per_hour, options.messages_per_day)
        self._recipients = allowances("recipients", options.recipients_per_hour, options.recipients_per_day)

    def has_message(self) -> bool:
        """One might be taken now."""
        return _has(self._messages)

    def has_recipient(self) -> bool:
        return _has(self._recipients)

    def take_message(self) -> bool:
        return _take(self._messages)

    def take_recipient(self) -> bool:
        return _take(self._recipients)


def _has(allowances: list[Allowance]) -> bool:
    return not any(allowance.wait_ns() for allowance in allowances)


def _take(allowances: list[Allowance]) -> bool:
    """One of each, or none of any. Two workers at once may take one of the first too many: it is given back in time."""
    return _has(allowances) and all([allowance.take() for allowance in allowances])
