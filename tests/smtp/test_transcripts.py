"""Every transcript is played whole, octet by octet and at random cuts: what comes of it must be the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import pairwise
from unittest import mock

import msgspec
import pytest
from smtp.sasl_peer import SERVER_NONCE, SaslPeer
from smtp.server_dialogue import Dialogue
from smtp.transcript import Transcript, read_all

from angarium.smtp.server_settings import ServerSettings

RANDOM_PLAYS = 20
TRANSCRIPTS = read_all()


CutsOf = Callable[[bytes], Iterable[int]]


def play(transcript: Transcript, cuts_of: CutsOf) -> None:
    settings = ServerSettings("mx.test.example", completion=transcript.completion, **transcript.settings)
    sasl = None
    if transcript.mechanisms is not None:
        sasl = SaslPeer(
            transcript.mechanisms.encode() or None,
            is_bound=transcript.is_bound,
            certificate=transcript.certificate,
        )
    dialogue = Dialogue(settings, denied=transcript.denied, is_full=transcript.is_full, sasl=sasl,
                        takes=transcript.takes)  # fmt: skip
    dialogue.greet()
    assert dialogue.output.startswith(b"220 mx.test.example ")
    for block in transcript.blocks:
        dialogue.output = b""
        dialogue.events.clear()
        dialogue.messages.clear()
        with mock.patch("angarium.sasl.scram.make_nonce", return_value=SERVER_NONCE):
            dialogue.feed_in_pieces(block.octets, cuts_of(block.octets))
        where = f"after {block.octets[:200]!r}"
        replies = split_replies(dialogue.output)
        assert len(replies) == len(block.replies), f"{where}: {replies}"
        for reply, expected in zip(replies, block.replies, strict=True):
            assert reply.startswith(expected), f"{where}: {replies}"
        assert [describe(event) for event in dialogue.events] == [
            (name, {**describe(event)[1], **fields})
            for event, (name, fields) in zip(dialogue.events, block.events, strict=False)
        ], where
        assert len(dialogue.events) == len(block.events), f"{where}: {dialogue.events}"
        if block.messages:
            assert dialogue.messages == block.messages, where
    if dialogue.session.is_idle():
        assert dialogue.session.memory_octets == 0, "an idle session holds no buffers"


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_transcript_played_whole(transcript: Transcript) -> None:
    play(transcript, lambda octets: [])


IN_PIECES = [transcript for transcript in TRANSCRIPTS if not transcript.is_whole]


@pytest.mark.parametrize("transcript", IN_PIECES, ids=lambda transcript: transcript.name)
def test_transcript_played_octet_by_octet(transcript: Transcript) -> None:
    play(transcript, lambda octets: range(1, len(octets)))


@pytest.mark.parametrize("transcript", IN_PIECES, ids=lambda transcript: transcript.name)
def test_transcript_played_at_random_cuts(transcript: Transcript) -> None:
    chance = random.Random(transcript.name)
    for _ in range(RANDOM_PLAYS):
        play(transcript, lambda octets: chance.choices(range(len(octets)), k=chance.randrange(1, 8)))


def test_there_are_transcripts_and_each_says_why() -> None:
    assert len(TRANSCRIPTS) >= 50
    assert len({transcript.name for transcript in TRANSCRIPTS}) == len(TRANSCRIPTS)
    for transcript in TRANSCRIPTS:
        assert "RFC" in transcript.reason or "_README" in transcript.reason, transcript.name


def split_replies(output: bytes) -> list[str]:
    """Replies as texts; of one with several lines the last."""
    assert not output or output.endswith(b"\r\n")
    lines = output.decode("ascii").split("\r\n")[:-1]
    for line in lines:
        assert len(line) + 2 <= 512
    for line, following in pairwise(lines):
        if line[3] == "-":
            assert line[:3] == following[:3]
    return [line for line in lines if line[3:4] != "-"]


def describe(event: object) -> tuple[str, dict[str, str]]:
    names = {"Mail": "MailFrom", "Rcpt": "RcptTo", "Data": "DataStart"}
    fields = msgspec.structs.asdict(event)  # type: ignore[arg-type]
    name = names.get(type(event).__name__, type(event).__name__)
    return name, {key: plain(value) for key, value in fields.items()}


def plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value).lower() if isinstance(value, bool) else str(value)
