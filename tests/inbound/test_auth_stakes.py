"""What tries at AUTH cost: taken before they are judged, over connections, addresses and workers, and given back of
whatever was no failure. Time stands still here: what is given back in an hour is given back by hand."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import auth_harness, plain
from inbound.intake_harness import IntakeHarness, run
from inbound.smtp_peer import SmtpPeer

from angarium.events.journal import Journal
from angarium.inbound.authority import Authority
from angarium.inbound.quota import HOUR_NS, Allowance, Counts
from angarium.model.units import Duration
from angarium.sasl.backend import Gate, OwnConversation, Peer
from angarium.sasl.options import AuthOptions
from angarium.sasl.steps import Unavailable

IDENTITY = "alice@x.example"


class Judge:
    """Asked about passwords and tokens it thinks about them until `verdict` is there: a name, None, or an exception."""

    mechanisms = frozenset(("PLAIN", "LOGIN", "OAUTHBEARER"))

    def __init__(self) -> None:
        self.asked = 0
        self.verdict: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def begin(self, mechanism: str, peer: Peer, gate: Gate) -> OwnConversation:
        return OwnConversation(mechanism, peer, self, gate)  # type: ignore[arg-type]

    def close(self) -> None:
        pass

    async def whose_password(self, ask: Any, peer: Peer) -> str | None:
        self.asked += 1
        return await asyncio.shield(self.verdict)

    whose_token = whose_password


class Knocker:
    """A connection as the authority sees it: of some address, without a socket."""

    host, is_secure = "192.0.2.1", True

    def __init__(self, network: bytes = b"\xc0\x00\x02\x01") -> None:
        self.network = network
        self.said: list[str] = []

    def channel_binding(self, kind: str) -> None:
        pass

    def auth_challenge(self, octets: bytes) -> None:
        self.said.append("334")

    def auth_accepted(self, identity: bytes, rights: Any) -> None:
        self.said.append("235")

    def auth_refused(self, reply: bytes) -> None:
        self.said.append(reply[:3].decode())


class Workers:
    """Some, with one judge between them."""

    def __init__(self, folder: Path, count: int = 1, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        self.counts = Counts(worker_count=count)
        self.judge = Judge()
        self.options = AuthOptions(failure_delay=Duration(0), **options)
        self.log = (folder / "log").open("w+b")
        self.journal = Journal(self.log.fileno(), loop)
        self.workers = [Authority(loop, self.journal, self.counts) for _ in range(count)]
        for worker in self.workers:
            worker.options = self.options
            worker._backend = self.judge  # type: ignore[assignment]
        self.attempts: list[Any] = []

    def knock(self, network: bytes = b"\xc0\x00\x02\x01", worker: int = 0) -> Knocker:
        knocker = Knocker(network)
        self.attempts.append(self.workers[worker].begin(knocker, "PLAIN", False))  # type: ignore[arg-type]
        self.attempts[-1].respond(f"\0{IDENTITY}\0guess".encode())
        return knocker

    async def until_quiet(self) -> None:
        """Everybody has been answered, or is being judged."""
        for _ in range(20):
            await asyncio.sleep(0)

    def of_address(self, network: bytes = b"\xc0\x00\x02\x01") -> Allowance:
        return Allowance(self.counts.failures_of_addresses, network.hex(), self.options.failures_per_address, HOUR_NS)

    def of_identity(self) -> Allowance:
        return Allowance(self.counts.failures_of_identities, IDENTITY, self.options.failures_per_identity, HOUR_NS)


def left_of(allowance: Allowance) -> int:
    """How many more may fail. Uses them up."""
    count = 0
    while allowance.take():
        count += 1
    return count


def test_one_place_that_comes_back_lets_one_of_many_tries_at_once_be_judged(tmp_path: Path) -> None:
    """Failures were counted when they were over: behind each place that came back a full burst was judged."""

    async def main() -> None:
        workers = Workers(tmp_path, failures_per_address=3)
        allowance = workers.of_address()
        assert left_of(allowance) == 3
        allowance.give_back()
        knockers = [workers.knock() for _ in range(5)]
        await workers.until_quiet()
        assert workers.judge.asked == 1
        workers.judge.verdict.set_result(None)
        await workers.until_quiet()
        assert sorted(knocker.said[0] for knocker in knockers) == ["454"] * 4 + ["535"]
        assert workers.of_address().wait_ns()

    run(main())


def test_tries_at_once_over_two_workers_are_no_more_than_may_fail(tmp_path: Path) -> None:
    async def main() -> None:
        workers = Workers(tmp_path, 2, failures_per_address=4)
        knockers = [workers.knock(worker=number % 2) for number in range(10)]
        await workers.until_quiet()
        assert workers.judge.asked == 4
        workers.judge.verdict.set_result(None)
        await workers.until_quiet()
        assert [said for knocker in knockers for said in knocker.said].count("535") == 4
        assert workers.knock(worker=1).said == []
        await workers.until_quiet()
        assert workers.judge.asked == 4

    run(main())


def test_one_identity_tried_from_many_addresses_at_once_is_judged_as_often_as_it_may_fail(tmp_path: Path) -> None:
    async def main() -> None:
        workers = Workers(tmp_path, 2, failures_per_identity=5)
        networks = [bytes((192, 0, 2, number)) for number in range(60)]
        knockers = [workers.knock(network, number % 2) for number, network in enumerate(networks)]
        await workers.until_quiet()
        assert workers.judge.asked == 5
        workers.judge.verdict.set_result(None)
        await workers.until_quiet()
        said = [knocker.said for knocker in knockers]
        assert said.count(["535"]) == 5 and said.count(["454"]) == 55
        # An address whose try was not made has lost nothing by it.
        assert left_of(workers.of_address(networks[said.index(["454"])])) == workers.options.failures_per_address

    run(main())


@pytest.mark.parametrize(
    ("verdict", "reply"),
    [(IDENTITY, "235"), (Unavailable("away"), "454"), (asyncio.CancelledError(), "454"), (OSError("a fault"), "454")],
    ids=["success", "unavailable", "cancelled", "fault"],
)
def test_what_was_no_failure_is_given_back_once(tmp_path: Path, verdict: Any, reply: str) -> None:
    async def main() -> None:
        workers = Workers(tmp_path, failures_per_address=3, failures_per_identity=3)
        assert workers.of_address().take() and workers.of_identity().take()
        knockers = [workers.knock() for _ in range(2)]
        await workers.until_quiet()
        assert workers.judge.asked == 2 and workers.of_address().wait_ns() and workers.of_identity().wait_ns()
        if isinstance(verdict, BaseException):
            workers.judge.verdict.set_exception(verdict)
        else:
            workers.judge.verdict.set_result(verdict)
        await workers.until_quiet()
        assert [knocker.said for knocker in knockers] == [[reply]] * 2
        for attempt in workers.attempts:
            attempt.drop()
        assert left_of(workers.of_address()) == 2 and left_of(workers.of_identity()) == 2

    run(main())


def test_no_answer_in_time_is_given_back(tmp_path: Path) -> None:
    async def main() -> None:
        workers = Workers(tmp_path, timeout=Duration(0.1), failures_per_address=3)
        knocker = workers.knock()
        while not knocker.said:
            await asyncio.sleep(0.01)
        assert knocker.said == ["454"]
        assert left_of(workers.of_address()) == 3

    run(main())


def test_who_leaves_while_he_is_judged_has_failed(tmp_path: Path) -> None:
    """A right password that was known a moment ago is known at once: who hangs up a moment later has learnt what he
    wanted, and tried it for nothing."""

    async def main() -> None:
        workers = Workers(tmp_path, failures_per_address=3, failures_per_identity=3)
        workers.knock()
        await workers.until_quiet()
        workers.attempts[0].drop()
        workers.attempts[0].drop()
        await workers.until_quiet()
        assert left_of(workers.of_address()) == 2 and left_of(workers.of_identity()) == 2
        workers.journal.flush()
        workers.log.seek(0)
        assert workers.log.read().count(b'"reason":"abandoned"') == 1

    run(main())


def of_intake(harness: IntakeHarness) -> tuple[Authority, Judge]:
    authority, judge = harness.intake.authority, Judge()
    assert authority is not None
    authority._backend = judge  # type: ignore[assignment]
    return authority, judge


def test_a_token_whose_no_was_told_in_a_challenge_has_failed_though_the_client_cancels(tmp_path: Path) -> None:
    """RFC 7628 §3.2.2: clients hear of the failure before the exchange is over: "*" behind it was a free guess."""

    async def main() -> None:
        async with auth_harness(tmp_path, failures_per_address=2) as harness:
            _, judge = of_intake(harness)
            judge.verdict.set_result(None)
            for _ in range(2):
                peer = await SmtpPeer.greeted(harness.port)
                token = base64.b64encode(b"n,,\x01auth=Bearer guess\x01\x01")
                assert (await peer.ask(b"AUTH OAUTHBEARER " + token + b"\r\n"))[:3] == "334"
                assert (await peer.ask(b"*\r\n"))[:3] == "501"
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain()))[:3] == "421"
            assert judge.asked == 2

    run(main())


def test_a_prompt_costs_nothing_though_the_client_cancels(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path, failures_per_address=1) as harness:
            _, judge = of_intake(harness)
            judge.verdict.set_result(IDENTITY)
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(3):
                assert (await peer.ask(b"AUTH LOGIN\r\n"))[:3] == "334"
                assert (await peer.ask(b"*\r\n"))[:3] == "501"
            assert (await peer.ask(plain()))[:3] == "235"

    run(main())
