"""Judges: asked in order, at once or later, and what their answers do to the session and the envelope."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.judgement import ConnectCase, Judges, MailCase, NewRecipient, RcptCase
from angarium.model.refusal import Refusal
from angarium.spool.envelope import Attribute

NO = Refusal(reply=b"550 5.7.1 Not you\r\n", reason="not-you")


@asynccontextmanager
async def judged_by(folder: Path, judges: Judges, **options: Any) -> AsyncIterator[IntakeHarness]:
    async with intake_harness(folder, **options) as harness:
        harness.intake.appointing = (lambda _: judges,)
        listener = harness.listeners[0]
        listener.apply(HOSTNAME, listener.context.options)
        yield harness


class Gate:
    """A judge that answers when it is told to."""

    def __init__(self, answer: Refusal | None = None) -> None:
        self.answer = answer
        self.opened = asyncio.Event()
        self.asked = 0
        self.cancelled = 0

    async def __call__(self, case: Any) -> Refusal | None:
        self.asked += 1
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer


def test_the_first_refusal_decides_and_later_judges_are_not_asked(tmp_path: Path) -> None:
    async def main() -> None:
        asked: list[str] = []

        def first(case: RcptCase) -> Refusal | None:
            asked.append("first")
            return NO if case.forward_path == b"no@y.example" else None

        async def second(case: RcptCase) -> Refusal | None:
            asked.append("second")
            return None

        async with judged_by(tmp_path, Judges(rcpt=(first, second))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert await peer.ask(b"RCPT TO:<no@y.example>\r\n") == "550 5.7.1 Not you"
            assert asked == ["first"]
            assert (await peer.ask(b"RCPT TO:<yes@y.example>\r\n"))[:3] == "250"
            assert asked == ["first", "first", "second"]
            assert harness.events("rejected")[0]["to"] == "no@y.example"

    run(main())


def test_pipelined_commands_wait_for_a_judge_and_keep_their_order(tmp_path: Path) -> None:
    async def main() -> None:
        mail, rcpt = Gate(), Gate()
        async with judged_by(tmp_path, Judges(mail=(mail,), rcpt=(rcpt,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(
                b"MAIL FROM:<a@x.example> ENVID=QQ314159\r\n"
                b"RCPT TO:<b@y.example> ORCPT=rfc822;c@y.example NOTIFY=FAILURE\r\nDATA\r\n"
            )
            await harness.until(lambda: mail.asked == 1)
            assert rcpt.asked == 0
            mail.opened.set()
            await harness.until(lambda: rcpt.asked == 1)
            rcpt.opened.set()
            assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
            assert (await peer.ask(b"Subject: x\r\n\r\nhi\r\n.\r\n"))[:3] == "250"
            received = harness.events("received")[0]
            assert (received["from"], received["to"]) == ("a@x.example", ["b@y.example"])

    run(main())


def test_a_client_that_leaves_cancels_what_is_asked_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with judged_by(tmp_path, Judges(rcpt=(gate,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            peer.say(b"RCPT TO:<b@y.example>\r\n")
            await harness.until(lambda: gate.asked == 1)
            # A reset: one that only ends its own side still gets its answer.
            raw = peer.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.cut()
            await harness.until(lambda: gate.cancelled == 1 and not harness.intake.clients)
            assert harness.intake.active == 0

    run(main())


def test_a_judge_that_fails_is_answered_451_and_named(tmp_path: Path) -> None:
    async def main() -> None:
        def at_once(case: MailCase) -> None:
            raise RuntimeError("at once")

        async def later(case: RcptCase) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("later")

        async with judged_by(tmp_path, Judges(mail=(at_once,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"MAIL FROM:<a@x.example>\r\n"))[:9] == "451 4.3.0"
            harness.intake.appointing = (lambda _: Judges(rcpt=(later,)),)
            harness.listeners[0].apply(HOSTNAME, harness.listeners[0].context.options)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n"))[:9] == "451 4.3.0"
            assert (await peer.ask(b"RSET\r\n"))[:3] == "250"
            errors = harness.events("error")
            assert [error["reason"] for error in errors] == ["RuntimeError('at once')", "RuntimeError('later')"]
            assert all("test_judges.py:" in error["at"] for error in errors)

    run(main())


def test_recipients_and_attributes_of_judges_are_in_the_envelope(tmp_path: Path) -> None:
    async def main() -> None:
        def mail(case: MailCase) -> None:
            case.attributes[Attribute.TENANT] = b"t1"

        def rcpt(case: RcptCase) -> None:
            case.recipients = [NewRecipient(b"one@y.example"), NewRecipient(b"two@z.example", b"rfc822;b@y.example", 1)]
            case.attributes[Attribute.TENANT] = b"t2"
            case.attributes[Attribute.CAMPAIGN] = b"c"

        async with judged_by(tmp_path, Judges(mail=(mail,), rcpt=(rcpt,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.open_data()
            assert (await peer.ask(b"\r\n.\r\n"))[:3] == "250"
            assert harness.events("received")[0]["to"] == ["one@y.example", "two@z.example"]

    run(main())


def test_nobody_of_a_recipient_that_was_answered_no_is_left_in_the_envelope(tmp_path: Path) -> None:
    """The client sends to it again, and the first of the two would have had the mail twice."""

    async def main() -> None:
        def rcpt(case: RcptCase) -> None:
            if case.forward_path == b"broken@y.example":
                case.recipients = [NewRecipient(b"one@y.example"), NewRecipient("no octets")]  # type: ignore[arg-type]

        async with judged_by(tmp_path, Judges(rcpt=(rcpt,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            assert (await peer.ask(b"RCPT TO:<broken@y.example>\r\n"))[:9] == "451 4.3.0"
            assert (await peer.ask(b"RCPT TO:<b@y.example>\r\n"))[:3] == "250"
            await peer.ask(b"DATA\r\n")
            assert (await peer.ask(b"\r\n.\r\n"))[:3] == "250"
            assert harness.events("received")[0]["to"] == ["b@y.example"]

    run(main())


def test_a_judge_that_cancels_itself_has_not_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async def mail(case: MailCase) -> None:
            raise asyncio.CancelledError

        def mail_at_once(case: MailCase) -> None:
            raise asyncio.CancelledError

        async with judged_by(tmp_path, Judges(mail=(mail,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(b"MAIL FROM:<a@x.example>\r\n"))[:9] == "451 4.3.0"
            harness.intake.appointing = (lambda _: Judges(mail=(mail_at_once,)),)
            harness.listeners[0].apply(HOSTNAME, harness.listeners[0].context.options)
            assert (await peer.ask(b"MAIL FROM:<a@x.example>\r\n"))[:9] == "451 4.3.0"

    run(main())


def test_a_message_whose_recipients_were_all_taken_is_accepted_and_nowhere(tmp_path: Path) -> None:
    async def main() -> None:
        def nobody(case: RcptCase) -> None:
            case.recipients = []

        async with judged_by(tmp_path, Judges(rcpt=(nobody,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for body in (b"short\r\n", b"0123456789" * 10 + b"\r\n"):
                await peer.open_data()
                assert (await peer.ask(body * (4000 if len(body) > 10 else 1) + b".\r\n"))[:3] == "250"
            assert harness.events("received") == []
            assert [event["from"] for event in harness.events("discarded")] == ["a@x.example", "a@x.example"]
            assert harness.scheduler.depth()["messages"] == 0

    run(main())


def test_who_is_not_welcome_hears_no_greeting(tmp_path: Path) -> None:
    async def main() -> None:
        def away(case: ConnectCase) -> Refusal:
            assert case.client.host == "127.0.0.1"
            return Refusal(reply=b"554 5.7.1 Go away\r\n", reason="unwelcome")

        async with judged_by(tmp_path, Judges(connect=(away,))) as harness:
            peer = await SmtpPeer.connect(harness.port)
            assert await peer.rest() == b"554 5.7.1 Go away\r\n"

    run(main())


def test_who_talks_while_it_is_judged_has_spoken_too_early(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with judged_by(tmp_path, Judges(connect=(gate,))) as harness:
            peer = await SmtpPeer.connect(harness.port)
            await harness.until(lambda: gate.asked == 1)
            peer.say(b"EHLO early.example\r\n")
            assert (await peer.rest())[:9] == b"554 5.5.0"
            await harness.until(lambda: gate.cancelled == 1)

            gate.opened.set()
            patient = await SmtpPeer.greeted(harness.port)
            assert (await patient.ask(b"NOOP\r\n"))[:3] == "250"

    run(main())


def test_421_of_a_judge_ends_the_session(tmp_path: Path) -> None:
    async def main() -> None:
        def full(case: MailCase) -> Refusal:
            return Refusal(reply=b"421 4.7.0 Too much\r\n", reason="too-much")

        async with judged_by(tmp_path, Judges(mail=(full,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
            assert await peer.rest() == b"421 4.7.0 Too much\r\n"

    run(main())


def test_a_coroutine_that_never_pauses_is_over_in_the_turn_that_asked_it_where_python_can(tmp_path: Path) -> None:
    """Eager tasks (Python 3.12): a pipelined group stays one read and one write. Before, each costs a turn."""

    async def main() -> None:
        turn = 0
        asked: list[tuple[bytes, int]] = []

        def count() -> None:
            nonlocal turn
            turn += 1
            ticking[0] = loop.call_soon(count)

        async def judge(case: RcptCase) -> Refusal | None:
            asked.append((case.forward_path, turn))
            async with asyncio.timeout(5):  # needs a current task
                pass
            if case.forward_path == b"bug@y.example":
                raise RuntimeError("oops")
            return NO if case.forward_path == b"no@y.example" else None

        loop = asyncio.get_running_loop()
        async with judged_by(tmp_path, Judges(rcpt=(judge,))) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
            ticking = [loop.call_soon(count)]
            names = (b"yes", b"no", b"bug", b"again")
            peer.say(b"".join(b"RCPT TO:<%s@y.example>\r\n" % name for name in names))
            assert [reply[:3] for reply in await peer.replies(4)] == ["250", "550", "451", "250"]
            ticking[0].cancel()
            assert [path.partition(b"@")[0] for path, _ in asked] == list(names)
            is_one_turn = len({turn for _, turn in asked}) == 1
            assert is_one_turn is (sys.version_info >= (3, 12))
            assert "oops" in harness.events("error")[0]["reason"]

    run(main())
