"""Hooks decide: each stage, at once or later, and what that does to the session, the envelope and the message."""

from __future__ import annotations

import random
import socket
import struct
import sys
from pathlib import Path

import pytest
from inbound.intake_harness import run
from inbound.policy_harness import apply_policy, policy_harness
from inbound.smtp_peer import SmtpPeer
from inbound.test_messages_in import stored_messages, without_trace

from angarium.spool.envelope import Attribute, Flag

MAIL = b"MAIL FROM:<a@x.example>\r\n"
RCPT = b"RCPT TO:<b@y.example>\r\n"


async def sent(peer: SmtpPeer, message: bytes = b"Subject: hi\r\n\r\nbody\r\n", to: bytes = RCPT) -> str:
    """MAIL, RCPT, DATA and the message; the last reply."""
    peer.say(MAIL + to + b"DATA\r\n")
    replies = await peer.replies(2 + to.count(b"\r\n"))
    assert replies[-1][:3] == "354", replies
    return await peer.ask(message + b".\r\n")


@pytest.mark.parametrize("kind", ["", "async "], ids=["function", "coroutine"])
def test_each_stage_may_refuse_with_a_reply_of_its_own(tmp_path: Path, kind: str) -> None:
    hooks = f"""
    {kind}def on_mail(mail):
        assert (mail.client.helo, mail.client.address, mail.octets) == ("client.example", "127.0.0.1", 7)
        if mail.domain == "bad.example":
            return Reject("No mail from there", status="5.1.8")
    {kind}def on_rcpt(rcpt):
        if rcpt.local_part == "busy":
            return Defer("Later", code=450, status="4.2.1")
    {kind}def on_message(message):
        if message.header.get("subject") == "spam":
            return Reject("Spam", code=554, status="5.7.1")
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert await peer.ask(b"MAIL FROM:<a@Bad.Example> SIZE=7\r\n") == "550 5.1.8 No mail from there"
            assert (await peer.ask(b"MAIL FROM:<a@x.example> SIZE=7\r\n"))[:3] == "250"
            assert await peer.ask(b"RCPT TO:<busy@y.example>\r\n") == "450 4.2.1 Later"
            assert (await peer.ask(RCPT))[:3] == "250"
            assert (await peer.ask(b"DATA\r\n"))[:3] == "354"
            assert await peer.ask(b"Subject: spam\r\n\r\nx\r\n.\r\n") == "554 5.7.1 Spam"
            assert [event["verb"] for event in harness.events("rejected")] == ["MAIL", "RCPT", "DATA"]
            assert harness.events("received") == []
            assert harness.intake.active == 0

    run(main())


def test_on_connect_speaks_instead_of_the_greeting(tmp_path: Path) -> None:
    hooks = """
    async def on_connect(client):
        return Reject("Not from here")
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.connect(harness.port)
            assert await peer.rest() == b"554 5.7.1 Not from here\r\n"

    run(main())


def test_a_hook_that_waits_keeps_pipelined_commands_waiting_in_order(tmp_path: Path) -> None:
    hooks = """
    import asyncio
    async def on_rcpt(rcpt):
        async with asyncio.timeout(20):
            await asyncio.sleep(0.001)
        if rcpt.count == 1:
            return Reject("Enough")
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(MAIL + RCPT + b"RCPT TO:<c@y.example>\r\nDATA\r\n")
            assert [reply[:9] for reply in await peer.replies(4)] == [
                "250 2.1.0", "250 2.1.5", "550 5.7.1", "354 End d",
            ]  # fmt: skip
            assert (await peer.ask(b"x\r\n.\r\n"))[:3] == "250"

    run(main())


def test_a_hook_past_its_deadline_is_answered_451_and_named(tmp_path: Path) -> None:
    hooks = """
    import asyncio
    async def on_rcpt(rcpt):
        await asyncio.sleep(1000)
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks, timeouts={"on_rcpt": "10ms"}) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(MAIL)
            assert (await peer.ask(RCPT))[:9] == "451 4.7.1"
            (event,) = harness.events("hook-timeout")
            assert (event["hook"], event["at"]) == ("on_rcpt", f"{tmp_path}/policy.py:5")
            apply_policy(
                harness, harness.policy, hooks, path=tmp_path / "policy.py", on_timeout="accept", timeout="10ms"
            )  # fmt: skip
            await peer.ask(b"RSET\r\n")
            await peer.ask(MAIL)
            assert (await peer.ask(RCPT))[:3] == "250"

    run(main())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return True", "TypeError: returned bool: expected None or one of Accept, Reject, Defer, Discard, Redirect"),
        ('return Reject("a\\r\\n250 Ok")', "ValueError: reply text 'a\\r\\n250 Ok': printable ASCII only"),
        ('return Accept(fields=[RemoveField("To")])', "TypeError: returned changes of fields: only on_message can"),
    ],
)
def test_an_error_in_a_hook_is_answered_451_and_logged_with_its_line(tmp_path: Path, body: str, reason: str) -> None:
    async def main() -> None:
        async with policy_harness(tmp_path, f"\nasync def on_rcpt(rcpt):\n    {body}\n") as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(MAIL)
            assert (await peer.ask(RCPT))[:9] == "451 4.3.0"
            (event,) = harness.events("hook-error")
            assert (event["hook"], event["reason"]) == ("on_rcpt", reason)
            # What it returned was found out behind it, and is told with where it is defined.
            assert event["at"] == f"{tmp_path}/policy.py:{3 if 'returned' in reason else 4}"

    run(main())


