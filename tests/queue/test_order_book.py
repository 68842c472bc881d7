"""The standing orders of a machine: kept on disk, ended in time. The clock is the test's."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from angarium.queue.order_book import NAME, OrderBook
from angarium.queue.selection import Selection
from angarium.queue.standing import Order

Y = Selection(domain="y.example")


class Book:
    """A book in a directory with a clock."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / NAME
        self.fd = os.open(directory, os.O_RDONLY)
        self.now = 1000.0
        self.book = self.again()

    def again(self) -> OrderBook:
        self.book = OrderBook(self.fd, lambda: self.now)
        self.book.restore()
        return self.book

    def names(self) -> list[str]:
        return [order.name for order in self.book.orders]


@pytest.fixture
def kept(tmp_path: pathlib.Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    os.close(book.fd)


def order(name: str, **options: Any) -> Order:
    return Order(**{"name": name, "action": "suspend", "where": Y, "made_utc_s": 1000.0, **options})


def test_orders_are_there_after_a_restart_as_they_were(kept: Book) -> None:
    given = [
        order("a", until_utc_s=2000.0, reason="Grüße"),
        order("b", action="reroute", next_hop="smtp://h.example:25", pool="bulk", meets_later=False),
        order("c", action="bounce", code=550, status="5.1.2", by="automation gmail"),
        order("d", where=Selection(tenant="shop", older_than_s=60.0, larger_than_octets=10)),
    ]
    for each in given:
        kept.book.add(each)
    assert kept.again().orders == given


def test_a_suspension_that_comes_back_is_there_until_all_of_it_is_back(kept: Book) -> None:
    shop = Selection(tenant="shop")
    kept.book.add(order("a", where=shop, until_utc_s=2000.0, recovery_s=400.0, steps=1))
    assert kept.book.next_end_s() == 1000.0
    kept.now = 2000.0
    assert kept.book.expire() == []
    (held,) = kept.again().orders
    assert held.is_recovering(kept.now) and held.strength(kept.now) == 0.5
    assert 400.0 <= (kept.book.next_end_s() or 0) <= 400.1
    kept.now = 2400.1
    assert [each.name for each in kept.book.expire()] == ["a"] and kept.names() == []


def test_a_resume_with_a_time_of_its_own_outlives_the_suspension(kept: Book) -> None:
    kept.book.add(order("closed"))
    kept.book.add(order("for ever", action="resume"))
    kept.book.add(order("for a while", action="resume", until_utc_s=2000.0))
    assert [each.name for each in kept.book.cancel("closed")] == ["closed", "for ever"]
    assert kept.names() == ["for a while"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"action": "retry", "every_s": 60.0}, "needs its time"),
        ({"action": "retry", "every_s": 5.0, "until_utc_s": 2000.0}, "every_s: 30 to 86400"),
        ({"every_s": 60.0}, "every_s: of a retry only"),
        ({"recovery_s": 60.0}, "of a suspension with a time only"),
        ({"recovery_s": 60.0, "until_utc_s": 2000.0}, "by other filters a suspension ends at once"),
        ({"recovery_s": 60.0, "until_utc_s": 2000.0, "where": Selection(campaign="c")}, "by other filters"),
        ({"recovery_s": 60.0, "until_utc_s": 2000.0, "where": Selection(site="s"), "steps": 0}, "steps: 1 to 100"),
        ({"action": "resume", "recovery_s": 60.0, "until_utc_s": 2000.0}, "of a suspension with a time only"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        order("x", **options)


def test_an_order_ends_when_its_time_is_over_also_over_a_restart(kept: Book) -> None:
    kept.book.add(order("short", until_utc_s=1060.0))
    kept.book.add(order("long", until_utc_s=5000.0))
    kept.book.add(order("endless"))
    assert kept.book.next_end_s() == 60.0
    kept.now = 1059.9
    assert kept.book.expire() == []
    kept.now = 1060.0
    kept.again()
    assert [each.name for each in kept.book.expire()] == ["short"]
    assert kept.names() == ["long", "endless"]
    kept.again()
    assert kept.names() == ["long", "endless"]
    assert kept.book.next_end_s() == 5000.0 - 1060.0


def test_a_resume_goes_with_the_last_suspension(kept: Book) -> None:
    kept.book.add(order("one"))
    kept.book.add(order("two"))
    kept.book.add(order("but", action="resume", where=Selection(domain="y.example", tenant="shop")))
    assert [each.name for each in kept.book.cancel("one")] == ["one"]
    assert [each.name for each in kept.book.cancel("two")] == ["two", "but"]
    assert kept.again().orders == []


def test_a_resume_goes_when_what_it_resumes_is_over_whatever_else_is_suspended(kept: Book) -> None:
    kept.book.add(order("one"))
    kept.book.add(order("elsewhere", where=Selection(domain="z.example")))
    kept.book.add(order("but", action="resume", where=Selection(domain="y.example", tenant="shop")))
    kept.book.add(order("newer", made_utc_s=1001.0))        # goes before the resume, which is no exception to it
    assert [each.name for each in kept.book.cancel("elsewhere")] == ["elsewhere"]
    assert [each.name for each in kept.book.cancel("one")] == ["one", "but"]
    assert kept.names() == ["newer"]


def test_a_resume_of_what_somebody_else_suspends_goes_with_that_alone(kept: Book) -> None:
    automatic = order("rule/y.example", by="automation rule")
    other = order("rule/z.example", by="automation rule", where=Selection(domain="z.example"))
    kept.book.add(order("unrelated", where=Selection(domain="x.example"), until_utc_s=1060.0))
    kept.book.add(order("but", action="resume"))
    kept.book.add(order("for a while", action="resume", until_utc_s=5000.0))
    kept.now = 1060.0
    assert [each.name for each in kept.book.expire([automatic])] == ["unrelated"]
    kept.again()
    assert kept.book.settle([automatic, other]) == []
    assert [each.name for each in kept.book.settle([other])] == ["but"]
    assert kept.book.cancel("unrelated", besides=[other]) == []
    kept.again()
    assert kept.names() == ["for a while"]


def test_a_name_is_taken_once(kept: Book) -> None:
    kept.book.add(order("suspend-1"))
    with pytest.raises(ValueError, match='there is an order "suspend-1" already'):
        kept.book.add(order("suspend-1"))
    assert kept.book.free_name("suspend") == "suspend-2"
    assert kept.book.free_name("reroute") == "reroute-1"


def test_an_order_that_cannot_be_kept_does_not_hold(kept: Book) -> None:
    kept.path.mkdir()               # a file cannot be renamed over it
    with pytest.raises(OSError, match="directory"):
        kept.book.add(order("a"))
    assert kept.book.orders == []


def test_an_order_that_was_refused_does_not_hold_after_a_restart(
    kept: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is renamed into its place, and then the directory cannot be synced."""
    kept.book.add(order("a"))
    synced = os.fsync
    fails = [True]

    def fsync(fd: int) -> None:
        if fd == kept.fd and fails.pop():
            monkeypatch.setattr(os, "fsync", synced)
            raise OSError(5, "Input/output error")
        synced(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        kept.book.add(order("b"))
    assert kept.names() == ["a"]
    kept.again()
    assert kept.names() == ["a"]


@pytest.mark.parametrize("text", ["", "{}", '{"version":2,"orders":[]}', '{"version":1,"orders":[{"name":""}]}'])
def test_a_file_that_is_not_ours_is_refused_and_stays(kept: Book, text: str) -> None:
    kept.path.write_text(text)
    with pytest.raises(ValueError):
        kept.again()
    assert kept.book.orders == [] and kept.path.read_text() == text
