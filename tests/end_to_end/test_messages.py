"""Messages go through whole: every octet, whatever their size, and however they came and went."""

from __future__ import annotations

import random
import re
import smtplib
from email.message import EmailMessage
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, metrics
from end_to_end.smtp_client import SmtpClient
from relay_process import maildir_route, wait_for

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "messages"
LINE_LIMIT_OCTETS = 2048

# (name, what the next hop offers): BDAT is used with CHUNKING, DATA without.
HOPS = {"all": (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"CHUNKING"), "no chunking": (b"PIPELINING", b"8BITMIME")}


def large_message(octets: int) -> bytes:
    """Lines of all lengths, many of them with dots in front; seeded."""
    chance = random.Random(octets)
    pattern = chance.randbytes(500).hex().encode()
    lines = [b"Subject: large\r\n\r\n"]
    size = len(lines[0])
    while size < octets:
        line = b"." * chance.choice((0, 0, 1, 2)) + pattern[: chance.randrange(998)][:996] + b"\r\n"
        lines.append(line)
        size += len(line)
    return b"".join(lines)


def test_smtplib_sends_to_several_recipients(tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"] = "hello"
    message["From"] = "me@x.example"
    message["To"] = "a@y.example, b@y.example, c@z.example"
    message.set_content("hello\n.\n..\n")
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as smtp:
            assert smtp.send_message(message) == {}
        # One site, one transaction.
        (delivery,) = hop.wait_for_count(1)
        assert delivery.to == ["a@y.example", "b@y.example", "c@z.example"]
        assert delivery.content == message.as_bytes().replace(b"\n", b"\r\n")
        assert delivery.mail.startswith(b"MAIL FROM:<me@x.example>")
        wait_for(lambda: len(relay.events("delivered")) == 3, "three outcomes")
        (received,) = relay.events("received")
        assert received["to"] == ["a@y.example", "b@y.example", "c@z.example"]


def test_the_trace_field_tells_where_it_came_from(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            id_ = client.send(MESSAGE)
        (delivery,) = hop.wait_for_count(1)
    field = delivery.message[: -len(delivery.content)].decode()
    flat = re.sub(r"\r\n\s+", " ", field)
    assert flat.startswith("Received: from client.example ([127.0.0.1]) by mx.test with ESMTP id " + id_)
    assert all(len(line) <= 78 for line in field.split("\r\n"))


@pytest.mark.parametrize("offered", HOPS)
def test_dots_and_empty_messages_arrive_as_they_are(tmp_path: Path, offered: str) -> None:
    messages = [
        b"",
        b"\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"a: b\r\n\r\n..\r\n...\r\n.\r\n. \r\n.a\r\n",
        b"no header at all\r\n",
        b"Subject: x\r\n\r\n" + b"." * 998 + b"\r\n",
    ]
    with NextHop(extensions=HOPS[offered]) as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            for number, message in enumerate(messages):
                client.send(message, f"data{number}@y.example")
                client.send_chunks(message, [1, 2, 3], f"bdat{number}@y.example")
        hop.wait_for_count(2 * len(messages))
        for delivery in hop.deliveries:
            number = int(re.sub(r"\D", "", delivery.to[0]))
            assert delivery.content == messages[number]
            assert delivery.by == ("BDAT" if offered == "all" else "DATA")


@pytest.mark.parametrize("offered", HOPS)
@pytest.mark.parametrize("octets", [300_000, 5_000_000, 30_000_000])
def test_large_messages_by_data_and_by_bdat(tmp_path: Path, offered: str, octets: int) -> None:
    message = large_message(octets)
    # Odd chunks: tiny ones, one that straddles the stream threshold, one above a megabyte.
    sizes = [1, 65_537, 262_143, 3, 1_048_577]
    with NextHop(extensions=HOPS[offered]) as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(message, "data@y.example")
            client.send_chunks(message, sizes, "bdat@y.example")
        hop.wait_for_count(2, 60)
        assert all(delivery.content == message for delivery in hop.deliveries)
        wait_for(lambda: metrics(relay)["angarium_queue_messages"] == 0, "the queue is empty")


def test_a_large_message_arrives_in_a_maildir(tmp_path: Path) -> None:
    message = large_message(5_000_000)
    with clean_relay(tmp_path, maildir_route(tmp_path)) as relay:
        with SmtpClient(relay.port) as client:
            client.send(message, "you@y.example", "they@y.example")
        for local in ("you", "they"):
            (path,) = wait_for(lambda local=local: list(tmp_path.glob(f"mail/{local}/new/*")), "the mail is there")
            stored = path.read_bytes()
            assert stored.endswith(message) or stored.endswith(message.replace(b"\r\n", b"\n"))


def test_8bitmime_and_smtputf8_are_passed_on(tmp_path: Path) -> None:
    body = "Subject: ü\r\n\r\nüüü\r\n".encode()
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(body, "eight@y.example", mail=" BODY=8BITMIME")
            client.send(body, "ж@y.example", reverse_path="ü@x.example", mail=" BODY=8BITMIME SMTPUTF8")
        hop.wait_for_count(2)
        by_recipient = {delivery.to[0]: delivery for delivery in hop.deliveries}
        assert b" BODY=8BITMIME" in by_recipient["eight@y.example"].mail
        assert b" SMTPUTF8" not in by_recipient["eight@y.example"].mail
        assert "MAIL FROM:<ü@x.example>".encode() in by_recipient["ж@y.example"].mail
        assert b" SMTPUTF8" in by_recipient["ж@y.example"].mail
        assert b"with UTF8SMTP" in by_recipient["ж@y.example"].message
        assert all(delivery.content == body for delivery in hop.deliveries)


def test_what_a_hop_cannot_take_is_returned_not_mangled(tmp_path: Path) -> None:
    body = "Subject: x\r\n\r\nü\r\n".encode()
    with NextHop(extensions=(b"PIPELINING",)) as hop, clean_relay(tmp_path, hop.route) as relay:
        with SmtpClient(relay.port) as client:
            client.send(body, "eight@y.example", mail=" BODY=8BITMIME", reverse_path="")
            client.send(body, "ж@y.example", reverse_path="", mail=" BODY=8BITMIME SMTPUTF8")
        wait_for(lambda: len(relay.events("failed")) == 2, "both failed")
        assert {event["status"] for event in relay.events("failed")} <= {"5.6.3", "5.6.7"}
        assert not hop.deliveries


def as_sent(path: Path) -> bytes:
    """The file with CRLF line ends, the last line ended."""
    message = re.sub(rb"\r?\n", b"\r\n", path.read_bytes())
    return message if message.endswith(b"\r\n") or not message else message + b"\r\n"


def is_refused(message: bytes) -> bool:
    """By a slow look: bare CR, NUL, or a line over the limit."""
    return (
        b"\0" in message
        or re.search(rb"\r(?!\n)", message) is not None
        or any(len(line) + 2 > LINE_LIMIT_OCTETS for line in message.split(b"\r\n"))
    )


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/data/messages is not there")
@pytest.mark.parametrize("offered", HOPS)
def test_real_and_malformed_messages_pass_through_unchanged(tmp_path: Path, offered: str) -> None:
    """Received count aside (none of them has a hundred), what is inside a message is not a relay's business."""
    messages = {path.parent.name + path.stem: as_sent(path) for path in sorted(FOLDER.glob("**/*.eml"))}
    assert len(messages) > 100
    good = {name: message for name, message in messages.items() if not is_refused(message)}
    assert len(good) > 90
    with NextHop(extensions=HOPS[offered]) as hop, clean_relay(
        tmp_path, hop.route, listener=f'relay_from = ["127.0.0.0/8"]\nmax_line_octets = {LINE_LIMIT_OCTETS}'
    ) as relay:
        with SmtpClient(relay.port) as client:
            for name, message in messages.items():
                if name in good:
                    client.send(message, f"data.{name}@y.example")
                    client.send_chunks(message, [997, 1], f"bdat.{name}@y.example")
                    continue
                client.open()
                assert client.ask(b"DATA\r\n")[0] == 354
                code, text = client.ask(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")
                assert (code, text[:5]) == (554, "5.6.0"), name
                client.open()
                code, text = client.ask(b"BDAT %d LAST\r\n" % len(message) + message)
                assert (code, text[:5]) == (554, "5.6.0"), name
        hop.wait_for_count(2 * len(good))
        seen = set()
        for delivery in hop.deliveries:
            way, _, name = delivery.to[0].removesuffix("@y.example").partition(".")
            assert delivery.content == good[name], f"{name} by {way}"
            seen.add((way, name))
        assert len(seen) == 2 * len(good)