def test_decisions_set_attributes_that_log_and_envelope_show(tmp_path: Path) -> None:
    hooks = """
    from datetime import UTC, datetime
    def on_connect(client):
        return Accept(tenant="early")
    def on_mail(mail):
        return Accept(pool="bulk", campaign="spring")
    def on_rcpt(rcpt):
        return Accept(tenant="acme", priority=-3)
    def route(rcpt):
        return "smtp://192.0.2.25"
    def on_message(message):
        return Accept(not_before=datetime(2030, 1, 1, tzinfo=UTC))
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer))[:3] == "250"
            (event,) = harness.events("received")
            expected = {
                "tenant": "acme", "pool": "bulk", "campaign": "spring", "priority": "-3", "hold_until": "1893456000",
                "route": "smtp://192.0.2.25:25",
            }  # fmt: skip
            assert {key: event[key] for key in expected} == expected
        ((envelope, _),) = await stored_messages(tmp_path)
        assert {Attribute(key).name.lower(): text.decode() for key, text in envelope.attributes} == expected

    run(main())


def test_recipients_that_go_different_ways_do_not_share_a_transaction(tmp_path: Path) -> None:
    hooks = """
    async def route(rcpt):
        return {"y.example": "smtp://192.0.2.1", "z.example": "smtp://192.0.2.2:25"}.get(rcpt.domain)
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            others = (b"RCPT TO:<%s>\r\n" % path for path in (b"c@z.example", b"d@Y.example", b"e@w.example"))
            peer.say(MAIL + RCPT + b"".join(others) + b"DATA\r\n")
            replies = await peer.replies(6)
            assert [reply[:9] for reply in replies[:5]] == [
                "250 2.1.0", "250 2.1.5", "452 4.5.3", "250 2.1.5", "452 4.5.3",
            ]  # fmt: skip
            assert (await peer.ask(b"x\r\n.\r\n"))[:3] == "250"
            (event,) = harness.events("received")
            assert (event["to"], event["route"]) == (["b@y.example", "d@Y.example"], "smtp://192.0.2.1:25")

    run(main())


def test_header_changes_leave_every_other_octet_as_it_was(tmp_path: Path) -> None:
    hooks = """
    def on_message(message):
        assert message.is_whole and message.header.get("x-spam") == "no"
        assert message.body == b"8-bit \\xff\\xfe and a line: " + b"x" * 1500 + b"\\r\\nX-Spam: in the body\\r\\n"
        return Accept(fields=[
            AddField("X-Top", "seen"), ReplaceField("X-Spam", "yes"), RemoveField("bcc"),
            AddField("X-End", "1", at="end"),
        ])
    """
    before = (
        b"From: \xe4\xf6 <a@x.example>\r\nX-Spam: no\r\nBcc: c@y.example,\r\n\td@y.example\r\n"
        b"X-SPAM: no\r\nSubject: s\r\n"
    )
    body = b"\r\n8-bit \xff\xfe and a line: " + b"x" * 1500 + b"\r\nX-Spam: in the body\r\n"

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer, before + body))[:3] == "250"
        ((envelope, content),) = await stored_messages(tmp_path)
        assert content.startswith(b"X-Top: seen\r\nReceived: from ")
        after = b"From: \xe4\xf6 <a@x.example>\r\nX-Spam: yes\r\nSubject: s\r\nX-End: 1\r\n" + body
        assert without_trace(content.removeprefix(b"X-Top: seen\r\n")) == after
        assert envelope.message_octets == len(content)
        assert Flag.EIGHT_BIT in envelope.flags

    run(main())


