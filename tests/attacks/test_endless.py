"""One session that goes on for ever: any command a million times, and the session holds no more than after the first.

What a command makes outside of the session (a line of the log, an envelope) is tried over a socket, against the memory
of the process.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer

from angarium.smtp import replies, server_events
from angarium.smtp.server_session import ServerSession
from angarium.smtp.server_settings import ServerSettings

MILLION = 1_000_000
# Two blocks of a reply and one of a body that was given up: the same however often.
MOST_MEMORY_OCTETS = 64 << 10
SETTINGS = ServerSettings("mx.test.example", max_errors=10 * MILLION, max_junk=10 * MILLION)
HELLO = b"EHLO c.example\r\n"
MAIL = b"MAIL FROM:<a@x.example>\r\n"
RCPT = b"RCPT TO:<b@y.example>\r\n"
# What is said once, and what a million times.
COMMANDS = {
    "EHLO": (b"", HELLO),
    "HELO": (b"", b"HELO c.example\r\n"),
    "NOOP": (HELLO, b"NOOP\r\n"),
    "VRFY": (HELLO, b"VRFY a\r\n"),
    "EXPN": (HELLO, b"EXPN a\r\n"),
    "HELP": (HELLO, b"HELP\r\n"),
    "RSET": (HELLO, b"RSET\r\n"),
    "unknown": (HELLO, b"WHAT is this\r\n"),
    "empty lines": (HELLO, b"\r\n"),
    "AUTH that is not offered": (HELLO, b"AUTH PLAIN =\r\n"),
    "STARTTLS that is not offered": (HELLO, b"STARTTLS\r\n"),
    "MAIL nested": (HELLO + MAIL, MAIL),
    "MAIL malformed": (HELLO, b"MAIL FROM:<a@>\r\n"),
    "RCPT": (HELLO + MAIL, RCPT),
    "RCPT refused": (HELLO + MAIL, b"RCPT TO:<no@y.example>\r\n"),
    "DATA without a recipient": (HELLO + MAIL, b"DATA\r\n"),
    "BDAT of nothing": (HELLO + MAIL + RCPT, b"BDAT 0\r\n"),
    "BDAT without a recipient": (HELLO + MAIL, b"BDAT 3\r\nabc"),
}


def answered(session: ServerSession) -> int:
    """Answers what is asked; how many octets of replies that made."""
    while (event := session.next_event()) is not None:
        match event:
            case server_events.Rcpt(forward_path=b"no@y.example"):
                session.refuse(replies.RELAY_DENIED)
            case server_events.Mail() | server_events.Rcpt():
                session.accept()
            case server_events.Data():
                session.begin_data()
    return len(session.take_output())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_said_a_million_times_leaves_nothing_in_the_session(name: str) -> None:
    before, command = COMMANDS[name]
    session = ServerSession(SETTINGS)
    session.greet()
    for line in before.splitlines(keepends=True):
        session.receive(line)
        answered(session)
    for _ in range(100):
        session.receive(command)
        said = answered(session)
        assert said
    held = session.memory_octets
    ends_a_group = {"EHLO", "HELO", "NOOP", "VRFY", "EXPN", "AUTH that is not offered", "DATA without a recipient"}
    batch = 1 if name in ends_a_group else 500
    for _ in range(MILLION // batch):
        session.receive(command * batch)
        assert answered(session)
    assert not session.is_closed
    assert session.memory_octets <= max(held, MOST_MEMORY_OCTETS)
    assert session.recipient_count <= SETTINGS.max_recipients


@pytest.mark.parametrize(
    ("before", "command"),
    [
        ([], MAIL + b"RSET\r\n"),
        ([], MAIL + RCPT + b"RSET\r\n"),
        ([MAIL], RCPT),
        ([MAIL], b"RCPT TO:<b@elsewhere.example>\r\n"),
        ([], b"XFORWARD NAME=n ADDR=192.0.2.1 HELO=h IDENT=i\r\n"),
        ([MAIL + RCPT], b"BDAT 0\r\n"),
    ],
    ids=["transactions", "transactions with a recipient", "RCPT", "RCPT denied", "XFORWARD", "BDAT of nothing"],
)
def test_a_command_said_endlessly_leaves_nothing_in_the_process(
    before: list[bytes], command: bytes, tmp_path: Path
) -> None:
    async def main() -> None:
        options = {"relay_from": [], "relay_to": ["y.example"], "xforward_from": ["127.0.0.0/8"]}
        async with intake_harness(tmp_path, max_errors=10_000, max_junk=MILLION, **options) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for group in before:
                peer.say(group)
                assert all(reply.startswith("250 ") for reply in await peer.replies(group.count(b"\n")))
            replies_each = command.count(b"\r\n")
            grown = []
            for _ in range(6):
                for _ in range(20):
                    peer.say(command * 200)
                    await peer.replies(200 * replies_each)
                grown.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            # The first rounds fill allocators and the tables that have a fixed size; then it must stand still.
            assert grown[-1] - grown[1] < 4 << 10, grown
            assert harness.intake.active <= 1

    run(main())
