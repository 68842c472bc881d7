"""Who may come in, on a real connection: the wait before the greeting, points, greylisting; who is asked nothing."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_limits import PUBLIC, RCPT, admission, refused

from angarium.admission.greylist_store import GreylistStore
from angarium.admission.tallies import Tallies
from angarium.inbound import admission as inbound_admission
from angarium.inbound.admission import Admission
from angarium.inbound.gate import Gate
from angarium.inbound.limits import is_exempt
from angarium.resolver.options import ResolverOptions

# 127.0.0.1 in lists.
LISTED = {"1.0.0.127.bad.example": {"A": ["127.0.0.2"]}, "1.0.0.127.good.example": {"A": ["127.0.0.9"]}}
BAD = {"zone": "bad.example", "score": 8}
GOOD = {"zone": "good.example", "score": -10}


@asynccontextmanager
async def admitting(
    folder: Path, dns: DnsServer | None = None, listener: dict[str, Any] | None = None, **tables: Any
) -> AsyncIterator[IntakeHarness]:
    """A public listener with this [admission]."""
    async with intake_harness(folder, **(listener or PUBLIC)) as harness:
        options = admission(**tables)
        made = Admission(harness.loop, harness.journal, harness.intake, is_exempt)
        resolver = ResolverOptions(nameservers=[dns.address] if dns else ["127.0.0.1:9"])
        made.apply(options, resolver, HOSTNAME, str(folder))
        harness.intake.gate = Gate(Tallies(), options)
        harness.intake.appointing = (made.judges_of,)
        harness.listeners[0].apply(HOSTNAME, harness.listeners[0].context.options)
        try:
            yield harness
        finally:
            await made.close()


class PauseByHand:
    """asyncio, but for its sleep(): that is over when the test says so, however long it takes to get there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_over = asyncio.Event()
        self.asked: list[float] = []
        monkeypatch.setattr(inbound_admission, "asyncio", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, time_s: float) -> None:
        self.asked.append(time_s)
        await self.is_over.wait()


async def rcpt(peer: SmtpPeer, path: bytes = b"b@y.example") -> str:
    await peer.ask(b"RSET\r\n")
    await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
    return await peer.ask(b"RCPT TO:<" + path + b">\r\n")


def test_who_talks_before_the_greeting_is_refused_at_once_and_who_waits_is_greeted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        pause = PauseByHand(monkeypatch)
        async with admitting(tmp_path, greet_wait="500ms") as harness:
            early = await SmtpPeer.connect(harness.port)
            patient = await SmtpPeer.connect(harness.port)
            await harness.until(lambda: len(harness.intake.clients) == 2)
            early.say(b"EHLO early.example\r\n")
            assert (await early.rest()).startswith(b"554 5.5.0 ")
            assert not patient.reader._buffer
            pause.is_over.set()
            assert (await patient.reply()).startswith("220 mx.test.example ")
            pause.is_over.clear()
            again = await SmtpPeer.greeted(harness.port)
            again.cut()
            assert pause.asked == [0.5, 0.5], "who has waited is known"

    run(main())


def test_a_client_that_leaves_while_it_is_made_to_wait_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with admitting(tmp_path, greet_wait="30s") as harness:
            peers = [await SmtpPeer.connect(harness.port) for _ in range(20)]
            await harness.until(lambda: len(harness.intake.clients) == 20)
            for peer in peers:
                peer.cut()
            await harness.until(lambda: not harness.intake.clients)
            me = asyncio.current_task()
            await harness.until(lambda: asyncio.all_tasks() == {me})

    run(main())


def test_the_teaser_is_the_first_line_of_the_greeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        pause = PauseByHand(monkeypatch)
        async with admitting(tmp_path, greet_wait="300ms", teaser="just a moment") as harness:
            patient = await SmtpPeer.connect(harness.port)
            assert await patient.reader.readline() == b"220-mx.test.example just a moment\r\n"
            hasty = await SmtpPeer.connect(harness.port)
            await hasty.reader.readline()
            hasty.say(b"HELO x\r\n")
            assert (await hasty.rest()).startswith(b"554 5.5.0 ")
            pause.is_over.set()
            assert (await patient.reply()).startswith("220 mx.test.example ")

    run(main())


