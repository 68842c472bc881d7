"""docs/extensions.md: each listener of its example offers, takes and refuses what the page says."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from end_to_end.relay import MESSAGE, clean_relay, queue
from end_to_end.smtp_client import SmtpClient
from interop.programs import free_port
from page_examples import DOCS, fenced, of_page, retold
from relay_process import maildir_route, wait_for

from angarium.inbound.send_time import moment_of


def test_each_listener_of_the_example_offers_what_the_page_says(tmp_path: Path) -> None:
    example, inner = of_page("extensions.md"), free_port()
    rest = retold(example.rest, {"127.0.0.1:2525": f"127.0.0.1:{inner}"})
    listener = retold(example.listener, {'address = "0.0.0.0:25"\n': ""})
    with clean_relay(tmp_path, rest + maildir_route(tmp_path), listener=listener) as relay:
        (outer,) = {int(word.rpartition(":")[2]) for word in relay.started().split(", ")} - {inner}
        with SmtpClient(outer) as client:
            offered = client.extensions.splitlines()
            assert {"NO-SOLICITING net.example:ADV", "DELIVERBY 120"} <= set(offered)
            assert any(line.startswith("LIMITS ") and "MAILMAX=100" in line for line in offered)
            assert client.ask(b"MAIL FROM:<a@x.example> SOLICIT=net.example:ADV\r\n")[0] == 550
            assert client.ask(b"MAIL FROM:<a@x.example> BY=60;R\r\n")[0] == 555
            client.send(MESSAGE, "b@example.com", mail=" BY=300;N")
        with SmtpClient(inner) as client:
            day = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
            (said,) = (text for text in fenced("extensions.md", "text") if text.startswith("250-BINARYMIME"))
            told = [day.sub("", line) for line in client.extensions.splitlines()]
            assert [day.sub("", line[4:]) for line in said.splitlines()] == [
                line for line in told if line.split()[0] in said
            ]
            octets = b"Subject: binary\r\n\r\n\0\r\n"
            client.ask(b"MAIL FROM:<a@x.example> BODY=BINARYMIME\r\n")
            client.ask(b"RCPT TO:<c@y.example>\r\n")
            assert client.ask(b"BDAT %d LAST\r\n%s" % (len(octets), octets))[0] == 250
            held_id = client.send(MESSAGE, "d@y.example", mail=" HOLDFOR=86400")
        wait_for(lambda: len(relay.events("delivered")) == 2, "what is not held is delivered")
        (held,) = queue(relay, "--state", "held")
        assert held["id"] == held_id


def test_a_field_says_when_a_message_is_sent_in_the_words_of_the_page(tmp_path: Path) -> None:
    page = (DOCS / "extensions.md").read_text()
    said = re.findall(r"^    (X-Send-At): (.*)$", page, re.MULTILINE)
    assert len(said) == 2
    assert {moment_of(value.encode()) for _, value in said} == {
        int(datetime(2026, 11, 27, 8, tzinfo=UTC).timestamp())
    }  # fmt: skip
    example = of_page("extensions.md", 1)
    listener = retold(example.listener, {'address    = "127.0.0.1:2525"\n': ""})
    (name,) = re.findall(r'future_release_field = "(.*)"', example.rest)
    assert {name} == {each for each, _ in said}
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)

    def field(value: str) -> bytes:
        return f"{name}: {value}\r\n".encode() + MESSAGE

    with clean_relay(tmp_path, maildir_route(tmp_path), listener=listener + example.rest) as relay:
        with SmtpClient(relay.port) as client:
            # As the page writes them: RFC 5322 with a zone, RFC 3339 with one.
            forms = format_datetime(tomorrow), tomorrow.isoformat()
            held = {client.send(field(value), "held@y.example") for value in forms}
            client.send(field("Fri, 27 Nov 2020 09:00:00 +0100"), "past@y.example")
            for value in ("2026-11-27 09:00", (tomorrow + timedelta(days=30)).isoformat()):
                client.ask(b"MAIL FROM:<a@x.example>\r\n")
                client.ask(b"RCPT TO:<b@y.example>\r\n")
                assert client.ask(b"DATA\r\n")[0] == 354
                code, text = client.ask(field(value) + b".\r\n")
                assert (code, text[:5]) == (554, "5.6.0"), value
        wait_for(lambda: len(relay.events("delivered")) == 1, "what is over holds nothing")
        (mail,) = (tmp_path / "mail" / "past" / "new").iterdir()
        assert name.encode() not in mail.read_bytes() and b"\nfirst line\n.second line\n" in mail.read_bytes()
        waiting = queue(relay, "--state", "held")
        assert {each["id"] for each in waiting} == held
        told = {event["hold_until"] for event in relay.events("received") if event["id"] in held}
        assert told == {str(int(tomorrow.timestamp()))}
