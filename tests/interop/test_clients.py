"""Clients that others wrote: swaks, msmtp, Postfix' smtp-source, and Postfix itself with us as its relayhost."""

from __future__ import annotations

import email
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import clean_relay, metrics, wait_until_empty
from interop.programs import postfix, program, run
from relay_process import wait_for


def swaks(port: int, *words: str) -> str:
    return run("swaks", "--server", "127.0.0.1", "--port", str(port), "--from", "me@x.example", *words)


def test_swaks_sends_one_message(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        talk = swaks(relay.port, "--to", "a@y.example,b@y.example", "--body", "hello\\n.\\n..dots\\n")
        assert "250 2.0.0 " in talk
        (delivery,) = hop.wait_for_count(1)
        assert delivery.to == ["a@y.example", "b@y.example"]
        assert b"\r\nhello\r\n.\r\n..dots\r\n" in delivery.message


def test_swaks_pipelines(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        talk = swaks(relay.port, "--pipeline", "--to", "a@y.example,b@y.example,c@y.example")
        assert " -> RCPT TO:<c@y.example>\n -> DATA\n<-  250 2.1.0" in talk, "it found PIPELINING and used it"
        assert len(hop.wait_for_count(1)[0].to) == 3


def test_swaks_sends_attachments_unchanged(tmp_path: Path) -> None:
    attachment = tmp_path / "a.bin"
    attachment.write_bytes(bytes(range(256)) * 4000)
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        swaks(relay.port, "--to", "a@y.example", "--attach-type", "image/x-thing", "--attach", f"@{attachment}")
        (delivery,) = hop.wait_for_count(1)
        message = email.message_from_bytes(delivery.message)
        (part,) = [part for part in message.walk() if part.get_content_type() == "image/x-thing"]
        assert part.get_payload(decode=True) == attachment.read_bytes()


def test_swaks_with_helo_only_and_with_a_null_reverse_path(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        swaks(relay.port, "--protocol", "SMTP", "--to", "a@y.example")
        swaks(relay.port, "--from", "<>", "--to", "b@y.example")
        hop.wait_for_count(2)
        by_recipient = {delivery.to[0]: delivery for delivery in hop.deliveries}
        assert b"with SMTP id" in by_recipient["a@y.example"].message.replace(b"\r\n", b"").replace(b"\t", b" ")
        assert by_recipient["b@y.example"].mail.startswith(b"MAIL FROM:<>")


def test_swaks_is_told_when_it_may_not_relay(tmp_path: Path) -> None:
    program("swaks")
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener='relay_to = ["y.example"]') as relay:
        swaks(relay.port, "--to", "a@y.example")
        with pytest.raises(AssertionError, match=r"exit status 24[^~]*550 5\.7\.1"):
            swaks(relay.port, "--to", "a@z.example")
        hop.wait_for_count(1)


def test_msmtp_sends_and_asks_for_reports(tmp_path: Path) -> None:
    message = "From: me@x.example\nTo: a@y.example\nSubject: grüße\n\n.\n.dot\nbody\n".encode()
    with NextHop(extensions=(b"PIPELINING", b"8BITMIME", b"DSN")) as hop, clean_relay(tmp_path, hop.route) as relay:
        server = ("--file=/dev/null", "--host=127.0.0.1", f"--port={relay.port}", "--from=me@x.example")
        run("msmtp", *server, "a@y.example", "b@y.example", input_octets=message)
        run(
            "msmtp", *server, "--dsn-notify=failure,delay", "--dsn-return=headers", "c@y.example",
            input_octets=message,
        )  # fmt: skip
        hop.wait_for_count(2)
        by_recipient = {delivery.to[0]: delivery for delivery in hop.deliveries}
        assert by_recipient["a@y.example"].to == ["a@y.example", "b@y.example"]
        assert by_recipient["a@y.example"].message.endswith(b"\r\n\r\n.\r\n.dot\r\nbody\r\n")
        asked = by_recipient["c@y.example"]
        assert b" RET=HDRS" in asked.mail
        assert b"NOTIFY=FAILURE,DELAY" in asked.rcpts[0]


@pytest.mark.parametrize(
    "options",
    [
        ("-s", "20", "-m", "1000", "-l", "4096", "-d"),
        ("-s", "20", "-m", "500", "-l", "4096"),
        ("-s", "5", "-m", "200", "-l", "100000", "-d", "-r", "5"),
        ("-s", "1", "-m", "20", "-l", "2000000"),
    ],
    ids=["4 KiB, kept", "4 KiB, a connection each", "100 kB, five recipients", "2 MB"],
)
def test_smtp_source_is_served(tmp_path: Path, options: tuple[str, ...]) -> None:
    count = int(options[options.index("-m") + 1])
    recipients = count * (int(options[options.index("-r") + 1]) if "-r" in options else 1)
    with NextHop() as hop, clean_relay(tmp_path, hop.route, workers=2) as relay:
        run(
            "smtp-source", *options, "-f", "me@x.example", "-t", "you@y.example", f"inet:127.0.0.1:{relay.port}"
        )
        wait_for(lambda: len(hop.deliveries) >= count, "all are delivered", 60)
        wait_until_empty(relay)
        assert len(hop.deliveries) == count
        assert metrics(relay)["angarium_recipients_delivered_total"] == recipients


@pytest.mark.timeout(180)
def test_postfix_hands_its_mail_to_us(tmp_path: Path) -> None:
    """Postfix as client: pipelining, connection reuse, CHUNKING, several recipients, large mail, 8BITMIME, SMTPUTF8."""
    with NextHop(extensions=(b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"CHUNKING", b"DSN")) as hop, clean_relay(
        tmp_path, hop.route, workers=2
    ) as relay, postfix(relay.port) as peer:
        source = ("smtp-source", "-f", "me@x.example", "-t", "you@y.example")
        run(*source, "-s", "10", "-m", "200", "-l", "4096", "-d", f"inet:127.0.0.1:{peer.port}")
        run(*source, "-s", "2", "-m", "4", "-l", "3000000", "-d", f"inet:127.0.0.1:{peer.port}")
        run("swaks", "--server", "127.0.0.1", "--port", str(peer.port), "--from", "me@x.example",
            "--to", ",".join(f"r{number}@y.example" for number in range(40)))  # fmt: skip
        wait_for(lambda: len(hop.deliveries) >= 205 and peer.queue_is_empty(), "all came through both", 60)
        wait_until_empty(relay)
        assert len(hop.deliveries) == 205
        assert "status=deferred" not in peer.log()
        assert "status=bounced" not in peer.log()
        assert sorted(len(delivery.to) for delivery in hop.deliveries)[-1] == 40
        large = [delivery for delivery in hop.deliveries if len(delivery.message) > 2_900_000]
        assert len(large) == 4


@pytest.mark.timeout(180)
def test_what_we_refuse_postfix_bounces_and_what_we_defer_it_keeps(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener='relay_to = ["y.example"]') as relay, postfix(
        relay.port
    ) as peer:
        to_postfix = ("--server", "127.0.0.1", "--port", str(peer.port), "--from", "<>")
        run("swaks", *to_postfix, "--to", "a@z.example,b@y.example")
        wait_for(lambda: "status=bounced" in peer.log() and "status=sent" in peer.log(), "both outcomes", 40)
        assert "550 5.7.1" in peer.log()
        hop.wait_for_count(1)