def test_points_refuse_recipients_with_their_reasons(tmp_path: Path) -> None:
    async def main() -> None:
        with DnsServer(LISTED) as dns:
            async with admitting(
                tmp_path, dns, dns_list=[BAD], checks={"no_ptr": 3}, refuse_score=10
            ) as harness:
                peer = await SmtpPeer.greeted(harness.port)
                reply = await rcpt(peer)
                assert reply == "550 5.7.1 Client [127.0.0.1] refused: list:bad.example, no-ptr"
                assert harness.events("scored")[0]["score"] == 11
                assert harness.events("rejected")[0]["to"] == "b@y.example"
                asked = len(dns.queries)
                await rcpt(await SmtpPeer.greeted(harness.port))
                assert len(dns.queries) == asked, "asked once"

    run(main())


def test_points_may_refuse_the_connection(tmp_path: Path) -> None:
    async def main() -> None:
        with DnsServer(LISTED) as dns:
            async with admitting(tmp_path, dns, dns_list=[BAD], refuse_score=8, refuse_at="connect") as harness:
                expected = "554 5.7.1 Client [127.0.0.1] refused: list:bad.example"
                assert await refused(harness.port) == expected
                assert await refused(harness.port) == expected, "and from what is known"

    run(main())


def test_a_list_in_favour_outweighs(tmp_path: Path) -> None:
    async def main() -> None:
        with DnsServer(LISTED) as dns:
            async with admitting(tmp_path, dns, dns_list=[BAD, GOOD], refuse_score=8, greylist={}) as harness:
                assert (await rcpt(await SmtpPeer.greeted(harness.port))).startswith("250")

    run(main())


@pytest.mark.parametrize("fault", ["drop", "servfail"])
def test_dns_in_trouble_keeps_no_mail_out(tmp_path: Path, fault: str) -> None:
    async def main() -> None:
        with DnsServer(LISTED, {"1.0.0.127.bad.example": fault}) as dns:
            async with admitting(
                tmp_path, dns, dns_list=[BAD], refuse_score=8, timeout="200ms"
            ) as harness:
                assert (await rcpt(await SmtpPeer.greeted(harness.port))).startswith("250")

    run(main())


def test_the_name_in_helo_counts_with_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        with DnsServer(LISTED) as dns:
            async with admitting(
                tmp_path, dns, dns_list=[BAD], checks={"helo_unqualified": 2}, refuse_score=10
            ) as harness:
                good = await SmtpPeer.greeted(harness.port)
                assert (await rcpt(good)).startswith("250")
                bad = await SmtpPeer.greeted(harness.port, b"HELO friend\r\n")
                assert (await rcpt(bad)).endswith("refused: list:bad.example, helo-unqualified")

    run(main())


def test_who_has_too_many_points_waits_for_each_reply(tmp_path: Path) -> None:
    async def main() -> None:
        with DnsServer(LISTED) as dns:
            async with admitting(
                tmp_path, dns, dns_list=[BAD], tarpit_score=5, tarpit_delay="20s"
            ) as harness:
                peer = await SmtpPeer.connect(harness.port)
                await harness.until(lambda: harness.events("scored"))
                await asyncio.sleep(0.05)
                assert not peer.reader._buffer
                harness.wheel.advance_by_ms(20_200)
                assert (await peer.reply()).startswith("220 ")
                peer.say(b"NOOP\r\n")
                await asyncio.sleep(0.05)
                assert not peer.reader._buffer
                harness.wheel.advance_by_ms(20_200)
                assert (await peer.reply()).startswith("250 ")

    run(main())