@pytest.mark.parametrize("later", [False, True], ids=["at-once", "later"])
@pytest.mark.parametrize("chunked", [False, True], ids=["DATA", "BDAT"])
def test_a_streamed_message_is_judged_by_its_first_run_and_changed_in_it(
    tmp_path: Path, later: bool, chunked: bool
) -> None:
    hooks = f"""
    import asyncio
    async def on_message(message):
        assert not message.is_whole and message.octets >= 120 << 10 and len(message.body) == 1000
        if {later}:
            await asyncio.sleep(0.02)
        return Accept(fields=[AddField("X-Policy", "seen " * 100, at="end"), RemoveField("X-Old")], tenant="big")
    """
    generator = random.Random(7)
    lines = [generator.randbytes(600).replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"") for _ in range(3000)]
    body = b"\r\n" + b"".join(b"l" + line + b"\r\n" for line in lines)
    message = b"Subject: big\r\nX-Old: gone\r\n" + body

    async def main() -> None:
        async with policy_harness(tmp_path, hooks, body_size=1000) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            if chunked:
                peer.say(MAIL + RCPT)
                await peer.replies(2)
                for at in range(0, len(message), 100_000):
                    piece = message[at : at + 100_000]
                    last = b" LAST" if at + 100_000 >= len(message) else b""
                    reply = await peer.ask(b"BDAT %d%s\r\n" % (len(piece), last) + piece)
                    assert reply[:3] == "250"
            else:
                assert (await sent(peer, message))[:3] == "250"
            (event,) = harness.events("received")
            assert event["tenant"] == "big"
        ((envelope, content),) = await stored_messages(tmp_path)
        assert len(envelope.chunks) > 5
        assert envelope.message_octets == len(content)
        header, _, rest = without_trace(content).partition(b"\r\n\r\n")
        assert header.startswith(b"Subject: big\r\nX-Policy: seen seen") and b"X-Old" not in header
        assert b"\r\n\r\n" + rest == b"\r\n" + body

    run(main())


@pytest.mark.parametrize(
    ("decision", "reply"), [("Reject('Too long')", "550 5.7.1 Too long"), ("Discard('junk')", "250 2.0.0 Ok")]
)
def test_a_streamed_message_that_is_refused_or_discarded_leaves_nothing(
    tmp_path: Path, decision: str, reply: str
) -> None:
    hooks = f"""
    import asyncio
    async def on_message(message):
        await asyncio.sleep(0.001)
        return {decision}
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer, b"S: x\r\n\r\n" + b"0123456789\r\n" * 100_000)).startswith(reply)
            assert (await peer.ask(b"NOOP\r\n"))[:3] == "250"
            assert harness.intake.unsynced_octets == 0
            assert harness.intake.active == harness.intake.committing == 0
            assert harness.events("received") == []
            discards = [event["reason"] for event in harness.events("hook-discard")]
            assert discards == (["junk"] if "Discard" in decision else [])
        assert await stored_messages(tmp_path) == []

    run(main())


def test_redirected_recipients_are_those_of_the_envelope(tmp_path: Path) -> None:
    hooks = """
    def on_rcpt(rcpt):
        if rcpt.local_part == "list":
            return Redirect(["one@y.example", "two@y.example"])
        if rcpt.local_part == "trap":
            return Discard("a trap")
    def on_message(message):
        if message.header.get("Subject") == "virus":
            whom = ", ".join(message.recipients)
            return Redirect(["quarantine@y.example"], Accept(fields=[AddField("X-Envelope-To", whom)]))
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            both = b"RCPT TO:<list@y.example>\r\nRCPT TO:<trap@y.example>\r\n"
            assert (await sent(peer, to=both))[:3] == "250"
            assert (await sent(peer, b"Subject: virus\r\n\r\nx\r\n", to=both))[:3] == "250"
            first, second = harness.events("received")
            assert first["to"] == ["one@y.example", "two@y.example"]
            assert second["to"] == ["quarantine@y.example"]
        _, (_, content) = await stored_messages(tmp_path)
        assert content.startswith(b"X-Envelope-To: one@y.example, two@y.example\r\nReceived:")

    run(main())


