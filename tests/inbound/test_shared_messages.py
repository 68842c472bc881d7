"""The messages of ../shared/data reach the spool unchanged behind our trace field, by DATA and by BDAT."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer
from inbound.test_messages_in import stored_messages, without_trace

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "messages"
LINE_LIMIT_OCTETS = 2048


def as_sent(path: Path) -> bytes:
    """The file with CRLF line endings, the last line ended."""
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
@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_shared_messages_arrive_unchanged(tmp_path: Path, way: str) -> None:
    messages = [as_sent(path) for path in sorted(FOLDER.glob("**/*.eml"))]
    assert len(messages) > 100
    good = [message for message in messages if not is_refused(message)]
    assert len(good) > 90

    async def main() -> None:
        async with intake_harness(tmp_path, max_line_octets=LINE_LIMIT_OCTETS) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            for message in messages:
                if way == "DATA":
                    await peer.open_data()
                    stuffed = re.sub(rb"(?m)^\.", b"..", message)
                    reply = await peer.ask(stuffed + b".\r\n")
                else:
                    peer.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
                    peer.say(b"BDAT %d LAST\r\n" % len(message) + message)
                    reply = (await peer.replies(3))[-1]
                assert reply[:9] == ("554 5.6.0" if is_refused(message) else "250 2.0.0")
        stored = [without_trace(body) for _, body in await stored_messages(tmp_path)]
        assert stored == good

    run(main())
