"""The standing orders of a machine, and their file: `orders.json` in the spool's directory. Kept by the supervisor
alone, who hands them to all workers; read once at start, written whole and renamed into place at each change.

    {"version": 1, "orders": [{"name": "closed", "action": "suspend", "where": {"domain": "example.com"}, ...}]}
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from angarium.queue.selection import Selection, may_meet
from angarium.queue.standing import Order
from angarium.spool.state_file import StateFile

NAME: Final = "orders.json"
ORDERS_MAX: Final = 1000        # each is asked of every domain queue once


class _Orders(msgspec.Struct):
    version: int
    orders: list[Order]


class OrderBook:
    """directory_fd: of the spool's; borrowed. clock: UTC seconds."""

    def __init__(self, directory_fd: int, clock: Callable[[], float] = time.time) -> None:
        self._file = StateFile(directory_fd, NAME)
        self._clock = clock
        self._orders: dict[str, Order] = {}

    @property
    def orders(self) -> list[Order]:
        """The oldest first."""
        return list(self._orders.values())

    def restore(self) -> None:
        """Raises OSError, or ValueError when the file is not ours: there are no orders then, and the file stays until
        one is given."""
        octets = self._file.read()
        if octets is None:
            return
        found = msgspec.json.decode(octets, type=_Orders)       # its errors are ValueErrors
        if found.version != 1:
            raise ValueError(f"version {found.version}")
        self._orders = {order.name: order for order in found.orders}

    def add(self, order: Order) -> None:
        """Raises ValueError when the name is taken or there are too many, OSError when it could not be kept: then it
        does not hold."""
        if order.name in self._orders:
            raise ValueError(f'there is an order "{order.name}" already; cancel it first, or choose another name')
        if len(self._orders) >= ORDERS_MAX:
            raise ValueError(f"{ORDERS_MAX} orders hold, and more may not")
        self._change({**self._orders, order.name: order})

    def free_name(self, action: str) -> str:
        """ "suspend-1" and so on."""
        number = 1
        while f"{action}-{number}" in self._orders:
            number += 1
        return f"{action}-{number}"

    def suspensions_of(self, where: Selection) -> list[Order]:
        """Orders that suspend just that."""
        return [order for order in self._orders.values() if order.action == "suspend" and order.where == where]

    def cancel(self, *names: str, besides: Iterable[Order] = ()) -> list[Order]:
        """Those that were there, and what makes no sense without them: see settle(). Raises OSError."""
        gone = [self._orders[name] for name in names if name in self._orders]
        return self._without(gone, besides) if gone else []

    def expire(self, besides: Iterable[Order] = ()) -> list[Order]:
        """Takes away whose time is over, and settles. Raises OSError."""
        now = self._clock()
        return self._without([order for order in self._orders.values() if 0 < order.ends_utc_s <= now], besides)

    def settle(self, besides: Iterable[Order] = ()) -> list[Order]:
        """Takes away resumes that resume nothing any more. A resume is an exception to suspensions that are older, and
        goes with the last of them that may concern its mail, unless it has a time of its own. Raises OSError.

        besides  suspensions that are none of an operator's.
        """
        return self._without([], besides)

    def next_end_s(self) -> float | None:
        """In how many seconds one ends, or comes back a step; None: none does by itself."""
        now = self._clock()
        ends = [order.next_change(now) for order in self._orders.values() if order.until_utc_s]
        return max(0.0, min(ends) - now) if ends else None

    def _without(self, gone: list[Order], besides: Iterable[Order]) -> list[Order]:
        left = [order for order in self._orders.values() if order not in gone]
        suspensions = [*(order for order in left if order.action == "suspend"), *besides]
        gone = gone + [
            order
            for order in left
            if order.action == "resume"
            and not order.until_utc_s
            and not any(
                each.made_utc_s <= order.made_utc_s and may_meet(each.where, order.where) for each in suspensions
            )
        ]
        if gone:
            self._change({order.name: order for order in left if order not in gone})
        return gone

    def _change(self, orders: dict[str, Order]) -> None:
        try:
            self._write(orders)
        except OSError:
            with contextlib.suppress(OSError):      # it may be in its place already, and would hold after a restart
                self._write(self._orders)
            raise
        self._orders = orders

    def _write(self, orders: dict[str, Order]) -> None:
        self._file.write(msgspec.json.encode(_Orders(1, list(orders.values()))))
