"""The header field that says when a message is to be sent: who is heeded, what it may say, and that it is taken out."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import auth_harness, plain
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_messages_in import stored_messages, without_trace
from inbound.test_submitted import AUTH, submit

from angarium.inbound.extensions import ExtensionOptions
from angarium.inbound.options import ListenerOptions
from angarium.inbound.send_time import check_name, moment_of
from angarium.model.address import ListenAddress
from angarium.model.units import Duration
from angarium.spool.envelope import Attribute

FIELD = ExtensionOptions(
    deliver_by=True,
    future_release=Duration(86400),
    future_release_field="X-Send-At",
    no_soliciting=["net.example:ADV"],
)
FROM = b"From: a@x.example\r\n"
REST = b"Subject: x\r\n\r\nhello\r\nX-Send-At: of the body\r\n"


def in_an_hour(hours: float = 1.0) -> bytes:
    return format_datetime(datetime.now(UTC) + timedelta(hours=hours)).encode()


def stored_of(
    folder: Path, message: bytes, way: str = "DATA", parameters: bytes = b"", **listener: Any
) -> tuple[str, bytes, dict[int, bytes]]:
    """The reply to one message of a client that may relay; what is stored behind our Received field, and attributes."""
    result: list[Any] = []
    listener.setdefault("extensions", FIELD)

    async def main() -> None:
        async with intake_harness(folder, **listener) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            if parameters:
                peer.say(b"MAIL FROM:<a@x.example>%b\r\nRCPT TO:<b@y.example>\r\nDATA\r\n" % parameters)
                assert [reply[:3] for reply in await peer.replies(3)] == ["250", "250", "354"]
                result.append(await peer.ask(message + b".\r\n"))
            else:
                result.append(await submit(peer, message, way))
            assert (await peer.ask(b"NOOP\r\n")).startswith("250")
        stored = await stored_messages(folder)
        assert len(stored) == (1 if result[0].startswith("250") else 0)
        result.extend((without_trace(stored[0][1]), dict(stored[0][0].attributes)) if stored else (b"", {}))

    run(main())
    return result[0], result[1], result[2]


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
@pytest.mark.parametrize("name", [b"X-Send-At:", b"x-send-AT : ", b"X-SEND-AT:\r\n "])
def test_a_time_is_held_to_and_its_field_taken_out(tmp_path: Path, way: str, name: bytes) -> None:
    message = FROM + name + in_an_hour() + b"\r\n" + REST
    reply, stored, attributes = stored_of(tmp_path, message, way)
    assert reply.startswith("250")
    assert stored == FROM + REST
    assert int(attributes.pop(Attribute.HOLD_UNTIL)) == pytest.approx(time.time() + 3600, abs=30)
    assert not attributes


def test_of_a_large_message_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    body = b"".join(b"%07d line\r\n" % number for number in range(40_000))
    message = FROM + b"X-Send-At: " + in_an_hour() + b"\r\nSubject: x\r\n\r\n" + body
    reply, stored, attributes = stored_of(tmp_path, message)
    assert reply.startswith("250") and Attribute.HOLD_UNTIL in attributes
    assert stored == FROM + b"Subject: x\r\n\r\n" + body


@pytest.mark.parametrize(
    "message",
    [FROM + REST, b"X-Send-At-Once: now\r\n" + FROM + REST, b"\r\nX-Send-At: x\r\n", b"X-Send-A: x\r\n" + REST],
)
def test_a_message_without_the_field_is_left_alone(tmp_path: Path, message: bytes) -> None:
    reply, stored, attributes = stored_of(tmp_path, message)
    assert (reply[:3], stored, attributes) == ("250", message, {})


def test_a_time_that_is_over_sends_at_once(tmp_path: Path) -> None:
    """A client that was put off, and comes again later, is not to lose its message."""
    reply, stored, attributes = stored_of(tmp_path, b"X-Send-At: " + in_an_hour(-48) + b"\r\n" + FROM + REST)
    assert (reply[:3], stored, attributes) == ("250", FROM + REST, {})


@pytest.mark.parametrize(
    ("fields", "parameters", "reply"),
    [
        (b"X-Send-At: tomorrow\r\n", b"", "Message refused: its time of sending is no date and time with a zone"),
        (b"X-Send-At: Fri, 27 Nov 2026 09:00:00\r\n", b"", "is no date and time with a zone"),
        (b"X-Send-At:\r\n", b"", "is no date and time with a zone"),
        (b"X-Send-At: \xff\xfe\r\n", b"", "is no date and time with a zone"),
        (b"X-Send-At: " + b"9" * 3000 + b"\r\n", b"", "is no date and time with a zone"),
        (b"X-Send-At: %HOUR%\r\nX-Send-At: %HOUR%\r\n", b"", "is said more than once"),
        (b"X-Send-At: %HOUR%\r\n", b" HOLDFOR=60", "is said more than once"),
        (b"X-Send-At: %LATE%\r\n", b"", "is later than mail is held here"),
        (b"X-Send-At: 9999-12-31T23:59:59+00:00\r\n", b"", "is later than mail is held here"),
        (b"X-Send-At: %HOUR%\r\n", b" BY=60;R", "is behind its by-time"),
    ],
)
def test_what_cannot_be_held_to_is_refused_with_the_reason(
    tmp_path: Path, fields: bytes, parameters: bytes, reply: str
) -> None:
    fields = fields.replace(b"%HOUR%", in_an_hour()).replace(b"%LATE%", in_an_hour(25))
    told, _, _ = stored_of(tmp_path, fields + FROM + REST, parameters=parameters, max_line_octets=4096)
    assert told.startswith("554 5.6.0") and reply in told


def test_a_header_section_that_is_not_seen_whole_is_refused(tmp_path: Path) -> None:
    """The field may stand behind what is seen: the message must not go early."""
    message = b"".join(b"X-Long-%d: %b\r\n" % (number, b"x" * 900) for number in range(300))
    told, _, _ = stored_of(tmp_path, message + b"X-Send-At: " + in_an_hour() + b"\r\n" + REST)
    assert told.startswith("554 5.6.0 Message refused: header section too big")


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
@pytest.mark.parametrize(
    "line",
    [b"X Y: z\r\n", "X-Ü: z\r\n".encode(), b"\x0cX: z\r\n", b"From a@b.example Thu Nov 26\r\n"],
)
def test_no_line_hides_the_field(tmp_path: Path, line: bytes, way: str) -> None:
    """What stands behind a line that is no field is body to us and header to others: the message went at once."""
    for message in (FROM + line + b"X-Send-At: %b\r\n", line + FROM + b"X-Send-At: %b\r\n"):
        told, _, attributes = stored_of(tmp_path, message % in_an_hour() + REST, way)
        assert told == "554 5.6.0 Message refused: header section with a line that is no field or does not end"
        assert not attributes


def test_a_field_whose_line_does_not_end_is_not_passed_over(tmp_path: Path) -> None:
    told, _, _ = stored_of(tmp_path, FROM + b"X-Send-At: " + in_an_hour(), "BDAT")
    assert told == "554 5.6.0 Message refused: header section with a line that is no field or does not end"


def test_of_a_client_that_may_not_relay_it_means_nothing_and_stays(tmp_path: Path) -> None:
    message = b"X-Send-At: tomorrow\r\n" + FROM + REST
    reply, stored, attributes = stored_of(tmp_path, message, relay_from=[], relay_to=["y.example"])
    assert (reply[:3], stored, attributes) == ("250", message, {})


def test_who_has_authenticated_is_heeded(tmp_path: Path) -> None:
    async def main() -> None:
        async with auth_harness(tmp_path, extensions=FIELD, relay_to=["y.example"]) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await submit(peer, b"X-Send-At: tomorrow\r\n" + FROM + REST)).startswith("250")
            assert (await peer.ask(plain())).startswith("235")
            assert (await submit(peer, b"X-Send-At: tomorrow\r\n" + FROM + REST)).startswith("554 5.6.0")

    run(main())


def test_on_a_listener_that_looks_for_no_field_it_means_nothing(tmp_path: Path) -> None:
    message = b"X-Send-At: tomorrow\r\n" + FROM + REST
    reply, stored, attributes = stored_of(tmp_path, message, extensions=ExtensionOptions(future_release=Duration(60)))
    assert (reply[:3], stored, attributes) == ("250", message, {})


def test_a_submitted_message_is_fixed_up_as_well(tmp_path: Path) -> None:
    message = b"X-Send-At: " + in_an_hour() + b"\r\n" + FROM + REST
    reply, stored, attributes = stored_of(
        tmp_path, message, protocol="submission", auth=AUTH, relay_from=["127.0.0.1"], extensions=FIELD
    )
    assert reply.startswith("250") and Attribute.HOLD_UNTIL in attributes
    assert re.fullmatch(rb"Date: [^\r]+\r\nMessage-ID: [^\r]+\r\n" + re.escape(FROM + REST), stored)


def test_a_field_beside_a_solicitation_that_is_not_wanted_does_not_help(tmp_path: Path) -> None:
    message = b"Solicitation: net.example:ADV\r\nX-Send-At: " + in_an_hour() + b"\r\n" + FROM + REST
    assert stored_of(tmp_path, message)[0].startswith("550 5.7.1 SOLICIT=")


MOMENTS = [
    (b" Fri, 27 Nov 2026 09:00:00 +0100", "2026-11-27T08:00:00Z"), (b"27 Nov 2026 09:00 -0330", "2026-11-27T12:30:00Z"),
    (b" 7 nov 2026\r\n 09:00:00 GMT (that is\r\n UTC)", "2026-11-07T09:00:00Z"),
    (b"Sat , 7 Nov 2026 09:00:00 -0000", "2026-11-07T09:00:00Z"),
    (b"2026-11-27T09:00:00+01:00", "2026-11-27T08:00:00Z"), (b"2026-11-27t09:00:00.2z", "2026-11-27T09:00:01Z"),
    (b"2026-11-27 09:00Z", "2026-11-27T09:00:00Z"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "wanted"), MOMENTS)
def test_a_moment_is_read(value: bytes, wanted: str) -> None:
    assert moment_of(value) == datetime.fromisoformat(wanted).timestamp()


@pytest.mark.parametrize(
    "value",
    [
        b"", b"1795770000", b"2026-11-27T09:00:00", b"27 Nov 2026 09:00:00", b"27 Foo 2026 09:00:00 +0000",
        b"31 Feb 2026 09:00:00 +0000", b"27 Nov 26 09:00:00 +0000", b"27 Nov 2026 25:00:00 +0000",
        b"2026-13-01T00:00:00Z", b"27 Nov 2026 09:00:00 +9900", b"27 Nov 2026 09:00:00 EST", b"\xff", b"(" * 190,
        b"x 27 Nov 2026 09:00:00 +0000",
        b"27 Nov 2026 09:00:00 +0000 and later", b"0000-01-01T00:00:00Z", "٢٧ Nov 2026 09:00:00 +0000".encode(),
    ],
)  # fmt: skip
def test_what_is_no_moment_is_refused(value: bytes) -> None:
    with pytest.raises((ValueError, OverflowError)):
        moment_of(value)


def test_names_that_say_something_else_are_refused() -> None:
    for name in ("X-Send-At", "Deferred-Delivery", "x1"):
        check_name(name)
    for name in ("", "From", "DATE", "Content-Type", "resent-date", "X Send", "X:", "-x", "x" * 65, "Ünder"):
        with pytest.raises(ValueError, match="name"):
            check_name(name)


def test_a_field_where_nothing_may_be_held_is_refused() -> None:
    address = ListenAddress.decode("127.0.0.1:2525")
    with pytest.raises(ValueError, match=r"extensions\.future_release_field: needs extensions\.future_release"):
        ListenerOptions(address=address, extensions=ExtensionOptions(future_release_field="X-Send-At"))
    extensions = ExtensionOptions(future_release_field="X-Send-At")
    ListenerOptions(address=address, protocol="submission", auth=AUTH, extensions=extensions)
