"""Greylisting: who waits, who passes, what is kept and for how long; the store over restarts, workers and damage."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest

from angarium.admission.greylist import Seen, judge, network_key, triplet_key
from angarium.admission.greylist_store import GreylistStore
from angarium.admission.options import GreylistOptions
from angarium.model.units import Duration

OPTIONS = GreylistOptions(delay=Duration(300), window=Duration(7200), keep=Duration(30 * 86400))
T = 1_700_000_000


def test_the_first_try_waits_and_begins_the_window() -> None:
    judgement = judge(None, T, OPTIONS)
    assert judgement.wait_s == 300
    assert judgement.seen == Seen(T, T + 7200, has_passed=False)


@pytest.mark.parametrize(("after", "wait_s"), [(0, 300), (1, 299), (299, 1), (300, 0), (7199, 0), (7200, 300)])
def test_the_second_try_passes_inside_the_window_only(after: int, wait_s: int) -> None:
    judgement = judge(Seen(T, T + 7200, False), T + after, OPTIONS)
    assert judgement.wait_s == wait_s
    assert judgement.is_first_pass is (wait_s == 0)


def test_a_triplet_that_passed_stays_known_while_it_is_used() -> None:
    seen = Seen(T, T + 30 * 86400, True)
    assert judge(seen, T + 3600, OPTIONS) == judge(seen, T + 7200, OPTIONS)
    assert judge(seen, T + 3600, OPTIONS).seen is None, "not written again every time"
    renewed = judge(seen, T + 2 * 86400, OPTIONS).seen
    assert renewed is not None
    assert renewed.expires_utc_s == T + 32 * 86400
    assert judge(seen, T + 30 * 86400, OPTIONS).wait_s == 300, "forgotten"


def test_a_clock_that_went_back_makes_nobody_wait_longer_than_the_delay() -> None:
    assert judge(Seen(T, T + 7200, False), T - 5000, OPTIONS).wait_s == 300


def test_what_makes_a_triplet() -> None:
    def key(host: str, reverse: bytes = b"a@x.example", forward: bytes = b"b@y.example") -> bytes:
        return triplet_key(network_key(host, OPTIONS), reverse, forward)

    assert key("192.0.2.1") == key("192.0.2.200"), "machines of one /24"
    assert key("192.0.2.1") != key("192.0.3.1")
    assert key("2001:db8::1") == key("2001:db8::ffff:1"), "one /64"
    assert key("2001:db8::1") != key("2001:db8:0:1::1")
    assert key("192.0.2.1", b"A@X.example") == key("192.0.2.1")
    assert key("192.0.2.1", b"ab", b"c") != key("192.0.2.1", b"a", b"bc")
    assert len(key("192.0.2.1", b"x" * 10000)) == 16
    assert network_key("192.0.2.1", OPTIONS) != network_key("0.0.0.0", OPTIONS)


class Store:
    """A store and its clock."""

    def __init__(self, path: Path, options: GreylistOptions = OPTIONS) -> None:
        self.now = float(T)
        self.told: list[str] = []
        self.store = GreylistStore(str(path), options, self.told.append, clock=lambda: self.now)

    async def wait_s(self, host: str = "192.0.2.1", to: bytes = b"b@y.example") -> int:
        return await self.store.wait_s(host, b"a@x.example", to)


def test_what_is_known_outlives_the_process_and_holds_for_all_workers(tmp_path: Path) -> None:
    async def main() -> None:
        one, other = Store(tmp_path / "g"), Store(tmp_path / "g")
        assert await one.wait_s() == 300
        other.now += 100
        assert await other.wait_s() == 200, "another worker"
        await one.store.close()
        await other.store.close()
        again = Store(tmp_path / "g")
        again.now += 400
        assert again.store.wait_now("192.0.2.1", b"a@x.example", b"b@y.example") is None
        assert await again.wait_s() == 0
        assert again.store.wait_now("192.0.2.77", b"a@x.example", b"b@y.example") == 0, "without asking"
        assert await again.wait_s(to=b"c@y.example") == 300
        await again.store.close()

    asyncio.run(main())


def test_a_network_that_came_back_often_enough_is_asked_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        each = Store(tmp_path / "g", msgspec.structs.replace(OPTIONS, passes=2))
        for to in (b"b1@y.example", b"b2@y.example"):
            assert await each.wait_s(to=to) == 300
        each.now += 400
        for to in (b"b1@y.example", b"b2@y.example"):
            assert await each.wait_s(to=to) == 0
        assert await each.wait_s(to=b"new@y.example") == 0
        assert each.store.knows_network("192.0.2.9")
        assert await each.wait_s("198.51.100.1", to=b"new@y.example") == 300, "another network"
        await each.store.close()

    asyncio.run(main())


def test_requests_that_come_together_are_one_transaction_each_answered(tmp_path: Path) -> None:
    async def main() -> None:
        each = Store(tmp_path / "g")
        waits = await asyncio.gather(*(each.wait_s(to=b"b%d@y.example" % number) for number in range(500)))
        assert waits == [300] * 500
        await each.store.close()

    asyncio.run(main())


def test_the_file_stays_bounded_and_keeps_those_that_came_back(tmp_path: Path) -> None:
    async def main() -> None:
        each = Store(tmp_path / "g", msgspec.structs.replace(OPTIONS, max_entries=1000, passes=0))
        await each.wait_s(to=b"good@y.example")
        each.now += 400
        assert await each.wait_s(to=b"good@y.example") == 0
        await asyncio.gather(*(each.wait_s(to=b"b%d@y.example" % number) for number in range(4000)))
        each.store._purged_mono_s = -100.0
        await each.wait_s(to=b"one more@y.example")
        await each.store.close()
        database = sqlite3.connect(tmp_path / "g")
        assert database.execute("SELECT count(*) FROM triplet").fetchone() == (1000,)
        assert database.execute("SELECT count(*) FROM triplet WHERE passed").fetchone() == (1,)
        database.close()

    asyncio.run(main())


def test_a_store_in_trouble_keeps_no_mail_out(tmp_path: Path) -> None:
    async def main() -> None:
        each = Store(tmp_path / "missing" / "g")
        assert await each.wait_s() == 0
        assert "missing" in each.told[0]
        await each.store.close()

    asyncio.run(main())


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "g").write_bytes(b"this is no database at all" * 400)
        each = Store(tmp_path / "g")
        assert await each.wait_s() == 0
        assert each.told
        assert await each.wait_s() == 300, "a new one was begun"
        assert (tmp_path / "g.damaged").exists()
        await each.store.close()

    asyncio.run(main())


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        each = Store(tmp_path / "g")
        await each.wait_s()
        await each.store.close()
        assert (tmp_path / "g").stat().st_mode & 0o077 == 0

    asyncio.run(main())
