"""Who tries out recipients: so many may be refused in one session, and then it ends. Whom that must not hit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from inbound.auth_harness import auth_harness, logged_in
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.judgement import Judges
from angarium.model.refusal import Refusal

PUBLIC: dict[str, Any] = {"relay_from": [], "relay_to": ["y.example"]}
MAIL = b"MAIL FROM:<a@x.example>\r\n"
GOOD = b"RCPT TO:<b@y.example>\r\n"
BAD = b"RCPT TO:<b@z.example>\r\n"
END = "421 4.7.0 mx.test.example Too many recipients refused"


async def begun(port: int) -> SmtpPeer:
    peer = await SmtpPeer.greeted(port)
    assert (await peer.ask(MAIL))[:3] == "250"
    return peer


async def codes(peer: SmtpPeer, commands: bytes) -> list[str]:
    peer.say(commands)
    return [reply[:3] for reply in await peer.replies(commands.count(b"\r\n"))]


def test_a_stranger_may_guess_twenty_recipients_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            peer = await begun(harness.port)
            assert await codes(peer, 20 * BAD) == ["550"] * 20
            peer.say(b"RCPT TO:<last@z.example>\r\n" + GOOD)
            assert (await peer.rest()).decode().splitlines() == [END]
            *_, before, last = harness.events("rejected")
            assert (before["reason"], before["code"]) == ("relay-denied", 550)
            assert (last["reason"], last["code"]) == ("too-many-refused-recipients", 421)
            assert (last["to"], last["verb"]) == ("last@z.example", "RCPT")

    run(main())


def test_neither_rset_nor_helo_nor_a_new_transaction_begins_the_count_anew(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_refused_recipients=3, **PUBLIC) as harness:
            peer = await begun(harness.port)
            for between in (b"RSET\r\n", b"EHLO c.example\r\n", b"HELO c.example\r\n"):
                assert (await peer.ask(BAD))[:3] == "550"
                assert (await peer.ask(between))[:3] == "250"
                assert (await peer.ask(MAIL))[:3] == "250"
            assert await peer.ask(BAD) == END

    run(main())


def test_an_old_list_gets_through_and_a_message_begins_anew(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_refused_recipients=3, **PUBLIC) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for _ in range(2):
                assert (await peer.ask(MAIL))[:3] == "250"
                assert await codes(peer, 3 * BAD + 5 * (GOOD + BAD)) == ["550"] * 3 + ["250", "550"] * 5
                assert (await peer.ask(b"DATA\r\n"))[:3] == "354"
                assert (await peer.ask(b"Subject: x\r\n\r\n.\r\n"))[:3] == "250"
            assert len(harness.events("received")) == 2

    run(main())


def test_recipients_that_are_accepted_and_never_sent_to_buy_no_guesses_in_the_next_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_refused_recipients=3, **PUBLIC) as harness:
            peer = await begun(harness.port)
            assert await codes(peer, 10 * GOOD + 10 * BAD) == ["250"] * 10 + ["550"] * 10
            assert (await peer.ask(b"RSET\r\n"))[:3] == "250"
            assert (await peer.ask(MAIL))[:3] == "250"
            assert await peer.ask(BAD) == END

    run(main())


def test_who_may_relay_and_who_has_authenticated_is_not_counted(tmp_path: Path) -> None:
    unrouted = b"RCPT TO:<b@" + b"z" * 64 + b".example>\r\n"

    def refuse(case: Any) -> Refusal:
        return Refusal(reply=b"550 5.1.1 Unknown\r\n", reason="unknown")

    async def main() -> None:
        async with intake_harness(tmp_path, max_refused_recipients=1, max_errors=1000) as harness:
            judged(harness, refuse)
            peer = await begun(harness.port)
            assert await codes(peer, 50 * BAD) == ["550"] * 50
            assert await codes(peer, 2 * unrouted) == ["501"] * 2
        own = tmp_path / "auth"
        own.mkdir()
        async with auth_harness(own) as harness:
            judged(harness, refuse)
            peer = await logged_in(harness.port)
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n"))[:3] == "250"
            assert await codes(peer, 50 * BAD) == ["550"] * 50

    run(main())


def judged(harness: Any, judge: Any) -> None:
    """The listener asks this one about each recipient."""
    harness.intake.appointing = (lambda options: Judges(rcpt=(judge,)),)
    listener = harness.listeners[0]
    listener.apply("mx.test.example", listener.context.options)


def test_without_a_bound_there_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_refused_recipients=0, **PUBLIC) as harness:
            peer = await begun(harness.port)
            assert await codes(peer, 300 * BAD) == ["550"] * 300

    run(main())


def test_what_is_put_off_is_given_much_more_room_but_not_for_ever(tmp_path: Path) -> None:
    """A list that meets a greylist must not lose its session over it; each reply is a line of the log all the same."""

    def later(case: Any) -> Refusal:
        return Refusal(reply=b"450 4.7.1 Later\r\n", reason="greylisted")

    async def main() -> None:
        async with intake_harness(tmp_path, **PUBLIC) as harness:
            judged(harness, later)
            peer = await begun(harness.port)
            for _ in range(10):
                assert await codes(peer, 100 * GOOD) == ["450"] * 100
                await asyncio.sleep(0)
            assert await peer.ask(GOOD) == END

    run(main())


def test_more_recipients_than_one_message_may_have_are_put_off_and_not_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        async with intake_harness(tmp_path, max_recipients=100, **PUBLIC) as harness:
            peer = await begun(harness.port)
            assert await codes(peer, 100 * GOOD) == ["250"] * 100
            for _ in range(10):
                assert await codes(peer, 100 * GOOD) == ["452"] * 100
            assert await peer.ask(GOOD) == END
            assert harness.events("rejected")[-1]["reason"] == "too-many-refused-recipients"

    run(main())


def test_a_policy_of_others_that_refuses_is_counted_too(tmp_path: Path) -> None:
    def refuse(case: Any) -> Refusal:
        return Refusal(reply=b"550 5.1.1 Unknown\r\n", reason="unknown")

    async def main() -> None:
        async with intake_harness(tmp_path, max_refused_recipients=2, **PUBLIC) as harness:
            judged(harness, refuse)
            peer = await begun(harness.port)
            assert await codes(peer, 2 * GOOD) == ["550"] * 2
            assert await peer.ask(GOOD) == END
            reasons = [each["reason"] for each in harness.events("rejected")]
            assert reasons == ["unknown"] * 2 + ["too-many-refused-recipients"]

    run(main())
