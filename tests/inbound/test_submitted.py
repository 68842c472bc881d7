"""Fix-ups of submitted messages: what is added and completed, what is refused, and that the rest stays as it was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import auth_harness, plain
from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_messages_in import stored_messages, without_trace

from angarium.inbound.options import ListenerAuthOptions
from angarium.inbound.submission_options import SubmissionOptions

AUTH = ListenerAuthOptions(required=True, allow_plaintext_from=["127.0.0.0/8"])
WHOLE = b"From: a@x.example\r\nDate: Thu, 26 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@x.example>\r\n\r\nhello\r\n"
DATE = rb"Date: [A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000\r\n"
MESSAGE_ID = rb"Message-ID: <[0-9A-Za-z]{13}@" + HOSTNAME.encode() + rb">\r\n"


async def submit(peer: SmtpPeer, message: bytes, way: str = "DATA", sender: bytes = b"alice@x.example") -> str:
    peer.say(b"MAIL FROM:<" + sender + b">\r\nRCPT TO:<b@y.example>\r\n")
    assert [reply[:3] for reply in await peer.replies(2)] == ["250", "250"]
    if way == "DATA":
        assert (await peer.ask(b"DATA\r\n")).startswith("354")
        return await peer.ask(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    half = len(message) // 2
    assert (await peer.ask(b"BDAT %d\r\n" % half + message[:half])).startswith("250")
    return await peer.ask(b"BDAT %d LAST\r\n" % (len(message) - half) + message[half:])


def trusting(folder: Path, **submission: Any) -> Any:
    """A submission listener that takes mail of loopback without AUTH."""
    return intake_harness(
        folder, protocol="submission", auth=AUTH, relay_from=["127.0.0.1"],
        submission=SubmissionOptions(**submission),
    )  # fmt: skip


def stored_of(folder: Path, message: bytes, way: str = "DATA", **submission: Any) -> tuple[str, bytes]:
    """The reply to one message, and what is stored behind our Received field; b"" when nothing is."""
    result: list[Any] = []

    async def main() -> None:
        async with trusting(folder, **submission) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            result.append(await submit(peer, message, way))
            assert (await peer.ask(b"NOOP\r\n")).startswith("250")
        stored = await stored_messages(folder)
        assert len(stored) == (1 if result[0].startswith("250") else 0)
        result.append(without_trace(stored[0][1]) if stored else b"")

    run(main())
    return result[0], result[1]


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_a_whole_message_stays_as_it_is(tmp_path: Path, way: str) -> None:
    assert stored_of(tmp_path, WHOLE, way)[1] == WHOLE


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_date_and_message_id_are_added_in_front(tmp_path: Path, way: str) -> None:
    message = b"From: a@x.example\r\nSubject: x\r\n\r\n.hello\r\n"
    stored = stored_of(tmp_path, message, way)[1]
    assert re.fullmatch(DATE + MESSAGE_ID + re.escape(message), stored), stored


def test_only_what_is_missing_is_added(tmp_path: Path) -> None:
    message = b"From: a@x.example\r\nmessage-id: <1@x.example>\r\n\r\nDate: in the body\r\n"
    assert re.fullmatch(DATE + re.escape(message), stored_of(tmp_path, message)[1])


def test_nothing_is_added_when_the_operator_does_not_want_it(tmp_path: Path) -> None:
    message = b"From: a@x.example\r\n\r\nhello\r\n"
    assert stored_of(tmp_path, message, add_date=False, add_message_id=False)[1] == message


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_a_large_message_is_fixed_while_it_is_streamed(tmp_path: Path, way: str) -> None:
    body = b"".join(b"line %06d\r\n.\r\n" % number for number in range(60_000))
    message = b"From: root\r\nTo: a@y.example\r\n\r\n" + body
    stored = stored_of(tmp_path, message, way, complete_with="x.example")[1]
    head = re.match(DATE + MESSAGE_ID, stored)
    assert head
    assert stored[head.end() :] == message.replace(b"From: root\r\n", b"From: root@x.example\r\n")


@pytest.mark.parametrize(
    "message",
    [b"hello world\r\n", b"From: a@x.example\r\nhello world\r\n", b"\r\nhello\r\n", b"", b"From: a@x.example\r\n"],
)
def test_header_and_body_stay_apart(tmp_path: Path, message: bytes) -> None:
    """Where the empty line is missing in front of a line that is no field, it is put in."""
    stored = stored_of(tmp_path, message)[1]
    head = re.match(DATE + MESSAGE_ID, stored)
    assert head
    assert stored[head.end() :] == message.replace(b"hello world", b"\r\nhello world")


NO_FIELDS = [
    b"X Y: z\r\n", "X-Ü: z\r\n".encode(), b"\x0cX: z\r\n", b"From a@b.example Thu Nov 26\r\n", b": z\r\n",
]  # fmt: skip


@pytest.mark.parametrize("line", NO_FIELDS)
@pytest.mark.parametrize("large", [False, True], ids=["small", "streamed"])
def test_a_header_section_ends_for_every_reader_where_it_ended_for_us(
    tmp_path: Path, line: bytes, large: bool
) -> None:
    """Where nothing else had to be added the empty line was not put in: what we took for body, and did not judge, many
    readers took for more fields, a second From among them."""
    head = WHOLE.partition(b"\r\n\r\n")[0] + b"\r\n"
    behind = line + b"From: eve@z.example\r\n\r\n" + b"hello\r\n" * (100_000 if large else 1)
    assert stored_of(tmp_path, head + behind)[1] == head + b"\r\n" + behind


def test_a_last_line_that_does_not_end_is_no_field_for_anybody(tmp_path: Path) -> None:
    """BDAT may leave its CRLF out, and the next hop gets it by DATA."""
    head = WHOLE.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert stored_of(tmp_path, head + b"From: eve@z.example", "BDAT")[1] == head + b"\r\nFrom: eve@z.example"


@pytest.mark.parametrize("line", NO_FIELDS)
def test_no_line_hides_a_second_from_field(tmp_path: Path, line: bytes) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            peer = await logged_in(harness, check_from=True)
            message = b"From: alice@x.example\r\n" + WHOLE.partition(b"\r\n")[2].partition(b"\r\n\r\n")[0] + b"\r\n"
            assert (await submit(peer, message + line + b"From: eve@z.example\r\n\r\nhello\r\n"))[:3] == "250"
        ((_, body),) = await stored_messages(tmp_path)
        assert without_trace(body).partition(b"\r\n\r\n")[0] + b"\r\n" == message

    run(main())


def test_addresses_in_the_header_are_completed(tmp_path: Path) -> None:
    to = b"\r\nTo: B <b>,\r\n c@y.example\r\n\r\n"
    message = WHOLE.replace(b"a@x.example", b"root (Cron)").replace(b"\r\n\r\n", to)
    stored = stored_of(tmp_path, message, complete_with="x.example")[1]
    assert stored == message.replace(b"root", b"root@x.example").replace(b"<b>", b"<b@x.example>")


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_or_refused(tmp_path: Path, way: str) -> None:
    message = WHOLE.replace(b"a@x.example", b"root")
    reply, _ = stored_of(tmp_path, message, way)
    assert reply == "554 5.6.0 Message refused: address without a domain in the header"


@pytest.mark.parametrize("body_octets", [0, 1 << 20])
def test_a_header_section_without_end_is_refused_at_the_end_of_data(tmp_path: Path, body_octets: int) -> None:
    header = b"".join(b"X-%05d: %s\r\n" % (number, b"x" * 500) for number in range(600))
    reply, _ = stored_of(tmp_path, header + b"\r\n" + b"x\r\n" * (body_octets // 3))
    assert reply == "554 5.6.0 Message refused: header section too big"


def test_refused_large_messages_leave_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with trusting(tmp_path) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            large = b"From: root\r\n\r\n" + b"line\r\n" * 200_000
            for _ in range(3):
                assert (await submit(peer, large)).startswith("554 5.6.0 ")
            assert (await submit(peer, WHOLE)).startswith("250 ")
            assert (harness.intake.active, harness.intake.committing) == (0, 0)
            assert harness.intake.unsynced_octets == 0
        assert len(await stored_messages(tmp_path)) == 1

    run(main())


async def logged_in(harness: IntakeHarness, **submission: Any) -> SmtpPeer:
    listener = await harness.listen(
        protocol="submission", auth=AUTH, relay_from=[], submission=SubmissionOptions(**submission)
    )
    peer = await SmtpPeer.greeted(listener.context.options.address.port)
    assert (await peer.ask(plain())).startswith("235 ")
    return peer


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"From: Alice <alice@x.example>\r\n", "250"),
        (b"From: ALICE@X.example\r\n", "250"),
        (b"From: [IT] Alice <alice@x.example>\r\n", "250"),
        (b"From: [eve@z.example] <alice@x.example>\r\n", "554"),
        (b"From: sales@shop.example\r\n", "250"),
        (b"From: eve@z.example\r\n", "553"),
        (b"From: elvis@z.example\r\n", "553"),         # as long as the one that is known
        (b"From: alice@x.example, eve@z.example\r\n", "553"),
        (b"From: alice@x.example\r\nFrom: eve@z.example\r\n", "554"),
        (b"From: alice@x.example\r\nfrom : eve@z.example\r\n", "554"),
        (b"From: alice@x.example (x) @z.example\r\n", "553"),
        (b"From: eve@z.example (alice@x.example)\r\n", "553"),
        (b"From: <@x.example:eve@z.example>\r\n", "553"),
        (b"From: eve@z.example <alice@x.example>\r\n", "554"),
        (b"From: alice@x.example <alice@x.example>\r\n", "250"),
        (b"From: <alice@x.example> <eve@z.example>\r\n", "554"),
        (b"From: nobody:;\r\n", "554"),
        (b"From: John Doe\r\n", "554"),
        (b"Subject: none\r\n", "554"),
        (b"From: alice\r\n", "250"),
        (b"From: eve\r\n", "553"),
    ],
)
@pytest.mark.parametrize("is_known", [False, True], ids=["first", "behind-a-good-one"])
def test_from_belongs_to_the_identity(tmp_path: Path, header: bytes, code: str, is_known: bool) -> None:
    async def main() -> None:
        senders = {"alice@x.example": ["shop.example"]}
        async with auth_harness(tmp_path, senders=senders) as harness:
            peer = await logged_in(harness, check_from=True, complete_with="x.example")
            if is_known:
                assert (await submit(peer, b"From: alice@x.example\r\n\r\nhello\r\n"))[:3] == "250"
            assert (await submit(peer, header + b"\r\nhello\r\n"))[:3] == code
            if code != "250":
                assert harness.events("rejected")[0]["code"] == int(code)

    run(main())


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        (b"From: Alice <alice@x.example>\r\n", None),
        (b"From: other@x.example\r\n", b"alice@x.example"),
        (b"From: other@x.example\r\nSender: Alice <ALICE@x.example>\r\n", None),
        (b"From: other@x.example\r\nSender: eve@z.example\r\n", b"alice@x.example"),
        (b"From: alice@x.example\r\nSender: eve@z.example\r\n", b"alice@x.example"),
        (b"From: a@x.example, alice@x.example\r\n", b"alice@x.example"),
    ],
)
def test_sender_names_the_identity_where_from_does_not(tmp_path: Path, header: bytes, sender: bytes | None) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path) as harness:
            peer = await logged_in(harness, add_sender=True)
            assert (await submit(peer, header + b"\r\nhello\r\n")).startswith("250 ")
        ((_, body),) = await stored_messages(tmp_path)
        fields = re.findall(rb"^Sender: (.*)\r\n", without_trace(body), re.MULTILINE)
        if sender is not None:
            assert fields == [sender]
        else:
            assert header in body

    run(main())
