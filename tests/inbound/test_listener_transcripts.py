"""Dialogues with a whole listener: tests/transcripts/listener/*.txt, over a socket, whole and octet by octet.

The format is that of tests/smtp/transcript.py, without events; `closes=1`: the listener ends the connection in the end.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from inbound.intake_harness import intake_harness, run
from inbound.smtp_peer import SmtpPeer
from smtp.transcript import FOLDER, Transcript, read

TRANSCRIPTS = [transcript for path in sorted((FOLDER / "listener").glob("*.txt")) for transcript in read(path)]


@pytest.mark.parametrize("octets_at_once", [0, 1])
@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_listener_transcript(tmp_path: Path, transcript: Transcript, octets_at_once: int) -> None:
    async def main() -> None:
        options = {"proxy_from": ["127.0.0.0/8"], "relay_from": ["192.0.2.0/24"]}
        async with intake_harness(tmp_path, **options) as harness:
            peer = await SmtpPeer.connect(harness.port)
            peer.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for block in transcript.blocks:
                step = octets_at_once or len(block.octets)
                for start in range(0, len(block.octets), step):
                    peer.say(block.octets[start : start + step])
                    await peer.writer.drain()
                for expected in block.replies:
                    reply = await peer.reply()
                    assert reply.startswith(expected), f"after {block.octets!r}: {reply}"
            if transcript.settings.get("closes"):
                assert await peer.rest() == b""
            else:
                peer.cut()

    run(main())


def test_there_are_listener_transcripts_and_each_says_why() -> None:
    assert len(TRANSCRIPTS) >= 9
    assert all("RFC" in transcript.reason or "proxy-protocol" in transcript.reason for transcript in TRANSCRIPTS)
