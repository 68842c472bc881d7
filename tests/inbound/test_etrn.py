"""ETRN: who may ask for which domain, how often, and what is answered (RFC 1985 §5)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import pytest

from angarium.inbound import etrn
from angarium.inbound.etrn import EtrnDesk, EtrnRules
from angarium.inbound.kinds import check_etrn
from angarium.queue.shares import Shares

RULES = EtrnRules(
    {
        "customer.example": ["192.0.2.7", "2001:db8::/32"],
        ".customer.example": ["192.0.2.7"],
        "other.example": ["bob@x.example"],
        "*": ["10.0.0.0/8"],
    }
)


class Asker:
    def __init__(self, host: str = "192.0.2.7", login: str | None = None) -> None:
        self.host = host
        self.identity = login
        self.reply: asyncio.Future[bytes] | None = None

    def etrn_answered(self, reply: bytes) -> None:
        assert self.reply is not None
        self.reply.set_result(reply)


@pytest.mark.parametrize(
    ("host", "login", "node", "may"),
    [
        ("192.0.2.7", None, "customer.example", True),
        ("192.0.2.8", None, "customer.example", False),
        ("2001:db8::1", None, "customer.example", True),
        ("192.0.2.7", None, "a.b.customer.example", True),
        ("2001:db8::1", None, "a.customer.example", False),
        ("192.0.2.7", None, "@customer.example", True),
        ("2001:db8::1", None, "@customer.example", False),      # not what is below it
        ("192.0.2.7", None, "notcustomer.example", False),
        ("192.0.2.7", "bob@x.example", "other.example", True),
        ("192.0.2.7", "eve@x.example", "other.example", False),
        ("10.1.1.1", None, "anything.example", True),
        ("10.1.1.1", None, "@anything.example", True),
        ("", None, "customer.example", False),
    ],
)
def test_who_may_ask_for_what(host: str, login: str | None, node: str, may: bool) -> None:
    assert RULES.allows(node, Asker(host, login)) is may


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that is over at once is told so, whenever the machine gets to it."""
    monkeypatch.setattr(etrn, "ANSWER_S", 600.0)


async def ask(desk: EtrnDesk, argument: bytes, host: str = "192.0.2.7") -> bytes:
    asker = Asker(host)
    asker.reply = asyncio.get_running_loop().create_future()
    return desk.ask(asker, RULES, argument) or await asyncio.wait_for(asker.reply, 20)


def desk_of(retry: Callable[[str], Awaitable[int]], orders: Shares | None = None) -> EtrnDesk:
    return EtrnDesk(retry, Shares(1) if orders is None else orders)


def test_the_answer_says_how_many_were_begun() -> None:
    asked: list[str] = []

    async def retry(node: str) -> int:
        asked.append(node)
        return 3 if node == "customer.example" else 0

    async def main() -> None:
        desk = desk_of(retry)
        counted = b"253 2.0.0 3 pending messages for node customer.example started\r\n"
        assert await ask(desk, b"Customer.Example.") == counted
        assert (await ask(desk, b"@customer.example")).startswith(b"251 2.0.0 ")
        assert (await ask(desk, b"elsewhere.example")).startswith(b"459 4.7.1 ")
        assert asked == ["customer.example", "@customer.example"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("argument", "code"),
    [(b"#queue", b"458"), (b"a b", b"501"), (b"@", b"501"), (b".x.example", b"501"), (b"x..example", b"501"),
     (b"a" * 300, b"501"), (b"<x>", b"501"), (b"*", b"501"), (b"#a b", b"501")],
)  # fmt: skip
def test_what_is_no_node_is_refused(argument: bytes, code: bytes) -> None:
    async def retry(node: str) -> int:
        raise AssertionError(node)

    async def main() -> None:
        assert (await ask(desk_of(retry), argument, "10.0.0.1")).startswith(code)

    asyncio.run(main())


def test_asking_again_costs_nothing_until_its_time_has_come() -> None:
    asked = []

    async def retry(node: str) -> int:
        asked.append(node)
        return 1

    async def main() -> None:
        orders = Shares(1)
        desk = desk_of(retry, orders)
        before = time.monotonic_ns()
        assert (await ask(desk, b"customer.example")).startswith(b"253")
        assert (await ask(desk, b"CUSTOMER.example")).startswith(b"250")
        assert (await ask(desk, b"@customer.example")).startswith(b"253"), "that is another order"
        assert len(asked) == 2
        due = orders.arrivals()
        assert all(0 <= each - before - 30 * 10**9 < 10 * 10**9 for each in due.values())
        later = Shares(1)
        later.restore(orders.secret, {key: each - 30 * 10**9 for key, each in due.items()})
        assert (await ask(desk_of(retry, later), b"customer.example")).startswith(b"253")

    asyncio.run(main())


def test_of_all_workers_one_begins_an_order_and_one_that_is_started_again_knows_of_it() -> None:
    orders, asked = Shares(3), []

    async def retry(node: str) -> int:
        asked.append(node)
        return 1

    def worker(number: int) -> bytes:
        orders.attach(number)
        return asyncio.run(ask(desk_of(retry, orders), b"customer.example"))[:3]

    def in_child(number: int) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(int(worker(number)))
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_child(1) == 253
    orders.forget_worker(1)             # it died; what it has begun goes on in the others
    assert in_child(1) == 250
    assert (worker(0), worker(2), asked) == (b"250", b"250", [])


def test_a_long_order_is_answered_before_it_ends_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etrn, "ANSWER_S", 0.0)

    async def main() -> None:
        over, ended = asyncio.Event(), []

        async def retry(node: str) -> int:
            await over.wait()
            ended.append(node)
            return 1

        assert (await ask(desk_of(retry), b"customer.example")).startswith(b"250")
        over.set()
        while not ended:
            await asyncio.sleep(0)

    asyncio.run(main())


def test_an_order_that_fails_is_458() -> None:
    async def retry(node: str) -> int:
        raise RuntimeError("no")

    async def main() -> None:
        assert (await ask(desk_of(retry), b"customer.example")).startswith(b"458")

    asyncio.run(main())


@pytest.mark.parametrize("table", [{"a b": []}, {"x.example": ["10.0.0.1/8"]}, {"x.example": [""]}, {"": []}])
def test_rules_that_mean_nothing_are_refused(table: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="etrn_for"):
        check_etrn(table)