def test_the_greylist_asks_strangers_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(inbound_admission, "GreylistStore", functools.partial(GreylistStore, clock=lambda: now))

    async def main() -> None:
        nonlocal now
        async with admitting(tmp_path, greylist={"delay": "1s"}) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert await rcpt(peer) == "450 4.7.1 Greylisted, try again in 1 seconds"
            peer.say(b"RSET\r\nMAIL FROM:<a@x.example>\r\n" + 3 * RCPT + b"DATA\r\n")
            assert [reply[:3] for reply in await peer.replies(6)] == ["250", "250", "450", "450", "450", "554"]
            now += 1
            assert (await rcpt(peer)).startswith("250")
            assert (await rcpt(peer, b"other@y.example")).startswith("450")
            assert (tmp_path / "greylist.db").exists()

    run(main())


def test_who_was_let_in_is_judged_anew_after_another_helo(tmp_path: Path) -> None:
    async def main() -> None:
        async with admitting(tmp_path, checks={"helo_unqualified": 2}, refuse_score=2) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(3):
                assert (await rcpt(peer)).startswith("250")
            assert (await peer.ask(b"HELO friend\r\n")).startswith("250")
            assert (await rcpt(peer)).endswith("refused: helo-unqualified")

    run(main())


def test_the_greylist_may_be_for_suspects_only(tmp_path: Path) -> None:
    async def main() -> None:
        with DnsServer(LISTED) as dns:
            async with admitting(tmp_path, dns, dns_list=[BAD], greylist={"from_score": 9}) as harness:
                assert (await rcpt(await SmtpPeer.greeted(harness.port))).startswith("250")
            other = tmp_path / "other"
            other.mkdir()
            async with admitting(other, dns, dns_list=[BAD], greylist={"from_score": 8}) as harness:
                assert (await rcpt(await SmtpPeer.greeted(harness.port))).startswith("450 4.7.1")

    run(main())


def test_own_clients_exempt_networks_and_other_listeners_are_asked_nothing(tmp_path: Path) -> None:
    everything: dict[str, Any] = {
        "dns_list": [BAD], "refuse_score": 8, "greet_wait": "30s", "greylist": {}, "checks": {"no_ptr": 8},
    }  # fmt: skip
    ways: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"relay_from": ["127.0.0.1"]}, {}),
        (PUBLIC, {"exempt": ["127.0.0.0/8"]}),
        ({**PUBLIC, "admission": {"checks": False, "greylist": False}}, {}),
    ]

    async def main() -> None:
        with DnsServer(LISTED) as dns:
            for number, (listener, more) in enumerate(ways):
                folder = tmp_path / str(number)
                folder.mkdir()
                async with admitting(folder, dns, listener, **{**everything, **more}) as harness:
                    assert (await rcpt(await SmtpPeer.greeted(harness.port))).startswith("250")
            assert not dns.queries

    run(main())


def test_a_reload_forgets_points_only_when_lists_have_changed(tmp_path: Path) -> None:
    async def main() -> None:
        with DnsServer(LISTED) as dns:
            async with admitting(tmp_path, dns, dns_list=[BAD], refuse_score=8) as harness:
                peer = await SmtpPeer.greeted(harness.port)
                assert (await rcpt(peer)).startswith("550")
                maker = harness.intake.appointing[0].__self__  # type: ignore[attr-defined]
                resolver = ResolverOptions(nameservers=[dns.address])
                listener, asked = harness.listeners[0], len(dns.queries)
                maker.apply(admission(dns_list=[BAD], refuse_score=9), resolver, HOSTNAME, str(tmp_path))
                listener.apply(HOSTNAME, listener.context.options)
                assert (await rcpt(peer)).startswith("250")
                assert len(dns.queries) == asked
                worse = {**BAD, "score": 9}
                maker.apply(admission(dns_list=[worse], refuse_score=9), resolver, HOSTNAME, str(tmp_path))
                listener.apply(HOSTNAME, listener.context.options)
                assert (await rcpt(peer)).startswith("550")

    run(main())
