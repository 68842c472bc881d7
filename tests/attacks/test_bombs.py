"""Bombs: messages and envelopes made to be expensive. They are taken or refused as any other, at bounded cost.

We read no MIME on the way: nesting, boundaries and parts are octets to us. What is looked at while a message
comes in is the count of Received fields.
"""

from __future__ import annotations

import base64

import pytest
from smtp.server_dialogue import Dialogue
from smtp.test_transcripts import split_replies

from angarium.mime.dsn import ReportedMessage, ReportedRecipient, compose_dsn
from angarium.smtp.server_settings import ServerSettings

RUN_OCTETS = 4096
SETTINGS = ServerSettings("mx.test.example", run_octets=RUN_OCTETS, max_message_octets=64 << 20, max_recipients=1000)
# Body run with room to grow, a read that is held, replies.
MOST_MEMORY_OCTETS = 512 << 10


def nested_parts(depth: int) -> bytes:
    heads = [b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(depth)]
    return b"".join(heads)


BOMBS = {
    "header fields": b"".join(b"X-%d: y\r\n" % number for number in range(200_000)) + b"\r\n",
    "one field folded a hundred thousand times": b"Subject: x\r\n" + b" y\r\n" * 100_000 + b"\r\n",
    "field name without an end": b"X" * 900 + b"\r\n" + (b"X" * 900 + b"\r\n") * 1000,
    "empty field names": b":\r\n" * 100_000 + b"\r\n",
    "nested parts": nested_parts(20_000),
    "parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 200_000,
    "long boundaries": b"Content-Type: multipart/mixed;\r\n boundary="
    + b"b" * 900
    + b"\r\n\r\n"
    + (b"--" + b"b" * 900 + b"\r\n") * 1000,
    "nested messages": b"Content-Type: message/rfc822\r\n\r\n" * 50_000,
    "parameters": b"Content-Type: text/plain" + b";\r\n a=b" * 100_000 + b"\r\n\r\n",
    "comments": b"To: " + b"(\r\n " * 100_000 + b"\r\n\r\n",
    "base64 of base64": base64.encodebytes(base64.encodebytes(b"x" * 500_000)).replace(b"\n", b"\r\n"),
    "dots": b".\r\n" * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_message_made_to_be_expensive_costs_its_octets_and_no_memory(name: str) -> None:
    bomb = BOMBS[name]
    dialogue = Dialogue(SETTINGS)
    dialogue.greet()
    dialogue.feed(b"EHLO c.example\r\n")
    dialogue.feed(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
    stuffed = (b"\r\n" + bomb).replace(b"\r\n.", b"\r\n..")[2:]
    for start in range(0, len(stuffed), 64 << 10):
        dialogue.feed(stuffed[start : start + (64 << 10)])
    dialogue.feed(b".\r\n")
    assert split_replies(dialogue.output)[-1].startswith("250 2.0.0 Ok: queued")
    assert dialogue.messages == [bomb]
    assert dialogue.most_memory_octets <= MOST_MEMORY_OCTETS


@pytest.mark.parametrize(
    "name",
    [
        "header fields",
        "one field folded a hundred thousand times",
        "field name without an end",
        "nested parts",
        "comments",
    ],
)
@pytest.mark.parametrize("ret", ["", "FULL", "HDRS"])
def test_a_report_about_a_bomb_is_small(name: str, ret: str) -> None:
    """The header goes back to whoever is named as the sender: a small message must not become a large report."""
    message = ReportedMessage(
        reverse_path=b"a@x.example",
        content=BOMBS[name][: 50 << 10],
        message_octets=len(BOMBS[name]),
        received_utc_s=1e9,
        ret=ret,  # type: ignore[arg-type]
    )
    dsn = compose_dsn(
        message, [ReportedRecipient(forward_path=b"b@y.example", outcome="failed")], hostname="mx.test.example",
        dsn_id="0000000000001", now_utc_s=1e9,
    )  # fmt: skip
    assert len(dsn.octets) < 64 << 10


def test_a_hundred_thousand_recipients_are_a_thousand_and_cost_nothing_more() -> None:
    dialogue = Dialogue(SETTINGS)
    dialogue.greet()
    dialogue.feed(b"EHLO c.example\r\n")
    dialogue.feed(b"MAIL FROM:<a@x.example>\r\n")
    for hundred in range(1000):
        dialogue.feed(b"".join(b"RCPT TO:<b%d@y.example>\r\n" % (hundred * 100 + number) for number in range(100)))
    replies = split_replies(dialogue.output)
    assert [reply[:9] for reply in replies].count("250 2.1.5") == 1000
    assert [reply[:9] for reply in replies].count("452 4.5.3") == 99_000
    assert dialogue.session.recipient_count == 1000
    assert dialogue.most_memory_octets <= MOST_MEMORY_OCTETS
    dialogue.feed(b"DATA\r\n")
    dialogue.feed(b"Subject: x\r\n\r\n.\r\n")
    assert split_replies(dialogue.output)[-1].startswith("250 2.0.0 ")