def test_notes_last_as_long_as_the_session_and_the_transaction(tmp_path: Path) -> None:
    hooks = """
    def on_connect(client):
        client.notes["seen"] = []
    def on_mail(mail):
        mail.notes["n"] = len(mail.client.notes["seen"])
        mail.client.notes["seen"].append(mail.reverse_path)
    def on_rcpt(rcpt):
        return Reject(f"{rcpt.notes['n']} {rcpt.client.notes['seen']}")
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(MAIL)
            assert await peer.ask(RCPT) == "550 5.7.1 0 ['a@x.example']"
            await peer.ask(b"RSET\r\n")
            await peer.ask(b"MAIL FROM:<>\r\n")
            assert await peer.ask(RCPT) == "550 5.7.1 1 ['a@x.example', '']"

    run(main())


@pytest.mark.parametrize(("size", "timeout"), [(10, "100s"), (300_000, "200ms")], ids=["whole", "streamed"])
def test_a_client_that_leaves_while_its_message_is_judged_cancels_the_hook(
    tmp_path: Path, size: int, timeout: str
) -> None:
    """While a streamed message waits nothing is read, so that a reset is seen only when the hook's time is over."""
    hooks = """
    import asyncio
    asked, cancelled = [], []
    async def on_message(message):
        asked.append(message)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(message)
            raise
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks, timeout=timeout) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            peer.say(MAIL + RCPT + b"DATA\r\n")
            await peer.replies(3)
            peer.say(b"x\r\n" * (size // 3) + b".\r\n")
            module = sys.modules["angarium_policy"]
            await harness.until(lambda: module.asked)
            raw = peer.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.cut()
            await harness.until(lambda: module.cancelled and not harness.intake.clients)
            assert harness.intake.active == harness.intake.committing == 0
        assert await stored_messages(tmp_path) == []

    run(main())


def test_changes_that_need_a_header_end_out_of_sight_are_refused(tmp_path: Path) -> None:
    hooks = """
    def on_message(message):
        assert not message.header.is_whole
        return Accept(fields=[RemoveField("X-Old")])
    """

    async def main() -> None:
        async with policy_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await sent(peer, b"X-Long: x\r\n" * 20_000 + b"\r\nx\r\n"))[:9] == "552 5.3.4"

    run(main())


def test_a_reload_runs_the_file_anew_and_open_sessions_follow(tmp_path: Path) -> None:
    async def main() -> None:
        async with policy_harness(tmp_path, "def on_rcpt(rcpt): return Reject('one')") as harness:
            peer = await SmtpPeer.greeted(harness.port)
            await peer.ask(MAIL)
            assert await peer.ask(RCPT) == "550 5.7.1 one"
            path = tmp_path / "policy.py"
            apply_policy(harness, harness.policy, "def on_rcpt(rcpt): return Reject('two')", path=path)
            assert await peer.ask(RCPT) == "550 5.7.1 two"
            with pytest.raises(Exception, match=r"policy.py:2: NameError: name 'nobody' is not defined"):
                apply_policy(harness, harness.policy, "nobody", path=path)
            assert await peer.ask(RCPT) == "550 5.7.1 two"
            apply_policy(harness, harness.policy, "")
            assert (await peer.ask(RCPT))[:3] == "250"

    run(main())


def test_hooks_see_the_client_that_a_listed_peer_introduces(tmp_path: Path) -> None:
    hooks = """
    def on_connect(client):
        if client.address == "192.0.2.7":
            assert (client.name, client.reverse_name) == ("spike.example", "ptr.example"), client
            assert (client.helo, client.protocol, client.user, client.may_relay) == ("spike", "ESMTP", "alice", True)
            return Reject("Not for alice") if client.notes else None
        client.notes["peer"] = (client.name, client.protocol)

    def on_rcpt(rcpt):
        return Defer(f"{rcpt.client.name} {rcpt.client.helo} {rcpt.client.protocol}")
    """

    async def main() -> None:
        listener = {"xclient_from": ["127.0.0.0/8"], "relay_to": ["y.example"]}
        async with policy_harness(tmp_path, hooks, listener=listener) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            said = b"NAME=spike.example REVERSE_NAME=ptr.example ADDR=192.0.2.7 HELO=spike PROTO=ESMTP LOGIN=alice"
            assert (await peer.ask(b"XCLIENT " + said + b"\r\n"))[:3] == "220"
            await peer.ask(b"HELO other\r\n")
            await peer.ask(MAIL)
            assert await peer.ask(RCPT) == "451 4.7.1 spike.example other SMTP"
            assert harness.events("hook-error") == []

    run(main())
